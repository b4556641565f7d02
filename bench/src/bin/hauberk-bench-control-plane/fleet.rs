//! All simulated proxies together: how far they are with what was changed, and what went wrong. On one thread; `proxy`
//! tells it what arrives, `measure` tells it what to wait for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::mesh::{Size, What};

/// Problems that are kept; more say nothing new.
const MAX_PROBLEMS: usize = 20;

/// A change that every proxy which uses it has acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    pub(crate) what: What,
    /// Until the last ACK.
    pub(crate) after: Duration,
}

/// What went through the proxies' sockets, TLS included.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
}

/// All simulated proxies.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) size: Size,
    /// For each Service the proxies that use it.
    pub(crate) users: Vec<Vec<usize>>,
    pub(crate) traffic: Arc<Traffic>,
    inner: RefCell<Inner>,
    stirred: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Proxies that have acknowledged everything they are subscribed to.
    complete: usize,
    /// Resources that arrived.
    resources: u64,
    /// The generation that a proxy has applied.
    seen: HashMap<(What, usize, usize), u64>,
    pending: HashMap<(What, usize), Vec<Pending>>,
    waiting: usize,
    applied: Vec<Applied>,
    problems: Vec<String>,
    /// Why a stream ended last; that alone is no problem, for proxies come back.
    last_end: Option<String>,
}

#[derive(Debug)]
struct Pending {
    generation: u64,
    since: Instant,
    missing: usize,
}

impl Fleet {
    pub(crate) fn new(size: Size) -> Rc<Self> {
        Rc::new(Self {
            size,
            users: size.users(),
            traffic: Arc::default(),
            inner: RefCell::default(),
            stirred: Notify::new(),
        })
    }

    /// A change is about to be made.
    pub(crate) fn expect(&self, what: What, service: usize, generation: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.pending.entry((what, service)).or_default().push(Pending {
            generation,
            since: Instant::now(),
            missing: self.users[service].len(),
        });
        inner.waiting += 1;
    }

    /// A proxy has acknowledged a generation. One that comes later carries what came before.
    pub(crate) fn acknowledged(&self, proxy: usize, what: What, service: usize, generation: u64) {
        let mut inner = self.inner.borrow_mut();
        let before = inner
            .seen
            .insert((what, service, proxy), generation)
            .unwrap_or_default();
        let Inner {
            pending,
            waiting,
            applied,
            ..
        } = &mut *inner;
        let Some(list) = pending.get_mut(&(what, service)) else {
            return;
        };
        for change in list.iter_mut() {
            if change.generation > before && change.generation <= generation {
                change.missing -= 1;
            }
        }
        list.retain(|change| {
            if change.missing == 0 {
                let after = change.since.elapsed();
                applied.push(Applied { what, after });
                *waiting -= 1;
            }
            change.missing > 0
        });
        self.stirred.notify_one();
    }

    /// A resource has arrived.
    pub(crate) fn received(&self) {
        self.inner.borrow_mut().resources += 1;
    }

    /// A proxy has everything for the first time.
    pub(crate) fn complete(&self) {
        self.inner.borrow_mut().complete += 1;
        self.stirred.notify_one();
    }

    /// Something that must not happen has happened.
    pub(crate) fn problem(&self, text: String) {
        let mut inner = self.inner.borrow_mut();
        if inner.problems.len() < MAX_PROBLEMS {
            inner.problems.push(text);
        }
        self.stirred.notify_one();
    }

    /// A stream has ended.
    pub(crate) fn ended(&self, why: String) {
        self.inner.borrow_mut().last_end = Some(why);
    }

    pub(crate) fn resources(&self) -> u64 {
        self.inner.borrow().resources
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.traffic.received.load(Ordering::Relaxed)
    }

    /// Takes out what was applied since the last time.
    pub(crate) fn take_applied(&self) -> Vec<Applied> {
        std::mem::take(&mut self.inner.borrow_mut().applied)
    }

    /// Waits until every proxy has everything.
    pub(crate) async fn all_complete(&self, patience: Duration) -> anyhow::Result<()> {
        let all = self.size.proxies;
        self.wait(patience, |inner| inner.complete == all).await
    }

    /// Waits until at most so many changes are not applied everywhere.
    pub(crate) async fn at_most_waiting(&self, most: usize, patience: Duration) -> anyhow::Result<()> {
        self.wait(patience, |inner| inner.waiting <= most).await
    }

    async fn wait(&self, patience: Duration, done: impl Fn(&Inner) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            {
                let inner = self.inner.borrow();
                anyhow::ensure!(inner.problems.is_empty(), "{}", inner.problems.join("\n"));
                if done(&inner) {
                    return Ok(());
                }
            }
            if timeout_at(deadline, self.stirred.notified()).await.is_err() {
                anyhow::bail!("{}", self.what_is_missing(patience));
            }
        }
    }

    fn what_is_missing(&self, patience: Duration) -> String {
        let inner = self.inner.borrow();
        let mut text = format!(
            "after {patience:?}: {} of {} proxies have everything",
            inner.complete, self.size.proxies
        );
        for ((what, service), list) in &inner.pending {
            for change in list {
                let Pending {
                    generation, missing, ..
                } = change;
                text += &format!(
                    "\n{what:?} of svc-{service}, generation {generation}: not applied by {missing} proxies"
                );
            }
        }
        if let Some(end) = &inner.last_end {
            text += &format!("\nthe last stream that ended: {end}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Rc<Fleet> {
        Fleet::new(Size {
            proxies: 2,
            services: 2,
            endpoints_each: 2,
            uses: 2,
        })
    }

    #[tokio::test]
    async fn a_change_is_applied_when_the_last_proxy_has_it_or_what_came_later() {
        let fleet = fleet();
        fleet.expect(What::Route, 1, 1);
        fleet.expect(What::Route, 1, 2);
        fleet.acknowledged(0, What::Route, 1, 1);
        fleet.acknowledged(0, What::Route, 1, 2);
        assert!(fleet.take_applied().is_empty());
        fleet.acknowledged(1, What::Route, 1, 2);
        assert_eq!(fleet.take_applied().len(), 2);
        fleet.at_most_waiting(0, Duration::ZERO).await.unwrap();
    }

    #[tokio::test]
    async fn what_never_arrives_is_an_error_that_names_it() {
        let fleet = fleet();
        fleet.expect(What::Endpoint, 1, 3);
        fleet.acknowledged(0, What::Endpoint, 1, 3);
        let error = fleet
            .at_most_waiting(0, Duration::from_secs(1))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("svc-1, generation 3: not applied by 1 proxies"),
            "{error}"
        );
    }
}
