//! What holds for any bytes and any cut of them.

use proptest::prelude::*;

use super::{
    client,
    recorder::{Client, HEAD, masked},
};
use crate::session::{Flow, Reason};

/// Everything that the outside can see of a conversation.
#[derive(Debug, PartialEq)]
struct Seen {
    output: Vec<u8>,
    calls: Vec<String>,
    counted: Vec<Reason>,
    end: Option<Flow>,
}

/// Sends pieces one after the other; pauses end at once. A shard receives nothing after [`Flow::Drop`] and [`Flow::HandOver`].
fn converse<'a>(mut client: Client, pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut end = None;
    for piece in pieces {
        let mut flow = client.send(piece);
        while flow == Flow::Paused {
            flow = if client.session.is_connected() { client.resume() } else { client.complete_connect() };
        }
        match flow {
            Flow::Drop | Flow::HandOver => {
                end = Some(flow);
                break;
            }
            Flow::Closing | Flow::Lingering => {
                assert_eq!(end.replace(flow), None, "an end is said once");
            }
            Flow::Continue | Flow::Answered | Flow::Paused | Flow::AwaitingKeys => {}
        }
    }
    Seen { output: client.shard.output, calls: client.shard.calls, counted: client.shard.counted, end }
}

fn line() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        r#"{"id":1,"connect":{}}"#,
        r#"{"id":2,"subscribe":{"channel":"open:a"}}"#,
        r#"{"id":3,"subscribe":{"channel":"closed:a"}}"#,
        r#"{"id":4,"publish":{"channel":"open:\u0061","data":{"a": [1,  "ü"]}}}"#,
        r#"{"id":5,"unsubscribe":{"channel":"open:a"}}"#,
        r#"{"id":6,"history":{"channel":"hh:a","limit":3}}"#,
        r#"{"id":7,"rpc":{}}"#,
        r#"{"id":8,"dance":{}}"#,
        r#"{"send":{}}"#,
        "{}",
        "",
        "?",
    ])
}

/// A frame, or some, that a client could send; most are right.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let message = || prop::collection::vec(line(), 1..4).prop_map(|lines| lines.join("\n").into_bytes());
    prop_oneof![
        6 => message().prop_map(|message| masked(0x81, &message)),
        1 => message().prop_map(|message| masked(0x82, &message)),
        2 => (message(), any::<prop::sample::Index>()).prop_map(|(message, at)| {
            let (first, second) = message.split_at(at.index(message.len() + 1));
            [masked(0x01, first), masked(0x89, b"between"), masked(0x80, second)].concat()
        }),
        1 => Just(masked(0x8a, b"")),
        1 => Just(masked(0x88, b"\x03\xe8")),
        1 => any::<[u8; 3]>().prop_map(|bytes| bytes.to_vec()),
    ]
}

/// A conversation's bytes: usually a head, a connect command, and what may follow.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(frames(), 0..6).prop_map(|frames| {
        let connect = masked(0x81, br#"{"id":1,"connect":{"subs":{"open:s":{}}}}"#);
        [HEAD.as_bytes(), &connect, &frames.concat()].concat()
    })
}

proptest! {
    #[test]
    fn any_cut_of_the_same_bytes_has_the_same_effects(
        bytes in conversation(),
        piece_bytes in 1_usize..40,
        connect_pauses: bool,
        publish_pauses: bool,
    ) {
        let client = || {
            let mut client = client();
            client.shard.connect_pauses = connect_pauses;
            client.shard.publish_pauses = publish_pauses;
            client
        };
        let whole = converse(client(), std::iter::once(&bytes[..]));
        let mut cut = converse(client(), bytes.chunks(piece_bytes));
        // Whole, an end and the peer's answer to it are one flow.
        if whole.end != cut.end && whole.end == Some(Flow::Drop) {
            cut.end = Some(Flow::Drop);
        }
        prop_assert_eq!(whole, cut);
    }

    #[test]
    fn any_head_is_answered_or_awaited(bytes: Vec<u8>, piece_bytes in 1_usize..40) {
        let whole = converse(client(), std::iter::once(&bytes[..]));
        let cut = converse(client(), bytes.chunks(piece_bytes));
        prop_assert_eq!(whole.counted, cut.counted);
    }

    #[test]
    fn any_bytes_after_the_upgrade_are_answered_or_awaited(bytes: Vec<u8>) {
        let mut client = client();
        client.upgrade();
        let seen = converse(client, std::iter::once(&bytes[..]));
        prop_assert!(seen.end.is_some() || seen.counted.is_empty());
    }

    #[test]
    fn any_message_is_answered_or_ends_the_connection(message: Vec<u8>) {
        let mut client = client();
        client.connect();
        let flow = client.send(&masked(0x82, &message));
        prop_assert!(flow == Flow::Closing || !client.shard.counted.is_empty() || message.is_empty());
        client.frames();
    }

    #[test]
    fn any_line_with_a_right_frame_around_it_keeps_the_frames_whole(line in "\\PC*") {
        let mut client = client();
        client.connect();
        let publish = serde_json::json!({"id": 2, "publish": {"channel": format!("open:{line}"), "data": line}});
        let _ = client.say(&publish.to_string());
        prop_assert_eq!(client.frames().len(), 1);
    }
}
