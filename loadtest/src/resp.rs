//! What a producer says at the ingest port: RESP commands out, replies in. Sans-IO.

use anyhow::{Result, bail};

/// Appends a command as an array of bulk strings.
pub fn push_command(buffer: &mut Vec<u8>, arguments: &[&[u8]]) {
    push_number(buffer, b'*', arguments.len());
    for argument in arguments {
        push_number(buffer, b'$', argument.len());
        buffer.extend_from_slice(argument);
        buffer.extend_from_slice(b"\r\n");
    }
}

fn push_number(buffer: &mut Vec<u8>, kind: u8, number: usize) {
    buffer.push(kind);
    buffer.extend_from_slice(number.to_string().as_bytes());
    buffer.extend_from_slice(b"\r\n");
}

/// Reads replies as they come in.
#[derive(Debug, Default)]
pub struct ReplyReader {
    partial: Vec<u8>,
}

impl ReplyReader {
    /// Takes received bytes; the number of replies that are complete.
    ///
    /// # Errors
    /// If a reply is an error, or not RESP.
    pub fn read(&mut self, received: &[u8]) -> Result<u64> {
        self.partial.extend_from_slice(received);
        let mut used = 0;
        let mut replies = 0;
        while let Some(length) = reply_bytes(&self.partial[used..])? {
            used += length;
            replies += 1;
        }
        self.partial.drain(..used);
        Ok(replies)
    }
}

/// Bytes of the reply at the beginning, once it is complete.
fn reply_bytes(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else { return Ok(None) };
    let line = String::from_utf8_lossy(&bytes[1..end.max(1)]);
    let head = end + 2;
    match bytes[0] {
        b'+' | b':' | b'_' | b'#' | b',' => Ok(Some(head)),
        b'-' => bail!("the server refuses: {line}"),
        b'$' | b'=' => match line.parse::<i64>() {
            Ok(-1) => Ok(Some(head)),
            Ok(length @ 0..) => {
                let whole = head + length as usize + 2;
                Ok((bytes.len() >= whole).then_some(whole))
            }
            _ => bail!("not a bulk string's length: {line:?}"),
        },
        b'*' | b'~' => array_bytes(bytes, head, line.parse()?),
        b'%' => array_bytes(bytes, head, line.parse::<i64>()? * 2),
        other => bail!("not a RESP reply: it begins with {:?}", char::from(other)),
    }
}

fn array_bytes(bytes: &[u8], head: usize, elements: i64) -> Result<Option<usize>> {
    let mut used = head;
    for _ in 0..elements.max(0) {
        match bytes.get(used..).filter(|rest| !rest.is_empty()).map(reply_bytes).transpose()?.flatten() {
            Some(length) => used += length,
            None => return Ok(None),
        }
    }
    Ok(Some(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut buffer = Vec::new();
        push_command(&mut buffer, &[b"PUBLISH", b"c", b"{\"a\":1}"]);
        assert_eq!(buffer, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$7\r\n{\"a\":1}\r\n");
    }

    #[test]
    fn replies_of_every_form_are_counted_wherever_they_are_cut() {
        let replies = b":12\r\n+OK\r\n$5\r\nhello\r\n$-1\r\n*2\r\n:1\r\n$1\r\nx\r\n%1\r\n+a\r\n:1\r\n_\r\n";
        assert_eq!(ReplyReader::default().read(replies).unwrap(), 7);
        for cut in 0..replies.len() {
            let mut reader = ReplyReader::default();
            let count = reader.read(&replies[..cut]).unwrap() + reader.read(&replies[cut..]).unwrap();
            assert_eq!(count, 7, "cut at {cut}");
        }
    }

    #[test]
    fn refusals_and_garbage_are_errors() {
        for bad in [b"-ERR unknown channel\r\n".as_slice(), b"HTTP/1.1 400\r\n", b"$x\r\n", b"*x\r\n", b"$-7\r\n"] {
            assert!(ReplyReader::default().read(bad).is_err(), "{bad:?}");
        }
        let refusal = ReplyReader::default().read(b"-ERR no\r\n").unwrap_err().to_string();
        assert_eq!(refusal, "the server refuses: ERR no");
    }
}
