//! TLS 1.2 and 1.3, sans-IO: what lies between a socket and whoever reads from it and writes to it.
//!
//! Owns certificates, handshakes and records. Leaves to others the sockets, how many handshakes may be under way, and
//! what is said under the seal. Handshakes are the work of `rustls`; when one is over, its secrets are taken over by
//! [`record`], so that an idle connection keeps [`Channel`] and no more, or by the kernel ([`Channel::for_kernel`]), so
//! that it keeps nothing here; [`Control`] is what then remains to be understood.
//!
//! Invariants:
//! - What was sealed is sent, or the connection ends. So nothing is sealed before it is about to be sent: what waits for
//!   a slow peer waits as plaintext, which may be dropped.
//! - Early data (0-RTT) and renegotiation are never accepted: the first may be replayed, the second has no use here.
//! - A port always has certificates that were good when they were read. What cannot be read, or does not fit together,
//!   changes nothing.

mod alert;
mod certificates;
mod channel;
mod control;
mod port;
mod record;
#[cfg(test)]
mod tests;
mod validity;

pub use self::{
    certificates::{CertificateFacts, Problem, Problems},
    channel::{Channel, Heard, Refusal},
    control::{Alert, CONTROL_BYTES_MAX, Control},
    port::{Port, PortFigures, Ports, Reloaded},
};

/// Bytes of plaintext in one record at most.
pub use self::record::PLAINTEXT_BYTES_MAX as RECORD_BYTES_MAX;

/// Records that one key of AES-GCM may seal.
pub use self::record::RECORDS_PER_KEY_MAX;
