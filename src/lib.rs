//! Tidegate: a push server for one Linux host.
//!
//! Modules are listed in their order of ideas; each imports only from those above it
//! (`tests/tidy` checks it). ARCHITECTURE.md tells how they play together.

pub mod limits;
pub mod network;

pub mod config;

pub mod http;
pub mod log;
pub mod protocol;
pub mod resp;
pub mod systemd;
pub mod tls;
pub mod uring;
pub mod websocket;

pub mod channel;
pub mod fanout;
pub mod mesh;
pub mod session;

pub mod control;
pub mod doctor;
pub mod ingest;
pub mod shard;

pub mod demo;
pub mod server;

pub mod cli;
