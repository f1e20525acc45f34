//! Messages between threads, and the bounded queues that carry them.
//!
//! Owns the messages, the queues and their bells. What a message means is decided by the module
//! that receives it.

mod message;

pub use message::*;
