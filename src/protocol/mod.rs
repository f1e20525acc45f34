//! What clients say and are told: the Centrifuge client protocol, in JSON (protocol.md).
//!
//! Owns the wire: commands out of a message's bytes, replies and pushes into bytes, codes with
//! their texts, tokens. What a command does is the session's business; framing is `websocket`'s:
//! the functions here append one JSON text, the caller makes a frame of it.
//!
//! Invariants:
//! - What is appended never holds a line feed: line feeds separate replies within a frame, so one
//!   inside a payload would break every SDK's parser.
//! - A payload is copied, never parsed: whoever accepted it has checked that it is JSON.
//! - Every [`Disconnect`] has a reason; an SDK that finds none reconnects even where it must not.
//!
//! The Protobuf encoding of the same messages is not spoken; its place is beside [`decode`] and
//! the `push_` and `reply_` functions, chosen once per connection.

mod command;
mod delta;
mod disconnect;
mod error;
mod json;
mod publication;
mod push;
mod reply;
mod token;
mod unsubscribe;

pub use self::{
    command::{
        Command, Commands, ConnectRequest, HistoryRequest, Malformed, Method, PublishRequest, RefreshRequest,
        StreamPosition, SubRefreshRequest, SubscribeRequest, UnsubscribeRequest, decode,
    },
    delta::DeltaEncoder,
    disconnect::Disconnect,
    error::ErrorCode,
    publication::{ClientInfoView, PublicationView},
    push::{PING, push_message, push_publication, push_unsubscribe},
    reply::{
        ConnectResult, HistoryResultView, SubscribeResult, reply_connect, reply_error, reply_history, reply_publish,
        reply_subscribe, reply_unsubscribe,
    },
    token::{
        Claims, Grant, Identity, KeySet, KeySetError, Overrides, SubscriptionToken, TokenError, TokenVerifier, mint,
        mint_operator,
    },
    unsubscribe::Unsubscribe,
};
