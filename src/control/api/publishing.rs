//! `publish` and `broadcast`.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

use super::{Api, Asked, Failure, answers, call::Publication};
use crate::{
    config::Namespace,
    limits::{API_LIST_ITEMS_MAX, CHANNEL_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, VERSION_EPOCH_BYTES_MAX},
    mesh::{ChannelName, Origin, Publish, ReplyTo, ToShard, TraceParent, Version},
    protocol::{Payload, Tags},
};

impl Api {
    pub(super) async fn publish(&self, request: Publication<'_>, asked: &Asked) -> Result<String, Failure> {
        let namespace = self.namespace(&request.channel)?;
        let content = self.content(&request, &asked.body)?;
        let payload = self.payload(&content, &namespace)?;
        let channel = self.shards.name(&request.channel);
        let origin = self.take_in(asked);
        let question =
            |channel, reply_to| ToShard::Publish(Box::new(content.publish(channel, payload, reply_to, origin)));
        Ok(answers::published(self.shards.ask_home(channel, question).await?))
    }

    /// A response for each channel: what is wrong with one is no matter of the others.
    pub(super) async fn broadcast(&self, mut request: Publication<'_>, asked: &Asked) -> Result<String, Failure> {
        let names = std::mem::take(&mut request.channels);
        if names.is_empty() {
            return Err(Failure::BAD_REQUEST);
        }
        if names.len() > API_LIST_ITEMS_MAX {
            return Err(Failure::LIMIT_EXCEEDED);
        }
        let content = self.content(&request, &asked.body)?;
        let mut responses = Vec::with_capacity(names.len());
        let (mut channels, mut payloads) = (Vec::new(), Vec::new());
        for name in &names {
            let payload = self.namespace(name).and_then(|namespace| self.payload(&content, &namespace));
            responses.push(payload.as_ref().map(|_| String::new()).map_err(|failure| *failure));
            if let Ok(payload) = payload {
                channels.push(self.shards.name(name));
                payloads.push(payload);
            }
        }
        let question = |index: usize, channel, reply_to| {
            let origin = self.take_in(asked);
            ToShard::Publish(Box::new(content.publish(channel, payloads[index].clone(), reply_to, origin)))
        };
        let answers = self.shards.ask_homes(channels, question).await?;
        let permitted = responses.iter_mut().flatten();
        permitted.zip(answers).for_each(|(response, answer)| *response = answers::published(answer));
        let responses: Vec<String> = responses.iter().map(answers::reply).collect();
        Ok(format!("{{\"responses\":[{}]}}", responses.join(",")))
    }

    /// The rules of a channel that a request names.
    pub(super) fn namespace(&self, channel: &str) -> Result<Arc<Namespace>, Failure> {
        if channel.is_empty() || channel.len() > CHANNEL_BYTES_MAX {
            return Err(Failure::BAD_REQUEST);
        }
        self.config().namespaces.of_channel(channel).cloned().ok_or(Failure::UNKNOWN_CHANNEL)
    }

    /// A publication comes in.
    fn take_in(&self, asked: &Asked) -> (Origin, Option<Box<TraceParent>>) {
        let config = self.config();
        let mut sampling = self.sampling.lock().expect("nobody panics while it is held");
        let (sampler, counts) = &mut *sampling;
        if !Arc::ptr_eq(counts, &config) {
            if counts.tracing != config.tracing {
                sampler.configure(&config.tracing);
            }
            *counts = config;
        }
        sampler.take_in_from(asked.trace.as_ref())
    }

    fn content(&self, request: &Publication<'_>, body: &Bytes) -> Result<Content, Failure> {
        let data = match (request.b64data.as_str(), request.data) {
            ("", None) => return Err(Failure::BAD_REQUEST),
            ("", Some(data)) => body.slice_ref(data.get().as_bytes()),
            (base64, _) => STANDARD.decode(base64).map_err(|_| Failure::BAD_REQUEST)?.into(),
        };
        let is_fitting = (1..=self.config().ingest.payload_bytes_max as usize).contains(&data.len());
        if !is_fitting
            || request.idempotency_key.len() > IDEMPOTENCY_KEY_BYTES_MAX
            || request.version_epoch.len() > VERSION_EPOCH_BYTES_MAX
        {
            return Err(Failure::BAD_REQUEST);
        }
        let tags = request.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(Content {
            data,
            idempotency_key: (!request.idempotency_key.is_empty())
                .then(|| Bytes::copy_from_slice(request.idempotency_key.as_bytes())),
            skip_history: request.skip_history,
            delta: request.delta,
            version: (request.version > 0)
                .then(|| Box::new(Version { number: request.version, epoch: request.version_epoch.clone() })),
            tags: (!request.tags.is_empty()).then(|| tags.collect()),
        })
    }

    fn payload(&self, content: &Content, namespace: &Namespace) -> Result<Payload, Failure> {
        Payload::check(content.data.clone(), namespace.format).map_err(|_| Failure::BAD_REQUEST)
    }
}

/// What is published, in whichever channel.
struct Content {
    data: Bytes,
    idempotency_key: Option<Bytes>,
    skip_history: bool,
    delta: bool,
    version: Option<Box<Version>>,
    tags: Option<Tags>,
}

impl Content {
    fn publish(
        &self,
        channel: ChannelName,
        payload: Payload,
        reply_to: ReplyTo,
        (origin, trace_parent): (Origin, Option<Box<TraceParent>>),
    ) -> Publish {
        Publish {
            channel,
            data: payload.data,
            is_json: payload.is_json,
            idempotency_key: self.idempotency_key.clone(),
            skip_history: self.skip_history,
            delta: self.delta,
            version: self.version.clone(),
            tags: self.tags.clone(),
            info: None,
            reply_to,
            origin,
            trace_parent,
        }
    }
}
