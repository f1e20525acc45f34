//! A wake-up between two tasks of the ingest thread.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Poll, Waker},
};

/// Raised by anyone on this thread, waited for by one task. Raising it twice before it is waited for is raising it once.
#[derive(Debug, Default)]
pub(super) struct Signal {
    is_raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the task that waits, or lets the next wait end at once.
    pub(super) fn raise(&self) {
        self.is_raised.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Ends when the signal is raised, and lowers it.
    pub(super) async fn wait(&self) {
        poll_fn(|context| {
            if self.is_raised.take() {
                self.waiting.take();
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Lets all other tasks that are ready, and the ring, have their turn.
pub(super) async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
