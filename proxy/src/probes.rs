//! The application's own probes, carried out by its proxy. The kubelet is told to ask the admin port, which nothing
//! redirects and no policy closes, so that a probe passes where plaintext is refused; the admin server calls [`Prober`],
//! which does to the application what the kubelet would have done. It runs on the background thread, never on a
//! request's path.
//!
//! The application is dialled at the pod's own address, as the kubelet dials it: a probe still tells whether the port
//! can be reached from outside. Such a connection stays on the pod's loopback interface, which the redirect leaves alone.
//! Probes that run a command stay with the kubelet.

mod grpc;
mod http;
mod parse;
mod tls;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::settings::Settings;
use crate::upstream::connect;

/// Probes carried out at once. More than these are refused: the admin server's connections are for others too.
const AT_ONCE: usize = 32;
/// Names a probe's client that does not name itself.
const AGENT: &str = concat!("hauberk-proxy/", env!("CARGO_PKG_VERSION"));

/// The probes of a pod, by container and kind as in `web/readiness`.
#[derive(Debug, Clone, Default)]
pub struct Probes(BTreeMap<String, Arc<Probe>>);

/// One probe.
#[derive(Debug)]
struct Probe {
    what: What,
    port: u16,
    /// Where it goes instead of the pod's own address.
    host: Option<String>,
    timeout: Duration,
}

/// What is done.
#[derive(Debug)]
enum What {
    Http(http::Get),
    Tcp,
    Grpc { service: String },
}

/// Carries out probes.
#[derive(Debug, Clone)]
pub struct Prober {
    probes: Arc<BTreeMap<String, (Arc<Probe>, AtomicBool)>>,
    dialler: Dialler,
    permits: Arc<Semaphore>,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is no such probe; these there are.
    Unknown(Vec<String>),
    /// As it should be, with what was seen.
    Passed(String),
    /// Not as it should be, and why.
    Failed(String),
}

/// Opens connections to the application.
#[derive(Debug, Clone)]
struct Dialler {
    /// The pod's own address, the first of several, which is the one that the kubelet uses.
    pod: IpAddr,
    mark: Option<u32>,
}

impl Prober {
    /// One that carries out the probes of the settings.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let Probes(probes) = &settings.probes;
        let live = |(name, probe): (&String, &Arc<Probe>)| {
            (name.clone(), (Arc::clone(probe), AtomicBool::new(false)))
        };
        Self {
            probes: Arc::new(probes.iter().map(live).collect()),
            dialler: Dialler {
                pod: settings
                    .pod_ips
                    .first()
                    .copied()
                    .unwrap_or(Ipv4Addr::LOCALHOST.into()),
                mark: settings.socket_mark,
            },
            permits: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The longest that one probe may take.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let all = self.probes.values().map(|(probe, _)| probe.timeout);
        all.max().unwrap_or_default()
    }

    /// Carries out the probe of this name, which is `container/kind`. `agent` is the `user-agent` of whoever asks: the
    /// application is to see the one that it would see from the kubelet.
    pub async fn probe(&self, name: &str, agent: Option<&HeaderValue>) -> Outcome {
        let Some((probe, failing)) = self.probes.get(name) else {
            return Outcome::Unknown(self.probes.keys().cloned().collect());
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return Outcome::Failed(format!("{AT_ONCE} probes are being carried out already"));
        };
        let agent = agent.cloned().unwrap_or(HeaderValue::from_static(AGENT));
        let carried_out = self.dialler.carry_out(probe, &agent);
        let seen = match tokio::time::timeout(probe.timeout, carried_out).await {
            Ok(seen) => seen,
            Err(_) => Err(format!("no answer within {:?}", probe.timeout)),
        };
        // Once for each change: an application that is down is asked every few seconds.
        match seen {
            Ok(seen) => {
                if failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(probe = name, what = %probe.what, %seen, "the application's probe passes again");
                }
                Outcome::Passed(seen)
            }
            Err(reason) => {
                if !failing.swap(true, Ordering::Relaxed) {
                    tracing::info!(probe = name, what = %probe.what, %reason, "the application's probe fails");
                }
                Outcome::Failed(reason)
            }
        }
    }
}

impl Dialler {
    async fn carry_out(&self, probe: &Probe, agent: &HeaderValue) -> Result<String, String> {
        let pod = self.pod.to_string();
        let host = probe.host.as_deref().unwrap_or(&pod);
        match &probe.what {
            What::Http(get) => get.carry_out(self, host, probe.port, agent).await,
            What::Tcp => {
                let stream = self.dial(host, probe.port).await?;
                drop(stream);
                Ok("connected".to_owned())
            }
            What::Grpc { service } => grpc::check(self, host, probe.port, service, agent).await,
        }
    }

    /// A connection, marked as the proxy's own. Of several addresses the first that takes it.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let addresses = tokio::net::lookup_host((host, port)).await;
        let addresses = addresses.map_err(|e| format!("{host}: {e}"))?;
        let mut last = format!("{host}: the name has no address");
        for address in addresses {
            match connect::dial(address, self.mark).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(last)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http(_) => "http",
            Self::Tcp => "tcp",
            Self::Grpc { .. } => "grpc",
        })
    }
}

/// An error with all that caused it, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        source = cause.source();
    }
    told
}

/// `host:port`, with brackets where the host is an IPv6 address.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests;
