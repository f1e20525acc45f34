//! The service manager: what it hands to the process, and what it is told.
//!
//! Owns the two protocols that systemd speaks with a service: `notify` (sd_notify: ready, alive, stopping, a status
//! text) and `sockets` (socket activation). When to tell what is decided by `control`, what becomes of a passed socket by
//! `server`.
//!
//! Invariants:
//! - Where no service manager listens, everything here succeeds and does nothing: the server runs the same from a shell.
//! - The environment that the protocols use is believed only as far as it names this process: a child of a service
//!   inherits variables that are not meant for it.

mod notify;
mod sockets;

pub use self::{
    notify::{Notice, ServiceManager},
    sockets::{PassedError, PassedSocket, PassedSockets, take_sockets},
};
