//! The access log: one line a request or connection, as words or JSON, on standard output. Workers hand over what is
//! known and go on; a thread of its own formats and writes. When that thread falls behind, lines are dropped and
//! counted: a slow reader of the log never slows traffic. Off, it costs nothing.
//!
//! The fields are described in `docs/guide/access-log.md`.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::SpiffeId;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use prometheus_client::metrics::counter::Counter;

use crate::config::snapshot::{Cluster, Endpoint, Route};
use crate::error::Error;
use crate::fault::Injected;
use crate::settings;

/// Lines that wait to be written.
const WAITING: usize = 8192;
/// For so long the writer gathers lines once it has written all there were. A worker that hands over a line while the
/// writer waits for one has to wake it, which costs more than the line; one that comes in the pause costs nothing.
const PAUSE: Duration = Duration::from_millis(5);

/// Where lines go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: Option<SyncSender<Message>>,
    dropped: Counter,
}

#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    Flush(SyncSender<()>),
}

/// What a line says. `None` and zero where a field does not apply.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) ended: SystemTime,
    pub(crate) duration: Duration,
    pub(crate) direction: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) downstream: SocketAddr,
    pub(crate) dialled: SocketAddr,
    pub(crate) peer: Option<Arc<SpiffeId>>,
    pub(crate) method: Option<Method>,
    pub(crate) authority: Option<HeaderValue>,
    pub(crate) path: Option<PathAndQuery>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) rule: Option<usize>,
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    pub(crate) fault: Option<Box<Injected>>,
    pub(crate) is_copy: bool,
    pub(crate) tries: u32,
    pub(crate) status: u16,
    pub(crate) grpc_status: Option<u32>,
    pub(crate) flag: Option<&'static str>,
    pub(crate) error: Option<Error>,
    pub(crate) reason: Option<String>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) snapshot: u64,
}

impl AccessLog {
    /// No access log.
    #[must_use]
    pub fn off() -> Self {
        Self {
            lines: None,
            dropped: Counter::default(),
        }
    }

    /// The access log that `settings` ask for, on standard output. `dropped` counts lost lines.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(format: settings::AccessLog, dropped: Counter) -> io::Result<Self> {
        Self::to(format, dropped, io::stdout())
    }

    fn to(
        format: settings::AccessLog,
        dropped: Counter,
        out: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let write: fn(&Line, &mut String) = match format {
            settings::AccessLog::Off => return Ok(Self::off()),
            settings::AccessLog::Text => Line::write_text,
            settings::AccessLog::Json => Line::write_json,
        };
        let (lines, waiting) = sync_channel(WAITING);
        let run = move || write_lines(&waiting, write, out);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(run)?;
        Ok(Self {
            lines: Some(lines),
            dropped,
        })
    }

    /// Whether lines are written at all: what only they need is gathered only then.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Waits until the lines handed over so far are written. For the end of the process.
    pub fn flush(&self) {
        if let Some(lines) = &self.lines {
            let (done, is_done) = sync_channel(1);
            if lines.send(Message::Flush(done)).is_ok() {
                let _writer_gone = is_done.recv();
            }
        }
    }

    pub(crate) fn write(&self, line: impl FnOnce() -> Line) {
        let Some(lines) = &self.lines else {
            return;
        };
        match lines.try_send(Message::Line(Box::new(line()))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.inc();
            }
        }
    }
}

/// Writes until the last handle is gone, and flushes whenever nothing waits.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread is this function's own, and gathers lines while it sleeps"
)]
fn write_lines(waiting: &Receiver<Message>, write: fn(&Line, &mut String), out: impl Write) {
    let mut out = io::BufWriter::with_capacity(64 * 1024, out);
    let mut text = String::with_capacity(1024);
    let next = |out: &mut dyn Write| {
        let first = waiting.try_recv();
        if let Err(TryRecvError::Empty) = first {
            // A closed standard output is no reason to stop serving.
            let _closed = out.flush();
            std::thread::sleep(PAUSE);
        }
        match first.or_else(|_| waiting.try_recv()) {
            Ok(message) => Ok(message),
            Err(TryRecvError::Disconnected) => Err(RecvError),
            Err(TryRecvError::Empty) => waiting.recv(),
        }
    };
    while let Ok(message) = next(&mut out) {
        match message {
            Message::Line(line) => {
                text.clear();
                write(&line, &mut text);
                text.push('\n');
                let _closed = out.write_all(text.as_bytes());
            }
            Message::Flush(done) => {
                let _closed = out.flush();
                let _asker_gone = done.send(());
            }
        }
    }
}

enum Value<'a> {
    Text(Cow<'a, str>),
    Number(u64),
    Milliseconds(Duration),
}

impl Line {
    /// Calls `field` for each field that applies, in the order of the documentation.
    fn fields<'a>(&'a self, mut field: impl FnMut(&'static str, Value<'a>)) {
        let mut text = |name, value: Option<Cow<'a, str>>| {
            if let Some(value) = value.filter(|v| !v.is_empty()) {
                field(name, Value::Text(value));
            }
        };
        let started = self.ended.checked_sub(self.duration).unwrap_or(self.ended);
        text("time", Some(rfc3339(started).into()));
        text("direction", Some(self.direction.into()));
        text("protocol", Some(self.protocol.into()));
        text("downstream", Some(self.downstream.to_string().into()));
        text("peer", self.peer.as_ref().map(|p| p.as_str().into()));
        text("dialled", Some(self.dialled.to_string().into()));
        text("method", self.method.as_ref().map(|m| m.as_str().into()));
        let authority = self.authority.as_ref();
        text(
            "authority",
            authority.map(|a| String::from_utf8_lossy(a.as_bytes())),
        );
        text("path", self.path.as_ref().map(|p| p.as_str().into()));
        text("route", self.route.as_ref().map(|r| (&*r.name).into()));
        text("rule", self.rule());
        text("cluster", self.cluster.as_ref().map(|c| (&*c.name).into()));
        let endpoint = self.endpoint.as_ref();
        text("endpoint", endpoint.map(|e| e.spec.address.to_string().into()));
        text("pod", endpoint.map(|e| e.spec.pod.as_str().into()));
        text("mirror", self.is_copy.then(|| "copy".into()));
        text("fault", self.fault.as_ref().map(|f| f.to_string().into()));
        text("flag", self.flag.map(Into::into));
        let reason = self.reason.as_deref().map(Cow::from);
        text(
            "reason",
            reason.or_else(|| self.error.as_ref().map(|e| e.to_string().into())),
        );
        let mut number = |name, value: Option<u64>| {
            if let Some(value) = value {
                field(name, Value::Number(value));
            }
        };
        number("status", (self.status > 0).then_some(self.status.into()));
        number("grpc_status", self.grpc_status.map(Into::into));
        number("tries", (self.tries > 0).then_some(self.tries.into()));
        number("bytes_received", Some(self.bytes_received));
        number("bytes_sent", Some(self.bytes_sent));
        number("snapshot", Some(self.snapshot));
        field("duration_ms", Value::Milliseconds(self.duration));
    }

    /// The rule by its name, or by its place where it has none.
    fn rule(&self) -> Option<Cow<'_, str>> {
        let (rule, route) = (self.rule?, self.route.as_ref()?);
        let is_http = !matches!(self.protocol, "tcp" | "tls");
        let name = if is_http {
            &route.spec.http.get(rule)?.name
        } else {
            &route.spec.tcp.get(rule)?.name
        };
        Some(if name.is_empty() {
            format!("#{rule}").into()
        } else {
            name.into()
        })
    }

    fn write_text(&self, out: &mut String) {
        self.fields(|name, value| {
            if !out.is_empty() {
                out.push(' ');
            }
            out.push_str(name);
            out.push('=');
            let _infallible = match value {
                Value::Text(text) if is_word(&text) => out.write_str(&text),
                Value::Text(text) => write!(out, "{text:?}"),
                Value::Number(number) => write!(out, "{number}"),
                Value::Milliseconds(duration) => write_milliseconds(out, duration),
            };
        });
    }

    fn write_json(&self, out: &mut String) {
        let mut first = true;
        out.push('{');
        self.fields(|name, value| {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            for part in ["\"", name, "\":"] {
                out.push_str(part);
            }
            let _infallible = match value {
                // Nearly every text is one, and needs no look at what JSON escapes.
                Value::Text(text) if is_word(&text) => {
                    for part in ["\"", &text, "\""] {
                        out.push_str(part);
                    }
                    Ok(())
                }
                Value::Text(text) => write!(out, "{}", serde_json::Value::from(text)),
                Value::Number(number) => write!(out, "{number}"),
                Value::Milliseconds(duration) => write_milliseconds(out, duration),
            };
        });
        out.push('}');
    }
}

/// With three decimals. Formatting the same number as a float costs ten times as much.
fn write_milliseconds(out: &mut String, duration: Duration) -> std::fmt::Result {
    let us = duration.as_micros();
    write!(out, "{}.{:03}", us / 1000, us % 1000)
}

/// Needs no quotes, and no escapes within quotes.
fn is_word(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\'))
}

/// A time as `2026-11-24T06:00:00.123Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01. Counted in years that begin in March, so that a leap day is
/// a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970: u64 = 719_468;
    const FOUR_CENTURIES: u64 = 146_097;
    let days = days + DAYS_TO_1970;
    let (era, in_era) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests;
