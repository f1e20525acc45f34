//! An operator: a blocking client of the operators' port, one request per connection.
//!
//! Invariant: an answer is read within bounds of time and size, whoever gives it: the address may be anybody's.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;

use super::{
    Failure,
    publish::reachable,
    security::{self, Trust},
};
use crate::{config::AdminConfig, control::COMMAND_HEADER};

/// Time for a connection to be made, and for each part of an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer, in bytes: `/health` has a line for each shard.
const ANSWER_BYTES_MAX: u64 = 256 * 1024;

/// Fields of an answer's head that are read at most.
const FIELDS_MAX: usize = 32;

/// What the server answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An operators' port.
pub(super) struct Door {
    /// Host and port.
    pub(super) address: String,
    /// If it speaks TLS.
    security: Option<Arc<ClientConfig>>,
}

impl Door {
    /// The configuration's port, or that at another address; it speaks TLS if the configuration's does.
    ///
    /// # Errors
    /// When the configuration's certificates cannot be read.
    pub(super) fn new(address: Option<String>, config: &AdminConfig) -> Result<Door, Failure> {
        let security = Trust::configured(&config.tls).map(|trust| trust.client_config()).transpose()?;
        Ok(Door { address: address.unwrap_or_else(|| reachable(config.listen).to_string()), security })
    }

    /// Asks for a path with a method and further fields of the head, each with its end of line.
    ///
    /// # Errors
    /// When nobody answers there, or nobody that speaks HTTP, or not the server of the configuration (`InvalidData`).
    pub(super) fn ask(&self, method: &str, path: &str, fields: &str) -> io::Result<Answer> {
        let stream = connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The address that was found, since not every name is answered for.
        let host = stream.peer_addr()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let bytes = match &self.security {
            None => exchange(stream, &head)?,
            Some(config) => exchange(security::secure(stream, &self.address, config)?, &head)?,
        };
        parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its answer is no HTTP"))
    }
}

/// Fields of the head of a command's request: its name, and the password if there is one.
///
/// # Errors
/// When the password has a line's end.
pub(super) fn command_fields(name: &str, password: Option<&str>) -> Result<String, Failure> {
    let mut fields = format!("{COMMAND_HEADER}: {name}\r\n");
    if let Some(password) = password {
        if password.contains(['\r', '\n']) {
            return Err(Failure::Usage("the password has a line's end, which none can have".to_owned()));
        }
        fields.push_str(&format!("Authorization: Bearer {password}\r\n"));
    }
    Ok(fields)
}

/// Says something, and hears all that is answered.
fn exchange(mut stream: impl Read + Write, said: &str) -> io::Result<Vec<u8>> {
    stream.write_all(said.as_bytes())?;
    let mut bytes = Vec::new();
    match stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes) {
        // A server that ends does not always say so under TLS; whether the answer is whole, it shows itself.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(bytes),
        read => read.map(|_| bytes),
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head) = response.parse(bytes).ok()? else { return None };
    let status = response.code?;
    let body = String::from_utf8_lossy(&bytes[head..]).into_owned();
    Some(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_what_is_none_is_refused() {
        let answer = parse(b"HTTP/1.1 202 Accepted\r\nA: b\r\n\r\n{\"c\":1}").unwrap();
        assert_eq!(answer, Answer { status: 202, body: "{\"c\":1}".to_owned() });
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\nA: b\r\n", b"-ERR unknown command\r\n", b"\x00\x01"] {
            assert_eq!(parse(bad), None);
        }
    }
}
