//! The messages as client.proto defines them, with encoders and decoders that are not ours: `prost` derives those for
//! Protobuf, `serde` those for JSON. What Tidegate never says is left out.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::value::RawValue;

type Map<V> = BTreeMap<String, V>;

/// Payloads: JSON texts that stand in JSON as they are.
mod payload {
    use super::*;

    pub fn serialize<S: Serializer>(payload: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_slice::<&RawValue>(payload).map_err(S::Error::custom)?.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|payload| payload.get().as_bytes().to_vec())
    }
}

macro_rules! messages {
    ($($name:ident { $($(#[serde($($serde:tt)*)])* $field:ident: $type:ty = ($($prost:tt)*),)* })*) => {
        $(
            #[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $name {
                $(#[prost($($prost)*)] $(#[serde($($serde)*)])* pub $field: $type,)*
            }
        )*
    };
}

messages! {
    Command {
        id: u32 = (uint32, tag = "1"),
        connect: Option<ConnectRequest> = (message, optional, tag = "4"),
        subscribe: Option<SubscribeRequest> = (message, optional, tag = "5"),
        unsubscribe: Option<ChannelRequest> = (message, optional, tag = "6"),
        publish: Option<PublishRequest> = (message, optional, tag = "7"),
        presence: Option<ChannelRequest> = (message, optional, tag = "8"),
        presence_stats: Option<ChannelRequest> = (message, optional, tag = "9"),
        history: Option<HistoryRequest> = (message, optional, tag = "10"),
        send: Option<SendRequest> = (message, optional, tag = "12"),
        rpc: Option<RpcRequest> = (message, optional, tag = "13"),
        refresh: Option<RefreshRequest> = (message, optional, tag = "14"),
        sub_refresh: Option<SubRefreshRequest> = (message, optional, tag = "15"),
    }
    ConnectRequest {
        token: String = (string, tag = "1"),
        #[serde(with = "payload", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8> = (bytes = "vec", tag = "2"),
        subs: Map<SubscribeRequest> = (btree_map = "string, message", tag = "3"),
        name: String = (string, tag = "4"),
        version: String = (string, tag = "5"),
        headers: Map<String> = (btree_map = "string, string", tag = "6"),
    }
    SubscribeRequest {
        channel: String = (string, tag = "1"),
        token: String = (string, tag = "2"),
        recover: bool = (bool, tag = "3"),
        epoch: String = (string, tag = "6"),
        offset: u64 = (uint64, tag = "7"),
        #[serde(with = "payload", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8> = (bytes = "vec", tag = "8"),
        positioned: bool = (bool, tag = "9"),
        recoverable: bool = (bool, tag = "10"),
        join_leave: bool = (bool, tag = "11"),
        delta: String = (string, tag = "12"),
        tf: Option<FilterNode> = (message, optional, tag = "13"),
        flag: i64 = (int64, tag = "14"),
        #[serde(rename = "type")]
        kind: i32 = (int32, tag = "15"),
    }
    FilterNode {
        op: String = (string, tag = "1"),
        key: String = (string, tag = "2"),
        cmp: String = (string, tag = "3"),
        val: String = (string, tag = "4"),
        vals: Vec<String> = (string, repeated, tag = "5"),
        nodes: Vec<FilterNode> = (message, repeated, tag = "6"),
    }
    ChannelRequest {
        channel: String = (string, tag = "1"),
    }
    PublishRequest {
        channel: String = (string, tag = "1"),
        #[serde(with = "payload", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8> = (bytes = "vec", tag = "2"),
        #[serde(rename = "type")]
        kind: i32 = (int32, tag = "3"),
    }
    HistoryRequest {
        channel: String = (string, tag = "1"),
        limit: i32 = (int32, tag = "7"),
        since: Option<StreamPosition> = (message, optional, tag = "8"),
        reverse: bool = (bool, tag = "9"),
    }
    StreamPosition {
        offset: u64 = (uint64, tag = "1"),
        epoch: String = (string, tag = "2"),
    }
    RpcRequest {
        #[serde(with = "payload", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8> = (bytes = "vec", tag = "1"),
        method: String = (string, tag = "2"),
    }
    SendRequest {
        #[serde(with = "payload", skip_serializing_if = "Vec::is_empty")]
        data: Vec<u8> = (bytes = "vec", tag = "1"),
    }
    RefreshRequest {
        token: String = (string, tag = "1"),
    }
    SubRefreshRequest {
        channel: String = (string, tag = "1"),
        token: String = (string, tag = "2"),
        #[serde(rename = "type")]
        kind: i32 = (int32, tag = "3"),
    }

    Reply {
        id: u32 = (uint32, tag = "1"),
        error: Option<Error_> = (message, optional, tag = "2"),
        push: Option<Push> = (message, optional, tag = "4"),
        connect: Option<ConnectResult> = (message, optional, tag = "5"),
        subscribe: Option<SubscribeResult> = (message, optional, tag = "6"),
        unsubscribe: Option<Empty> = (message, optional, tag = "7"),
        publish: Option<Empty> = (message, optional, tag = "8"),
        presence: Option<PresenceResult> = (message, optional, tag = "9"),
        presence_stats: Option<PresenceStatsResult> = (message, optional, tag = "10"),
        history: Option<HistoryResult> = (message, optional, tag = "11"),
        rpc: Option<RpcResult> = (message, optional, tag = "13"),
        refresh: Option<RefreshResult> = (message, optional, tag = "14"),
        sub_refresh: Option<SubRefreshResult> = (message, optional, tag = "15"),
    }
    Empty {}
    Error_ {
        code: u32 = (uint32, tag = "1"),
        message: String = (string, tag = "2"),
        temporary: bool = (bool, tag = "3"),
    }
    ConnectResult {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        expires: bool = (bool, tag = "3"),
        ttl: u32 = (uint32, tag = "4"),
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "5"),
        subs: Map<SubscribeResult> = (btree_map = "string, message", tag = "6"),
        ping: u32 = (uint32, tag = "7"),
        pong: bool = (bool, tag = "8"),
        session: String = (string, tag = "9"),
        node: String = (string, tag = "10"),
    }
    SubscribeResult {
        expires: bool = (bool, tag = "1"),
        ttl: u32 = (uint32, tag = "2"),
        recoverable: bool = (bool, tag = "3"),
        epoch: String = (string, tag = "6"),
        publications: Vec<Publication> = (message, repeated, tag = "7"),
        recovered: bool = (bool, tag = "8"),
        offset: u64 = (uint64, tag = "9"),
        positioned: bool = (bool, tag = "10"),
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "11"),
        was_recovering: bool = (bool, tag = "12"),
        delta: bool = (bool, tag = "13"),
    }
    PresenceResult {
        presence: Map<ClientInfo> = (btree_map = "string, message", tag = "1"),
    }
    PresenceStatsResult {
        num_clients: u32 = (uint32, tag = "1"),
        num_users: u32 = (uint32, tag = "2"),
    }
    HistoryResult {
        publications: Vec<Publication> = (message, repeated, tag = "1"),
        epoch: String = (string, tag = "2"),
        offset: u64 = (uint64, tag = "3"),
    }
    RpcResult {
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "1"),
    }
    RefreshResult {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        expires: bool = (bool, tag = "3"),
        ttl: u32 = (uint32, tag = "4"),
    }
    SubRefreshResult {
        expires: bool = (bool, tag = "1"),
        ttl: u32 = (uint32, tag = "2"),
    }
    Publication {
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "4"),
        info: Option<ClientInfo> = (message, optional, tag = "5"),
        offset: u64 = (uint64, tag = "6"),
        tags: Map<String> = (btree_map = "string, string", tag = "7"),
        delta: bool = (bool, tag = "8"),
        epoch: String = (string, tag = "14"),
    }
    ClientInfo {
        user: String = (string, tag = "1"),
        client: String = (string, tag = "2"),
        #[serde(with = "payload")]
        conn_info: Vec<u8> = (bytes = "vec", tag = "3"),
        #[serde(with = "payload")]
        chan_info: Vec<u8> = (bytes = "vec", tag = "4"),
    }

    Push {
        channel: String = (string, tag = "2"),
        #[serde(rename = "pub")]
        publication: Option<Publication> = (message, optional, tag = "4"),
        join: Option<Membership> = (message, optional, tag = "5"),
        leave: Option<Membership> = (message, optional, tag = "6"),
        unsubscribe: Option<Unsubscribe> = (message, optional, tag = "7"),
        message: Option<RpcResult> = (message, optional, tag = "8"),
        subscribe: Option<Subscribe> = (message, optional, tag = "9"),
        connect: Option<Connect> = (message, optional, tag = "10"),
        disconnect: Option<Disconnect> = (message, optional, tag = "11"),
        refresh: Option<SubRefreshResult> = (message, optional, tag = "12"),
    }
    Membership {
        info: Option<ClientInfo> = (message, optional, tag = "1"),
    }
    Unsubscribe {
        code: u32 = (uint32, tag = "2"),
        reason: String = (string, tag = "3"),
    }
    Subscribe {
        recoverable: bool = (bool, tag = "1"),
        epoch: String = (string, tag = "4"),
        offset: u64 = (uint64, tag = "5"),
        positioned: bool = (bool, tag = "6"),
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "7"),
    }
    Connect {
        client: String = (string, tag = "1"),
        version: String = (string, tag = "2"),
        #[serde(with = "payload")]
        data: Vec<u8> = (bytes = "vec", tag = "3"),
        subs: Map<SubscribeResult> = (btree_map = "string, message", tag = "4"),
        expires: bool = (bool, tag = "5"),
        ttl: u32 = (uint32, tag = "6"),
        ping: u32 = (uint32, tag = "7"),
        pong: bool = (bool, tag = "8"),
        session: String = (string, tag = "9"),
        node: String = (string, tag = "10"),
    }
    Disconnect {
        code: u32 = (uint32, tag = "1"),
        reason: String = (string, tag = "2"),
        reconnect: bool = (bool, tag = "3"),
    }
}
