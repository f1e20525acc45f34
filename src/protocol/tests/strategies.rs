//! Any message that may be said, as the reference knows it.

use std::collections::BTreeMap;

use proptest::{collection, option, prelude::*};

use super::reference::{
    ChannelRequest, ClientInfo, Command, ConnectRequest, ConnectResult, FilterNode, HistoryRequest, Publication,
    PublishRequest, RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest,
    SubscribeResult,
};

pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![2 => "[a-z:#]{0,6}", 1 => "(?s).{0,5}", 1 => "[a-z]{125,131}"]
}

/// A JSON text without line feeds, or nothing.
pub fn payload() -> impl Strategy<Value = Vec<u8>> {
    let long = collection::vec(any::<i64>(), 0..30).prop_map(|list| serde_json::to_vec(&list).expect("numbers"));
    prop_oneof![
        Just(Vec::new()),
        Just(b"null".to_vec()),
        Just(b"{ \"a\" : [1,  \"\\n\xc3\xbc\"] }".to_vec()),
        text().prop_map(|text| serde_json::to_vec(&text).expect("a string")),
        long,
    ]
}

/// The same, and never nothing: a publication has a payload.
fn some_payload() -> impl Strategy<Value = Vec<u8>> {
    payload().prop_map(|payload| if payload.is_empty() { b"{}".to_vec() } else { payload })
}

fn by_name<V: std::fmt::Debug>(value: impl Strategy<Value = V>) -> impl Strategy<Value = BTreeMap<String, V>> {
    collection::btree_map(text(), value, 0..3)
}

fn filter() -> impl Strategy<Value = FilterNode> {
    let leaf = (text(), text(), text(), text(), collection::vec(text(), 0..3))
        .prop_map(|(op, key, cmp, val, vals)| FilterNode { op, key, cmp, val, vals, nodes: Vec::new() });
    leaf.prop_recursive(3, 8, 3, |node| {
        (text(), collection::vec(node, 0..3)).prop_map(|(op, nodes)| FilterNode { op, nodes, ..FilterNode::default() })
    })
}

fn subscribe_request() -> impl Strategy<Value = SubscribeRequest> {
    let texts = (text(), text(), text(), text());
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (any::<u64>(), any::<i64>(), any::<i32>());
    (texts, flags, numbers, payload(), option::of(filter())).prop_map(|(texts, flags, numbers, data, tf)| {
        let (channel, token, epoch, delta) = texts;
        let (recover, positioned, recoverable, join_leave) = flags;
        let (offset, flag, kind) = numbers;
        SubscribeRequest {
            channel,
            token,
            recover,
            epoch,
            offset,
            data,
            positioned,
            recoverable,
            join_leave,
            delta,
            tf,
            flag,
            kind,
        }
    })
}

fn connect_request() -> impl Strategy<Value = ConnectRequest> {
    (text(), payload(), by_name(subscribe_request()), text(), text(), by_name(text())).prop_map(
        |(token, data, subs, name, version, headers)| ConnectRequest { token, data, subs, name, version, headers },
    )
}

fn history_request() -> impl Strategy<Value = HistoryRequest> {
    let since = (any::<u64>(), text()).prop_map(|(offset, epoch)| StreamPosition { offset, epoch });
    (text(), any::<i32>(), option::of(since), any::<bool>())
        .prop_map(|(channel, limit, since, reverse)| HistoryRequest { channel, limit, since, reverse })
}

/// A command with one method, or none.
pub fn command() -> impl Strategy<Value = Command> {
    let none = Command::default;
    let method = prop_oneof![
        1 => Just(none()),
        3 => connect_request().prop_map(move |request| Command { connect: Some(request), ..none() }),
        3 => subscribe_request().prop_map(move |request| Command { subscribe: Some(request), ..none() }),
        1 => text().prop_map(move |channel| Command { unsubscribe: Some(ChannelRequest { channel }), ..none() }),
        2 => (text(), payload(), any::<i32>()).prop_map(move |(channel, data, kind)| {
            Command { publish: Some(PublishRequest { channel, data, kind }), ..none() }
        }),
        1 => text().prop_map(move |channel| Command { presence: Some(ChannelRequest { channel }), ..none() }),
        1 => text().prop_map(move |channel| Command { presence_stats: Some(ChannelRequest { channel }), ..none() }),
        2 => history_request().prop_map(move |request| Command { history: Some(request), ..none() }),
        1 => payload().prop_map(move |data| Command { send: Some(SendRequest { data }), ..none() }),
        1 => (payload(), text()).prop_map(move |(data, method)| {
            Command { rpc: Some(RpcRequest { data, method }), ..none() }
        }),
        1 => text().prop_map(move |token| Command { refresh: Some(RefreshRequest { token }), ..none() }),
        1 => (text(), text(), any::<i32>()).prop_map(move |(channel, token, kind)| {
            Command { sub_refresh: Some(SubRefreshRequest { channel, token, kind }), ..none() }
        }),
    ];
    (any::<u32>(), method).prop_map(|(id, method)| Command { id, ..method })
}

pub fn client_info() -> impl Strategy<Value = ClientInfo> {
    (text(), text(), payload(), payload()).prop_map(|(user, client, conn_info, chan_info)| ClientInfo {
        user,
        client,
        conn_info,
        chan_info,
    })
}

pub fn publication() -> impl Strategy<Value = Publication> {
    (some_payload(), option::of(client_info()), any::<u64>(), by_name(text()))
        .prop_map(|(data, info, offset, tags)| Publication { data, info, offset, tags, ..Publication::default() })
}

pub fn subscribe_result() -> impl Strategy<Value = SubscribeResult> {
    let flags = any::<[bool; 6]>();
    (flags, any::<u32>(), text(), collection::vec(publication(), 0..4), any::<u64>(), payload()).prop_map(
        |(
            [expires, recoverable, recovered, positioned, was_recovering, delta],
            ttl,
            epoch,
            publications,
            offset,
            data,
        )| {
            SubscribeResult {
                expires,
                ttl,
                recoverable,
                epoch,
                publications,
                recovered,
                offset,
                positioned,
                data,
                was_recovering,
                delta,
            }
        },
    )
}

pub fn connect_result() -> impl Strategy<Value = ConnectResult> {
    let texts = (text(), text(), text(), text());
    (texts, any::<(bool, u32, u32, bool)>(), payload(), by_name(subscribe_result())).prop_map(
        |((client, version, session, node), (expires, ttl, ping, pong), data, subs)| ConnectResult {
            client,
            version,
            expires,
            ttl,
            data,
            subs,
            ping,
            pong,
            session,
            node,
        },
    )
}
