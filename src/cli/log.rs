//! Logs: to standard error, filtered as the configuration says.

use std::{
    env,
    io::{self, IsTerminal},
};

use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Starts logging for the whole process. RUST_LOG is not looked at: the configuration is the one place.
pub(super) fn start(config: &LogConfig) {
    let has_no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.level))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !has_no_color)
        .init();
}
