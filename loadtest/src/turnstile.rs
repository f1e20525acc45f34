//! Lets a task that never sleeps give way to all others.
//!
//! A task that wakes itself is put before all others by monoio, and nobody else would ever run. So
//! it asks the keeper, a task of the turnstile's own, to wake it: then it is put behind them.

use std::{
    cell::RefCell,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

/// Shared by the keeper and the task that gives way.
#[derive(Debug, Default)]
pub struct Turnstile {
    keeper: RefCell<Option<Waker>>,
    waiting: RefCell<Option<Waker>>,
}

impl Turnstile {
    /// A turnstile and its keeper, which runs until the runtime ends.
    pub fn open() -> Rc<Turnstile> {
        let turnstile = Rc::new(Turnstile::default());
        let kept = turnstile.clone();
        monoio::spawn(poll_fn(move |context| {
            *kept.keeper.borrow_mut() = Some(context.waker().clone());
            if let Some(waiting) = kept.waiting.borrow_mut().take() {
                waiting.wake();
            }
            Poll::<()>::Pending
        }));
        turnstile
    }

    /// Returns when every task that could run has run.
    pub async fn give_way(&self) {
        let mut has_asked = false;
        poll_fn(|context| {
            if has_asked && self.waiting.borrow().is_none() {
                return Poll::Ready(());
            }
            has_asked = true;
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            if let Some(keeper) = &*self.keeper.borrow() {
                keeper.wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use monoio::{IoUringDriver, RuntimeBuilder};

    use super::*;

    #[test]
    fn others_run_while_one_never_sleeps() {
        let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
        runtime.block_on(async {
            let turnstile = Turnstile::open();
            let is_done = Rc::new(Cell::new(false));
            let seen = is_done.clone();
            let spinner = monoio::spawn(async move {
                let mut turns = 0;
                while !seen.get() {
                    turnstile.give_way().await;
                    turns += 1;
                    assert!(turns < 1_000, "the other task never ran");
                }
            });
            monoio::spawn(async move { is_done.set(true) });
            spinner.await;
        });
    }
}
