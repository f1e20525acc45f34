//! What tokens do after connect: they renew a connection, open a channel, renew a subscription (protocol.md sections 9 and 16).

use super::{
    Effects, Flow, Reason, Renewal,
    conversation::{Conversation, Refusal},
    execute::named,
    ttl_seconds,
};
use crate::protocol::{
    Disconnect, ErrorCode, Grant, Identity, RefreshRequest, RefreshResult, Reply, SubRefreshRequest, SubRefreshResult,
    SubscriptionToken, TokenError,
};

/// A token that is garbled, forged or somebody else's ends the conversation.
pub(super) const INVALID_TOKEN: Refusal = Refusal::End(Disconnect::INVALID_TOKEN, Reason::TokenInvalid);

/// Where a channel is at stake and not the connection, a token that is no token only keeps the client out.
const NOT_PERMITTED: Refusal = Refusal::ErrorBecause(ErrorCode::PermissionDenied, Reason::TokenInvalid);

impl<E: Effects> Conversation<'_, E> {
    /// Who a connection token proves the client to be.
    pub(super) fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let identity = self.rules.verifier.verify(token, self.token_time())?;
        let user_bytes_max = self.rules.config.client.user_bytes_max();
        if identity.user.len() > user_bytes_max { Err(TokenError::Invalid) } else { Ok(identity) }
    }

    /// What a subscription token grants in this channel.
    pub(super) fn grant(&self, channel: &str, token: &str) -> Result<Grant, Refusal> {
        let token = self.verify_subscription(token).map_err(|error| match error {
            TokenError::Expired => ErrorCode::TokenExpired.into(),
            TokenError::GrantExpired => ErrorCode::Expired.into(),
            TokenError::Invalid => NOT_PERMITTED,
            TokenError::KeyMissing => self.key_missing(NOT_PERMITTED),
        })?;
        // An anonymous client may have been logged out by its page a moment ago: no reason to end its connection.
        if self.effects.user().is_empty() && !token.user.is_empty() {
            return Err(NOT_PERMITTED);
        }
        self.check_owner(&token, channel)?;
        Ok(token.grant)
    }

    pub(super) fn refresh(&mut self, command: u32, request: &RefreshRequest<'_>) -> Result<Flow, Refusal> {
        if request.token.is_empty() {
            return Err(Refusal::End(Disconnect::BAD_REQUEST, Reason::CommandIncomplete));
        }
        let identity = self.verify(&request.token).map_err(|error| match error {
            TokenError::Expired | TokenError::GrantExpired => {
                Refusal::End(Disconnect::CONNECTION_EXPIRED, Reason::ConnectionExpired)
            }
            TokenError::Invalid => INVALID_TOKEN,
            TokenError::KeyMissing => self.key_missing(INVALID_TOKEN),
        })?;
        // Whoever wants to be somebody else connects anew.
        if identity.user != self.effects.user() || identity.is_operator != self.session.is_operator() {
            return Err(INVALID_TOKEN);
        }
        let ttl = identity.expires_at.map(|at| ttl_seconds(at, self.effects.now_unix_seconds()));
        let Identity { expires_at, info, meta, .. } = identity;
        self.effects.refresh(Renewal { expires_at, info, meta });
        let result =
            RefreshResult { expires: ttl.is_some(), ttl_seconds: ttl.unwrap_or_default(), ..RefreshResult::default() };
        self.effects.form().write_reply(self.effects.output(), command, &Reply::Refresh(result));
        Ok(Flow::Continue)
    }

    pub(super) fn sub_refresh(&mut self, command: u32, request: &SubRefreshRequest<'_>) -> Result<Flow, Refusal> {
        let channel = named(&request.channel)?;
        if request.kind != 0 {
            return Err(ErrorCode::NotAvailable.into());
        }
        if !self.effects.is_subscribed(channel) {
            return Err(ErrorCode::PermissionDenied.into());
        }
        if request.token.is_empty() {
            // Where the back end is asked instead, the server asks it.
            return Err(ErrorCode::NotAvailable.into());
        }
        let token = self.verify_subscription(&request.token).map_err(|error| match error {
            // The subscription goes on until its own time is over; the library fetches another token until then.
            TokenError::Expired => ErrorCode::TokenExpired.into(),
            TokenError::GrantExpired => ErrorCode::Expired.into(),
            TokenError::Invalid => INVALID_TOKEN,
            TokenError::KeyMissing => self.key_missing(INVALID_TOKEN),
        })?;
        self.check_owner(&token, channel)?;
        let Grant { expires_at, info, .. } = token.grant;
        let ttl = expires_at.map(|at| ttl_seconds(at, self.effects.now_unix_seconds()));
        self.effects.refresh_subscription(channel, expires_at, info);
        let result = SubRefreshResult { expires: ttl.is_some(), ttl_seconds: ttl.unwrap_or_default() };
        self.effects.form().write_reply(self.effects.output(), command, &Reply::SubRefresh(result));
        Ok(Flow::Continue)
    }

    fn verify_subscription(&self, token: &str) -> Result<SubscriptionToken, TokenError> {
        self.rules.verifier.verify_subscription(token, self.token_time())
    }

    /// A token that was made for another channel, user or client was taken from somewhere.
    fn check_owner(&self, token: &SubscriptionToken, channel: &str) -> Result<(), Refusal> {
        let is_owner = token.channel == channel
            && token.user == self.effects.user()
            && token.client.as_ref().is_none_or(|client| *client == self.effects.client());
        if is_owner { Ok(()) } else { Err(INVALID_TOKEN) }
    }

    /// The time by which tokens are judged; none on a server without rules (`client.insecure`), where nothing expires.
    pub(super) fn token_time(&self) -> Option<u64> {
        (!self.rules.config.client.insecure).then(|| self.effects.now_unix_seconds())
    }
}
