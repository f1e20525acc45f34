//! Commands out of Protobuf: each request's fields by their numbers in client.proto.

use std::borrow::Cow;

use super::{
    Command, ConnectRequest, Envelope, FilterNode, HistoryRequest, Malformed, PresenceRequest, PublishRequest,
    RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest,
};
use crate::protocol::protobuf::{self, Merge, Received};

/// Reads one message, its length taken off.
pub fn read(message: &[u8]) -> Result<Command<'_>, Malformed> {
    protobuf::read::<Envelope<'_>>(message).map(Command::from)
}

impl<'a> Merge<'a> for Envelope<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.id = field.number()? as u32,
            4 => field.message(self.connect.get_or_insert_default())?,
            5 => field.message(self.subscribe.get_or_insert_default())?,
            6 => field.message(self.unsubscribe.get_or_insert_default())?,
            7 => field.message(self.publish.get_or_insert_default())?,
            8 => field.message(self.presence.get_or_insert_default())?,
            9 => field.message(self.presence_stats.get_or_insert_default())?,
            10 => field.message(self.history.get_or_insert_default())?,
            12 => field.message(self.send.get_or_insert_default())?,
            13 => field.message(self.rpc.get_or_insert_default())?,
            14 => field.message(self.refresh.get_or_insert_default())?,
            15 => field.message(self.sub_refresh.get_or_insert_default())?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for ConnectRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.token = field.text()?,
            2 => self.data = field.payload()?,
            3 => self.subs.push(field.item::<Entry<'a, SubscribeRequest<'a>>>()?.into()),
            4 => self.name = field.text()?,
            5 => self.version = field.text()?,
            6 => self.headers.push(field.item::<Entry<'a, Cow<'a, str>>>()?.into()),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for SubscribeRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.channel = field.text()?,
            2 => self.token = field.text()?,
            3 => self.recover = field.flag()?,
            6 => self.epoch = field.text()?,
            7 => self.offset = field.number()?,
            8 => self.data = field.payload()?,
            9 => self.positioned = field.flag()?,
            10 => self.recoverable = field.flag()?,
            11 => self.join_leave = field.flag()?,
            12 => self.delta = field.text()?,
            13 => field.message(&mut **self.tags_filter.get_or_insert_default())?,
            14 => self.flag = field.number()? as i64,
            15 => self.kind = field.number()? as i32,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for FilterNode<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.op = field.text()?,
            2 => self.key = field.text()?,
            3 => self.cmp = field.text()?,
            4 => self.val = field.text()?,
            5 => self.vals.push(field.text()?),
            6 => self.nodes.push(field.item()?),
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for UnsubscribeRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        if field.number == 1 {
            self.channel = field.text()?;
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for PublishRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.channel = field.text()?,
            2 => self.data = field.payload()?,
            3 => self.kind = field.number()? as i32,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for PresenceRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        if field.number == 1 {
            self.channel = field.text()?;
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for HistoryRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.channel = field.text()?,
            7 => self.limit = field.number()? as i32,
            8 => field.message(self.since.get_or_insert_default())?,
            9 => self.reverse = field.flag()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for StreamPosition<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.offset = field.number()?,
            2 => self.epoch = field.text()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for RpcRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.data = field.payload()?,
            2 => self.method = field.text()?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for SendRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        if field.number == 1 {
            self.data = field.payload()?;
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for RefreshRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        if field.number == 1 {
            self.token = field.text()?;
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for SubRefreshRequest<'a> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.channel = field.text()?,
            2 => self.token = field.text()?,
            3 => self.kind = field.number()? as i32,
            _ => {}
        }
        Ok(())
    }
}

/// An entry of a map: its name, and its value behind it.
#[derive(Default)]
struct Entry<'a, V> {
    name: Cow<'a, str>,
    value: V,
}

impl<'a, V> From<Entry<'a, V>> for (Cow<'a, str>, V) {
    fn from(entry: Entry<'a, V>) -> Self {
        (entry.name, entry.value)
    }
}

impl<'a> Merge<'a> for Entry<'a, SubscribeRequest<'a>> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.name = field.text()?,
            2 => field.message(&mut self.value)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> Merge<'a> for Entry<'a, Cow<'a, str>> {
    fn merge(&mut self, field: Received<'a>) -> Result<(), Malformed> {
        match field.number {
            1 => self.name = field.text()?,
            2 => self.value = field.text()?,
            _ => {}
        }
        Ok(())
    }
}
