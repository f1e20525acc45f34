//! HTTP/1.1 on the clients' port, the server's side, sans-IO: RFC 9110 and 9112.
//!
//! Owns the syntax of requests ([`head`], [`body`], [`query`]) and the bytes of every answer
//! ([`answer`]), among them answers without an end that carry a stream of messages ([`chunk`]).
//! Leaves to others: which paths, methods and origins are welcome (`session`), what makes a request
//! an upgrade (`websocket`), sockets and deadlines (`shard`).
//!
//! Invariants:
//! - A [`Request`] that exists has a valid target, one valid `Host`, and a body of which it is beyond
//!   doubt where it ends; a doubt would let one client's bytes be taken for another's request behind a proxy.
//! - No byte that a client chose appears in an answer but an origin and names of header fields, and these
//!   only when they consist of harmless characters; so nothing can be injected into one.
//! - At most [`REQUEST_HEAD_BYTES_MAX`](crate::limits::REQUEST_HEAD_BYTES_MAX) bytes of a head are ever looked
//!   at, and a body is never kept beyond its limit: an endless request is refused and not stored.

pub mod answer;
pub mod body;
pub mod chunk;
pub mod head;
pub mod query;

pub use self::{
    answer::Answer,
    body::{Body, BodyRead},
    head::{BodyLength, Head, Rejection, Request, parse},
};
