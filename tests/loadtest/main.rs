//! The load tester, as a program, against real servers: each scenario in a short form, every way in
//! which a run may fail, and a server of another make.

#[path = "../support/mod.rs"]
mod support;

mod compression;
mod failures;
mod peers;
mod scenarios;
mod secure;
mod tester;
