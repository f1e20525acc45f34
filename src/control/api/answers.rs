//! Results as JSON texts (protocol.md section 19).

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Failure, call::Method, reading::Counted};
use crate::{
    control::observer::Snapshot,
    mesh::{Answer, ClientInfo, Device, HistoryFound, Member, Publication},
};

/// `{"result":..}` or `{"error":..}`.
pub fn reply(result: &Result<String, Failure>) -> String {
    match result {
        Ok(result) => format!("{{\"result\":{result}}}"),
        Err(failure) => format!("{{\"error\":{}}}", failure.to_json()),
    }
}

/// The reply to a call of a batch, where the method's name stands for `result`.
pub fn batch_reply(method: Method, result: &Result<String, Failure>) -> String {
    match result {
        Ok(result) => format!("{{\"{}\":{result}}}", method.name()),
        Err(_) => reply(result),
    }
}

/// Where a publication was stored, if it was.
pub fn published(answer: Answer) -> String {
    let Answer::Published(published) = answer else { unreachable!("a shard answers {answer:?} to a publication") };
    // An epoch is made of letters.
    published.position.map_or_else(
        || "{}".to_owned(),
        |position| format!("{{\"offset\":{},\"epoch\":\"{}\"}}", position.offset, position.epoch),
    )
}

/// Who is there, by client id.
pub fn presence(members: &[Arc<Member>]) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Presence<'a> {
        presence: BTreeMap<&'a str, Client<'a>>,
    }
    let clients = members.iter().map(|member| Ok((&*member.info.client, Client::of(&member.info)?)));
    Ok(to_json(&Presence { presence: clients.collect::<Result<_, Failure>>()? }))
}

/// Publications and the stream's position.
pub fn history(found: &HistoryFound) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct History<'a> {
        publications: Vec<Stored<'a>>,
        epoch: &'a str,
        offset: u64,
    }
    let publications = found.publications.iter().map(|publication| Stored::of(publication));
    Ok(to_json(&History {
        publications: publications.collect::<Result<_, Failure>>()?,
        epoch: &found.position.epoch,
        offset: found.position.offset,
    }))
}

/// Channels with their subscribers.
pub fn channels(channels: &BTreeMap<Arc<str>, u32>) -> String {
    let mut text = "{\"channels\":{".to_owned();
    for (index, (name, subscribers)) in channels.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(text, "{comma}{}:{{\"num_clients\":{subscribers}}}", to_json(name)).expect("a string takes everything");
    }
    text + "}}"
}

/// A user's connections.
pub fn connections(devices: &[Device]) -> Result<String, Failure> {
    #[derive(Serialize)]
    struct Connections<'a> {
        connections: Vec<Connection<'a>>,
    }
    #[derive(Serialize)]
    struct Connection<'a> {
        client: &'a str,
        transport: &'a str,
        protocol: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        attributes: Option<&'a RawValue>,
        channels: Vec<&'a str>,
    }
    let mut connections = Vec::with_capacity(devices.len());
    for device in devices {
        connections.push(Connection {
            client: &device.client,
            transport: device.transport,
            protocol: device.encoding.label(),
            name: &device.name,
            version: &device.version,
            attributes: device.attributes.as_deref().map(raw).transpose()?,
            channels: device.channels.iter().map(|channel| &**channel).collect(),
        });
    }
    Ok(to_json(&Connections { connections }))
}

/// The one node that there is.
pub fn info(node: &str, version: &str, uptime_seconds: u64, snapshot: &Snapshot, counted: Counted) -> String {
    let sum = |of: fn(&crate::mesh::ShardFigures) -> u64| snapshot.shard_figures().map(of).sum::<u64>();
    to_json(&serde_json::json!({"nodes": [{
        "uid": node,
        "name": "tidegate",
        "version": version,
        "num_clients": sum(|figures| figures.connections),
        "num_users": counted.users,
        "num_subs": sum(|figures| figures.subscriptions),
        "num_channels": counted.channels,
        "uptime": uptime_seconds,
        "metrics": {"interval": 0, "items": {}},
    }]}))
}

#[derive(Serialize)]
struct Client<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
}

impl<'a> Client<'a> {
    fn of(info: &'a ClientInfo) -> Result<Self, Failure> {
        Ok(Self {
            user: &info.user,
            client: &info.client,
            conn_info: info.conn_info.as_deref().map(raw).transpose()?,
            chan_info: info.chan_info.as_deref().map(raw).transpose()?,
        })
    }
}

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// In place of `data` where the payload is not JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Client<'a>>,
    offset: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'a str, &'a str>,
}

impl<'a> Stored<'a> {
    fn of(publication: &'a Publication) -> Result<Self, Failure> {
        let is_json = publication.is_json;
        Ok(Self {
            data: if is_json { Some(raw(&publication.data)?) } else { None },
            b64data: (!is_json).then(|| STANDARD.encode(&publication.data)),
            info: publication.info.as_deref().map(Client::of).transpose()?,
            offset: publication.offset,
            tags: publication.tags.iter().flat_map(|tags| tags.iter()).collect(),
        })
    }
}

/// A JSON text that was checked when it came in.
fn raw(json: &[u8]) -> Result<&RawValue, Failure> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!(%error, "what was taken for JSON is none");
        Failure::INTERNAL
    })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers become JSON")
}
