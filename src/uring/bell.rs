//! The bell of a thread: rung by senders, and only when the thread sleeps.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering, fence},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes one sleeping thread. Shared by that thread and all that send to it.
pub struct Bell {
    sleeping: AtomicBool,
    event: EventFd,
}

impl Bell {
    /// A bell of a thread that is awake.
    ///
    /// # Errors
    /// When the kernel gives no eventfd.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { sleeping: AtomicBool::new(false), event })
    }

    /// By the owner, before it looks at its queues for the last time.
    pub fn begin_sleep(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// By the owner, when it is awake again for whatever reason.
    pub fn end_sleep(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// By a sender, after it has pushed: true if the owner sleeps and this caller is the one to wake it.
    pub fn claim(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::Relaxed)
    }

    /// By a sender without a ring of its own, after it has pushed.
    pub fn ring(&self) {
        if self.claim() {
            self.wake();
        }
    }

    /// Wakes the owner, asleep or not.
    pub fn wake(&self) {
        // It fails only when the counter is full, and then the owner has been woken already.
        let _ = self.event.write(1);
    }

    /// By the owner: what becomes readable when the bell rings.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// By the owner: takes the ringing away. Whether it had rung.
    pub fn clear(&self) -> bool {
        self.event.read().is_ok()
    }

    /// By an owner that has nothing else to wait for.
    pub fn wait(&self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let _ = poll(&mut [PollFd::new(self.event(), PollFlags::POLLIN)], PollTimeout::NONE);
        self.clear();
    }
}
