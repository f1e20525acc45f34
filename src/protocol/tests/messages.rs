//! Replies and pushes: what we encode is decoded by others as it was meant, in both encodings.

use proptest::{collection, prelude::*};
use prost::Message;
use serde::de::DeserializeOwned;

use super::{reference, strategies};
use crate::protocol::{
    ClientInfoView, ConnectResult, Delta, Disconnect, Encoding, ErrorView, HistoryResultView, PresenceStats,
    PublicationView, Push, Refresh, RefreshResult, Reply, ServerSubscription, Shape, SubRefreshResult, SubscribeResult,
    Tags, Unsubscribe,
};

/// What others read of one message of ours.
fn read<M: Message + Default + DeserializeOwned>(encoding: Encoding, mut bytes: &[u8]) -> M {
    match encoding {
        Encoding::Json => {
            assert!(!bytes.contains(&b'\n'), "a line feed within a message");
            serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()))
        }
        Encoding::Protobuf => {
            let message = M::decode_length_delimited(&mut bytes).expect("a message");
            assert!(bytes.is_empty(), "something lies behind the message");
            message
        }
    }
}

/// Whether all that was given is read again.
fn check_reply(command: u32, reply: &Reply<'_>, expected: &reference::Reply) {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut out = Vec::new();
        encoding.write_reply(&mut out, command, reply);
        assert_eq!(&read::<reference::Reply>(encoding, &out), expected, "{encoding:?}");
    }
}

fn check_push(push: &Push<'_>, expected: &reference::Push) {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let mut out = Vec::new();
        encoding.write_push(Shape::Unidirectional, &mut out, &expected.channel, push);
        assert_eq!(&read::<reference::Push>(encoding, &out), expected, "{encoding:?}");
        out.clear();
        encoding.write_push(Shape::Bidirectional, &mut out, &expected.channel, push);
        let reply = reference::Reply { push: Some(expected.clone()), ..Default::default() };
        assert_eq!(read::<reference::Reply>(encoding, &out), reply, "{encoding:?}");
    }
}

/// Tags of publications, made before the views that borrow them.
fn tags_of<'a>(publications: impl IntoIterator<Item = &'a reference::Publication>) -> Vec<Option<Tags>> {
    let tags = |publication: &reference::Publication| {
        let tags = &publication.tags;
        (!tags.is_empty()).then(|| tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect())
    };
    publications.into_iter().map(tags).collect()
}

fn publication<'a>(publication: &'a reference::Publication, tags: &'a Option<Tags>) -> PublicationView<'a> {
    PublicationView {
        data: &publication.data,
        info: publication.info.as_ref().map(client_info),
        offset: publication.offset,
        tags: tags.as_ref(),
        delta: Delta::None,
        epoch: Some("the epoch").filter(|epoch| *epoch == publication.epoch),
    }
}

fn publications<'a>(list: &'a [reference::Publication], tags: &'a [Option<Tags>]) -> Vec<PublicationView<'a>> {
    list.iter().zip(tags).map(|(one, tags)| publication(one, tags)).collect()
}

fn client_info(info: &reference::ClientInfo) -> ClientInfoView<'_> {
    ClientInfoView {
        user: &info.user,
        client: &info.client,
        conn_info: payload(&info.conn_info),
        chan_info: payload(&info.chan_info),
    }
}

fn payload(payload: &[u8]) -> Option<&[u8]> {
    (!payload.is_empty()).then_some(payload)
}

fn subscribe_result<'a>(
    result: &'a reference::SubscribeResult,
    publications: &'a [PublicationView<'a>],
) -> SubscribeResult<'a> {
    SubscribeResult {
        expires: result.expires,
        ttl_seconds: result.ttl,
        recoverable: result.recoverable,
        epoch: &result.epoch,
        publications,
        recovered: result.recovered,
        offset: result.offset,
        positioned: result.positioned,
        data: payload(&result.data),
        was_recovering: result.was_recovering,
        delta: result.delta,
    }
}

/// Lets `check` see a connect result as ours, which borrows its publications, and theirs from somewhere.
fn with_connect_result(expected: &reference::ConnectResult, check: impl FnOnce(ConnectResult<'_>)) {
    let tags: Vec<_> = expected.subs.values().map(|result| tags_of(&result.publications)).collect();
    let views: Vec<_> =
        expected.subs.values().zip(&tags).map(|(result, tags)| publications(&result.publications, tags)).collect();
    let subs: Vec<_> = expected
        .subs
        .iter()
        .zip(&views)
        .map(|((channel, result), publications)| (channel.as_str(), subscribe_result(result, publications)))
        .collect();
    check(ConnectResult {
        client: &expected.client,
        version: &expected.version,
        expires: expected.expires,
        ttl_seconds: expected.ttl,
        data: payload(&expected.data),
        subs: &subs,
        ping_seconds: expected.ping,
        pong: expected.pong,
        session: &expected.session,
        node: &expected.node,
    });
}

proptest! {
    #[test]
    fn connect_results(command: u32, expected in strategies::connect_result(), channel in strategies::text()) {
        with_connect_result(&expected, |result| {
            let reply = reference::Reply { id: command, connect: Some(expected.clone()), ..Default::default() };
            check_reply(command, &Reply::Connect(result), &reply);
            let expected = expected.clone();
            let connect = reference::Connect {
                client: expected.client,
                version: expected.version,
                data: expected.data,
                subs: expected.subs,
                expires: expected.expires,
                ttl: expected.ttl,
                ping: expected.ping,
                pong: expected.pong,
                session: expected.session,
                node: expected.node,
            };
            check_push(&Push::Connect(result), &reference::Push { channel, connect: Some(connect), ..Default::default() });
        });
    }

    #[test]
    fn subscribe_results(command: u32, expected in strategies::subscribe_result()) {
        let tags = tags_of(&expected.publications);
        let publications = publications(&expected.publications, &tags);
        let reply = Reply::Subscribe(subscribe_result(&expected, &publications));
        let expected = reference::Reply { id: command, subscribe: Some(expected.clone()), ..Default::default() };
        check_reply(command, &reply, &expected);
    }

    #[test]
    fn histories(
        command: u32,
        list in collection::vec(strategies::publication(), 0..4),
        epoch in strategies::text(),
        offset: u64,
    ) {
        let tags = tags_of(&list);
        let reply = Reply::History(HistoryResultView {
            publications: &publications(&list, &tags),
            epoch: &epoch,
            offset,
        });
        let history = reference::HistoryResult { publications: list.clone(), epoch: epoch.clone(), offset };
        check_reply(command, &reply, &reference::Reply { id: command, history: Some(history), ..Default::default() });
    }

    #[test]
    fn presence(command: u32, clients in collection::vec(strategies::client_info(), 0..4)) {
        let presence = clients.iter().map(|info| (info.client.clone(), info.clone())).collect();
        let presence = reference::PresenceResult { presence };
        prop_assume!(presence.presence.len() == clients.len());
        let views: Vec<_> = clients.iter().map(client_info).collect();
        let expected = reference::Reply { id: command, presence: Some(presence), ..Default::default() };
        check_reply(command, &Reply::Presence(&views), &expected);
    }

    #[test]
    fn small_results(
        command: u32,
        numbers: (u32, u32),
        flag: bool,
        texts in (strategies::text(), strategies::text()),
        data in strategies::payload(),
    ) {
        let none = || reference::Reply { id: command, ..Default::default() };
        let error = reference::Error_ { code: numbers.0, message: texts.0.clone(), temporary: flag };
        let reply = Reply::Error(ErrorView { code: numbers.0, message: &texts.0, is_temporary: flag });
        check_reply(command, &reply, &reference::Reply { error: Some(error), ..none() });

        let presence_stats = reference::PresenceStatsResult { num_clients: numbers.0, num_users: numbers.1 };
        let reply = Reply::PresenceStats(PresenceStats { clients: numbers.0, users: numbers.1 });
        check_reply(command, &reply, &reference::Reply { presence_stats: Some(presence_stats), ..none() });

        let rpc = reference::RpcResult { data: data.clone() };
        check_reply(command, &Reply::Rpc(payload(&data)), &reference::Reply { rpc: Some(rpc), ..none() });

        let (client, version) = texts.clone();
        let refresh = reference::RefreshResult { client, version, expires: flag, ttl: numbers.0 };
        let reply = Reply::Refresh(RefreshResult {
            client: &texts.0,
            version: &texts.1,
            expires: flag,
            ttl_seconds: numbers.0,
        });
        check_reply(command, &reply, &reference::Reply { refresh: Some(refresh), ..none() });

        let sub_refresh = reference::SubRefreshResult { expires: flag, ttl: numbers.0 };
        let reply = Reply::SubRefresh(SubRefreshResult { expires: flag, ttl_seconds: numbers.0 });
        check_reply(command, &reply, &reference::Reply { sub_refresh: Some(sub_refresh), ..none() });

        let empty = || Some(reference::Empty {});
        check_reply(command, &Reply::Unsubscribe, &reference::Reply { unsubscribe: empty(), ..none() });
        check_reply(command, &Reply::Publish, &reference::Reply { publish: empty(), ..none() });
    }

    #[test]
    fn publications_are_pushed(expected in strategies::publication(), channel in strategies::text(), is_first: bool) {
        let mut expected = expected;
        if is_first {
            (expected.offset, expected.epoch) = (1, "the epoch".to_owned());
        }
        let tags = tags_of([&expected]);
        let push = Push::Publication(publication(&expected, &tags[0]));
        let publication = Some(expected.clone());
        check_push(&push, &reference::Push { channel, publication, ..Default::default() });
    }

    #[test]
    fn small_pushes(
        channel in strategies::text(),
        info in strategies::client_info(),
        data in strategies::payload(),
        epoch in strategies::text(),
        offset: u64,
        flags: (bool, bool),
        ttl: u32,
    ) {
        let none = || reference::Push { channel: channel.clone(), ..Default::default() };
        let membership = || Some(reference::Membership { info: Some(info.clone()) });
        check_push(&Push::Join(client_info(&info)), &reference::Push { join: membership(), ..none() });
        check_push(&Push::Leave(client_info(&info)), &reference::Push { leave: membership(), ..none() });

        let (code, reason) = (2500, "insufficient state".to_owned());
        let unsubscribe = Some(reference::Unsubscribe { code, reason });
        let push = Push::Unsubscribe(Unsubscribe::INSUFFICIENT_STATE);
        check_push(&push, &reference::Push { unsubscribe, ..none() });

        let (code, reason) = (3001, "shutdown".to_owned());
        let disconnect = Some(reference::Disconnect { code, reason, reconnect: true });
        check_push(&Push::Disconnect(Disconnect::SHUTDOWN), &reference::Push { disconnect, ..none() });

        let refresh = Some(reference::SubRefreshResult { expires: flags.0, ttl });
        let push = Push::Refresh(Refresh { expires: flags.0, ttl_seconds: ttl });
        check_push(&push, &reference::Push { refresh, ..none() });

        if !data.is_empty() {
            let message = Some(reference::RpcResult { data: data.clone() });
            check_push(&Push::Message(&data), &reference::Push { message, ..none() });
        }

        let (recoverable, positioned) = flags;
        let push = Push::Subscribe(ServerSubscription {
            recoverable,
            positioned,
            epoch: &epoch,
            offset,
            data: payload(&data),
        });
        let subscribe = reference::Subscribe { recoverable, positioned, epoch: epoch.clone(), offset, data: data.clone() };
        check_push(&push, &reference::Push { subscribe: Some(subscribe), ..none() });
    }

    #[test]
    fn deltas_are_strings_in_json_and_bytes_in_protobuf(text in strategies::text(), is_patch: bool) {
        prop_assume!(!text.is_empty());
        let delta = if is_patch { Delta::Patch } else { Delta::Full };
        let view = PublicationView {
            data: text.as_bytes(),
            info: None,
            offset: 1,
            tags: None,
            delta,
            // Delta subscribers are told no epoch (protocol.md section 10).
            epoch: Some("the epoch"),
        };
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let mut out = Vec::new();
            encoding.write_push(Shape::Unidirectional, &mut out, "c", &Push::Publication(view));
            let data = match encoding {
                Encoding::Json => serde_json::to_vec(&text).expect("a string"),
                Encoding::Protobuf => text.clone().into_bytes(),
            };
            let read = read::<reference::Push>(encoding, &out).publication.expect("a publication");
            let as_value = |data: &[u8]| serde_json::from_slice::<serde_json::Value>(data).ok();
            prop_assert!(read.data == data || encoding == Encoding::Json && as_value(&read.data) == as_value(&data));
            prop_assert_eq!((read.offset, read.delta, read.epoch.as_str()), (1, is_patch, ""));
        }
    }

    /// What a subscriber with deltas has missed.
    #[test]
    fn recovered_deltas_are_strings_in_json_and_bytes_in_protobuf(
        command: u32,
        list in collection::vec((strategies::publication(), any::<bool>()), 1..4),
    ) {
        let publications: Vec<_> = list.iter().map(|(publication, _)| publication.clone()).collect();
        let tags = tags_of(&publications);
        let views: Vec<_> = list.iter().zip(&tags).map(|((one, is_patch), tags)| PublicationView {
            delta: if *is_patch { Delta::Patch } else { Delta::Full },
            ..publication(one, tags)
        }).collect();
        for encoding in [Encoding::Json, Encoding::Protobuf] {
            let mut out = Vec::new();
            let result = SubscribeResult { publications: &views, delta: true, ..SubscribeResult::default() };
            encoding.write_reply(&mut out, command, &Reply::Subscribe(result));
            let result = read::<reference::Reply>(encoding, &out).subscribe.expect("a result");
            prop_assert!(result.delta && result.publications.len() == list.len());
            for (read, (expected, is_patch)) in result.publications.iter().zip(&list) {
                let data = match encoding {
                    Encoding::Json => serde_json::from_slice::<String>(&read.data).expect("a string").into_bytes(),
                    Encoding::Protobuf => read.data.clone(),
                };
                prop_assert_eq!(&data, &expected.data);
                prop_assert_eq!((read.offset, read.delta), (expected.offset, *is_patch));
                prop_assert_eq!((&read.info, &read.tags), (&expected.info, &expected.tags));
            }
        }
    }

    #[test]
    fn protobuf_takes_any_payload(data: Vec<u8>, channel in strategies::text()) {
        let view = PublicationView { data: &data, info: None, offset: 0, tags: None, delta: Delta::None, epoch: None };
        let mut out = Vec::new();
        Encoding::Protobuf.write_push(Shape::Bidirectional, &mut out, &channel, &Push::Publication(view));
        let push = read::<reference::Reply>(Encoding::Protobuf, &out).push.expect("a push");
        prop_assert_eq!(push.publication.expect("a publication").data, data);
    }
}

#[test]
fn pings_are_empty_replies() {
    assert_eq!(read::<reference::Reply>(Encoding::Json, Encoding::Json.ping()), reference::Reply::default());
    assert_eq!(read::<reference::Reply>(Encoding::Protobuf, Encoding::Protobuf.ping()), reference::Reply::default());
    assert_eq!(Encoding::Protobuf.ping(), [0]);
}
