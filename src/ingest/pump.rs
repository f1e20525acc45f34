//! The task that owns the inbound queues: it hands shards' answers to producers, and frees what full queues held back.

use std::{
    cell::RefCell,
    io,
    os::unix::net::UnixStream as StdUnixStream,
    rc::Rc,
    time::{Duration, Instant},
};

use monoio::{io::Canceller, net::UnixStream};

use super::{
    signal::{Signal, yield_now},
    state::IngestState,
};
use crate::{limits::INGEST_RETRY_MS, mesh::Bell};

/// What the pump ends when the server stops: [`super::connection::Stops`] are its handles.
pub(super) struct Cancellers {
    pub(super) inputs: Canceller,
    pub(super) outputs: Canceller,
}

/// Runs until [`crate::mesh::ToIngest::Shutdown`] has come, every producer has its replies or
/// a part of `shutdown.timeout` has passed, and the control thread has been told.
pub(super) async fn run(state: Rc<RefCell<IngestState>>, rung: Rc<Signal>, cancellers: Cancellers) {
    while !state.borrow().is_stopping() {
        turn(&state, &rung).await;
    }
    cancellers.inputs.cancel();
    state.borrow().wake_all();
    // A stop leaves most of its time to the clients: the control thread waits a fifth of it for this thread.
    let stop_ms_max = u64::from(state.borrow().config.shutdown.ms_max) / 10;
    let gives_up_at = Instant::now() + Duration::from_millis(stop_ms_max);
    while state.borrow().connections() > 0 && Instant::now() < gives_up_at {
        turn(&state, &rung).await;
    }
    cancellers.outputs.cancel();
    state.borrow_mut().give_up();
    let ends_at = Instant::now() + Duration::from_millis(CLOSE_MS_MAX);
    while state.borrow().connections() > 0 && Instant::now() < ends_at {
        turn(&state, &rung).await;
    }
    state.borrow_mut().say_stopped();
    while !state.borrow().is_flushed() && Instant::now() < ends_at {
        turn(&state, &rung).await;
    }
}

/// For sockets to close whose replies were given up; nothing keeps them from it.
const CLOSE_MS_MAX: u64 = 100;

/// Takes and sends what there is, then lets others have their turn, or sleeps if there is nothing.
async fn turn(state: &RefCell<IngestState>, rung: &Signal) {
    let has_drained = state.borrow_mut().drain();
    state.borrow_mut().flush();
    if has_drained {
        yield_now().await;
    } else {
        sleep(state, rung).await;
    }
}

/// Waits for the bell; where time plays a part, not for long.
async fn sleep(state: &RefCell<IngestState>, rung: &Signal) {
    if !state.borrow().begin_sleep() {
        return;
    }
    let must_look_again = state.borrow().is_stopping() || !state.borrow().is_flushed();
    if must_look_again {
        // Only whether it has ended matters: the caller looks at everything again.
        let _ = monoio::time::timeout(Duration::from_millis(INGEST_RETRY_MS), rung.wait()).await;
    } else {
        rung.wait().await;
    }
    state.borrow().end_sleep();
}

/// The bell, as this thread's ring can wait for it.
pub(super) struct BellStream {
    bell: std::sync::Arc<Bell>,
    stream: UnixStream,
}

impl BellStream {
    /// A second descriptor of the bell's eventfd. It is a socket by type only: nothing but readiness is asked of it.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub(super) fn new(bell: std::sync::Arc<Bell>) -> io::Result<Self> {
        let descriptor = bell.event().try_clone_to_owned()?;
        let stream = UnixStream::from_std(StdUnixStream::from(descriptor))?;
        Ok(Self { bell, stream })
    }

    /// Raises `rung` whenever the bell rings.
    pub(super) async fn run(self, rung: Rc<Signal>) {
        loop {
            if let Err(error) = self.stream.readable(false).await {
                tracing::error!(%error, "cannot wait for the shards' bell; looking every millisecond instead");
                monoio::time::sleep(Duration::from_millis(INGEST_RETRY_MS)).await;
            }
            self.bell.clear();
            rung.raise();
        }
    }
}
