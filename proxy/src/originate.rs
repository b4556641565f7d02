//! TLS with servers outside the mesh: what a DestinationRule's `tls` of mode SIMPLE or MUTUAL asks for.
//!
//! An [`Origin`] is one such block with the files that it names. It is made when a worker first needs it, and [`Origins`]
//! looks every few seconds whether files have changed: a change makes new [`Settings`], and connections from then on are
//! made with them. A change that cannot be used is logged, and what was loaded before stays. `upstream` asks for settings
//! and connects with them; who the mesh's own peers are is the business of `identity` alone.

mod files;
#[cfg(test)]
pub(crate) mod testing;
mod verify;

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use api::ClientTls;
use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::ServerName;

use crate::error::Error;
use crate::identity::verify::provider;
use crate::io::{Io, TlsStream};

use files::{Loaded, Stamps};
use verify::{Server, Words};

pub(crate) use verify::refusal;

/// How often it is looked whether files have changed.
const EVERY: Duration = Duration::from_secs(2);
/// Servers whose sessions are kept for resumption, for each block.
const SESSIONS: usize = 256;

/// Every block in use. Cheap to clone; usable from every thread.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// Locked when a worker meets a block for the first time, and while files are looked at; never on the way of a request.
    known: Arc<Mutex<HashMap<ClientTls, Weak<Origin>>>>,
}

/// A block with what its files hold.
#[derive(Debug)]
pub struct Origin {
    spec: ClientTls,
    state: ArcSwap<State>,
    /// Of the files as they were read last; only `refresh` takes the lock.
    stamps: Mutex<Stamps>,
}

type State = Result<Arc<Settings>, Arc<io::Error>>;

/// All that a handshake needs, made of one state of the files.
#[derive(Debug)]
pub struct Settings {
    /// No others have it, before or after: connections made with different settings are never taken for each other.
    id: u64,
    config: Arc<ClientConfig>,
    words: Words,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Settings {}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// What is to be spoken inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Offer {
    /// Bytes: no protocol is named.
    Bytes,
    /// HTTP/1.1. A server that agrees to no protocol is taken for one that speaks it.
    Http1,
    /// HTTP/2, and nothing else.
    Http2,
    /// HTTP/2 if the server can, or else HTTP/1.1.
    Either,
}

impl Offer {
    fn alpn(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Bytes => &[],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Either => &[b"h2", b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

impl Origins {
    /// The block, read from its files unless it is in use already.
    #[must_use]
    pub fn of(&self, spec: &ClientTls) -> Arc<Origin> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = known.get(spec).and_then(Weak::upgrade) {
            return origin;
        }
        let origin = Arc::new(Origin::new(spec.clone()));
        known.retain(|_, origin| origin.strong_count() > 0);
        known.insert(spec.clone(), Arc::downgrade(&origin));
        origin
    }

    /// Follows the files of all blocks. Runs as long as the process.
    pub async fn watch(self) {
        let mut tick = tokio::time::interval(EVERY);
        loop {
            tick.tick().await;
            self.refresh();
        }
    }

    /// Takes over what has changed.
    pub(crate) fn refresh(&self) {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = known.values().filter_map(Weak::upgrade).collect();
        // Workers must not wait for files to be read.
        drop(known);
        for origin in all {
            origin.refresh();
        }
    }
}

impl Origin {
    fn new(spec: ClientTls) -> Self {
        let stamps = Stamps::of(&spec);
        let state = Settings::load(&spec).map_err(Arc::new);
        if let Err(error) = &state {
            tracing::warn!(%error, "TLS to servers outside the mesh cannot be set up");
        }
        Self {
            spec,
            state: ArcSwap::from_pointee(state),
            stamps: Mutex::new(stamps),
        }
    }

    /// Settings for a handshake.
    ///
    /// # Errors
    /// What is wrong with a file, if there was never a time when nothing was.
    pub fn settings(&self) -> Result<Arc<Settings>, Arc<io::Error>> {
        State::clone(&self.state.load())
    }

    fn refresh(&self) {
        let mut seen = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the files are read: one that changes meanwhile has another stamp the next time.
        let stamps = Stamps::of(&self.spec);
        if *seen == stamps {
            return;
        }
        *seen = stamps;
        match (Settings::load(&self.spec), &**self.state.load()) {
            (Ok(settings), _) => {
                tracing::info!("TLS to servers outside the mesh: changed files are taken over");
                self.state.store(Arc::new(Ok(settings)));
            }
            (Err(error), Ok(_)) => {
                tracing::warn!(%error, "a changed file cannot be used: the last one that could be stays");
            }
            (Err(error), Err(_)) => {
                tracing::warn!(%error, "TLS to servers outside the mesh still cannot be set up");
                self.state.store(Arc::new(Err(Arc::new(error))));
            }
        }
    }
}

impl Settings {
    fn load(spec: &ClientTls) -> io::Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let Loaded {
            roots,
            roots_from,
            lists,
            certificate,
        } = files::load(spec)?;
        let verifier = Server {
            roots,
            lists,
            names: verify::names(&spec.subject_alt_names)?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            Some(resolver) => builder.with_client_cert_resolver(resolver),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            config: Arc::new(config),
            words: Words {
                roots: roots_from,
                lists: spec.ca_crl.clone(),
                certified: spec.certificate.is_some(),
                verifies: !spec.insecure_skip_verify,
            },
        }))
    }

    /// TLS over `io`, which leads to `endpoint`, with a server that is asked for by `name`; `named` when a request named it.
    ///
    /// # Errors
    /// [`Error::Tls`] when the handshake fails, or the server is not who it should be; [`Error::TlsName`] when it is only
    /// not who the request asked for.
    pub async fn connect(
        &self,
        io: Io,
        (name, named): (ServerName<'static>, bool),
        offer: Offer,
        endpoint: SocketAddr,
    ) -> Result<Box<TlsStream>, Error> {
        let handshake = async {
            let stream = TlsStream::connect(Arc::clone(&self.config), name, offer.alpn(), io).await?;
            let connection = stream.connection();
            // A resumed session does not pass the verifier again.
            if self.words.verifies && connection.handshake_kind() == Some(HandshakeKind::Resumed) {
                verify::still_valid(connection.peer_certificates().unwrap_or_default())?;
            }
            if offer == Offer::Http2 && connection.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server agrees to no HTTP/2 (ALPN)"));
            }
            Ok(stream)
        };
        handshake.await.map_err(|error| {
            let of_request = named && verify::is_of_name_asked(&error);
            let source = Arc::new(self.words.explain(error));
            if of_request {
                Error::TlsName { endpoint, source }
            } else {
                Error::Tls { endpoint, source }
            }
        })
    }
}

#[cfg(test)]
mod tests;
