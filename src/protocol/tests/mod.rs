//! Both encodings against examples of the reference, against `prost` and `serde_json`, and against each other.

mod commands;
mod examples;
mod messages;
mod reference;
mod strategies;
