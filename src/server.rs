//! The server as a whole: its threads are assembled here, started in order, and stopped together.

use std::{net::SocketAddr, path::PathBuf};

use crate::{config::Config, control::Outcome};

/// Where the server listens, as bound.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// The clients' port.
    pub client: SocketAddr,
    /// The producers' port.
    pub ingest: Option<SocketAddr>,
    /// The producers' Unix socket.
    pub ingest_unix: Option<PathBuf>,
    /// The operators' port.
    pub admin: SocketAddr,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The threads are not assembled.
    #[error("this build has no server in it")]
    NotAssembled,
}

/// Runs the server until a signal stops it. `ready` is called once every port accepts.
///
/// # Errors
/// When something that the server needs cannot be had; nothing is left running then.
pub fn serve(_config: Config, _demo: bool, _ready: impl FnOnce(&Addresses)) -> Result<Outcome, StartError> {
    Err(StartError::NotAssembled)
}
