//! What a connection to an endpoint begins with where the mesh's own ways do not do: a header that says who calls, TLS as a
//! server outside the mesh wants it. Requests that differ in it never share a connection. The pool's keys are small, so what stands behind a number is
//! kept here, for as long as the pool has connections of it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use api::ClientTls;
use rustls_pki_types::ServerName;
use tokio::time::{Duration, Instant};

use super::announce::Announcement;
use super::{Upstream, Wire};
use crate::error::Error;
use crate::io::Io;
use crate::originate::{Offer, Origin, Origins, Settings};

/// For how long a server that turned HTTP/2 down is not offered it.
const DECLINED: Duration = Duration::from_secs(60);

/// How connections begin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Way {
    /// The header that says who calls.
    pub announcement: Option<Announcement>,
    /// TLS, and with whom.
    pub tls: Option<Secured>,
}

/// TLS with a server that is asked for by a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Secured {
    /// What the handshake needs.
    pub settings: Arc<Settings>,
    /// The server's name.
    pub name: ServerName<'static>,
    /// A request named it, so it may be one that the server never had.
    pub named: bool,
}

/// A way by number, and what is spoken at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outside {
    number: u64,
    /// What is offered to the server.
    pub offer: Offer,
    /// It leads through TLS.
    pub secure: bool,
}

/// The ways of one worker.
#[derive(Debug, Default)]
pub(super) struct Ways {
    numbers: RefCell<HashMap<Rc<Way>, u64>>,
    ways: RefCell<HashMap<u64, Known>>,
    next: Cell<u64>,
}

#[derive(Debug)]
struct Known {
    way: Rc<Way>,
    /// When one of its servers turned HTTP/2 down: for a while it is not offered again.
    declined: Cell<Option<Instant>>,
}

impl Ways {
    fn number(&self, way: Way) -> u64 {
        if let Some(number) = self.numbers.borrow().get(&way) {
            return *number;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        let way = Rc::new(way);
        let known = Known {
            way: Rc::clone(&way),
            declined: Cell::new(None),
        };
        self.numbers.borrow_mut().insert(way, number);
        self.ways.borrow_mut().insert(number, known);
        number
    }

    /// The way; `None` once the pool has no connection of it.
    pub(super) fn get(&self, outside: Outside) -> Option<Rc<Way>> {
        self.ways
            .borrow()
            .get(&outside.number)
            .map(|known| Rc::clone(&known.way))
    }

    /// Asks a server that turned HTTP/2 down for HTTP/1.1 at once.
    pub(super) fn settled(&self, wire: Wire) -> Wire {
        match wire {
            Wire::Outside(outside) if outside.offer == Offer::Either && self.is_only_http1(outside) => {
                Wire::Outside(Outside {
                    offer: Offer::Http1,
                    ..outside
                })
            }
            other => other,
        }
    }

    fn is_only_http1(&self, outside: Outside) -> bool {
        let ways = self.ways.borrow();
        ways.get(&outside.number)
            .and_then(|known| known.declined.get())
            .is_some_and(|at| at.elapsed() < DECLINED)
    }

    /// What is spoken on a new connection, which may be less than was offered.
    pub(super) fn agreed(&self, wire: Wire, io: &Io) -> Wire {
        if let Wire::Outside(outside) = wire
            && outside.offer == Offer::Either
            && io.alpn() != Some(b"h2")
            && let Some(known) = self.ways.borrow().get(&outside.number)
        {
            known.declined.set(Some(Instant::now()));
        }
        self.settled(wire)
    }

    /// Forgets ways that `used` does not name.
    pub(super) fn keep(&self, used: impl FnOnce() -> HashSet<Outside>) {
        if self.ways.borrow().is_empty() {
            return;
        }
        let used: HashSet<u64> = used().into_iter().map(|outside| outside.number).collect();
        self.numbers
            .borrow_mut()
            .retain(|_, number| used.contains(number));
        self.ways.borrow_mut().retain(|number, _| used.contains(number));
    }
}

/// The blocks that a worker has met, by where their value lies: a block is compared as a whole only once.
#[derive(Debug, Default)]
pub(super) struct Met {
    origins: Origins,
    /// A weak pointer keeps its place taken, so that no other value is ever taken for the one that was there.
    known: RefCell<HashMap<usize, Meeting>>,
}

type Meeting = (Weak<ClientTls>, Arc<Origin>);

impl Met {
    pub(super) fn new(origins: Origins) -> Self {
        Self {
            origins,
            known: RefCell::default(),
        }
    }

    fn of(&self, tls: &Arc<ClientTls>) -> Arc<Origin> {
        let place = Arc::as_ptr(tls).addr();
        let mut known = self.known.borrow_mut();
        let (_, origin) = known
            .entry(place)
            .or_insert_with(|| (Arc::downgrade(tls), self.origins.of(tls)));
        Arc::clone(origin)
    }

    pub(super) fn sweep(&self) {
        self.known
            .borrow_mut()
            .retain(|_, (tls, _)| tls.strong_count() > 0);
    }
}

impl Upstream {
    /// TLS as a block says, with a server of `host`, unless the block has another name to ask for. `named` when a request
    /// named the host.
    ///
    /// # Errors
    /// When a file of the block cannot be used, or the host is no name: neither is the endpoint's fault.
    pub fn secured(&self, tls: &Arc<ClientTls>, host: &str, named: bool) -> Result<Secured, Error> {
        let failed = |source| Error::TlsSetup { source };
        let settings = self.met.of(tls).settings().map_err(failed)?;
        let named = named && tls.sni.is_none();
        let name = tls.sni.as_deref().unwrap_or(host);
        // As addresses of IPv6 stand in an authority.
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let name = ServerName::try_from(bare.unwrap_or(name).to_owned()).map_err(|_| {
            if named {
                let problem = "its host is no name to ask a TLS server for: see sni";
                return Error::BadRequest { problem };
            }
            let problem = format!("`{name}` is no name to ask a server for: see sni");
            failed(Arc::new(io::Error::new(io::ErrorKind::InvalidInput, problem)))
        })?;
        Ok(Secured {
            settings,
            name,
            named,
        })
    }

    /// How many ways are known.
    #[cfg(test)]
    pub(crate) fn ways(&self) -> usize {
        self.ways.ways.borrow().len()
    }

    /// The wire for requests that go this way.
    pub fn outside(&self, way: Way, offer: Offer) -> Wire {
        let secure = way.tls.is_some();
        Wire::Outside(Outside {
            number: self.ways.number(way),
            offer,
            secure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn http2_is_offered_again_a_while_after_it_was_turned_down() {
        let ways = Ways::default();
        let way = Way {
            announcement: None,
            tls: None,
        };
        let offering = |offer| {
            Wire::Outside(Outside {
                number: ways.number(way.clone()),
                offer,
                secure: true,
            })
        };
        let (either, only) = (offering(Offer::Either), offering(Offer::Http1));
        assert_eq!(ways.settled(either), either);
        let io = Io::from(tokio::io::duplex(1).0);
        for _ in 0..2 {
            assert_eq!(ways.agreed(either, &io), only);
            tokio::time::advance(DECLINED - Duration::from_secs(1)).await;
            assert_eq!(ways.settled(either), only);
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(ways.settled(either), either);
        }
    }
}
