//! A subscriber of one channel: what a client says, and what it makes of what the server says.
//!
//! Owns the client's side of the protocol as far as `tail` needs it (protocol.md sections 5 to 8
//! and 13 to 15): connect, subscribe, recovery, pings, and which ends are final. Sans-IO: text in,
//! text and publications out; sockets and times are the business of `tail`.
//!
//! Invariant: a position is taken over only from what has been handed out, so that after a lost
//! connection nothing is skipped and nothing comes twice.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Ids of this client's commands. There is one of each under way at most.
const CONNECT_ID: u32 = 1;
const SUBSCRIBE_ID: u32 = 2;

/// A subscription that outlives connections.
#[derive(Debug, Default)]
pub(super) struct Subscriber {
    channel: String,
    /// Where it stands; none until the server has told a position.
    position: Option<Position>,
    /// Whether the server expects answers to its pings on this connection.
    answers_pings: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: String,
    offset: u64,
}

/// What a message of the server's asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Send this text.
    Send(String),
    /// The server accepted this client. With milliseconds between pings, if it pings.
    Connected { ping_ms: Option<u64> },
    /// The channel is subscribed.
    Subscribed,
    /// Something to print.
    Publication(Publication),
    /// Publications between the last one and the next may be lost: the stream is another, or keeps them no more.
    Missed,
    /// Try again on a new connection; why.
    Reconnect(String),
    /// There is no use in trying again; why.
    End(String),
}

/// One publication, as the server said it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publication {
    /// Its place in the channel's stream; 0 if the channel keeps none.
    pub(super) offset: u64,
    /// Its payload: JSON, verbatim.
    pub(super) data: String,
    /// Its tags: JSON, verbatim.
    pub(super) tags: Option<String>,
}

impl Publication {
    /// One line of JSON with everything known about it.
    pub(super) fn to_json(&self, channel: &str) -> String {
        let channel = serde_json::Value::from(channel);
        let offset = if self.offset > 0 { format!(",\"offset\":{}", self.offset) } else { String::new() };
        let tags = self.tags.as_ref().map(|tags| format!(",\"tags\":{tags}")).unwrap_or_default();
        format!("{{\"channel\":{channel}{offset},\"data\":{}{tags}}}", self.data)
    }
}

impl Subscriber {
    pub(super) fn new(channel: &str) -> Subscriber {
        Subscriber { channel: channel.to_owned(), ..Subscriber::default() }
    }

    /// What a new connection begins with.
    pub(super) fn connect_command(&mut self, token: Option<&str>) -> String {
        self.answers_pings = false;
        command(&Command { id: CONNECT_ID, connect: Some(Connect { token, name: "tail" }), subscribe: None })
    }

    fn subscribe_command(&self) -> String {
        let position = self.position.as_ref();
        let subscribe = Subscribe {
            channel: &self.channel,
            recoverable: true,
            recover: position.is_some(),
            epoch: position.map_or("", |position| &position.epoch),
            offset: position.map_or(0, |position| position.offset),
        };
        command(&Command { id: SUBSCRIBE_ID, connect: None, subscribe: Some(subscribe) })
    }

    /// Takes a message of the server's: one or more replies, each on a line.
    pub(super) fn receive(&mut self, message: &str) -> Vec<Event> {
        let mut events = Vec::new();
        for line in message.trim().split('\n') {
            match serde_json::from_str::<Reply<'_>>(line) {
                Ok(reply) => self.take(reply, &mut events),
                Err(error) => {
                    events.push(Event::End(format!("what answers there does not speak the protocol: {error}")));
                    break;
                }
            }
        }
        events
    }

    fn take(&mut self, reply: Reply<'_>, events: &mut Vec<Event>) {
        match reply {
            Reply { error: Some(error), id, .. } => events.push(refusal(id, &error)),
            Reply { connect: Some(connect), .. } => {
                self.answers_pings = connect.pong;
                let ping_ms = (connect.ping > 0).then(|| u64::from(connect.ping) * 1_000);
                events.push(Event::Connected { ping_ms });
                match connect.subs.contains_key(&self.channel) {
                    // The user's personal channel comes with the connection; asking for it again would be error 105.
                    true => events.push(Event::Subscribed),
                    false => events.push(Event::Send(self.subscribe_command())),
                }
            }
            Reply { subscribe: Some(subscribed), .. } => self.take_subscribed(subscribed, events),
            Reply { push: Some(push), .. } => self.take_push(push, events),
            Reply { id: 0, .. } if self.answers_pings => events.push(Event::Send("{}".to_owned())),
            _ => {}
        }
    }

    fn take_subscribed(&mut self, subscribed: Subscribed<'_>, events: &mut Vec<Event>) {
        if subscribed.was_recovering && !subscribed.recovered {
            events.push(Event::Missed);
        }
        if subscribed.recoverable {
            self.position = Some(Position { epoch: subscribed.epoch, offset: subscribed.offset });
        }
        events.push(Event::Subscribed);
        for publication in subscribed.publications {
            self.take_publication(publication, events);
        }
    }

    fn take_push(&mut self, push: Push<'_>, events: &mut Vec<Event>) {
        if let Some(disconnect) = push.disconnect {
            events.push(end_of(disconnect.code, &disconnect.reason));
        }
        if push.channel != self.channel {
            return;
        }
        if let Some(publication) = push.publication {
            self.take_publication(publication, events);
        }
        match push.unsubscribe {
            // Protocol.md section 15: from 2500 on, subscribe again at once; 2502: from where the stream is now.
            Some(Closure { code, .. }) if code >= 2500 => {
                if code == 2502 {
                    self.position = None;
                }
                events.push(Event::Send(self.subscribe_command()));
            }
            Some(Closure { code, reason }) => {
                events.push(Event::End(format!("the server unsubscribed: {reason} ({code})")))
            }
            None => {}
        }
    }

    fn take_publication(&mut self, publication: PublicationReply<'_>, events: &mut Vec<Event>) {
        if let Some(position) = self.position.as_mut().filter(|_| publication.offset > 0) {
            position.offset = publication.offset;
        }
        events.push(Event::Publication(Publication {
            offset: publication.offset,
            data: publication.data.map_or_else(|| "null".to_owned(), |data| data.get().to_owned()),
            tags: publication.tags.map(|tags| tags.get().to_owned()),
        }));
    }
}

/// What the end of a connection means (protocol.md section 14).
pub(super) fn end_of(code: u32, reason: &str) -> Event {
    let message = if reason.is_empty() { code.to_string() } else { format!("{reason} ({code})") };
    match code {
        3501 => Event::End(format!("the server closed the connection: {message}; does it want a --token or a --user?")),
        1009 | 3500..4000 | 4500..5000 => Event::End(format!("the server closed the connection: {message}")),
        _ => Event::Reconnect(message),
    }
}

/// What an error instead of a reply means (protocol.md section 13).
fn refusal(id: u32, error: &ErrorReply) -> Event {
    const TOKEN_EXPIRED: u32 = 109;
    let what = if id == CONNECT_ID { "connection" } else { "subscription" };
    let message = format!("the server refused the {what}: {} ({})", error.message, error.code);
    match error {
        ErrorReply { temporary: true, .. } => Event::Reconnect(message),
        ErrorReply { code: TOKEN_EXPIRED, .. } => Event::End(format!("{message}; give a fresh --token, or --user")),
        ErrorReply { code: 103, .. } => Event::End(format!("{message}; does it need a --token or --user?")),
        _ => Event::End(message),
    }
}

fn command(command: &Command<'_>) -> String {
    serde_json::to_string(command).expect("strings, numbers and booleans are always JSON")
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Serialize)]
struct Command<'a> {
    id: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Connect<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscribe: Option<Subscribe<'a>>,
}

#[derive(Serialize)]
struct Connect<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    name: &'static str,
}

#[derive(Serialize)]
struct Subscribe<'a> {
    channel: &'a str,
    recoverable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    recover: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    epoch: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
}

#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(default)]
    id: u32,
    error: Option<ErrorReply>,
    connect: Option<Connected>,
    #[serde(borrow)]
    subscribe: Option<Subscribed<'a>>,
    #[serde(borrow)]
    push: Option<Push<'a>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct ErrorReply {
    code: u32,
    message: String,
    temporary: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Connected {
    ping: u32,
    pong: bool,
    subs: std::collections::HashMap<String, serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subscribed<'a> {
    recoverable: bool,
    epoch: String,
    offset: u64,
    recovered: bool,
    was_recovering: bool,
    #[serde(borrow)]
    publications: Vec<PublicationReply<'a>>,
}

#[derive(Deserialize)]
struct Push<'a> {
    #[serde(default)]
    channel: String,
    #[serde(borrow, rename = "pub")]
    publication: Option<PublicationReply<'a>>,
    unsubscribe: Option<Closure>,
    disconnect: Option<Closure>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Closure {
    code: u32,
    reason: String,
}

#[derive(Deserialize)]
struct PublicationReply<'a> {
    #[serde(default)]
    offset: u64,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(offset: u64, data: &str) -> Event {
        Event::Publication(Publication { offset, data: data.to_owned(), tags: None })
    }

    /// A subscriber with a position, as after a subscription to a channel with history.
    fn positioned() -> Subscriber {
        let mut subscriber = Subscriber::new("hh:1");
        let events = subscriber.receive(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"lhAH","offset":2}}"#);
        assert_eq!(events, [Event::Subscribed]);
        subscriber
    }

    #[test]
    fn a_connection_begins_with_connect_and_then_subscribes() {
        let mut subscriber = Subscriber::new("hh:1");
        assert_eq!(subscriber.connect_command(None), r#"{"id":1,"connect":{"name":"tail"}}"#);
        assert_eq!(subscriber.connect_command(Some("a.b.c")), r#"{"id":1,"connect":{"token":"a.b.c","name":"tail"}}"#);
        let events = subscriber.receive(r#"{"id":1,"connect":{"client":"x","version":"1","ping":25,"pong":true}}"#);
        assert_eq!(
            events,
            [
                Event::Connected { ping_ms: Some(25_000) },
                Event::Send(r#"{"id":2,"subscribe":{"channel":"hh:1","recoverable":true}}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn a_personal_channel_is_not_asked_for_twice() {
        let mut subscriber = Subscriber::new("#42");
        let events = subscriber.receive(r##"{"id":1,"connect":{"client":"x","version":"1","subs":{"#42":{}}}}"##);
        assert_eq!(events, [Event::Connected { ping_ms: None }, Event::Subscribed]);
    }

    #[test]
    fn pings_are_answered_if_the_server_wants_it() {
        let mut subscriber = Subscriber::new("hh:1");
        assert_eq!(subscriber.receive("{}"), []);
        subscriber.receive(r#"{"id":1,"connect":{"client":"x","version":"1","ping":25,"pong":true}}"#);
        assert_eq!(subscriber.receive("{}"), [Event::Send("{}".to_owned())]);
    }

    #[test]
    fn publications_are_handed_out_verbatim_and_move_the_position() {
        let mut subscriber = positioned();
        let events = subscriber.receive(
            "{\"push\":{\"channel\":\"hh:1\",\"pub\":{\"data\":{\"n\": 3},\"offset\":3}}}\n\
             {\"push\":{\"channel\":\"other\",\"pub\":{\"data\":1}}}\n\
             {\"push\":{\"channel\":\"hh:1\",\"pub\":{\"data\":\"x\",\"tags\":{\"a\":\"b\"}}}}",
        );
        let tagged = Publication { offset: 0, data: "\"x\"".to_owned(), tags: Some("{\"a\":\"b\"}".to_owned()) };
        assert_eq!(tagged.to_json("hh:1"), r#"{"channel":"hh:1","data":"x","tags":{"a":"b"}}"#);
        assert_eq!(events, [publication(3, "{\"n\": 3}"), Event::Publication(tagged)]);
        assert_eq!(
            subscriber.subscribe_command(),
            r#"{"id":2,"subscribe":{"channel":"hh:1","recoverable":true,"recover":true,"epoch":"lhAH","offset":3}}"#
        );
    }

    #[test]
    fn what_was_missed_is_handed_out_in_order() {
        let mut subscriber = positioned();
        let events = subscriber.receive(
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"lhAH","publications":[{"data":3,"offset":3},{"data":4,"offset":4}],"recovered":true,"offset":2,"was_recovering":true}}"#,
        );
        assert_eq!(events, [Event::Subscribed, publication(3, "3"), publication(4, "4")]);
        assert_eq!(subscriber.position, Some(Position { epoch: "lhAH".to_owned(), offset: 4 }));
    }

    #[test]
    fn what_cannot_be_recovered_is_said() {
        let mut subscriber = positioned();
        let events = subscriber
            .receive(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"new","offset":9,"was_recovering":true}}"#);
        assert_eq!(events, [Event::Missed, Event::Subscribed]);
        assert_eq!(subscriber.position, Some(Position { epoch: "new".to_owned(), offset: 9 }));
    }

    #[test]
    fn an_unsubscribe_is_followed_or_ends_it_by_its_code() {
        let mut subscriber = positioned();
        let push =
            |code: u32| format!(r#"{{"push":{{"channel":"hh:1","unsubscribe":{{"code":{code},"reason":"why"}}}}}}"#);
        assert!(
            matches!(subscriber.receive(&push(2500)).as_slice(), [Event::Send(text)] if text.contains("recover\":true"))
        );
        assert!(matches!(subscriber.receive(&push(2502)).as_slice(), [Event::Send(text)] if !text.contains("epoch")));
        assert_eq!(subscriber.receive(&push(2000)), [Event::End("the server unsubscribed: why (2000)".to_owned())]);
    }

    #[test]
    fn ends_are_final_or_not_by_their_code() {
        for code in [1000, 1001, 1006, 3000, 3001, 3005, 3008, 3012, 4000, 4499] {
            assert!(matches!(end_of(code, "x"), Event::Reconnect(_)), "{code}");
        }
        for code in [1009, 3500, 3501, 3507, 3999, 4500, 4999] {
            assert!(matches!(end_of(code, "x"), Event::End(_)), "{code}");
        }
        let error = |text: &str| Subscriber::new("hh:1").receive(text);
        assert!(matches!(
            error(r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#).as_slice(),
            [Event::Reconnect(_)]
        ));
        assert_eq!(
            error(r#"{"id":2,"error":{"code":102,"message":"unknown channel"}}"#),
            [Event::End("the server refused the subscription: unknown channel (102)".to_owned())]
        );
    }

    #[test]
    fn what_is_not_the_protocol_ends_it() {
        for text in ["", "hello", "[]", "{\"push\":3}", "{}\n\n{}"] {
            let events = Subscriber::new("hh:1").receive(text);
            assert!(matches!(events.last(), Some(Event::End(_))), "{text}: {events:?}");
        }
    }
}
