//! What the application's back end is asked, and what it answers: the bodies of requests over HTTP (protocol.md
//! section 20).
//!
//! Owns both texts. When something is asked, and what follows from an answer, is the session's business.
//!
//! Invariant: an answer that was read can be passed on to clients as it is: what they are sent as JSON is JSON, without
//! line feeds, and dates, codes and lengths are within their bounds. What is not in order is no answer at all.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::{
    Disconnect, Encoding, Grant, Identity, Tags,
    grant::{NotJson, ReceivedGrant, expiry, json, payload},
};
use crate::{
    config::{Hook, HookRefusal},
    limits::{IDEMPOTENCY_KEY_BYTES_MAX, USER_BYTES_MAX, VERSION_EPOCH_BYTES_MAX},
};

/// A question's body. What does not belong to the hook is left out.
#[derive(Debug, Default, Serialize)]
pub struct HookRequest<'a> {
    /// Client id.
    pub client: &'a str,
    /// How the client is connected.
    pub transport: &'static str,
    /// Its encoding: `json` or `protobuf`.
    pub protocol: &'static str,
    /// `json`, or `binary` if payloads go and come in base64.
    pub encoding: &'static str,
    /// User id; none: who it is is the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// The channel in question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<&'a str>,
    /// What an rpc command calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'a str>,
    /// What the client says.
    #[serde(flatten)]
    pub payload: HookPayload<'a>,
    /// What a connecting client's program calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'a str>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'a str>,
    /// Channels that a connecting client asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<&'a str>,
    /// What the back end, or a token, gave the connection to keep: a JSON text.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "verbatim")]
    pub meta: Option<&'a [u8]>,
    /// Why the client has gone: the code of its close frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
}

impl HookRequest<'_> {
    /// The body.
    pub fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings, numbers and JSON texts become JSON").into()
    }
}

/// What a client says to the application.
#[derive(Debug, Default, Serialize)]
pub struct HookPayload<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64data: Option<String>,
}

impl<'a> HookPayload<'a> {
    /// A payload as a client of this encoding sent it; none: it is not JSON where it must be. `is_binary`: those of
    /// Protobuf clients go in base64.
    pub fn new(data: Option<&'a [u8]>, encoding: Encoding, is_binary: bool) -> Option<Self> {
        match data {
            None => Some(Self::default()),
            Some(data) if encoding == Encoding::Protobuf && is_binary => {
                Some(Self { data: None, b64data: Some(STANDARD.encode(data)) })
            }
            Some(data) => Some(Self { data: Some(serde_json::from_slice(data).ok()?), b64data: None }),
        }
    }
}

/// A JSON text, as it is.
fn verbatim<S: Serializer>(json: &Option<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    let json = json.map(|json| serde_json::from_slice::<&RawValue>(json).map_err(serde::ser::Error::custom));
    json.transpose()?.serialize(serializer)
}

/// What the back end answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookAnswer {
    /// To [`Hook::Connect`]: who the client is.
    Connect(Box<ConnectAnswer>),
    /// To [`Hook::Refresh`] and [`Hook::SubRefresh`].
    Refresh(RefreshAnswer),
    /// To [`Hook::Subscribe`]: it may, and this comes with it.
    Subscribe(Box<Grant>),
    /// To [`Hook::Publish`]: it may.
    Publish(Box<PublishAnswer>),
    /// To [`Hook::Rpc`]: what the client is told.
    Rpc(Option<Bytes>),
    /// To any: what it asked for is refused.
    Refused(HookRefusal),
}

/// Who a connecting client is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectAnswer {
    /// As a token would say it. Dates are not held against the time.
    pub identity: Identity,
    /// What the client is told with its connection.
    pub data: Option<Bytes>,
}

/// Whether something whose time was over goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefreshAnswer {
    /// It does not.
    pub is_expired: bool,
    /// Until then, in seconds since 1970; none: for ever.
    pub expires_at: Option<u64>,
    /// What others see of the client from now on, if it is to change: a JSON text.
    pub info: Option<Bytes>,
    /// What is kept with the connection from now on, if it is to change: a JSON text.
    pub meta: Option<Bytes>,
}

/// How a publication goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishAnswer {
    /// The payload instead of the client's.
    pub data: Option<Bytes>,
    /// Delivered, but not stored.
    pub skip_history: bool,
    /// Subscribers with deltas may be sent a patch.
    pub delta: bool,
    /// Which version of the channel's state it is; 0: it has none.
    pub version: u64,
    /// Versions of one epoch are compared; "": with those of any.
    pub version_epoch: String,
    /// Strings by name.
    pub tags: Option<Tags>,
    /// Publications with the same key are one.
    pub idempotency_key: Option<Bytes>,
}

/// Why an answer is none. The text is for whoever wrote the back end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AnswerError(Cow<'static, str>);

#[derive(Deserialize)]
struct Received<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ReceivedError>,
    #[serde(default)]
    disconnect: Option<ReceivedDisconnect>,
}

#[derive(Deserialize)]
struct ReceivedError {
    code: u32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    temporary: bool,
}

#[derive(Deserialize)]
struct ReceivedDisconnect {
    code: u32,
    reason: String,
}

#[derive(Deserialize)]
struct ReceivedConnect<'a> {
    #[serde(default)]
    user: Option<String>,
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
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
    #[serde(default)]
    channels: Option<Vec<String>>,
    /// Takes precedence over `channels`.
    #[serde(borrow, default)]
    subs: Option<BTreeMap<String, ReceivedGrant<'a>>>,
}

#[derive(Deserialize)]
struct ReceivedRefresh<'a> {
    #[serde(default)]
    expired: Option<bool>,
    #[serde(default)]
    expire_at: Option<f64>,
    #[serde(borrow, default)]
    info: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64info: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ReceivedPublish<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Option<Cow<'a, str>>,
    #[serde(default)]
    skip_history: Option<bool>,
    #[serde(default)]
    delta: Option<bool>,
    #[serde(default)]
    version: Option<u64>,
    #[serde(default)]
    version_epoch: Option<String>,
    #[serde(borrow, default)]
    tags: Option<&'a RawValue>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
struct ReceivedRpc<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Option<Cow<'a, str>>,
}

impl HookAnswer {
    /// Reads a body. `takes_bytes`: the client's payloads need not be JSON.
    ///
    /// # Errors
    /// When it is not what an answer to this question must be, or says none of `result`, `error` and `disconnect`.
    pub fn read(hook: Hook, body: &[u8], takes_bytes: bool) -> Result<Self, AnswerError> {
        let received: Received<'_> = serde_json::from_slice(body)?;
        if let Some(ReceivedDisconnect { code, reason }) = received.disconnect {
            return match Disconnect::custom(code, &reason) {
                Some(_) => Ok(Self::Refused(HookRefusal::Disconnect { code, reason })),
                None => {
                    Err(AnswerError("disconnect needs a code from 3000 to 4999 and a reason of 1 to 123 bytes".into()))
                }
            };
        }
        if let Some(ReceivedError { code, message, temporary }) = received.error {
            return match code {
                0 => Err(AnswerError("error needs a code that is not 0".into())),
                code => Ok(Self::Refused(HookRefusal::Error { code, message, is_temporary: temporary })),
            };
        }
        let Some(result) = received.result.map(RawValue::get) else {
            return Err(AnswerError("none of result, error and disconnect is there".into()));
        };
        Ok(match hook {
            Hook::Connect => Self::Connect(Box::new(read_connect(serde_json::from_str(result)?, takes_bytes)?)),
            Hook::Refresh | Hook::SubRefresh => Self::Refresh(read_refresh(serde_json::from_str(result)?)?),
            Hook::Subscribe => {
                let received: ReceivedGrant<'_> = serde_json::from_str(result)?;
                Self::Subscribe(Box::new(received.read(takes_bytes)?))
            }
            Hook::Publish => Self::Publish(Box::new(read_publish(&serde_json::from_str(result)?)?)),
            Hook::Rpc => {
                let ReceivedRpc { data, b64data } = serde_json::from_str(result)?;
                Self::Rpc(payload("data", data, b64data.as_deref(), takes_bytes)?)
            }
            Hook::Disconnect | Hook::Attributes => return Err(AnswerError("nobody waits for it".into())),
        })
    }
}

fn read_connect(received: ReceivedConnect<'_>, takes_bytes: bool) -> Result<ConnectAnswer, AnswerError> {
    let user = received.user.unwrap_or_default();
    if user.len() > USER_BYTES_MAX {
        return Err(AnswerError(format!("user is longer than {USER_BYTES_MAX} bytes").into()));
    }
    let channels = match received.subs {
        None => received.channels.unwrap_or_default().into_iter().map(|name| (name, Grant::default())).collect(),
        Some(subs) => {
            let channels = subs.into_iter().map(|(name, grant)| Ok((name, grant.read(takes_bytes)?)));
            channels.collect::<Result<_, AnswerError>>()?
        }
    };
    Ok(ConnectAnswer {
        identity: Identity {
            user,
            expires_at: received.expire_at.and_then(expiry),
            info: json("info", received.info, received.b64info.as_deref())?,
            meta: json("meta", received.meta, None)?,
            channels,
            is_operator: false,
        },
        data: payload("data", received.data, received.b64data.as_deref(), takes_bytes)?,
    })
}

fn read_refresh(received: ReceivedRefresh<'_>) -> Result<RefreshAnswer, AnswerError> {
    Ok(RefreshAnswer {
        is_expired: received.expired.unwrap_or_default(),
        expires_at: received.expire_at.and_then(expiry),
        info: json("info", received.info, received.b64info.as_deref())?,
        meta: json("meta", received.meta, None)?,
    })
}

fn read_publish(received: &ReceivedPublish<'_>) -> Result<PublishAnswer, AnswerError> {
    let idempotency_key = received.idempotency_key.as_deref().filter(|key| !key.is_empty());
    if idempotency_key.is_some_and(|key| key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
        return Err(AnswerError(format!("idempotency_key is longer than {IDEMPOTENCY_KEY_BYTES_MAX} bytes").into()));
    }
    let version_epoch = received.version_epoch.as_deref().unwrap_or_default();
    if version_epoch.len() > VERSION_EPOCH_BYTES_MAX {
        return Err(AnswerError(format!("version_epoch is longer than {VERSION_EPOCH_BYTES_MAX} bytes").into()));
    }
    Ok(PublishAnswer {
        // What its channel takes is checked there.
        data: payload("data", received.data, received.b64data.as_deref(), true)?,
        skip_history: received.skip_history.unwrap_or_default(),
        delta: received.delta.unwrap_or_default(),
        version: received.version.unwrap_or_default(),
        version_epoch: version_epoch.to_owned(),
        tags: received.tags.map(|tags| Tags::from_json(tags.get().as_bytes())).transpose()?,
        idempotency_key: idempotency_key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
    })
}

impl From<serde_json::Error> for AnswerError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string().into())
    }
}

impl From<NotJson> for AnswerError {
    fn from(error: NotJson) -> Self {
        Self(error.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(hook: Hook, body: serde_json::Value) -> Result<HookAnswer, AnswerError> {
        HookAnswer::read(hook, body.to_string().as_bytes(), false)
    }

    fn error(hook: Hook, body: serde_json::Value) -> String {
        read(hook, body).expect_err("no answer").to_string()
    }

    #[test]
    fn a_question_says_what_belongs_to_it_and_no_more() {
        let data = HookPayload::new(Some(b"{\"d\": 1}"), Encoding::Json, true).expect("JSON");
        let request = HookRequest {
            client: "c-1",
            transport: "websocket",
            protocol: "json",
            encoding: "json",
            user: Some("56"),
            channel: Some("ok"),
            payload: data,
            ..HookRequest::default()
        };
        let expected = r#"{"client":"c-1","transport":"websocket","protocol":"json","encoding":"json","user":"56","channel":"ok","data":{"d": 1}}"#;
        assert_eq!(request.to_json(), expected);
        let request = HookRequest { meta: Some(b"[1, 2]"), code: Some(3012), reason: Some("no pong"), ..request };
        assert!(request.to_json().ends_with(br#","meta":[1, 2],"code":3012,"reason":"no pong"}"#));
    }

    #[test]
    fn payloads_of_protobuf_clients_are_json_or_base64_as_configured() {
        let payload = |data, encoding, is_binary| {
            let payload = HookPayload::new(Some(data), encoding, is_binary)?;
            Some(serde_json::to_string(&payload).expect("JSON"))
        };
        assert_eq!(payload(b"\xff\x00", Encoding::Protobuf, true).as_deref(), Some(r#"{"b64data":"/wA="}"#));
        assert_eq!(payload(b"[1]", Encoding::Protobuf, true).as_deref(), Some(r#"{"b64data":"WzFd"}"#));
        assert_eq!(payload(b"[1]", Encoding::Protobuf, false).as_deref(), Some(r#"{"data":[1]}"#));
        assert_eq!(payload(b"\xff\x00", Encoding::Protobuf, false), None);
        assert_eq!(payload(b"[1]", Encoding::Json, true).as_deref(), Some(r#"{"data":[1]}"#));
        assert!(serde_json::to_string(&HookPayload::default()).is_ok_and(|json| json == "{}"));
    }

    #[test]
    fn a_connect_answer_is_an_identity() {
        let body = json!({"result": {
            "user": "56", "expire_at": 1_700_000_000, "info": {"name": "Al"}, "data": [1], "meta": {"ip": "::1"},
            "channels": ["ignored"], "subs": {"news": {"data": 7, "override": {"presence": {"value": true}}}},
        }});
        let HookAnswer::Connect(answer) = read(Hook::Connect, body).expect("an answer") else { panic!("another kind") };
        let identity = &answer.identity;
        assert_eq!((identity.user.as_str(), identity.expires_at), ("56", Some(1_700_000_000)));
        assert_eq!(identity.info.as_deref(), Some(&br#"{"name":"Al"}"#[..]));
        assert_eq!(
            (identity.meta.as_deref(), answer.data.as_deref()),
            (Some(&br#"{"ip":"::1"}"#[..]), Some(&b"[1]"[..]))
        );
        assert_eq!(identity.channels.len(), 1);
        assert_eq!(identity.channels[0].1.overrides.presence, Some(true));
        let anonymous = read(Hook::Connect, json!({"result": {"channels": ["a", "b"]}})).expect("an answer");
        let HookAnswer::Connect(anonymous) = anonymous else { panic!("another kind") };
        assert_eq!((anonymous.identity.user.as_str(), anonymous.identity.channels.len()), ("", 2));
        let long = "u".repeat(USER_BYTES_MAX + 1);
        assert_eq!(error(Hook::Connect, json!({"result": {"user": long}})), "user is longer than 254 bytes");
    }

    #[test]
    fn errors_and_disconnects_are_passed_on() {
        let body = json!({"result": {}, "error": {"code": 1000, "message": "odd", "temporary": true}});
        let expected = HookRefusal::Error { code: 1000, message: "odd".to_owned(), is_temporary: true };
        assert_eq!(read(Hook::Rpc, body), Ok(HookAnswer::Refused(expected)));
        let body = json!({"disconnect": {"code": 4500, "reason": "banned"}});
        let expected = HookRefusal::Disconnect { code: 4500, reason: "banned".to_owned() };
        assert_eq!(read(Hook::Connect, body), Ok(HookAnswer::Refused(expected)));
        let disconnect = "disconnect needs a code from 3000 to 4999 and a reason of 1 to 123 bytes";
        for (body, expected) in [
            (json!({"disconnect": {"code": 1000, "reason": "x"}}), disconnect),
            (json!({"disconnect": {"code": 4000, "reason": ""}}), disconnect),
            (json!({"error": {"code": 0}}), "error needs a code that is not 0"),
            (json!({}), "none of result, error and disconnect is there"),
            (json!({"result": null}), "none of result, error and disconnect is there"),
        ] {
            assert_eq!(error(Hook::Rpc, body), expected);
        }
    }

    #[test]
    fn a_publication_may_be_changed() {
        let body = json!({"result": {"data": {"n": 2}, "skip_history": true, "tags": {"a": "b"}, "idempotency_key": "k",
            "delta": true, "version": 7, "version_epoch": "v"}});
        let HookAnswer::Publish(answer) = read(Hook::Publish, body).expect("an answer") else { panic!("another kind") };
        assert_eq!(answer.data.as_deref(), Some(&br#"{"n":2}"#[..]));
        assert_eq!(answer.tags.as_ref().and_then(|tags| tags.get("a")), Some("b"));
        assert_eq!((answer.delta, answer.version, answer.version_epoch.as_str()), (true, 7, "v"));
        assert!(answer.skip_history && answer.idempotency_key.as_deref() == Some(b"k"));
        let unchanged = HookAnswer::Publish(Box::default());
        assert_eq!(read(Hook::Publish, json!({"result": {"idempotency_key": ""}})), Ok(unchanged));
        assert!(error(Hook::Publish, json!({"result": {"tags": {"a": 1}}})).starts_with("invalid type"));
        let long = json!({"result": {"idempotency_key": "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1)}});
        assert_eq!(error(Hook::Publish, long), "idempotency_key is longer than 255 bytes");
    }

    #[test]
    fn base64_is_any_bytes_for_whoever_takes_them() {
        let body = json!({"result": {"b64data": "/wA="}}).to_string();
        let answer = HookAnswer::read(Hook::Rpc, body.as_bytes(), true);
        assert_eq!(answer, Ok(HookAnswer::Rpc(Some(Bytes::from_static(b"\xff\x00")))));
        let error = HookAnswer::read(Hook::Rpc, body.as_bytes(), false).expect_err("no JSON");
        assert_eq!(error.to_string(), "data is not what it should be");
        let info = json!({"result": {"b64info": "/wA="}}).to_string();
        assert!(HookAnswer::read(Hook::Subscribe, info.as_bytes(), true).is_err(), "others may read JSON only");
        assert!(HookAnswer::read(Hook::Subscribe, br#"{"result":{"b64data":"?"}}"#, true).is_err());
        let lines = HookAnswer::read(Hook::Rpc, b"{\"result\":{\"data\":[1,\n2]}}", false);
        assert_eq!(lines, Ok(HookAnswer::Rpc(Some(Bytes::from_static(b"[1,2]")))));
    }

    #[test]
    fn a_refresh_goes_on_or_does_not() {
        let refreshed = |body| match read(Hook::SubRefresh, json!({ "result": body })).expect("an answer") {
            HookAnswer::Refresh(answer) => answer,
            other => panic!("{other:?}"),
        };
        assert_eq!(refreshed(json!({"expired": true})), RefreshAnswer { is_expired: true, ..RefreshAnswer::default() });
        let later = refreshed(json!({"expire_at": 1_700_000_000.5, "info": 1}));
        assert_eq!((later.expires_at, later.info.as_deref()), (Some(1_700_000_000), Some(&b"1"[..])));
        assert_eq!(refreshed(json!({"expire_at": 0})).expires_at, None);
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body: Vec<u8>, hook in 0..Hook::ALL.len(), takes_bytes: bool) {
            let _ = HookAnswer::read(Hook::ALL[hook], &body, takes_bytes);
        }

        #[test]
        fn no_result_makes_the_reader_panic(
            name in "user|expire_at|info|b64info|data|b64data|meta|channels|subs|override|expired|tags",
            value in ".{0,20}|-?[0-9]{1,30}|\\[\\]|\\{\\}|null|true",
            hook in 0..Hook::ALL.len(),
        ) {
            let body = format!("{{\"result\":{{\"{name}\":{value}}}}}");
            let _ = HookAnswer::read(Hook::ALL[hook], body.as_bytes(), true);
        }
    }
}
