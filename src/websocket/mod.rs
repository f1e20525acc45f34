//! WebSocket, the server's side, sans-IO: RFC 6455, and RFC 7692.
//!
//! Owns the bytes between HTTP and messages: what makes a request an upgrade ([`handshake`],
//! [`extension`]), messages out of frames ([`message`]), frames out of payloads ([`frame`]), compression
//! ([`deflate`]), and the rules that all need ([`close`], [`utf8`], [`mask`], [`violation`]). Leaves to others: request heads
//! (`http`), sockets and deadlines (`shard`), which origins, paths and subprotocols are welcome and what a message
//! means (`session`, `protocol`).
//!
//! Invariants worth naming:
//! - Between two frames a connection owns no state of this module: what [`message::read`] needs
//!   is in the bytes of the frame. Only while a fragmented message is under way is there one
//!   [`message::Fragments`]. Anything kept longer would be paid a million times.
//! - Bytes are unmasked in place exactly once, when their frame is complete. A caller that gives
//!   consumed bytes again, or changes bytes that were found incomplete, reads garbage.
//! - What is found in a stream does not depend on how the network cut it: the fuzz targets
//!   `request_head` and `frame` check it. If it did, an attacker could choose what checks see.
//! - Lengths are judged by the header, before memory is spent on the payload.

pub mod close;
pub mod deflate;
pub mod extension;
pub mod frame;
pub mod handshake;
pub mod mask;
pub mod message;
pub mod utf8;
pub mod violation;
