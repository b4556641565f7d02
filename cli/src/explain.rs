//! `hauberk explain`: what would become of a request, and why; by the manifests of a folder, or by what a proxy has at this
//! moment. Nothing is decided here: a folder is compiled by the operator's own code and decided by the proxy's.

mod folder;
mod live;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::settings::Format;

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// A folder of manifests, or a file, as the operator's source `directory` reads them
    #[arg(
        long,
        short,
        value_name = "FILE",
        conflicts_with = "proxy",
        required_unless_present = "proxy"
    )]
    file: Option<PathBuf>,
    /// Who calls, as in `shop/web`: a pod of the folder, the first of a workload's, or any name with --labels
    #[arg(long, value_name = "NAMESPACE/NAME", required_unless_present = "proxy")]
    from: Option<Caller>,
    /// The caller's labels, as in `app=web,tier=front`, where the folder has no such pod, or other ones
    #[arg(long, short, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    labels: Vec<(String, String)>,
    /// Admin address of the caller's proxy, as in `10.0.0.7:15020`, whose live configuration is asked
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["from", "labels"])]
    proxy: Option<String>,
    /// The address that is dialled, where the URL's host is not a Service
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// A header, as in `x-user: alice`; may be given several times
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// For people or for programs
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// The request's method
    #[arg(value_name = "METHOD")]
    method: Method,
    /// Where it goes, as in `http://reviews:8080/products?id=1`
    #[arg(value_name = "URL")]
    url: Uri,
}

/// A pod, or whatever makes some.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Caller {
    namespace: String,
    name: String,
}

impl std::str::FromStr for Caller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            Some(_) | None => Err("write NAMESPACE/NAME, as in shop/web".to_owned()),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE, as in app=web".to_owned()),
    }
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("write NAME: VALUE, as in x-user: alice")?;
    let name = name.trim().parse().map_err(|error| format!("{error}"))?;
    let value = value.trim().parse().map_err(|error| format!("{error}"))?;
    Ok((name, value))
}

impl Settings {
    fn headers(&self) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in &self.headers {
            all.append(name, value.clone());
        }
        all
    }

    /// Host and port that the URL names.
    fn target(&self) -> anyhow::Result<(&str, u16)> {
        let host = self.url.host().filter(|host| !host.is_empty());
        let host = host.with_context(|| format!("{} has no host: write http://HOST:PORT/PATH", self.url))?;
        match self.url.scheme_str() {
            Some("http") => Ok((host, self.url.port_u16().unwrap_or(80))),
            Some(_) | None => anyhow::bail!(
                "{}: a proxy sees requests of http:// only; with https:// the application's own TLS is passed on",
                self.url
            ),
        }
    }
}

/// Prints what would become of the request.
///
/// # Errors
/// When the folder or the proxy cannot be read, or the request names nothing that is there.
pub(crate) async fn explain(settings: Settings) -> anyhow::Result<ExitCode> {
    let told = match (&settings.proxy, &settings.file, &settings.from) {
        (Some(proxy), ..) => live::ask(&settings, proxy).await?,
        (None, Some(file), Some(from)) => folder::explain(&settings, file, from)?,
        (None, ..) => {
            anyhow::bail!("name a folder with -f and a caller with --from, or a proxy with --proxy")
        }
    };
    print!("{told}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_labels_and_headers_are_read_or_say_how_to_write_them() {
        let web = Caller {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!("shop/web".parse(), Ok(web));
        for wrong in ["web", "shop/", "/web", "a/b/c"] {
            assert!(wrong.parse::<Caller>().is_err(), "{wrong}");
        }
        assert_eq!(
            label("app=web=x").unwrap(),
            ("app".to_owned(), "web=x".to_owned())
        );
        assert!(label("app").is_err() && label("=web").is_err());
        assert_eq!(header("X-User:  a: b ").unwrap().1, "a: b");
        assert!(header("x-user").is_err() && header("a b: c").is_err());
    }
}
