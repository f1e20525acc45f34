//! What is done to a server, and what of it is measured. One scenario per file.

pub mod broadcast;
pub mod delivery;
pub mod idle;
