//! The operators' port and the server API's: a bounded number of connections, none of them idle for long.
//!
//! Owns also those that shards hand over from the clients' port.
//!
//! Descriptors are what a push server runs out of; this port must take few, and a forgotten or
//! malicious peer must not keep the last one from the operator.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::transport::Transport;
use crate::{limits::ADMIN_IDLE_MS_MAX, mesh::ApiConnection, tls::Port};

const IDLE_TIME_MAX: Duration = Duration::from_millis(ADMIN_IDLE_MS_MAX);

/// Accepts as long as there is room.
pub struct BoundedListener {
    listener: TcpListener,
    room: Arc<Semaphore>,
    /// If it speaks TLS.
    tls: Option<Arc<Port>>,
}

impl BoundedListener {
    /// Of a listener that is bound already, with room for so many connections. Must be called within the runtime.
    ///
    /// # Errors
    /// When the listener cannot be polled.
    pub fn new(listener: std::net::TcpListener, connections_max: usize, tls: Option<Arc<Port>>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let room = Arc::new(Semaphore::new(connections_max));
        Ok(Self { listener: TcpListener::from_std(listener)?, room, tls })
    }
}

/// Takes connections that shards hand over, as long as there is room.
pub struct HandedListener {
    handed: mpsc::Receiver<ApiConnection>,
    room: Arc<Semaphore>,
    /// The port that they came to.
    listen: SocketAddr,
}

impl HandedListener {
    /// With room for so many connections.
    pub fn new(handed: mpsc::Receiver<ApiConnection>, connections_max: usize, listen: SocketAddr) -> Self {
        Self { handed, room: Arc::new(Semaphore::new(connections_max)), listen }
    }
}

impl Listener for HandedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permit = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            let Some(ApiConnection { socket, received }) = self.handed.recv().await else {
                // The control loop has ended, and the process is about to.
                return std::future::pending().await;
            };
            let stream = std::net::TcpStream::from(socket);
            // What fails on a socket fails because the peer is gone.
            let peer = stream.peer_addr();
            if let (Ok(peer), Ok(())) = (peer, stream.set_nonblocking(true))
                && let Ok(stream) = TcpStream::from_std(stream)
            {
                return (BoundedStream::new(stream, None, received.into(), permit), peer);
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.listen)
    }
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permit = Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed");
        // axum's own accept: it waits a second and tries again when descriptors have run out.
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (BoundedStream::new(stream, self.tls.as_ref(), Bytes::new(), permit), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// The address at the other end, as handlers may ask for it.
#[derive(Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, HandedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, HandedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection that fails its read when it has been idle for too long, or shakes hands for as long.
pub struct BoundedStream {
    stream: Transport,
    /// What had arrived before it was ours.
    received: Bytes,
    idle: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl BoundedStream {
    fn new(stream: TcpStream, tls: Option<&Arc<Port>>, received: Bytes, permit: OwnedSemaphorePermit) -> Self {
        // It fails only on a socket that is gone already, which the first read will tell.
        let _ = stream.set_nodelay(true);
        let stream = Transport::new(stream, tls);
        Self { stream, received, idle: Box::pin(sleep(IDLE_TIME_MAX)), _permit: permit }
    }

    fn touch(&mut self) {
        self.idle.set(sleep_until(Instant::now() + IDLE_TIME_MAX));
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let taken = self.received.len().min(buffer.remaining());
            buffer.put_slice(&self.received.split_to(taken));
            return Poll::Ready(Ok(()));
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                self.touch();
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.idle.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        self.touch();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        self.touch();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
