//! Commands as the official SDKs write them, and publications as they are told of them.

use tidegate::protocol::{Encoding, PublicationView, Push, Shape};

/// What clients say, by name.
pub const COMMANDS: [(&str, &[u8]); 4] = [
    ("pong", b"{}"),
    (
        "connect",
        br#"{"id":1,"connect":{"token":"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiI0MiIsImV4cCI6MTgwMDAwMDAwMH0.Zm9yIGEgYmVuY2htYXJrIG9ubHksIG5vdCBhIHNpZ25hdHVyZQ","name":"js"}}"#,
    ),
    (
        "subscribe",
        br#"{"id":2,"subscribe":{"channel":"news:europe","recover":true,"epoch":"lhAHFFqz","offset":4711,"flag":1}}"#,
    ),
    ("publish", br#"{"id":3,"publish":{"channel":"chat:lobby","data":{"input":"Good evening, everybody","at":1700000000}}}"#),
];

/// Decodes the commands of one message: the sum of their ids.
pub fn decode_all(message: &[u8]) -> u64 {
    Encoding::Json.decode(message).map(|command| u64::from(command.expect("the commands are well-formed").id)).sum()
}

/// Encodes into a buffer that was used before: the length.
pub fn encode(out: &mut Vec<u8>, encoding: Encoding, channel: &str, publication: PublicationView<'_>) -> usize {
    out.clear();
    encoding.write_push(Shape::Bidirectional, out, channel, &Push::Publication(publication));
    out.len()
}
