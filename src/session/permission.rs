//! Who may do what in which channel (protocol.md section 12).
//!
//! Pure functions: a namespace's rules and a client in, the namespace or an error code out.
//!
//! Invariant: a channel name that passes has at most [`CHANNEL_BYTES_MAX`] bytes, and is ASCII or what its namespace's
//! `channel_regex` says, so tables and pushes hold no name that a client made longer or stranger than that.

use std::sync::Arc;

use crate::{
    config::{Namespace, Namespaces},
    limits::CHANNEL_BYTES_MAX,
    protocol::ErrorCode,
};

/// Marks channels that need a subscription token.
const PRIVATE_PREFIX: char = '$';

/// Ends the namespace in a channel's name.
const NAMESPACE_BOUNDARY: char = ':';

/// Begins the list of users in the name of a channel that is limited to them.
const USER_BOUNDARY: char = '#';

/// Between the users of that list.
const USER_SEPARATOR: char = ',';

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// User id; "": anonymous.
    pub user: &'a str,
    /// The console, or any client of a server without rules (`client.insecure`): what exists may be used.
    pub is_unrestricted: bool,
    /// The console: no back end is asked about it.
    pub is_operator: bool,
}

/// Who decides.
#[derive(Debug, Clone, Copy)]
pub enum Access<'a> {
    /// The rules of this namespace, and they allow it.
    Granted(&'a Arc<Namespace>),
    /// The application's back end, which the channels of this namespace ask.
    Asked(&'a Arc<Namespace>),
}

impl<'a> Access<'a> {
    /// The namespace of the channel.
    pub fn namespace(self) -> &'a Arc<Namespace> {
        match self {
            Self::Granted(namespace) | Self::Asked(namespace) => namespace,
        }
    }
}

impl Subject<'_> {
    fn is_known(&self) -> bool {
        !self.user.is_empty()
    }

    /// Whether the subject is among the users that the channel is limited to; anybody is, where it is not.
    fn is_within_boundary(&self, channel: &str) -> bool {
        match channel.split_once(USER_BOUNDARY) {
            None => true,
            // A personal channel is of the one user whose id follows, commas or not.
            Some((before, user)) if before.is_empty() || before.ends_with(NAMESPACE_BOUNDARY) => {
                self.is_known() && user == self.user
            }
            Some((_, users)) => self.is_known() && users.split(USER_SEPARATOR).any(|user| user == self.user),
        }
    }
}

/// Checks that a name is one that a client may say.
pub fn check_name(namespaces: &Namespaces, channel: &str) -> Result<(), ErrorCode> {
    if channel.len() > CHANNEL_BYTES_MAX {
        return Err(ErrorCode::BadRequest);
    }
    let is_allowed = match namespaces.of_channel(channel).and_then(|namespace| namespace.channel_regex.as_ref()) {
        Some(regex) => regex.matches(within_namespace(channel)),
        None => channel.is_ascii(),
    };
    if is_allowed { Ok(()) } else { Err(ErrorCode::BadRequest) }
}

/// Whether the client may subscribe by a command, without a subscription token.
///
/// A valid token is asked for before and decides alone; then the name, which may list the client's user; then the back
/// end; then the namespace; then whether there are rules at all.
pub fn subscribe<'a>(namespaces: &'a Namespaces, subject: Subject<'_>, channel: &str) -> Result<Access<'a>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    let is_limited = channel.contains(USER_BOUNDARY);
    let is_listed = is_limited && namespace.allow_user_limited_channels && subject.is_within_boundary(channel);
    let is_open = !is_limited
        && namespace.allow_subscribe_for_client
        && (subject.is_known() || namespace.allow_subscribe_for_anonymous);
    let is_private = channel.starts_with(PRIVATE_PREFIX);
    if namespace.subscribe_proxy_enabled && !is_private && !is_listed && !subject.is_operator {
        return Ok(Access::Asked(namespace));
    }
    permit(namespace, subject, !is_private && (is_listed || is_open)).map(Access::Granted)
}

/// Whether the client may publish. Where the back end is asked, it decides alone.
pub fn publish<'a>(
    namespaces: &'a Namespaces,
    subject: Subject<'_>,
    channel: &str,
    is_subscribed: bool,
) -> Result<Access<'a>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    if namespace.publish_proxy_enabled && !subject.is_operator {
        return Ok(Access::Asked(namespace));
    }
    let is_allowed = (namespace.allow_publish_for_client || namespace.allow_publish_for_subscriber && is_subscribed)
        && (subject.is_known() || namespace.allow_publish_for_anonymous)
        && subject.is_within_boundary(channel);
    permit(namespace, subject, is_allowed).map(Access::Granted)
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
    permit(namespace, subject, is_allowed)
}

/// Whether the client may ask who is subscribed.
pub fn presence<'a>(
    namespaces: &'a Namespaces,
    subject: Subject<'_>,
    channel: &str,
    is_subscribed: bool,
) -> Result<&'a Arc<Namespace>, ErrorCode> {
    let namespace = namespaces.of_channel(channel).ok_or(ErrorCode::UnknownChannel)?;
    if !namespace.presence {
        return Err(ErrorCode::NotAvailable);
    }
    let is_allowed = (namespace.allow_presence_for_client || namespace.allow_presence_for_subscriber && is_subscribed)
        && (subject.is_known() || namespace.allow_presence_for_anonymous)
        && subject.is_within_boundary(channel);
    permit(namespace, subject, is_allowed)
}

fn permit<'a>(
    namespace: &'a Arc<Namespace>,
    subject: Subject<'_>,
    is_allowed: bool,
) -> Result<&'a Arc<Namespace>, ErrorCode> {
    if subject.is_unrestricted || is_allowed { Ok(namespace) } else { Err(ErrorCode::PermissionDenied) }
}

/// A channel's name without its namespace, which a personal channel does not have.
fn within_namespace(channel: &str) -> &str {
    if channel.starts_with(USER_BOUNDARY) {
        return channel;
    }
    let name = channel.strip_prefix(PRIVATE_PREFIX).unwrap_or(channel);
    name.split_once(NAMESPACE_BOUNDARY).map_or(name, |(_, name)| name)
}
