//! Descriptors that were open when the process began.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
};

/// The first descriptor behind standard input, output and error, where a service manager's begin.
const FIRST: RawFd = libc::STDERR_FILENO + 1;

/// Takes over the `count` descriptors that whoever started the process has left behind standard error, and keeps them
/// from programs that this one starts. To be called before the process opens any of its own; the second call gets
/// nothing.
///
/// # Errors
/// When one of them is not open, by its number.
pub fn take_inherited(count: usize) -> Result<Vec<OwnedFd>, RawFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let count = RawFd::try_from(count).map_err(|_| RawFd::MAX)?;
    let last = FIRST.checked_add(count).ok_or(RawFd::MAX)?;
    (FIRST..last).map(|number| take(number).map_err(|_| number)).collect()
}

fn take(number: RawFd) -> io::Result<OwnedFd> {
    // It fails if nothing is open there.
    set_close_on_exec(number)?;
    // SAFETY: the descriptor is open, as the call above has shown. It was left to this process by whoever started it,
    // so nothing else here owns it: `take_inherited` runs once, and before anything else is opened.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn set_close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: the borrow ends with this function, in which nothing closes the descriptor; whether it is open at all is
    // what the call finds out.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
