//! PUBLISH, SPUBLISH and Tidegate's own commands.

use bytes::Bytes;

use super::{Call, Outcome};
use crate::{
    config::PayloadFormat,
    ingest::{
        payload::{
            check_channel, check_encoding, check_idempotency_key, check_payload, check_tags, check_traceparent,
            check_user, check_version, check_version_epoch,
        },
        refusal::{Refusal, quote},
        replies::Waiting,
    },
    mesh::{ChannelName, Publish, ReplyTo, ToShard, TraceContext, Version},
    protocol::{Payload, Tags},
};

/// `PUBLISH channel payload`.
pub(super) fn publish(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let (channel, payload) = call.check_publication(false)?;
    call.publish(channel, payload, Options::default());
    Ok(Outcome::Wait(Waiting::Subscribers))
}

/// `TG.PUBLISH channel payload [ID key] [SKIPHISTORY] [DELTA] [TAGS json] [VERSION number] [VERSIONEPOCH epoch] [ENCODING
/// zstd] [TRACEPARENT traceparent]`.
pub(super) fn publish_positioned(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let options = call.check_options()?;
    let (channel, payload) = call.check_publication(options.is_compressed)?;
    call.publish(channel, payload, options);
    Ok(Outcome::Wait(Waiting::Position))
}

/// `TG.SEND user payload [ENCODING zstd]`.
pub(super) fn send(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    if !call.state.config.client.personal_channel {
        return Err(Refusal::PersonalChannelsOff);
    }
    let is_compressed = call.check_encoding(3)?;
    let client = &call.state.config.client;
    let name = client.personal_channel_of(check_user(call.argument(1), client)?);
    let rules = call.state.config.namespaces.of_channel(&name);
    let format = rules.map_or(PayloadFormat::Json, |namespace| namespace.format);
    let payload = call.check_payload(2, format, is_compressed)?;
    let channel = call.state.hasher.name(&name);
    call.publish(channel, payload, Options::default());
    Ok(Outcome::Wait(Waiting::Subscribers))
}

/// `TG.BROADCAST payload [ENCODING zstd]`.
pub(super) fn broadcast(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let is_compressed = call.check_encoding(2)?;
    let payload = call.check_payload(1, PayloadFormat::Json, is_compressed)?;
    let reply_to = call.reply_to();
    let shards = call.state.shards();
    for shard in 0..shards {
        call.state.send_to(shard, ToShard::Broadcast { data: payload.data.clone(), reply_to });
    }
    Ok(Outcome::Wait(Waiting::Connections { shards_left: shards, connections: 0 }))
}

/// `SUBSCRIBE` and its kin.
pub(super) fn subscribe(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Err(Refusal::Subscribe)
}

/// What `TG.PUBLISH` adds.
#[derive(Default)]
struct Options {
    idempotency_key: Option<Bytes>,
    skip_history: bool,
    delta: bool,
    /// The payload is a frame of zstd.
    is_compressed: bool,
    tags: Option<Tags>,
    version: Option<Box<Version>>,
    trace: Option<TraceContext>,
}

impl Call<'_> {
    /// Who waits for a shard's answer: this command.
    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo::Ingest { connection: self.producer.id, sequence: self.producer.replies.next_sequence() }
    }

    fn check_publication(&mut self, is_compressed: bool) -> Result<(ChannelName, Payload), Refusal> {
        let (name, namespace) = check_channel(self.argument(1), &self.state.config.namespaces)?;
        let (channel, format) = (self.state.hasher.name(name), namespace.format);
        Ok((channel, self.check_payload(2, format, is_compressed)?))
    }

    fn check_payload(&mut self, index: usize, format: PayloadFormat, is_compressed: bool) -> Result<Payload, Refusal> {
        let data = self.command.share(index).expect("the table's arity says that it is there");
        let data = if is_compressed { self.state.decompress(&data)? } else { data };
        check_payload(data, format, self.state.config.ingest.payload_bytes_max as usize)
    }

    /// Whether the payload is compressed, by the options from this index on.
    fn check_encoding(&self, index: usize) -> Result<bool, Refusal> {
        let Some(option) = self.command.argument(index) else { return Ok(false) };
        if !option.eq_ignore_ascii_case(b"ENCODING") {
            return Err(Refusal::SendOption(quote(option)));
        }
        check_encoding(self.command.argument(index + 1))?;
        match self.command.argument(index + 2) {
            Some(option) => Err(Refusal::SendOption(quote(option))),
            None => Ok(true),
        }
    }

    fn check_options(&self) -> Result<Options, Refusal> {
        let mut options = Options::default();
        let (mut version, mut version_epoch) = (None, String::new());
        let mut index = 3;
        while let Some(option) = self.command.argument(index) {
            let value = self.command.share(index + 1);
            if option.eq_ignore_ascii_case(b"ID") {
                let key = value.ok_or(Refusal::OptionWithoutValue("ID"))?;
                options.idempotency_key = Some(check_idempotency_key(key)?);
                index += 2;
            } else if option.eq_ignore_ascii_case(b"TAGS") {
                let tags = value.ok_or(Refusal::OptionWithoutValue("TAGS"))?;
                options.tags = Some(check_tags(&tags)?);
                index += 2;
            } else if option.eq_ignore_ascii_case(b"VERSION") {
                version = Some(check_version(&value.ok_or(Refusal::OptionWithoutValue("VERSION"))?)?);
                index += 2;
            } else if option.eq_ignore_ascii_case(b"VERSIONEPOCH") {
                version_epoch = check_version_epoch(&value.ok_or(Refusal::OptionWithoutValue("VERSIONEPOCH"))?)?;
                index += 2;
            } else if option.eq_ignore_ascii_case(b"ENCODING") {
                check_encoding(value.as_deref())?;
                options.is_compressed = true;
                index += 2;
            } else if option.eq_ignore_ascii_case(b"TRACEPARENT") {
                options.trace = Some(check_traceparent(&value.ok_or(Refusal::OptionWithoutValue("TRACEPARENT"))?)?);
                index += 2;
            } else if option.eq_ignore_ascii_case(b"SKIPHISTORY") {
                options.skip_history = true;
                index += 1;
            } else if option.eq_ignore_ascii_case(b"DELTA") {
                options.delta = true;
                index += 1;
            } else {
                return Err(Refusal::PublishOption(quote(option)));
            }
        }
        options.version = version.map(|number| Box::new(Version { number, epoch: version_epoch }));
        Ok(options)
    }

    fn publish(&mut self, channel: ChannelName, payload: Payload, options: Options) {
        let (origin, trace_parent) = self.state.sampler.take_in_from(options.trace.as_ref());
        let publish = Publish {
            channel: channel.clone(),
            data: payload.data,
            is_json: payload.is_json,
            idempotency_key: options.idempotency_key,
            skip_history: options.skip_history,
            delta: options.delta,
            version: options.version,
            tags: options.tags,
            info: None,
            reply_to: self.reply_to(),
            origin,
            trace_parent,
        };
        self.state.send_home(&channel, ToShard::Publish(Box::new(publish)));
    }
}
