//! A producer that says exactly what a test wants it to: RESP by hand.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use super::{PATIENCE, server::Server};

/// What a producer is told, RESP2 or RESP3.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`
    Status(String),
    /// `-ERR ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`, `=3`
    Bulk(String),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*2`
    Array(Vec<Reply>),
    /// `%2`
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// The number; anything else fails the test.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(integer) => *integer,
            other => panic!("not a number: {other:?}"),
        }
    }

    /// The error's text; anything else fails the test.
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("not an error: {other:?}"),
        }
    }
}

/// One producer over TCP or a Unix socket.
pub struct Producer {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: Box<dyn Write + Send>,
}

impl Producer {
    /// Connects over TCP.
    pub fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.ingest_address()).expect("the ingest port accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("the option can be set");
        Self::over(stream.try_clone().expect("a descriptor can be doubled"), stream)
    }

    /// Connects over the Unix socket.
    pub fn connect_unix(server: &Server) -> Self {
        let stream = UnixStream::connect(server.ingest_socket()).expect("the ingest socket accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        Self::over(stream.try_clone().expect("a descriptor can be doubled"), stream)
    }

    fn over(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        Self { reader: BufReader::new(Box::new(reader)), writer: Box::new(writer) }
    }

    /// Sends a command and waits for its reply.
    pub fn command<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        self.write(&encode(arguments));
        self.reply()
    }

    /// Publishes; returns the number of subscribers.
    pub fn publish(&mut self, channel: &str, payload: &str) -> i64 {
        self.command(&["PUBLISH", channel, payload]).integer()
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).expect("the server reads");
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply {
        read_reply(&mut self.reader).expect("a reply comes")
    }

    /// What comes until the server ends the connection.
    pub fn until_end(&mut self) -> String {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => {}
            // A server that does not read all that it was sent may reset the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the server did not end the connection: {error}"),
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(arguments: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn read_reply(reader: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| io::Error::other("an empty line"))?;
    let number = || rest.parse::<i64>().map_err(|_| io::Error::other(format!("no number: {line:?}")));
    Ok(match kind {
        "+" => Reply::Status(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Integer(number()?),
        "_" => Reply::Null,
        "$" | "=" | "*" if number()? < 0 => Reply::Null,
        "$" | "=" => Reply::Bulk(read_bulk(reader, number()? as usize)?),
        "*" => Reply::Array((0..number()?).map(|_| read_reply(reader)).collect::<io::Result<_>>()?),
        "%" => Reply::Map(
            (0..number()?).map(|_| Ok((read_reply(reader)?, read_reply(reader)?))).collect::<io::Result<_>>()?,
        ),
        _ => return Err(io::Error::other(format!("not RESP: {line:?}"))),
    })
}

fn read_bulk(reader: &mut impl BufRead, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length + b"\r\n".len()];
    reader.read_exact(&mut bytes)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(io::Error::other)
}
