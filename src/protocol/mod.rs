//! What clients say and are told: the Centrifuge client protocol, in JSON and in Protobuf (protocol.md).
//!
//! Owns the wire: commands out of a message's bytes, replies and pushes into bytes, codes with
//! their texts, tokens. What a command does is the session's business; framing is `websocket`'s:
//! [`Encoding`] appends one message, a JSON text or a Protobuf message behind its length, and the
//! caller makes a frame of it.
//!
//! Invariants:
//! - What is appended in JSON never holds a line feed: line feeds separate replies within a frame,
//!   so one inside a payload would break every SDK's parser.
//! - A payload is copied, never parsed: whoever writes one in JSON knows that it is JSON.
//! - Each message says once which fields it has, for both encodings (`fields`).
//! - Every [`Disconnect`] has a reason; an SDK that finds none reconnects even where it must not.
//!
//! Commands are decoded and messages are written in either encoding; a connection's is chosen at its handshake.

mod attributes;
mod command;
mod delta;
mod disconnect;
mod encoding;
mod error;
mod fields;
mod grant;
mod hook;
mod json;
mod payload;
mod protobuf;
mod publication;
mod push;
mod reply;
mod tags;
mod token;
mod unsubscribe;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use self::delta::tests::apply as apply_delta;
pub use self::{
    attributes::{AttributesError, AttributesPatch},
    command::{
        Command, Commands, ConnectRequest, EmulationRequest, FilterNode, Headers, HistoryRequest, Malformed, Method,
        PresenceRequest, PublishRequest, RefreshRequest, RpcRequest, SendRequest, StreamPosition, SubRefreshRequest,
        SubscribeRequest, UnsubscribeRequest,
    },
    delta::DeltaEncoder,
    disconnect::Disconnect,
    encoding::{Encoding, Shape},
    error::ErrorCode,
    grant::{Grant, Overrides},
    hook::{AnswerError, ConnectAnswer, HookAnswer, HookPayload, HookRequest, PublishAnswer, RefreshAnswer},
    payload::{NotJson, Payload},
    publication::{ClientInfoView, Delta, PublicationView},
    push::{Push, Refresh, ServerSubscription},
    reply::{
        ConnectResult, ErrorView, HistoryResultView, PresenceStats, RefreshResult, Reply, SubRefreshResult,
        SubscribeResult,
    },
    tags::Tags,
    token::{Claims, Identity, KeySet, KeySetError, SubscriptionToken, TokenError, TokenVerifier, mint, mint_operator},
    unsubscribe::Unsubscribe,
};
