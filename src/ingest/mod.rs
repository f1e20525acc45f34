//! TEMP
use crate::{config::Config, mesh::*};
use std::{net::SocketAddr, sync::Arc};
/// x
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// x
    #[error("x")]
    X,
}
/// x
pub struct Ingest {
    /// x
    pub address: Option<SocketAddr>,
}
/// x
pub fn spawn(_c: Arc<Config>, _h: ChannelHasher, mut mesh: IngestMesh) -> Result<Ingest, StartError> {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let n = mesh.inbound.len();
            for q in 0..n {
                while let Ok(m) = mesh.inbound[q].try_recv() {
                    match m {
                        ToIngest::Observe { ticket } => {
                            mesh.to_control.send(ToControl::Ingest { ticket, figures: Default::default() });
                            mesh.to_control.ring();
                        }
                        ToIngest::Shutdown => {
                            mesh.to_control.send(ToControl::IngestStopped);
                            mesh.to_control.ring();
                        }
                        _ => {}
                    }
                }
            }
        }
    });
    Ok(Ingest { address: None })
}
