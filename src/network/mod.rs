//! Who is at the other end of a socket: addresses, sets of them, and how often something may happen.
//!
//! Pure: bytes, numbers and times in, decisions out. Leaves to others where an address comes from (`uring`, for the
//! kernel), who is counted (`mesh`), and what follows from a decision (`shard`, `session`).
//!
//! Invariant: an IPv4 address is an IPv4 address however it is written. `::ffff:10.0.0.1` and `10.0.0.1` are one, or a
//! client could choose under which of two names it is counted.

mod bucket;
mod prefix;
mod prefix_set;
pub mod proxy;

pub use self::{
    bucket::{Bucket, Rate, Verdict},
    prefix::{Prefix, PrefixError},
    prefix_set::PrefixSet,
};
