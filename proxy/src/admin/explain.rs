//! `/explain`: what would become of a request, by the configuration and the live state of this very moment. It sends
//! nothing, asks the operator nothing, and changes nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;

use super::{Admin, json, text};
use crate::explain;

/// What it takes, for those who ask wrongly.
const USAGE: &str = "/explain?url=http://HOST[:PORT]/PATH takes, each encoded as in a form: url; method (GET without); header, any \
                     number of `name: value`; address, the one that is dialled, where HOST is not a Service that this pod \
                     uses; format, text or json";

/// What somebody asks about.
#[derive(Debug)]
struct Question {
    request: Request<()>,
    host: String,
    port: u16,
    address: Option<SocketAddr>,
    json: bool,
}

impl Admin {
    pub(super) fn explain(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let wrong = |problem: String| text(StatusCode::BAD_REQUEST, format!("{problem}\n{USAGE}\n"));
        let question = match Question::read(query.unwrap_or_default()) {
            Ok(question) => question,
            Err(problem) => return wrong(problem),
        };
        let snapshot = self.config.load();
        let (host, port) = (&question.host, question.port);
        let found = || explain::address_of(&snapshot, host, port, &self.namespace);
        let Some(address) = question.address.or_else(found) else {
            let problem = format!(
                "no application of this pod has used a Service {host}:{port} lately; name the address that it dials"
            );
            return text(StatusCode::NOT_FOUND, format!("{problem}\n{USAGE}\n"));
        };
        let client = self.client.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let told = explain::now(&snapshot, address, &question.request, client);
        if question.json {
            json(StatusCode::OK, &told)
        } else {
            text(StatusCode::OK, told.to_string())
        }
    }
}

impl Question {
    fn read(query: &str) -> Result<Self, String> {
        let (mut url, mut method, mut address, mut json) = (None, Method::GET, None, false);
        let mut headers = http::HeaderMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = crate::route::decoded(value);
            match name {
                "url" => url = Some(value.parse::<Uri>().map_err(|error| format!("url: {error}"))?),
                "method" => method = value.parse().map_err(|error| format!("method: {error}"))?,
                "address" => address = Some(value.parse().map_err(|error| format!("address: {error}"))?),
                "header" => {
                    let (name, value) = header(&value)?;
                    headers.append(name, value);
                }
                "format" => {
                    json = match &*value {
                        "json" => true,
                        "text" => false,
                        _ => return Err("format: text or json".to_owned()),
                    }
                }
                _ => return Err(format!("{name:?} is not known here")),
            }
        }
        let url = url.ok_or("url: is needed")?;
        let host = url
            .host()
            .filter(|host| !host.is_empty())
            .ok_or("url: has no host")?;
        Ok(Self {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(80),
            request: explain::request(method, &url, headers).map_err(|error| format!("url: {error}"))?,
            address,
            json,
        })
    }
}

/// `name: value`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("header: has no colon, write `name: value`")?;
    let name = name.trim().parse().map_err(|error| format!("header: {error}"))?;
    let value = value.trim().parse().map_err(|error| format!("header: {error}"))?;
    Ok((name, value))
}
