//! PUBLISH, SPUBLISH and Tidegate's own commands.

use bytes::Bytes;

use super::{Call, Outcome};
use crate::{
    config::PayloadFormat,
    ingest::{
        payload::{
            check_channel, check_idempotency_key, check_payload, check_tags, check_user, check_version,
            check_version_epoch,
        },
        refusal::{Refusal, quote},
        replies::Waiting,
    },
    mesh::{ChannelName, Publish, ReplyTo, ToShard, Version},
    protocol::{Payload, Tags},
};

/// `PUBLISH channel payload`.
pub(super) fn publish(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let (channel, payload) = call.check_publication()?;
    call.publish(channel, payload, Options::default());
    Ok(Outcome::Wait(Waiting::Subscribers))
}

/// `TG.PUBLISH channel payload [ID key] [SKIPHISTORY] [DELTA] [TAGS json] [VERSION number] [VERSIONEPOCH epoch]`.
pub(super) fn publish_positioned(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let options = call.check_options()?;
    let (channel, payload) = call.check_publication()?;
    call.publish(channel, payload, options);
    Ok(Outcome::Wait(Waiting::Position))
}

/// `TG.SEND user payload`.
pub(super) fn send(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    if !call.state.config.client.personal_channel {
        return Err(Refusal::PersonalChannelsOff);
    }
    let client = &call.state.config.client;
    let name = client.personal_channel_of(check_user(call.argument(1), client)?);
    let rules = call.state.config.namespaces.of_channel(&name);
    let payload = call.check_payload(2, rules.map_or(PayloadFormat::Json, |namespace| namespace.format))?;
    let channel = call.state.hasher.name(&name);
    call.publish(channel, payload, Options::default());
    Ok(Outcome::Wait(Waiting::Subscribers))
}

/// `TG.BROADCAST payload`.
pub(super) fn broadcast(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let payload = call.check_payload(1, PayloadFormat::Json)?;
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
    tags: Option<Tags>,
    version: Option<Box<Version>>,
}

impl Call<'_> {
    /// Who waits for a shard's answer: this command.
    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo::Ingest { connection: self.producer.id, sequence: self.producer.replies.next_sequence() }
    }

    fn check_publication(&self) -> Result<(ChannelName, Payload), Refusal> {
        let (name, namespace) = check_channel(self.argument(1), &self.state.config.namespaces)?;
        let payload = self.check_payload(2, namespace.format)?;
        Ok((self.state.hasher.name(name), payload))
    }

    fn check_payload(&self, index: usize, format: PayloadFormat) -> Result<Payload, Refusal> {
        let data = self.command.share(index).expect("the table's arity says that it is there");
        check_payload(data, format, self.state.config.ingest.payload_bytes_max as usize)
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
        };
        self.state.send_home(&channel, ToShard::Publish(Box::new(publish)));
    }
}
