//! What the console shows of one user: the connections that there are, and how the last ones ended.

use std::sync::Arc;

use serde::Serialize;

use super::{inquiries::NoAnswer, shards::Shards};
use crate::{
    limits::CONSOLE_CLOSES_MAX,
    mesh::{Addressees, Answer, Close, Device, DevicesFound, ToShard, UserAction, UserRequest},
};

/// A user, as found.
#[derive(Debug, Serialize)]
pub struct Found {
    connections: Vec<ConnectionFound>,
    /// There are more connections than a shard lists.
    is_cut: bool,
    /// The newest first.
    closes: Vec<CloseFound>,
}

#[derive(Debug, Serialize)]
struct ConnectionFound {
    client: String,
    transport: &'static str,
    program: String,
    channels: Vec<Box<str>>,
}

#[derive(Debug, Serialize)]
struct CloseFound {
    client: String,
    code: u16,
    reason: &'static str,
    at_unix_seconds: u64,
}

/// Asks all shards for a user.
///
/// # Errors
/// When one of them does not answer.
pub async fn find(shards: &Shards, user: &str) -> Result<Found, NoAnswer> {
    let request = UserRequest { user: user.to_owned(), addressees: Addressees::default(), action: UserAction::List };
    let request = Arc::new(request);
    let listed = shards.ask_all(|reply_to| ToShard::User { request: Arc::clone(&request), reply_to }).await?;
    let user: Arc<str> = user.into();
    let closed = shards.ask_all(|reply_to| ToShard::RecentCloses { user: Arc::clone(&user), reply_to }).await?;
    let mut found = Found { connections: Vec::new(), is_cut: false, closes: Vec::new() };
    for answer in listed.into_iter().chain(closed) {
        match answer {
            Answer::Devices(DevicesFound::Devices(devices)) => {
                found.connections.extend(devices.into_iter().map(ConnectionFound::from));
            }
            Answer::Devices(DevicesFound::TooMany) => found.is_cut = true,
            Answer::Closes(closes) => found.closes.extend(closes.into_iter().map(CloseFound::from)),
            other => unreachable!("a shard answers {other:?} to a question for a user"),
        }
    }
    found.closes.sort_by_key(|close| std::cmp::Reverse(close.at_unix_seconds));
    found.closes.truncate(CONSOLE_CLOSES_MAX);
    Ok(found)
}

impl From<Device> for ConnectionFound {
    fn from(device: Device) -> Self {
        let program = [&*device.name, &*device.version].join(" ").trim().to_owned();
        Self { client: device.client, transport: device.transport, program, channels: device.channels }
    }
}

impl From<Close> for CloseFound {
    fn from(close: Close) -> Self {
        let Close { client, code, reason, at_unix_seconds } = close;
        Self { client, code, reason, at_unix_seconds }
    }
}
