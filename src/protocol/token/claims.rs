//! What tokens say, and what of it is valid (protocol.md section 16; RFC 7519 section 4).
//!
//! Owns the rules of the claims. The time is the caller's, so that a simulation can own it.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Grant, Identity, Overrides, SubscriptionToken, TokenError};
use crate::{
    config::{Pattern, TokenConfig},
    limits::USER_BYTES_MAX,
    protocol::grant::{NotJson, ReceivedGrant, expiry, json},
};

/// The claims that matter. Dates are numbers, with or without a fraction (RFC 7519 section 2).
#[derive(Deserialize)]
pub(super) struct Claims<'a> {
    #[serde(borrow, default)]
    sub: Option<Cow<'a, str>>,
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    expire_at: Option<f64>,
    #[serde(borrow, default)]
    aud: Option<&'a RawValue>,
    #[serde(borrow, default)]
    iss: Option<&'a RawValue>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    /// Takes precedence over `channels`.
    #[serde(borrow, default)]
    subs: Option<BTreeMap<String, ReceivedGrant<'a>>>,
    /// Only subscription tokens have it; one of those must not open a connection.
    #[serde(borrow, default)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    client: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Option<Cow<'a, str>>,
    #[serde(rename = "override", default)]
    overrides: Option<Overrides>,
}

impl<'a> Claims<'a> {
    /// Reads a payload. None: not JSON, or a claim of a wrong type.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }

    /// Takes the user from another claim than `sub`. Whether that claim is none or a string.
    pub fn take_user_from(&mut self, payload: &'a [u8], claim: &str) -> bool {
        let claims: Option<BTreeMap<Cow<'a, str>, &'a RawValue>> = serde_json::from_slice(payload).ok();
        let value = claims.and_then(|claims| claims.get(claim).copied());
        let user = value.map(|value| serde_json::from_str::<Cow<'a, str>>(value.get()));
        self.sub = user.as_ref().and_then(|user| user.as_ref().ok().cloned());
        user.is_none_or(|user| user.is_ok())
    }

    /// Whether the token is meant for here, and by whom it should be.
    pub fn are_for(&self, config: &TokenConfig) -> bool {
        let audience = Demand::new(config.audience.as_deref(), config.audience_regex.as_ref());
        let issuer = Demand::new(config.issuer.as_deref(), config.issuer_regex.as_ref());
        audience.is_none_or(|audience| {
            let named = self.aud.map(|aud| serde_json::from_str::<OneOrMore<'_>>(aud.get()));
            named.and_then(Result::ok).is_some_and(|named| named.any(|one| audience.is_met_by(one)))
        }) && issuer.is_none_or(|issuer| {
            let named = self.iss.map(|iss| serde_json::from_str::<Cow<'_, str>>(iss.get()));
            named.and_then(Result::ok).is_some_and(|named| issuer.is_met_by(&named))
        })
    }

    /// What the token proves, as a connection token. `now` is in seconds since 1970; none: nothing expires.
    pub fn into_identity(self, now: Option<u64>) -> Result<Identity, TokenError> {
        if self.channel.is_some() {
            return Err(TokenError::Invalid);
        }
        let expires_at = self.expires_at(now)?;
        let user = self.user()?;
        let channels = match self.subs {
            None => self.channels.unwrap_or_default().into_iter().map(|name| (name, Grant::default())).collect(),
            Some(subs) => {
                let channels = subs.into_iter().map(|(name, received)| Ok((name, grant(received, now)?)));
                channels.collect::<Result<_, TokenError>>()?
            }
        };
        Ok(Identity {
            user,
            expires_at,
            info: json("info", self.info, self.b64info.as_deref())?,
            meta: json("meta", self.meta, None)?,
            channels,
            is_operator: false,
        })
    }

    /// What the token opens, as a subscription token. `now` is in seconds since 1970; none: nothing expires.
    pub fn into_subscription(self, now: Option<u64>) -> Result<SubscriptionToken, TokenError> {
        let expires_at = self.expires_at(now)?;
        Ok(SubscriptionToken {
            user: self.user()?,
            channel: self.channel.ok_or(TokenError::Invalid)?.into_owned(),
            client: self.client.filter(|client| !client.is_empty()).map(Cow::into_owned),
            grant: Grant {
                expires_at,
                info: json("info", self.info, self.b64info.as_deref())?,
                data: json("data", self.data, self.b64data.as_deref())?,
                overrides: self.overrides.unwrap_or_default(),
            },
        })
    }

    fn user(&self) -> Result<String, TokenError> {
        let user = self.sub.as_deref().unwrap_or_default();
        if user.len() > USER_BYTES_MAX { Err(TokenError::Invalid) } else { Ok(user.to_owned()) }
    }

    /// When what the token grants ends. A token whose time has not come is treated as one whose time is over: both are
    /// answered so that the client's library fetches another.
    fn expires_at(&self, now: Option<u64>) -> Result<Option<u64>, TokenError> {
        let Some(now) = now else { return Ok(None) };
        let now_seconds = now as f64;
        if self.exp.is_some_and(|exp| exp <= now_seconds) || self.nbf.is_some_and(|nbf| nbf > now_seconds) {
            return Err(TokenError::Expired);
        }
        match self.expire_at {
            None => Ok(self.exp.map(seconds)),
            Some(expire_at) => match expiry(expire_at) {
                Some(at) if at <= now => Err(TokenError::GrantExpired),
                expires_at => Ok(expires_at),
            },
        }
    }
}

/// An entry of `subs`. Where its time is over, so is the token's: a library that fetches another can go on.
fn grant(received: ReceivedGrant<'_>, now: Option<u64>) -> Result<Grant, TokenError> {
    let grant = received.read(false)?;
    match (grant.expires_at, now) {
        (Some(at), Some(now)) if at <= now => Err(TokenError::Expired),
        (_, Some(_)) => Ok(grant),
        (_, None) => Ok(Grant { expires_at: None, ..grant }),
    }
}

impl From<NotJson> for TokenError {
    fn from(_: NotJson) -> Self {
        Self::Invalid
    }
}

/// What the operator demands of a text.
enum Demand<'a> {
    Text(&'a str),
    Pattern(&'a Pattern),
}

impl<'a> Demand<'a> {
    fn new(text: Option<&'a str>, pattern: Option<&'a Pattern>) -> Option<Self> {
        text.map(Self::Text).or(pattern.map(Self::Pattern))
    }

    fn is_met_by(&self, named: &str) -> bool {
        match self {
            Self::Text(text) => named == *text,
            Self::Pattern(pattern) => pattern.matches(named),
        }
    }
}

/// `aud`: a text or several (RFC 7519 section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<'a> {
    #[serde(borrow)]
    One(Cow<'a, str>),
    More(Vec<Cow<'a, str>>),
}

impl OneOrMore<'_> {
    fn any(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(one) => is_meant(one),
            Self::More(more) => more.iter().any(|one| is_meant(one)),
        }
    }
}

/// A fraction of a second more or less does not matter; a date beyond all is the last there is.
fn seconds(date: f64) -> u64 {
    date as u64
}
