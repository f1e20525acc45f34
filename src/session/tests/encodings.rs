//! The Protobuf encoding over WebSocket: how it is chosen, and that it means what JSON means.

use super::{
    client, config,
    recorder::{Client, HEAD, masked},
    rules,
};
use crate::session::{Flow, Reason};

/// An upgrade to Protobuf, and a connect command with the id 1.
fn connected() -> Client {
    connected_as(client())
}

fn connected_as(mut client: Client) -> Client {
    let head = HEAD.replace("Host:", "Sec-WebSocket-Protocol: centrifuge-protobuf\r\nHost:");
    assert_eq!(client.send(head.as_bytes()), Flow::Continue);
    let answer = String::from_utf8(std::mem::take(&mut client.shard.output)).expect("a head");
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"));
    let frames = ask(&mut client, &[4, 0x08, 1, 0x22, 0]);
    // id 1, and a connect result.
    assert_eq!(frames[0][1..4], [0x08, 1, 0x2a]);
    client
}

/// A command: its id, the number of its method, and the fields of the request.
fn command(id: u8, method: u8, request: &[u8]) -> Vec<u8> {
    let mut command = vec![0x08, id, method << 3 | 2, request.len() as u8];
    command.extend_from_slice(request);
    [&[command.len() as u8], &command[..]].concat()
}

/// A string or a payload.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, value.len() as u8], value].concat()
}

/// Sends a binary message: the payloads of the frames that come back, which must be binary too.
fn ask(client: &mut Client, message: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(client.send(&masked(0x82, message)), Flow::Continue);
    let output = std::mem::take(&mut client.shard.output);
    let mut rest = &output[..];
    let mut frames = Vec::new();
    while let [0x82, bytes @ 0..=125, behind @ ..] = rest {
        let (frame, behind) = behind.split_at(usize::from(*bytes));
        frames.push(frame.to_vec());
        rest = behind;
    }
    assert!(rest.is_empty(), "frames of another kind: {}", rest.escape_ascii());
    frames
}

/// The code of an error reply to the command 2.
fn error_code(frame: &[u8]) -> u8 {
    // id 2, and an error whose first field is the code.
    assert_eq!((&frame[1..4], frame[5]), (&[0x08, 2, 0x12][..], 0x08), "{frame:?}");
    frame[6]
}

#[test]
fn commands_of_one_frame_are_carried_out_in_order() {
    let mut client = connected();
    let publish = command(3, 7, &[field(1, b"open:a"), field(2, b"{\"a\":\n1}")].concat());
    let batch = [command(2, 5, &field(1, b"open:a")), publish, command(4, 6, &field(1, b"open:a"))].concat();
    let frames = ask(&mut client, &batch);
    assert_eq!(frames, [[4, 0x08, 2, 0x32, 0], [4, 0x08, 3, 0x42, 0], [4, 0x08, 4, 0x3a, 0]]);
    let calls: Vec<_> = client.shard.calls.iter().map(|call| call.as_str()).collect();
    assert!(calls[1].starts_with("subscribe open:a"), "{calls:?}");
    assert_eq!(calls[2..], [r#"publish open:a {\"a\":1}"#, "unsubscribe open:a"]);
}

#[test]
fn payloads_must_be_json_where_the_namespace_says_so() {
    let mut client = connected();
    for data in [&b"\xff"[..], b"{", b""] {
        let frames = ask(&mut client, &command(2, 7, &[field(1, b"open:a"), field(2, data)].concat()));
        assert_eq!((frames.len(), error_code(&frames[0])), (1, 107), "{}", data.escape_ascii());
    }
    assert!(ask(&mut client, &command(2, 7, &[field(1, b"blobs:a"), field(2, b"\xff\n")].concat()))[0].ends_with(&[0]));
    assert_eq!(client.shard.calls.last().map(String::as_str), Some(r"publish blobs:a \xff\n"));
    let frames = ask(&mut client, &command(2, 7, &field(1, b"blobs:a")));
    assert_eq!(error_code(&frames[0]), 107);
}

#[test]
fn a_server_without_rules_passes_any_bytes_on() {
    let mut config = config();
    config.client.insecure = true;
    let mut client = connected_as(Client::new(rules(config)));
    for (data, published) in [(&b"boom"[..], "publish open:a boom"), (b"{\n}", "publish open:a {}")] {
        let frames = ask(&mut client, &command(2, 7, &[field(1, b"open:a"), field(2, data)].concat()));
        assert_eq!(frames, [[4, 0x08, 2, 0x42, 0]]);
        assert_eq!(client.shard.calls.last().map(String::as_str), Some(published));
    }
}

#[test]
fn pings_and_pongs_are_one_zero_byte() {
    let mut client = connected();
    client.ping();
    assert_eq!(client.shard.output, [0x82, 1, 0]);
    client.shard.output.clear();
    assert!(ask(&mut client, &[0]).is_empty());
    assert!(!client.session.awaiting_pong());
    assert_eq!(client.send(&masked(0x82, &[0])), Flow::Closing, "one pong for a ping");
    assert_eq!(client.frames(), ["close 3501 bad request"]);
}

#[test]
fn text_frames_are_read_as_well() {
    let mut client = connected();
    assert_eq!(client.send(&masked(0x81, &command(2, 6, &field(1, b"open:a")))), Flow::Continue);
    assert_eq!(client.shard.output, [0x82, 5, 4, 0x08, 2, 0x3a, 0]);
}

#[test]
fn what_is_no_command_ends_the_conversation_behind_the_commands_before_it() {
    for wrong in [&b"{}"[..], &[], &[0x80], &[5, 0x08], &[2, 0x08, 0x80], &[3, 0x0a, 1, b'1']] {
        let mut client = connected();
        let before = if wrong.is_empty() { Vec::new() } else { command(2, 6, &field(1, b"open:a")) };
        assert_eq!(client.send(&masked(0x82, &[&before, wrong].concat())), Flow::Closing, "{wrong:?}");
        let done = if wrong.is_empty() { &[][..] } else { &[0x82, 5, 4, 0x08, 2, 0x3a, 0] };
        assert!(client.shard.output.starts_with(done), "{wrong:?}: {:?}", client.shard.output);
        client.shard.output.drain(..done.len());
        assert_eq!(client.frames(), ["close 3501 bad request"], "{wrong:?}");
        assert_eq!(client.shard.counted, [Reason::CommandMalformed], "{wrong:?}");
    }
}
