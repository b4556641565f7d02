//! A future beside a busy one in the same task: it is looked at when it was woken, not whenever the other one is.
//!
//! A connection waits all its life for the order to end. Asking for that order takes a lock that every connection of
//! every worker shares, and a connection is polled several times for each request.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// A future that is polled when it was woken. Ready once, then pending for ever.
pub(crate) struct Seldom<F> {
    /// `None` once it was ready.
    future: Option<Pin<Box<F>>>,
    woken: Arc<Woken>,
    /// Whom `woken` wakes.
    task: Waker,
}

struct Woken {
    is_due: AtomicBool,
    task: Mutex<Waker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_due.store(true, Ordering::Release);
        self.task().wake_by_ref();
    }
}

impl Woken {
    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()>> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let woken = Woken {
            is_due: AtomicBool::new(true),
            task: Mutex::new(Waker::noop().clone()),
        };
        Self {
            future: Some(Box::pin(future)),
            woken: Arc::new(woken),
            task: Waker::noop().clone(),
        }
    }
}

impl<F: Future<Output = ()>> Future for Seldom<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.task.will_wake(cx.waker()) {
            this.task.clone_from(cx.waker());
            this.woken.task().clone_from(cx.waker());
        }
        // Looked at before the flag is taken back: what is woken from here on sets it again.
        if !this.woken.is_due.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.woken.is_due.store(false, Ordering::Release);
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        let waker = Waker::from(Arc::clone(&this.woken));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            this.future = None;
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::rc::Rc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_looked_at_only_when_it_was_woken() {
        let (order, ordered) = oneshot::channel::<()>();
        let polls = Rc::new(Cell::new(0));
        let mut ordered = pin!(ordered);
        let counted = Rc::clone(&polls);
        let mut seldom = pin!(Seldom::new(poll_fn(move |cx| {
            counted.set(counted.get() + 1);
            ordered.as_mut().poll(cx).map(drop)
        })));
        for _ in 0..10 {
            let polled = poll_fn(|cx| Poll::Ready(seldom.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        assert_eq!(polls.get(), 1);
        tokio::task::yield_now().await;
        order.send(()).unwrap();
        // It wakes the task that waits for it.
        seldom.as_mut().await;
        assert_eq!(polls.get(), 2);
        let polled = poll_fn(|cx| Poll::Ready(seldom.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "it was ready once");
    }

    #[test]
    fn it_wakes_the_task_that_polled_it_last() {
        struct Flag(AtomicBool);
        impl Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let flags = [(); 2].map(|()| Arc::new(Flag(AtomicBool::new(false))));
        let (order, ordered) = oneshot::channel::<()>();
        let mut seldom = pin!(Seldom::new(async move { drop(ordered.await) }));
        for flag in &flags {
            let waker = Waker::from(Arc::clone(flag));
            assert!(
                seldom
                    .as_mut()
                    .poll(&mut Context::from_waker(&waker))
                    .is_pending()
            );
        }
        order.send(()).unwrap();
        assert_eq!(
            flags.each_ref().map(|flag| flag.0.load(Ordering::Relaxed)),
            [false, true]
        );
    }
}
