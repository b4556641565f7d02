//! What the test application says and how it is told what to do: shared by `hauberk-testapp` and by tests.
//!
//! The application listens for control on a port of its own, which the lab keeps out of the mesh, so a test can
//! read counters and switch failures without passing the proxy under test.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::client::Call;

/// Response header: the service that answered.
pub const SERVICE_HEADER: &str = "x-app-service";
/// Response header: its version.
pub const VERSION_HEADER: &str = "x-app-version";
/// Response header: the pod that answered.
pub const POD_HEADER: &str = "x-app-pod";
/// The control port in every pod that runs the application.
pub const CONTROL_PORT: u16 = 9900;

/// The application's answer to a plain request: itself, and the request as it arrived.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The service's name.
    pub service: String,
    /// Its version.
    pub version: String,
    /// The pod's name.
    pub pod: String,
    /// The request as it arrived.
    #[serde(flatten)]
    pub request: Seen,
}

/// A request as the application saw it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub http: String,
    /// The host asked for: `host` or `:authority`.
    pub host: String,
    /// The address of the connection's other end.
    pub peer: SocketAddr,
    /// Header fields; several of one name are joined with `, `.
    pub headers: BTreeMap<String, String>,
}

/// What the application counted since it started.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests (or gRPC calls) received.
    pub requests: u64,
    /// Requests that the failure mode answered or swallowed.
    pub failed: u64,
}

/// How the application treats requests.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It answers.
    #[default]
    Ok,
    /// It answers with this status at once.
    Fail(u16),
    /// It answers after this many milliseconds.
    Slow(u64),
    /// It never answers.
    Hang,
    /// It resets the connection.
    Reset,
}

impl Mode {
    /// The control path that selects it.
    pub fn path(self) -> String {
        match self {
            Mode::Ok => "/control/ok".to_owned(),
            Mode::Fail(status) => format!("/control/fail?status={status}"),
            Mode::Slow(millis) => format!("/control/slow?ms={millis}"),
            Mode::Hang => "/control/hang".to_owned(),
            Mode::Reset => "/control/reset".to_owned(),
        }
    }

    /// The mode that a control path selects, or what is wrong with it.
    pub fn from_path(path: &str, query: &str) -> Result<Mode, String> {
        let number = |name: &str, missing: Option<u64>| {
            let given = query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            match (given, missing) {
                (Some(text), _) => text
                    .parse()
                    .map_err(|_| format!("{name}: expected a number, found {text}")),
                (None, Some(value)) => Ok(value),
                (None, None) => Err(format!("{name} is missing")),
            }
        };
        match path {
            "/control/ok" => Ok(Mode::Ok),
            "/control/hang" => Ok(Mode::Hang),
            "/control/reset" => Ok(Mode::Reset),
            "/control/slow" => Ok(Mode::Slow(number("ms", None)?)),
            "/control/fail" => match number("status", Some(503))? {
                status @ 200..=599 => Ok(Mode::Fail(u16::try_from(status).expect("below 600"))),
                status => Err(format!("status: expected 200 to 599, found {status}")),
            },
            other => Err(format!(
                "no control is called {other}; there are ok, fail, slow, hang, reset"
            )),
        }
    }
}

/// The control port of one application.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    address: SocketAddr,
}

impl Control {
    /// The application whose control port is at `address`.
    pub fn new(address: SocketAddr) -> Control {
        Control { address }
    }

    /// Switches the failure mode. Requests already accepted keep the mode they met.
    pub async fn mode(&self, mode: Mode) -> anyhow::Result<()> {
        let path = mode.path();
        let reply = Call::post(&self.url(&path), "").send().await?;
        if reply.status != 200 {
            bail!("the application refuses {path}: {}", reply.text());
        }
        Ok(())
    }

    /// What it counted so far.
    pub async fn counters(&self) -> anyhow::Result<Counters> {
        Call::get(&self.url("/control/counters")).send().await?.json()
    }

    /// The last requests that it received (256 at most), the oldest first.
    pub async fn requests(&self) -> anyhow::Result<Vec<Seen>> {
        Call::get(&self.url("/control/requests")).send().await?.json()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_is_reached_by_its_path() {
        for mode in [Mode::Ok, Mode::Fail(418), Mode::Slow(25), Mode::Hang, Mode::Reset] {
            let path = mode.path();
            let (path, query) = path.split_once('?').unwrap_or((&path, ""));
            assert_eq!(Mode::from_path(path, query), Ok(mode));
        }
    }

    #[test]
    fn a_wrong_control_is_refused_with_its_reason() {
        for (path, query, reason) in [
            ("/control/fail", "status=1000", "status: expected 200 to 599"),
            ("/control/fail", "status=x", "status: expected a number"),
            ("/control/slow", "", "ms is missing"),
            ("/control/burn", "", "no control is called"),
        ] {
            let error = Mode::from_path(path, query).unwrap_err();
            assert!(error.contains(reason), "{path}?{query}: {error}");
        }
        assert_eq!(Mode::from_path("/control/fail", ""), Ok(Mode::Fail(503)));
    }
}
