//! What clients say to be subscribed: the Centrifuge protocol in JSON, texts given on the command
//! line (for any other server), or nothing but the upgrade's bytes (the floor).

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::token;

/// How clients speak.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Dialect {
    /// The Centrifuge protocol, JSON.
    Centrifuge {
        /// Who clients are.
        identity: Identity,
        /// Names of channels; a client subscribes to one. Empty: clients subscribe to nothing.
        channels: Vec<String>,
        /// Whether clients that come back ask for what they missed.
        recovers: bool,
    },
    /// Texts of the operator's: any server that pushes after a message.
    Texts {
        /// Sent first.
        connect: Option<String>,
        /// Sent next; `{channel}` and `{client}` are replaced.
        subscribe: Option<String>,
        /// A message that contains this says that the client is subscribed; none: it is so once the texts are sent.
        ready: Option<String>,
        /// Names of channels, for the texts.
        channels: Vec<String>,
    },
    /// A bare server, which reads the request without looking at it and answers a constant.
    Bare,
}

/// Who a client is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Identity {
    /// Nobody.
    Anonymous,
    /// The bearer of one token, for all clients.
    Token(String),
    /// A user of its own, `PREFIX` and its index; the token is signed with this secret.
    Distinct {
        /// HMAC secret.
        secret: String,
    },
}

/// What every SDK says of itself: servers remember it for each connection.
const PROGRAM: &str = r#""name":"js","version":"5.8.0""#;

/// Where a client is in the stream of its channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// Which stream it is, in the server's words.
    pub epoch: String,
    /// Its last publication.
    pub offset: u64,
}

impl Dialect {
    /// Messages that this client sends after the upgrade, in order. One that recovers and has been there before does
    /// so from this position.
    ///
    /// # Errors
    /// If a token cannot be minted.
    pub fn opening(&self, client: u32, position: Option<&StreamPosition>) -> Result<Vec<String>> {
        match self {
            Dialect::Bare => Ok(Vec::new()),
            Dialect::Centrifuge { identity, channels, recovers } => {
                let connect = match identity.token(client)? {
                    Some(token) => format!(r#"{{"id":1,"connect":{{"token":"{token}",{PROGRAM}}}}}"#),
                    None => format!(r#"{{"id":1,"connect":{{{PROGRAM}}}}}"#),
                };
                // One frame, as SDKs do when they come back: connect and all subscriptions.
                let Some(channel) = channel_of(channels, client) else { return Ok(vec![connect]) };
                let channel = serde_json::to_string(channel)?;
                let recovery = match position.filter(|_| *recovers) {
                    Some(StreamPosition { epoch, offset }) => {
                        let epoch = serde_json::to_string(epoch)?;
                        format!(r#","recoverable":true,"recover":true,"epoch":{epoch},"offset":{offset}"#)
                    }
                    None if *recovers => r#","recoverable":true"#.to_owned(),
                    None => String::new(),
                };
                Ok(vec![format!("{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":{channel}{recovery}}}}}")])
            }
            Dialect::Texts { connect, subscribe, channels, .. } => {
                let channel = channel_of(channels, client).map_or("", String::as_str);
                let fill = |text: &String| text.replace("{channel}", channel).replace("{client}", &client.to_string());
                Ok(connect.iter().chain(subscribe).map(fill).collect())
            }
        }
    }

    /// Whether clients that come back ask for what they missed.
    pub fn recovers(&self) -> bool {
        matches!(self, Dialect::Centrifuge { recovers: true, .. })
    }

    /// What must be answered before this client is subscribed.
    pub fn expectation(&self, client: u32) -> Expectation {
        match self {
            Dialect::Bare => Expectation::Nothing,
            Dialect::Centrifuge { channels, .. } => {
                Expectation::Replies { connect: true, subscribe: channel_of(channels, client).is_some() }
            }
            Dialect::Texts { ready: Some(ready), .. } => Expectation::Text(ready.clone()),
            Dialect::Texts { .. } => Expectation::Nothing,
        }
    }
}

impl Identity {
    /// Name of the user that this client is, where clients are users.
    pub fn user(client: u32) -> String {
        format!("loadtest-{client}")
    }

    fn token(&self, client: u32) -> Result<Option<String>> {
        match self {
            Identity::Anonymous => Ok(None),
            Identity::Token(token) => Ok(Some(token.clone())),
            Identity::Distinct { secret } => token::mint(secret, &Identity::user(client)).map(Some),
        }
    }
}

/// The channel of a client: clients are spread over channels evenly.
fn channel_of(channels: &[String], client: u32) -> Option<&String> {
    (!channels.is_empty()).then(|| &channels[client as usize % channels.len()])
}

/// What a client still waits for before it is subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing: it is subscribed.
    Nothing,
    /// Replies of the Centrifuge protocol.
    Replies {
        /// To the connect command.
        connect: bool,
        /// To the subscribe command.
        subscribe: bool,
    },
    /// A message with this in it.
    Text(String),
}

/// Something that a client waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A reply of which nothing needs to be known, or the operator's text.
    Awaited,
    /// The reply to the subscribe command.
    Subscribed(Subscribed),
}

/// What is known of a subscription.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Subscribed {
    /// Whether the server keeps what is missed.
    pub recoverable: bool,
    /// Whether the answer brings all that was missed.
    pub recovered: bool,
    /// Which stream it is.
    epoch: String,
    /// Where the answer begins: behind the publication of this place.
    offset: u64,
    /// What came after that.
    publications: Vec<Publication>,
}

impl Subscribed {
    /// Where the client is, having seen what the answer brings.
    pub fn position(self) -> StreamPosition {
        let offset = self.publications.last().map_or(self.offset, |last| last.offset);
        StreamPosition { epoch: self.epoch, offset }
    }
}

#[derive(Deserialize)]
struct Reply {
    id: Option<u32>,
    error: Option<ReplyError>,
    subscribe: Option<Subscribed>,
}

#[derive(Deserialize)]
struct Pushed {
    push: Push,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "pub")]
    publication: Publication,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Publication {
    offset: u64,
}

/// The place in its channel's stream that a publication pushed in this line has; none if it has none.
pub fn pushed_offset(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Pushed>(line).ok().map(|pushed| pushed.push.publication.offset)
}

#[derive(Deserialize)]
struct ReplyError {
    code: u32,
    #[serde(default)]
    message: String,
}

impl Expectation {
    /// Looks at one line of a message: what it answers, if it was waited for.
    ///
    /// # Errors
    /// If the server refuses a command.
    pub fn meet(&mut self, line: &[u8]) -> Result<Option<Answer>> {
        match self {
            Expectation::Nothing => Ok(None),
            Expectation::Text(text) => {
                let is_met = memchr::memmem::find(line, text.as_bytes()).is_some();
                if is_met {
                    *self = Expectation::Nothing;
                }
                Ok(is_met.then_some(Answer::Awaited))
            }
            Expectation::Replies { connect, subscribe } => {
                let Ok(Reply { id: Some(id), error, subscribe: subscribed }) = serde_json::from_slice(line) else {
                    return Ok(None);
                };
                let command = match id {
                    1 => "connect",
                    2 => "subscribe",
                    _ => return Ok(None),
                };
                if let Some(ReplyError { code, message }) = error {
                    bail!("the server refuses the {command} command: error {code} {message}");
                }
                *connect &= id != 1;
                *subscribe &= id != 2;
                if !*connect && !*subscribe {
                    *self = Expectation::Nothing;
                }
                Ok(Some(subscribed.map_or(Answer::Awaited, Answer::Subscribed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn centrifuge(channels: &[&str]) -> Dialect {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        Dialect::Centrifuge { identity: Identity::Anonymous, channels, recovers: false }
    }

    #[test]
    fn connect_and_subscribe_share_a_frame() {
        let opening = centrifuge(&["a", "b\"c"]).opening(3, None).unwrap();
        let connect = r#"{"id":1,"connect":{"name":"js","version":"5.8.0"}}"#;
        assert_eq!(opening, [format!("{connect}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"b\\\"c\"}}}}")]);
        assert_eq!(centrifuge(&[]).opening(3, None).unwrap(), [connect]);
    }

    #[test]
    fn who_recovers_says_from_where() {
        let channels = vec!["a".to_owned()];
        let dialect = Dialect::Centrifuge { identity: Identity::Anonymous, channels, recovers: true };
        let first = dialect.opening(0, None).unwrap();
        assert!(first[0].ends_with(r#""subscribe":{"channel":"a","recoverable":true}}"#), "{first:?}");
        let position = StreamPosition { epoch: "e".to_owned(), offset: 7 };
        let second = dialect.opening(0, Some(&position)).unwrap();
        let recovery = r#""recoverable":true,"recover":true,"epoch":"e","offset":7}}"#;
        assert!(second[0].ends_with(recovery), "{second:?}");
        for (publications, offset) in [("[]", 7), (r#"[{"data":1,"offset":8},{"data":2,"offset":9}]"#, 9)] {
            let result = r#""recoverable":true,"recovered":true,"epoch":"e","offset":7"#;
            let reply = format!(r#"{{"id":2,"subscribe":{{{result},"publications":{publications}}}}}"#);
            let answer = dialect.expectation(0).meet(reply.as_bytes()).unwrap();
            let Some(Answer::Subscribed(subscribed)) = answer else { panic!("{reply}") };
            assert!(subscribed.recoverable && subscribed.recovered);
            assert_eq!(subscribed.position(), StreamPosition { epoch: "e".to_owned(), offset });
        }
        assert_eq!(pushed_offset(br#"{"push":{"channel":"a","pub":{"data":{"offset":1},"offset":10}}}"#), Some(10));
        assert_eq!(pushed_offset(br#"{"push":{"channel":"a","pub":{"data":{"offset":1}}}}"#), None);
    }

    #[test]
    fn texts_are_filled_in() {
        let texts = Dialect::Texts {
            connect: Some("hello {client}".to_owned()),
            subscribe: Some("sub {channel}".to_owned()),
            ready: Some("ok".to_owned()),
            channels: vec!["x".to_owned(), "y".to_owned()],
        };
        assert_eq!(texts.opening(5, None).unwrap(), ["hello 5", "sub y"]);
        let mut expectation = texts.expectation(5);
        assert_eq!(expectation.meet(b"no").unwrap(), None);
        assert_eq!(expectation.meet(b"all ok").unwrap(), Some(Answer::Awaited));
        assert_eq!(expectation, Expectation::Nothing);
    }

    #[test]
    fn replies_are_awaited_by_id() {
        let mut expectation = centrifuge(&["a"]).expectation(0);
        assert!(expectation.meet(br#"{"id":1,"connect":{"client":"x"}}"#).unwrap().is_some());
        assert_eq!(expectation.meet(br#"{"push":{"channel":"a","pub":{"data":1}}}"#).unwrap(), None);
        assert_eq!(expectation.meet(b"{}").unwrap(), None);
        assert_ne!(expectation, Expectation::Nothing);
        assert!(expectation.meet(br#"{"id":2,"subscribe":{}}"#).unwrap().is_some());
        assert_eq!(expectation, Expectation::Nothing);
    }

    #[test]
    fn a_refusal_names_the_command() {
        let mut expectation = centrifuge(&["a"]).expectation(0);
        let error = expectation.meet(br#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#).unwrap_err();
        assert_eq!(error.to_string(), "the server refuses the subscribe command: error 103 permission denied");
    }
}
