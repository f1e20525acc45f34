//! What tokens say, and what of it is valid (protocol.md section 16; RFC 7519 section 4).
//!
//! Owns the rules of the claims. The time is the caller's, so that a simulation can own it.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{Grant, Identity, Overrides, SubscriptionToken, TokenError};
use crate::{
    config::{Pattern, TokenConfig},
    limits::USER_BYTES_MAX,
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
    subs: Option<BTreeMap<String, ServerSide<'a>>>,
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

/// An entry of `subs`.
#[derive(Deserialize)]
struct ServerSide<'a> {
    #[serde(default)]
    expire_at: Option<f64>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Option<Cow<'a, str>>,
    #[serde(rename = "override", default)]
    overrides: Option<Overrides>,
}

/// Overrides as tokens and the server API write them.
#[derive(Deserialize)]
pub(super) struct ReceivedOverrides {
    #[serde(default)]
    presence: Option<Switch>,
    #[serde(default)]
    join_leave: Option<Switch>,
    #[serde(default)]
    force_push_join_leave: Option<Switch>,
    #[serde(default)]
    force_recovery: Option<Switch>,
    #[serde(default)]
    force_positioning: Option<Switch>,
}

#[derive(Deserialize)]
struct Switch {
    #[serde(default)]
    value: bool,
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
                let channels = subs.into_iter().map(|(name, server_side)| Ok((name, server_side.grant(now)?)));
                channels.collect::<Result<_, TokenError>>()?
            }
        };
        Ok(Identity {
            user,
            expires_at,
            info: json(self.info, self.b64info.as_deref())?,
            meta: json(self.meta, None)?,
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
                info: json(self.info, self.b64info.as_deref())?,
                data: json(self.data, self.b64data.as_deref())?,
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
            Some(expire_at) => expiry(expire_at, Some(now)),
        }
    }
}

impl ServerSide<'_> {
    fn grant(self, now: Option<u64>) -> Result<Grant, TokenError> {
        Ok(Grant {
            expires_at: self.expire_at.map_or(Ok(None), |expire_at| expiry(expire_at, now))?,
            info: json(self.info, self.b64info.as_deref())?,
            data: json(self.data, self.b64data.as_deref())?,
            overrides: self.overrides.unwrap_or_default(),
        })
    }
}

impl From<ReceivedOverrides> for Overrides {
    fn from(received: ReceivedOverrides) -> Self {
        let value = |switch: Option<Switch>| switch.map(|switch| switch.value);
        Self {
            presence: value(received.presence),
            join_leave: value(received.join_leave),
            force_push_join_leave: value(received.force_push_join_leave),
            force_recovery: value(received.force_recovery),
            force_positioning: value(received.force_positioning),
        }
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

/// `expire_at`: 0 or less is never.
fn expiry(expire_at: f64, now: Option<u64>) -> Result<Option<u64>, TokenError> {
    let Some(now) = now else { return Ok(None) };
    match expire_at {
        never if never <= 0.0 => Ok(None),
        past if past <= now as f64 => Err(TokenError::GrantExpired),
        future => Ok(Some(seconds(future))),
    }
}

/// A fraction of a second more or less does not matter; a date beyond all is the last there is.
fn seconds(date: f64) -> u64 {
    date as u64
}

/// A JSON text, without line feeds, so that it can be copied into replies and pushes as it is.
fn json(plain: Option<&RawValue>, base64: Option<&str>) -> Result<Option<Bytes>, TokenError> {
    let json: Cow<'_, [u8]> = match (base64, plain) {
        (Some(base64), _) => {
            let json = STANDARD.decode(base64).map_err(|_| TokenError::Invalid)?;
            serde_json::from_slice::<IgnoredAny>(&json).map_err(|_| TokenError::Invalid)?;
            json.into()
        }
        (None, Some(plain)) => plain.get().as_bytes().into(),
        (None, None) => return Ok(None),
    };
    Ok(Some(json.iter().copied().filter(|byte| *byte != b'\n').collect()))
}
