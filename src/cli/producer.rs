//! A producer: a blocking client of the ingest port, for one command at a time.
//!
//! Owns the encoding of commands and the reading of replies (RESP2). Invariant: a reply is read
//! within bounds, whoever answers: the address may be anybody's.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;

use super::security::{self, Stream};

/// Time for a connection to be made, and for each reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest line of a reply, in bytes.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Longest string in a reply, in bytes.
const BULK_BYTES_MAX: usize = 1024 * 1024;

/// Most items of a list in a reply.
const ITEMS_MAX: usize = 1024;

/// Where the ingest port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// Host and port.
    Tcp(String),
    /// Path of the Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Tcp(address) => write!(formatter, "{address}"),
            Target::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+OK`.
    Simple(String),
    /// `-ERR ...`, with its code.
    Error(String),
    /// `:12`.
    Integer(i64),
    /// `$5`; none: nil.
    Bulk(Option<Vec<u8>>),
    /// `*2`.
    List(Vec<Reply>),
}

impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Simple(text) | Reply::Error(text) => write!(formatter, "{text}"),
            Reply::Integer(value) => write!(formatter, "{value}"),
            Reply::Bulk(Some(bytes)) => write!(formatter, "{}", String::from_utf8_lossy(bytes)),
            Reply::Bulk(None) => write!(formatter, "nil"),
            Reply::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let separator = if index > 0 { " " } else { "" };
                    write!(formatter, "{separator}{item}")?;
                }
                Ok(())
            }
        }
    }
}

/// A connection to the ingest port.
pub(super) struct Producer {
    stream: BufReader<Box<dyn Stream>>,
}

impl Producer {
    /// Connects; `security`: by which TLS is spoken on TCP.
    ///
    /// # Errors
    /// What the kernel says, or `TimedOut`; `InvalidData` if the server is not to be trusted.
    pub(super) fn connect(target: &Target, security: Option<&Arc<ClientConfig>>) -> io::Result<Producer> {
        let stream: Box<dyn Stream> = match target {
            Target::Tcp(address) => {
                let stream = connect_tcp(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                match security {
                    None => Box::new(stream),
                    Some(config) => Box::new(security::secure(stream, address, config)?),
                }
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(Producer { stream: BufReader::new(stream) })
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// What the kernel says; `UnexpectedEof` if the server hangs up; `InvalidData` if what answers is no such server.
    pub(super) fn command(&mut self, arguments: &[&[u8]]) -> io::Result<Reply> {
        let sent = self.stream.get_mut().write_all(&encode(arguments));
        match read_reply(&mut self.stream) {
            // A server that refuses a command unread answers, hangs up, and leaves us with a failed write.
            Ok(reply) => Ok(reply),
            Err(error) => Err(sent.err().unwrap_or(error)),
        }
    }
}

/// Connects to the first address of a host and port that can be had.
pub(super) fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in address.to_socket_addrs()? {
        outcome = TcpStream::connect_timeout(&address, PATIENCE);
        if outcome.is_ok() {
            break;
        }
    }
    let stream = outcome?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn encode(arguments: &[&[u8]]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
    command
}

fn read_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    let (kind, text) = read_line(stream)?;
    match kind {
        b'*' => {
            let items = parse_length(&text, ITEMS_MAX)?.unwrap_or(0);
            (0..items).map(|_| read_flat_reply(stream)).collect::<io::Result<_>>().map(Reply::List)
        }
        _ => read_value(stream, kind, text),
    }
}

/// An item of a list. None of the server's replies to a command of ours holds a list in a list.
fn read_flat_reply(stream: &mut impl BufRead) -> io::Result<Reply> {
    let (kind, text) = read_line(stream)?;
    read_value(stream, kind, text)
}

fn read_value(stream: &mut impl BufRead, kind: u8, text: String) -> io::Result<Reply> {
    match kind {
        b'+' => Ok(Reply::Simple(text)),
        b'-' => Ok(Reply::Error(text)),
        b':' => text.parse().map(Reply::Integer).map_err(|_| foreign()),
        b'$' => match parse_length(&text, BULK_BYTES_MAX)? {
            None => Ok(Reply::Bulk(None)),
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                stream.read_exact(&mut bytes)?;
                if !bytes.ends_with(b"\r\n") {
                    return Err(foreign());
                }
                bytes.truncate(length);
                Ok(Reply::Bulk(Some(bytes)))
            }
        },
        _ => Err(foreign()),
    }
}

/// The first byte of a line, and the rest without its end.
fn read_line(stream: &mut impl BufRead) -> io::Result<(u8, String)> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.strip_suffix(b"\r\n").ok_or_else(foreign)?;
    let (kind, text) = line.split_first().ok_or_else(foreign)?;
    Ok((*kind, String::from_utf8_lossy(text).into_owned()))
}

/// A length; none for -1, which stands for nil.
fn parse_length(text: &str, length_max: usize) -> io::Result<Option<usize>> {
    match text {
        "-1" => Ok(None),
        text => text.parse().ok().filter(|length| *length <= length_max).map(Some).ok_or_else(foreign),
    }
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what answers there does not speak the Redis protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<Reply> {
        let reply = read_reply(&mut bytes)?;
        assert_eq!(bytes, b"", "a reply is read to its end and no further");
        Ok(reply)
    }

    #[test]
    fn commands_are_lists_of_strings() {
        assert_eq!(encode(&[b"PUBLISH", b"a:b", b"{}\r\n"]), b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na:b\r\n$4\r\n{}\r\n\r\n");
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        let reply = |bytes: &[u8]| read(bytes).expect("a reply");
        assert_eq!(reply(b"+OK\r\n"), Reply::Simple("OK".to_owned()));
        assert_eq!(reply(b"-ERR no\r\n"), Reply::Error("ERR no".to_owned()));
        assert_eq!(reply(b":12\r\n"), Reply::Integer(12));
        assert_eq!(reply(b"$-1\r\n"), Reply::Bulk(None));
        assert_eq!(reply(b"$2\r\n\r\n\r\n"), Reply::Bulk(Some(b"\r\n".to_vec())));
        assert_eq!(
            reply(b"*2\r\n:7\r\n$4\r\nAbCd\r\n"),
            Reply::List(vec![Reply::Integer(7), Reply::Bulk(Some(b"AbCd".to_vec()))])
        );
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*99999999\r\n",
            b"$2\r\nabcd",
            b"*1\r\n*1\r\n",
        ] {
            let error = read(bytes).expect_err("no reply");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{}", String::from_utf8_lossy(bytes));
        }
        for bytes in [&b""[..], b"$5\r\nab", b"*2\r\n:1\r\n"] {
            let error = read(bytes).expect_err("half a reply");
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{}", String::from_utf8_lossy(bytes));
        }
        let endless = vec![b'+'; 2 * LINE_BYTES_MAX as usize];
        assert_eq!(read(&endless).expect_err("too long").kind(), io::ErrorKind::InvalidData);
    }
}
