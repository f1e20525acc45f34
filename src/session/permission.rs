//! Who may do what in which channel (protocol.md section 12).
//!
//! Pure functions: a namespace's rules and a client in, the namespace or an error code out.
//!
//! Invariant: a channel name that passes has at most [`CHANNEL_BYTES_MAX`] bytes of ASCII, so tables and pushes
//! hold no name that a client made longer or stranger than that.

use std::sync::Arc;

use crate::{
    config::{Namespace, Namespaces},
    limits::CHANNEL_BYTES_MAX,
    protocol::ErrorCode,
};

/// Marks channels that need a subscription token.
const PRIVATE_PREFIX: char = '$';

/// Begins the list of users in the name of a channel that is limited to them.
const USER_BOUNDARY: char = '#';

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// User id; "": anonymous.
    pub user: &'a str,
    /// The console.
    pub is_operator: bool,
}

impl Subject<'_> {
    fn is_known(&self) -> bool {
        !self.user.is_empty()
    }

    /// Channels that are limited to users are open to one client only: the user in its own personal channel.
    fn is_within_boundary(&self, channel: &str) -> bool {
        match channel.split_once(USER_BOUNDARY) {
            None => true,
            Some((before, user)) => before.is_empty() && self.is_known() && user == self.user,
        }
    }
}

/// The name of a user's personal channel.
pub fn personal_channel(user: &str) -> String {
    format!("{USER_BOUNDARY}{user}")
}

/// Checks that a name is one that a client may say.
pub fn check_name(channel: &str) -> Result<(), ErrorCode> {
    if channel.len() > CHANNEL_BYTES_MAX || !channel.is_ascii() {
        return Err(ErrorCode::BadRequest);
    }
    Ok(())
}

/// Whether the client may subscribe by a command, without a subscription token.
pub fn subscribe<'a>(
    namespaces: &'a Namespaces,
    subject: Subject<'_>,
    channel: &str,
) -> Result<&'a Arc<Namespace>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    // A personal channel is subscribed to by the server, at connect; commands have no part in it.
    let is_limited = channel.starts_with(PRIVATE_PREFIX) || channel.contains(USER_BOUNDARY);
    let is_allowed = namespace.allow_subscribe_for_client
        && (subject.is_known() || namespace.allow_subscribe_for_anonymous)
        && !is_limited;
    if subject.is_operator || is_allowed { Ok(namespace) } else { Err(ErrorCode::PermissionDenied) }
}

/// Whether the client may publish.
pub fn publish<'a>(
    namespaces: &'a Namespaces,
    subject: Subject<'_>,
    channel: &str,
    is_subscribed: bool,
) -> Result<&'a Arc<Namespace>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    let is_allowed = (namespace.allow_publish_for_client || namespace.allow_publish_for_subscriber && is_subscribed)
        && (subject.is_known() || namespace.allow_publish_for_anonymous)
        && subject.is_within_boundary(channel);
    if subject.is_operator || is_allowed { Ok(namespace) } else { Err(ErrorCode::PermissionDenied) }
}

/// Whether the client may read the history.
pub fn history<'a>(
    namespaces: &'a Namespaces,
    subject: Subject<'_>,
    channel: &str,
    is_subscribed: bool,
) -> Result<&'a Arc<Namespace>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    if namespace.history_size == 0 {
        return Err(ErrorCode::NotAvailable);
    }
    let is_allowed = (namespace.allow_history_for_client || namespace.allow_history_for_subscriber && is_subscribed)
        && (subject.is_known() || namespace.allow_history_for_anonymous)
        && subject.is_within_boundary(channel);
    if subject.is_operator || is_allowed { Ok(namespace) } else { Err(ErrorCode::PermissionDenied) }
}
