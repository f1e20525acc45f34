//! What lies between a socket of the operators' port, or of the server API's, and HTTP: nothing, or TLS.
//!
//! The handshake is part of the first read, so that whoever accepts waits for nobody; whoever reads bounds its time.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor, server::TlsStream};

use crate::tls::Port;

/// First byte of a TLS handshake's record (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;

/// Bytes that a peer has said in plain text and that are taken in before it is answered.
const PLAIN_BYTES_MAX: usize = 4096;

/// A connection, as HTTP reads and writes it.
pub(super) enum Transport {
    /// Without TLS.
    Plain(TcpStream),
    /// Nothing has arrived yet on a port that speaks TLS.
    Fresh(TcpStream, Arc<Port>),
    /// The handshake is under way.
    Handshake(Box<Accept<TcpStream>>),
    /// It is over.
    Sealed(Box<TlsStream<TcpStream>>),
    /// There will be none.
    Refused,
}

impl Transport {
    /// A connection that was just accepted, on a port that speaks TLS or does not.
    pub(super) fn new(stream: TcpStream, tls: Option<&Arc<Port>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(port) => Self::Fresh(stream, Arc::clone(port)),
        }
    }

    /// Goes on with the handshake, if there is one that is not over.
    fn poll_established(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Plain(_) | Self::Sealed(_) => return Poll::Ready(Ok(())),
                Self::Fresh(stream, port) => {
                    let mut first = [0];
                    let arrived = ready!(stream.poll_peek(context, &mut ReadBuf::new(&mut first)))?;
                    let (is_tls, answer) = (first == [HANDSHAKE], port.plain_answer());
                    let acceptor = TlsAcceptor::from(port.server_config());
                    if let Self::Fresh(stream, _) = std::mem::replace(self, Self::Refused) {
                        match is_tls {
                            true => *self = Self::Handshake(Box::new(acceptor.accept(stream))),
                            false if arrived > 0 => refuse_plain(&stream, answer),
                            false => {}
                        }
                    }
                }
                Self::Handshake(handshake) => {
                    let outcome = ready!(Pin::new(&mut **handshake).poll(context));
                    *self = Self::Refused;
                    *self = Self::Sealed(Box::new(outcome?));
                }
                Self::Refused => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "TLS is not spoken")));
                }
            }
        }
    }
}

/// Tells a peer that does not speak TLS, in the protocol that it may speak. If it does not take it, it goes without.
fn refuse_plain(stream: &TcpStream, answer: &str) {
    // What has been read is no reason for the kernel to reset the connection before the answer arrives.
    let _ = stream.try_read(&mut [0; PLAIN_BYTES_MAX]);
    let _ = stream.try_write(answer.as_bytes());
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_established(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Sealed(stream) => Pin::new(stream).poll_read(context, buffer),
            _ => Poll::Pending,
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_established(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Sealed(stream) => Pin::new(stream).poll_write(context, bytes),
            _ => Poll::Pending,
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_established(context))?;
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Sealed(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            _ => Poll::Pending,
        }
    }

    fn is_write_vectored(&self) -> bool {
        // Both kinds of stream can.
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Sealed(stream) => Pin::new(stream).poll_flush(context),
            // Nothing was written.
            Self::Fresh(..) | Self::Handshake(_) | Self::Refused => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) | Self::Fresh(stream, _) => Pin::new(stream).poll_shutdown(context),
            Self::Sealed(stream) => Pin::new(stream).poll_shutdown(context),
            // Its socket closes with it.
            Self::Handshake(_) | Self::Refused => Poll::Ready(Ok(())),
        }
    }
}
