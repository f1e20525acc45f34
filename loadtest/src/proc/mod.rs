//! What the kernel says about processes and about itself: CPU time by thread, memory by process,
//! kernel memory by cache.
//!
//! Each file reads one kind of file below /proc; parsing is apart from reading, so that it is tested.

pub mod bystanders;
pub mod cpu;
pub mod kernel_memory;
pub mod listener;
pub mod machine;
pub mod ports;
pub mod sockets;
pub mod user_memory;
