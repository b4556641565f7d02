//! Who the application is, what it counted, and how it is told to fail. Shared by all of its connections.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tests::app::{Counters, Mode, Seen};

/// How many requests are remembered.
const REMEMBERED: usize = 256;
/// How many keys `/flaky` counts for, so that a test gone wild cannot fill the memory.
const MAX_KEYS: usize = 10_000;

/// The application's state.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) pod: String,
    mode: Mutex<Mode>,
    accepted: AtomicU64,
    open: AtomicU64,
    requests: AtomicU64,
    failed: AtomicU64,
    seen: Mutex<VecDeque<Seen>>,
    tries: Mutex<HashMap<String, u64>>,
}

/// Counts a connection as open while it lives.
#[derive(Debug)]
pub(crate) struct Open<'a>(&'a State);

impl State {
    pub(crate) fn new(service: String, version: String, pod: String) -> State {
        State {
            service,
            version,
            pod,
            ..State::default()
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        *lock(&self.mode)
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        *lock(&self.mode) = mode;
    }

    pub(crate) fn connection(&self) -> Open<'_> {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remember(&self, seen: Seen) {
        let mut list = lock(&self.seen);
        if list.len() == REMEMBERED {
            list.pop_front();
        }
        list.push_back(seen);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).iter().cloned().collect()
    }

    /// How often `key` was tried before, this time not counted.
    pub(crate) fn tries(&self, key: &str) -> u64 {
        let mut tries = lock(&self.tries);
        if tries.len() >= MAX_KEYS && !tries.contains_key(key) {
            tries.clear();
        }
        let count = tries.entry(key.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    pub(crate) fn counters(&self) -> Counters {
        Counters {
            accepted: self.accepted.load(Ordering::Relaxed),
            open: self.open(),
            requests: self.requests.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
