//! Accepting producers.

use std::{
    cell::RefCell,
    future::Future,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use monoio::{
    io::{AsyncWriteRentExt, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent, Split},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use nix::errno::Errno;

use super::{
    connection::{self, Stops},
    state::IngestState,
};
use crate::{
    limits::ACCEPT_PAUSE_MS,
    resp::{Reply, Version},
    tls::Port,
};

/// A listening socket of either kind.
pub(super) trait Accept {
    /// What it accepts.
    type Stream: CancelableAsyncReadRent + CancelableAsyncWriteRent + Split + 'static;

    /// The next connection, and where it comes from.
    fn accept(&self, stopped: CancelHandle) -> impl Future<Output = io::Result<(Self::Stream, String)>>;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self, stopped: CancelHandle) -> io::Result<(TcpStream, String)> {
        let (stream, address) = self.cancelable_accept(stopped).await?;
        // Both can fail only if the peer is gone already, which the first read tells.
        let _ = stream.set_nodelay(true);
        let _ = stream.set_tcp_keepalive(Some(KEEPALIVE), None, None);
        Ok((stream, address.to_string()))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self, stopped: CancelHandle) -> io::Result<(UnixStream, String)> {
        let (stream, _) = self.cancelable_accept(stopped).await?;
        Ok((stream, "unix".to_owned()))
    }
}

/// A producer that vanished without a word is noticed after some minutes, as with Redis.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// Between warnings that nobody can be accepted: where descriptors come and go, so would the warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Accepts producers until the server stops.
pub(super) async fn run(state: Rc<RefCell<IngestState>>, listener: impl Accept, tls: Option<Arc<Port>>, stops: Stops) {
    let mut is_paused = false;
    let mut warned_at: Option<Instant> = None;
    while !state.borrow().is_stopping() {
        match listener.accept(stops.inputs.clone()).await {
            Ok((stream, address)) => {
                if is_paused {
                    is_paused = false;
                    tracing::info!("producers are accepted again");
                }
                admit(&state, stream, address, tls.as_ref(), &stops);
            }
            Err(_) if state.borrow().is_stopping() => {}
            // The connection went before it was accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !is_paused && warned_at.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                    is_paused = true;
                    warned_at = Some(Instant::now());
                    tracing::warn!(
                        %error,
                        "no producer can be accepted for now; if descriptors have run out, raise LimitNOFILE (ulimit -n)"
                    );
                }
                state.borrow_mut().counters.count_reason(reason(&error));
                monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
}

/// For counting, in the words of metrics.
fn reason(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE) => "descriptors_exhausted",
        _ => "accept_failed",
    }
}

fn admit<S>(state: &Rc<RefCell<IngestState>>, mut stream: S, address: String, tls: Option<&Arc<Port>>, stops: &Stops)
where
    S: CancelableAsyncReadRent + CancelableAsyncWriteRent + Split + 'static,
{
    let connection = state.borrow_mut().connect(address, tls);
    match connection {
        Some(connection) => {
            monoio::spawn(connection::serve(Rc::clone(state), connection, stream, stops.clone()));
        }
        // A handshake only to say no would cost more than it is worth.
        None if tls.is_some() => {}
        None => {
            monoio::spawn(async move {
                let mut refusal = Vec::new();
                Reply::Error("ERR max number of clients reached".into()).write(Version::Two, &mut refusal);
                // The socket closes in any case.
                let _ = stream.write_all(refusal).await;
            });
        }
    }
}
