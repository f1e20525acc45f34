//! Commands: what is encoded by others is decoded as it was meant, in both encodings.

use proptest::prelude::*;
use prost::Message;

use super::{reference, strategies};
use crate::protocol::{Command, Commands, Encoding, FilterNode, Malformed, Method, SubscribeRequest};

/// Our command as the reference has it.
fn reference_of(command: &Command<'_>) -> reference::Command {
    let none = reference::Command { id: command.id, ..reference::Command::default() };
    let channel = |channel: &str| Some(reference::ChannelRequest { channel: channel.to_owned() });
    match &command.method {
        Method::None => none,
        Method::Connect(request) => {
            let connect = reference::ConnectRequest {
                token: request.token.to_string(),
                data: owned(request.data),
                subs: request.subs.iter().map(|(name, request)| (name.to_string(), subscribe(request))).collect(),
                name: request.name.to_string(),
                version: request.version.to_string(),
                headers: request.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            };
            reference::Command { connect: Some(connect), ..none }
        }
        Method::Subscribe(request) => reference::Command { subscribe: Some(subscribe(request)), ..none },
        Method::Unsubscribe(request) => reference::Command { unsubscribe: channel(&request.channel), ..none },
        Method::Publish(request) => {
            let publish = reference::PublishRequest {
                channel: request.channel.to_string(),
                data: owned(request.data),
                kind: request.kind,
            };
            reference::Command { publish: Some(publish), ..none }
        }
        Method::Presence(request) => reference::Command { presence: channel(&request.channel), ..none },
        Method::PresenceStats(request) => reference::Command { presence_stats: channel(&request.channel), ..none },
        Method::History(request) => {
            let since = request
                .since
                .as_ref()
                .map(|since| reference::StreamPosition { offset: since.offset, epoch: since.epoch.to_string() });
            let history = reference::HistoryRequest {
                channel: request.channel.to_string(),
                limit: request.limit,
                since,
                reverse: request.reverse,
            };
            reference::Command { history: Some(history), ..none }
        }
        Method::Rpc(request) => {
            let rpc = reference::RpcRequest { data: owned(request.data), method: request.method.to_string() };
            reference::Command { rpc: Some(rpc), ..none }
        }
        Method::Send(request) => {
            reference::Command { send: Some(reference::SendRequest { data: owned(request.data) }), ..none }
        }
        Method::Refresh(request) => {
            let refresh = reference::RefreshRequest { token: request.token.to_string() };
            reference::Command { refresh: Some(refresh), ..none }
        }
        Method::SubRefresh(request) => {
            let sub_refresh = reference::SubRefreshRequest {
                channel: request.channel.to_string(),
                token: request.token.to_string(),
                kind: request.kind,
            };
            reference::Command { sub_refresh: Some(sub_refresh), ..none }
        }
    }
}

fn subscribe(request: &SubscribeRequest<'_>) -> reference::SubscribeRequest {
    reference::SubscribeRequest {
        channel: request.channel.to_string(),
        token: request.token.to_string(),
        recover: request.recover,
        epoch: request.epoch.to_string(),
        offset: request.offset,
        data: owned(request.data),
        positioned: request.positioned,
        recoverable: request.recoverable,
        join_leave: request.join_leave,
        delta: request.delta.to_string(),
        tf: request.tags_filter.as_deref().map(filter),
        flag: request.flag,
        kind: request.kind,
    }
}

fn filter(node: &FilterNode<'_>) -> reference::FilterNode {
    reference::FilterNode {
        op: node.op.to_string(),
        key: node.key.to_string(),
        cmp: node.cmp.to_string(),
        val: node.val.to_string(),
        vals: node.vals.iter().map(ToString::to_string).collect(),
        nodes: node.nodes.iter().map(filter).collect(),
    }
}

/// Whether we have understood what others have. Only the first method is kept, and two entries of a map may have got the
/// same name.
fn means_the_same(ours: &reference::Command, theirs: &reference::Command) -> bool {
    fn same<T: PartialEq>(ours: &Option<T>, theirs: &Option<T>) -> bool {
        ours.is_none() || ours == theirs
    }
    ours.id == theirs.id
        && same(&ours.subscribe, &theirs.subscribe)
        && same(&ours.unsubscribe, &theirs.unsubscribe)
        && same(&ours.publish, &theirs.publish)
        && same(&ours.presence, &theirs.presence)
        && same(&ours.presence_stats, &theirs.presence_stats)
        && same(&ours.history, &theirs.history)
        && same(&ours.rpc, &theirs.rpc)
        && same(&ours.send, &theirs.send)
        && same(&ours.refresh, &theirs.refresh)
        && same(&ours.sub_refresh, &theirs.sub_refresh)
}

fn owned(payload: Option<&[u8]>) -> Vec<u8> {
    payload.unwrap_or_default().to_vec()
}

/// The commands of one message in an encoding that is not ours.
fn encode(encoding: Encoding, commands: &[reference::Command]) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            let lines: Vec<_> =
                commands.iter().map(|command| serde_json::to_string(command).expect("payloads are JSON")).collect();
            lines.join("\n").into_bytes()
        }
        Encoding::Protobuf => commands.iter().flat_map(Message::encode_length_delimited_to_vec).collect(),
    }
}

fn outcomes(message: &[u8]) -> Vec<Result<u32, Malformed>> {
    Encoding::Protobuf.decode(message).map(|command| command.map(|command| command.id)).collect()
}

proptest! {
    #[test]
    fn commands_are_decoded_as_they_were_encoded(commands in prop::collection::vec(strategies::command(), 1..4)) {
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let message = encode(encoding, &commands);
            let decoded: Vec<_> = encoding.decode(&message).map(|command| command.expect("well formed")).collect();
            let decoded: Vec<_> = decoded.iter().map(reference_of).collect();
            prop_assert_eq!(&decoded, &commands, "{:?}", encoding);
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(message: Vec<u8>) {
        let outcomes = outcomes(&message);
        prop_assert!(!outcomes.is_empty());
        prop_assert!(outcomes.iter().rev().skip(1).all(Result::is_ok), "nothing follows a mistake");
    }

    /// Bytes that are a command but for one: what `prost` takes, and takes for the same, so do we.
    #[test]
    fn a_damaged_command_means_what_it_means_to_others(
        command in strategies::command(),
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut message = command.encode_to_vec();
        prop_assume!(!message.is_empty());
        let at = at.index(message.len());
        message[at] = byte;
        let mut delimited = Vec::new();
        prost::encoding::encode_varint(message.len() as u64, &mut delimited);
        delimited.extend_from_slice(&message);
        let ours = Encoding::Protobuf.decode(&delimited).next().expect("a command");
        match (reference::Command::decode(&message[..]), ours) {
            (Ok(theirs), Ok(ours)) => {
                prop_assert!(means_the_same(&reference_of(&ours), &theirs), "{theirs:?}\n{ours:?}");
            }
            (Err(_), Err(Malformed)) => {}
            (theirs, ours) => prop_assert!(false, "{theirs:?}\n{ours:?}"),
        }
    }

    /// The same in JSON. `serde` is stricter about what is unknown, repeated or null; what it takes, so do we.
    #[test]
    fn a_damaged_command_in_json_means_what_it_means_to_others(
        command in strategies::command(),
        at: prop::sample::Index,
        byte in prop_oneof![any::<u8>(), b' '..=b'~'],
    ) {
        let mut line = serde_json::to_vec(&command).expect("payloads are JSON");
        let at = at.index(line.len());
        line[at] = byte;
        let ours = Encoding::Json.decode(&line).next().expect("a command");
        if let Ok(theirs) = serde_json::from_slice::<reference::Command>(&line)
            && byte != b'\n'
        {
            let ours = reference_of(&ours.expect("others take it"));
            prop_assert!(means_the_same(&ours, &theirs), "{theirs:?}\n{ours:?}");
        }
    }

    #[test]
    fn a_message_may_be_interrupted_between_commands(commands in prop::collection::vec(strategies::command(), 1..5)) {
        let message = encode(Encoding::Protobuf, &commands);
        let mut rest = Some(&message[..]);
        let mut ids = Vec::new();
        while let Some(bytes) = rest {
            let mut commands = Commands::from_rest(Encoding::Protobuf, bytes);
            ids.push(commands.next().expect("a command").expect("well formed").id);
            rest = commands.rest();
        }
        prop_assert!(ids.into_iter().eq(commands.iter().map(|command| command.id)));
    }
}

#[test]
fn a_pong_is_one_zero_byte() {
    let commands: Vec<_> = Encoding::Protobuf.decode(&[0, 0]).collect();
    assert_eq!(commands, [Ok(Command { id: 0, method: Method::None }), Ok(Command { id: 0, method: Method::None })]);
}

#[test]
fn mistakes_end_the_message_behind_the_commands_before_them() {
    const ID_3: &[u8] = &[2, 0x08, 3];
    assert_eq!(outcomes(ID_3), [Ok(3)]);
    for (wrong, what) in [
        (&[][..], "no command"),
        (&[0x80], "a length that is cut off"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "a length of 11 bytes"),
        (&[2, 0x08], "a command that is cut off"),
        (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "2^64 - 1 bytes"),
        (&[1, 0x08], "a number that is cut off"),
        (&[2, 0x00, 0x00], "field 0"),
        (&[3, 0x0a, 1, b'1'], "a string for a number"),
        (&[2, 0x22, 5], "a connect request that is cut off"),
        (&[5, 0x2a, 3, 0x0a, 1, 0xff], "a channel that is not UTF-8"),
        (&[4, 0x2a, 2, 0x08, 1], "a number for a string"),
        (&[1, 0x0f], "a type that is none"),
        (&[1, 0x0c], "the end of a group that has not begun"),
    ] {
        assert_eq!(outcomes(wrong), [Err(Malformed)], "{what}");
        if !wrong.is_empty() {
            assert_eq!(outcomes(&[ID_3, wrong].concat()), [Ok(3), Err(Malformed)], "{what}");
        }
    }
}

#[test]
fn unknown_fields_are_passed_over() {
    // id 3, then field 100 as each type: a varint, 8 bytes, a string, a group with a number in it, 4 bytes.
    let mut fields = vec![0x08, 3];
    fields.extend([0xa0, 0x06, 1]);
    fields.extend([0xa1, 0x06, 1, 2, 3, 4, 5, 6, 7, 8]);
    fields.extend([0xa2, 0x06, 2, b'a', b'b']);
    fields.extend([0xa3, 0x06, 0x08, 1, 0xa4, 0x06]);
    fields.extend([0xa5, 0x06, 1, 2, 3, 4]);
    let message = [&[fields.len() as u8], &fields[..]].concat();
    assert_eq!(outcomes(&message), [Ok(3)]);
}

#[test]
fn the_first_method_in_the_order_of_the_reference_counts() {
    let command = reference::Command {
        id: 1,
        publish: Some(reference::PublishRequest::default()),
        subscribe: Some(reference::SubscribeRequest::default()),
        send: Some(reference::SendRequest::default()),
        ..reference::Command::default()
    };
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let message = encode(encoding, std::slice::from_ref(&command));
        let decoded = encoding.decode(&message).next().expect("a command").expect("well formed");
        assert!(matches!(decoded.method, Method::Subscribe(_)), "{decoded:?}");
    }
}

#[test]
fn filters_within_filters_without_end_are_refused() {
    let mut tf = reference::FilterNode::default();
    for depth in 0..100 {
        let subscribe = reference::SubscribeRequest { tf: Some(tf.clone()), ..Default::default() };
        let command = reference::Command { id: 1, subscribe: Some(subscribe), ..Default::default() };
        let is_refused = outcomes(&encode(Encoding::Protobuf, &[command])) == [Err(Malformed)];
        // The subscribe request and its filter are two messages within the command.
        assert_eq!(is_refused, depth + 2 > crate::limits::COMMAND_DEPTH_MAX, "at a depth of {depth}");
        tf = reference::FilterNode { nodes: vec![tf], ..reference::FilterNode::default() };
    }
}

#[test]
fn strings_and_payloads_are_borrowed() {
    let publish = reference::PublishRequest { channel: "c".to_owned(), data: vec![0, 255], kind: 0 };
    let command = reference::Command { id: 1, publish: Some(publish), ..Default::default() };
    let message = encode(Encoding::Protobuf, &[command]);
    let decoded = Encoding::Protobuf.decode(&message).next().expect("a command").expect("well formed");
    let Method::Publish(request) = decoded.method else { panic!("{decoded:?}") };
    let data = request.data.expect("a payload");
    assert_eq!(data, [0, 255]);
    assert!(message.as_ptr_range().contains(&data.as_ptr()));
    assert!(matches!(request.channel, std::borrow::Cow::Borrowed("c")));
}
