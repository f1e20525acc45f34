//! What comes with a subscription, as tokens and the application's back end say it (protocol.md sections 16 and 20).

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// What comes with a subscription.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// When the subscription expires, in seconds since 1970; none: never.
    pub expires_at: Option<u64>,
    /// What other subscribers may see of this one: a JSON text.
    pub info: Option<Bytes>,
    /// What the client is told with the subscription: a JSON text, or any bytes for a client that takes them.
    pub data: Option<Bytes>,
    /// Options that differ from the namespace's.
    pub overrides: Overrides,
}

/// Options of a namespace that may be set for one subscription; none: as the namespace says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "ReceivedOverrides")]
pub struct Overrides {
    /// Others can see that it is there.
    pub presence: Option<bool>,
    /// Others are told when it comes and goes.
    pub join_leave: Option<bool>,
    /// It is told when others come and go.
    pub force_push_join_leave: Option<bool>,
    /// It can recover.
    pub force_recovery: Option<bool>,
    /// It knows its position.
    pub force_positioning: Option<bool>,
}

/// A grant as it is written.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReceivedGrant<'a> {
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

/// Overrides as they are written.
#[derive(Deserialize)]
struct ReceivedOverrides {
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

/// What should be JSON, or base64 of it, is not. The text says which member it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not what it should be")]
pub(super) struct NotJson(pub &'static str);

impl ReceivedGrant<'_> {
    /// What it grants. The date is not held against any time. `takes_bytes`: the client's data need not be JSON.
    pub fn read(self, takes_bytes: bool) -> Result<Grant, NotJson> {
        Ok(Grant {
            expires_at: self.expire_at.and_then(expiry),
            info: json("info", self.info, self.b64info.as_deref())?,
            data: payload("data", self.data, self.b64data.as_deref(), takes_bytes)?,
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

/// `expire_at`: 0 or less is never. A fraction of a second more or less does not matter; a date beyond all is the last
/// there is.
pub(super) fn expiry(expire_at: f64) -> Option<u64> {
    (expire_at > 0.0).then_some(expire_at as u64)
}

/// A JSON text, without line feeds, so that it can be copied into replies and pushes as it is.
pub(super) fn json(
    member: &'static str,
    plain: Option<&RawValue>,
    base64: Option<&str>,
) -> Result<Option<Bytes>, NotJson> {
    payload(member, plain, base64, false)
}

/// The same, or, in base64, any bytes for whoever takes them.
pub(super) fn payload(
    member: &'static str,
    plain: Option<&RawValue>,
    base64: Option<&str>,
    takes_bytes: bool,
) -> Result<Option<Bytes>, NotJson> {
    let json: Cow<'_, [u8]> = match (base64, plain) {
        (Some(base64), _) => {
            let bytes = STANDARD.decode(base64).map_err(|_| NotJson(member))?;
            if takes_bytes {
                return Ok(Some(bytes.into()));
            }
            serde_json::from_slice::<IgnoredAny>(&bytes).map_err(|_| NotJson(member))?;
            bytes.into()
        }
        (None, Some(plain)) => plain.get().as_bytes().into(),
        (None, None) => return Ok(None),
    };
    Ok(Some(json.iter().copied().filter(|byte| *byte != b'\n').collect()))
}
