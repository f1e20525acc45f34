//! The doubles: a shard that records what a session asks for, and a client that speaks to it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::NOW;
use crate::{
    fanout::Form,
    protocol::{Disconnect, HookAnswer, Reply, SubscribeResult, Tags},
    session::{
        self, Awaiting, Connect, ConnectReply, Effects, Flow, Forwarded, HistoryCommand, PresenceCommand,
        PublishCommand, Question, Rates, Reason, Renewal, Rules, Session, SubscribeCommand, Terms, TooFrequent,
        Transient, TurnedAway, Uplink, write_connect_reply,
    },
    websocket::deflate::Inflater,
};

/// A request head that is welcome.
pub const HEAD: &str = "GET /connection/websocket HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Its answer.
pub const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A shard's part, as far as a session sees it.
pub struct Recorder {
    pub rules: Arc<Rules>,
    pub output: Vec<u8>,
    pub user: String,
    pub subscribed: Vec<String>,
    /// What was asked for, in order.
    pub calls: Vec<String>,
    /// Of the subscriptions that were asked for.
    pub terms: Vec<Terms>,
    pub connects: Vec<Connect>,
    pub counted: Vec<Reason>,
    /// Whole messages that arrived.
    pub messages: u32,
    /// How the client is written to.
    pub form: Form,
    /// What reads its compressed messages.
    pub inflater: Inflater,
    /// What becomes of commands for other sessions.
    pub forwarded: Forwarded,
    /// How often the client has done what.
    pub rates: Rates,
    /// Whether there is a place for one more client.
    pub has_place: bool,
    /// Whether a connect command waits for server-side subscriptions.
    pub connect_pauses: bool,
    /// Whether a publish command finds no room behind it.
    pub publish_pauses: bool,
    /// Whether enough is asked of the back end.
    pub ask_pauses: bool,
    /// What waits for the back end, in order.
    pub questions: VecDeque<Awaiting>,
    /// Channels that it is asked about.
    pub asking: Vec<String>,
    /// What publications come with: whether they skip history, their tags, their idempotency keys.
    pub publications: Vec<(bool, Option<Tags>, Option<Bytes>)>,
    /// Codes and reasons by which the conversation ended.
    pub ends: Vec<String>,
}

impl Effects for Recorder {
    fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    fn form(&self) -> Form {
        self.form
    }

    fn set_form(&mut self, form: Form) {
        self.form = form;
    }

    fn inflater(&mut self) -> &mut Inflater {
        &mut self.inflater
    }

    fn no_place(&self) -> Option<TurnedAway> {
        (!self.has_place).then_some(TurnedAway::ConnectionsExhausted)
    }

    fn now_unix_seconds(&self) -> u64 {
        NOW
    }

    fn user(&self) -> &str {
        &self.user
    }

    fn client(&self) -> String {
        "c-1".to_owned()
    }

    fn is_subscribed(&self, channel: &str) -> bool {
        self.subscribed.iter().any(|subscribed| subscribed == channel)
    }

    fn subscriptions(&self) -> usize {
        self.subscribed.len()
    }

    fn connect(&mut self, connect: Connect) -> Flow {
        self.user.clone_from(&connect.user);
        self.subscribed.extend(connect.channels.iter().map(|granted| granted.channel.clone()));
        self.calls.push(format!("connect {}", connect.user));
        self.connects.push(connect);
        if self.connect_pauses {
            return Flow::Paused;
        }
        let subs = self.subs();
        let subs: Vec<_> = subs.iter().map(|channel| (channel.as_str(), SubscribeResult::default())).collect();
        let data = self.data();
        let reply = ConnectReply { data: data.as_deref(), ..self.reply(&subs) };
        write_connect_reply(self.form, &reply, true, &self.rules.clone(), &mut self.output);
        Flow::Continue
    }

    fn subscribe(&mut self, subscribe: SubscribeCommand<'_>) {
        self.calls.push(format!("subscribe {}", subscribe.channel));
        self.terms.push(subscribe.terms);
        self.subscribed.push(subscribe.channel.to_owned());
        let reply = Reply::Subscribe(SubscribeResult::default());
        self.form.write_reply(&mut self.output, subscribe.command, &reply);
    }

    fn unsubscribe(&mut self, command: u32, channel: &str) {
        self.calls.push(format!("unsubscribe {channel}"));
        self.subscribed.retain(|subscribed| subscribed != channel);
        self.form.write_reply(&mut self.output, command, &Reply::Unsubscribe);
    }

    fn publish(&mut self, publish: PublishCommand<'_>) -> Flow {
        let PublishCommand { command, channel, payload, .. } = &publish;
        self.calls.push(format!("publish {channel} {}", payload.data.escape_ascii()));
        self.form.write_reply(&mut self.output, *command, &Reply::Publish);
        self.publications.push((publish.skip_history, publish.tags, publish.idempotency_key));
        if self.publish_pauses { Flow::Paused } else { Flow::Continue }
    }

    fn ask(&mut self, question: Question<'_>) -> Flow {
        let body = String::from_utf8(question.request.to_json().to_vec()).expect("JSON");
        // Who asks is the shard's part.
        let said = body.replacen(r#""client":"","transport":"","protocol":"","encoding":"""#, "", 1);
        self.calls.push(format!("ask {} {said}", question.hook.label()));
        if let Awaiting::Subscribe { request, .. } = &question.awaiting {
            self.asking.push(request.channel.to_string());
        }
        self.questions.push_back(question.awaiting);
        if self.ask_pauses { Flow::Paused } else { Flow::Continue }
    }

    fn is_asking(&self, channel: &str) -> bool {
        self.asking.iter().any(|asking| asking == channel)
    }

    fn keep_header(&mut self, place: u16, value: &[u8], is_emulated: bool) {
        self.calls.push(format!("header {place} {} {is_emulated}", value.escape_ascii()));
    }

    fn is_server_side(&self, channel: &str) -> bool {
        self.subs().iter().any(|sub| sub == channel)
    }

    fn expire_subscription(&mut self, channel: &str) {
        self.calls.push(format!("expire {channel}"));
    }

    fn ends(&mut self, code: u16, reason: &str) {
        self.ends.push(format!("{code} {reason}"));
    }

    fn history(&mut self, history: HistoryCommand<'_>) {
        self.calls.push(format!("{history:?}"));
    }

    fn presence(&mut self, presence: PresenceCommand<'_>) {
        self.calls.push(format!("{presence:?}"));
    }

    fn refresh(&mut self, renewal: Renewal) {
        let Renewal { expires_at, info, meta } = renewal;
        self.calls.push(format!("refresh {expires_at:?} {info:?} {meta:?}"));
    }

    fn refresh_subscription(&mut self, channel: &str, expires_at: Option<u64>, info: Option<Bytes>) {
        self.calls.push(format!("refresh {channel} {expires_at:?} {info:?}"));
    }

    fn forward(&mut self, uplink: Uplink<'_>) -> Forwarded {
        self.calls.push(format!("forward {}/{} {}", uplink.node, uplink.session, uplink.commands.escape_ascii()));
        self.forwarded
    }

    fn charge_command(&mut self, is_publication: bool) -> Result<(), TooFrequent> {
        self.rates.command(&self.rules.config.client.limits, is_publication, NOW * 1_000_000_000)
    }

    fn message(&mut self) {
        self.messages += 1;
    }

    fn count(&mut self, reason: Reason) {
        self.counted.push(reason);
    }
}

impl Recorder {
    fn subs(&self) -> Vec<String> {
        self.connects.last().into_iter().flat_map(|connect| &connect.channels).map(|sub| sub.channel.clone()).collect()
    }

    fn data(&self) -> Option<Bytes> {
        self.connects.last().and_then(|connect| connect.data.clone())
    }

    fn reply<'a>(&self, subs: &'a [(&'a str, SubscribeResult<'a>)]) -> ConnectReply<'a> {
        let connect = self.connects.last().expect("a connect command came before");
        ConnectReply {
            command: connect.command,
            client: "c-1",
            ttl_seconds: connect.expires_at.map(|at| session::ttl_seconds(at, NOW)),
            data: None,
            subs,
            session: if self.form.has_session() { "s-1" } else { "" },
            node: if self.form.is_emulated() { "n-1" } else { "" },
        }
    }
}

/// A client's socket, with the session behind it.
pub struct Client {
    pub session: Session,
    pub transient: Option<Box<Transient>>,
    pub shard: Recorder,
}

impl Client {
    /// A client that was just accepted.
    pub fn new(rules: Arc<Rules>) -> Self {
        let shard = Recorder {
            rules,
            output: Vec::new(),
            user: String::new(),
            subscribed: Vec::new(),
            calls: Vec::new(),
            terms: Vec::new(),
            connects: Vec::new(),
            counted: Vec::new(),
            messages: 0,
            form: Form::default(),
            inflater: Inflater::default(),
            forwarded: Forwarded::Sent,
            rates: Rates::default(),
            has_place: true,
            connect_pauses: false,
            publish_pauses: false,
            ask_pauses: false,
            questions: VecDeque::new(),
            asking: Vec::new(),
            publications: Vec::new(),
            ends: Vec::new(),
        };
        Self { session: Session::default(), transient: None, shard }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Flow {
        let rules = Arc::clone(&self.shard.rules);
        let flow =
            session::receive(&mut self.session, &mut self.transient, &mut bytes.to_vec(), &rules, &mut self.shard);
        self.transient = self.transient.take().filter(|transient| !transient.is_empty());
        flow
    }

    /// Sends the request head and forgets the answer, which is checked.
    pub fn upgrade(&mut self) {
        assert_eq!(self.send(HEAD.as_bytes()), Flow::Continue);
        assert_eq!(String::from_utf8(std::mem::take(&mut self.shard.output)).as_deref(), Ok(ACCEPTED));
    }

    /// Sends a text message.
    pub fn say(&mut self, message: &str) -> Flow {
        self.send(&masked(0x81, message.as_bytes()))
    }

    /// Sends a text message and returns what came back.
    pub fn ask(&mut self, message: &str) -> Vec<String> {
        assert_eq!(self.say(message), Flow::Continue, "{message} is answered by {:?}", self.frames());
        self.frames()
    }

    /// Upgrades and connects without a token.
    pub fn connect(&mut self) {
        self.upgrade();
        self.ask(r#"{"id":1,"connect":{}}"#);
    }

    /// Upgrades and connects with a token.
    pub fn connect_with(&mut self, token: &str) -> Vec<String> {
        self.upgrade();
        self.ask(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#))
    }

    /// The shard's part of a connect command that waited.
    pub fn complete_connect(&mut self) -> Flow {
        let rules = Arc::clone(&self.shard.rules);
        let subs = self.shard.subs();
        let subs: Vec<_> = subs.iter().map(|channel| (channel.as_str(), SubscribeResult::default())).collect();
        let data = self.shard.data();
        let reply = ConnectReply { data: data.as_deref(), ..self.shard.reply(&subs) };
        session::connected(&mut self.session, &reply, &rules, &mut self.shard);
        self.resume()
    }

    /// The end of a pause.
    pub fn resume(&mut self) -> Flow {
        let rules = Arc::clone(&self.shard.rules);
        let flow = session::resume(&mut self.session, &mut self.transient, &rules, &mut self.shard);
        self.transient = self.transient.take().filter(|transient| !transient.is_empty());
        flow
    }

    /// The back end answers the oldest question that is open; none: it does not.
    pub fn answer(&mut self, answer: Option<HookAnswer>) -> Flow {
        let awaiting = self.shard.questions.pop_front().expect("a question is open");
        if let Awaiting::Subscribe { request, .. } = &awaiting {
            self.shard.asking.retain(|asking| *asking != request.channel);
        }
        let rules = Arc::clone(&self.shard.rules);
        let flow = session::answered(&mut self.session, &mut self.transient, awaiting, answer, &rules, &mut self.shard);
        self.transient = self.transient.take().filter(|transient| !transient.is_empty());
        flow
    }

    /// What a shard does that pings.
    pub fn ping(&mut self) {
        session::ping(&mut self.session, self.shard.form, &mut self.shard.output);
    }

    /// What a shard does that ends a conversation.
    pub fn disconnect(&mut self, disconnect: Disconnect<'_>) {
        session::disconnect(&mut self.session, self.shard.form, disconnect, &mut self.shard.output);
    }

    /// Commands that another connection has brought.
    pub fn uplink(&mut self, commands: &[u8]) -> Flow {
        let rules = Arc::clone(&self.shard.rules);
        session::uplink(&mut self.session, &mut self.transient, commands, &rules, &mut self.shard)
    }

    /// The other session has taken what this connection brought.
    pub fn uplink_taken(&mut self) -> Flow {
        let rules = Arc::clone(&self.shard.rules);
        let flow = session::uplink_taken(&mut self.session, &mut self.transient, &rules, &mut self.shard);
        self.transient = self.transient.take().filter(|transient| !transient.is_empty());
        flow
    }

    /// The bytes that were sent since the last call, as text.
    pub fn text(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.shard.output)).expect("text")
    }

    /// The frames that were sent since the last call: texts as they are, others as `close 3501 bad request`.
    pub fn frames(&mut self) -> Vec<String> {
        let output = std::mem::take(&mut self.shard.output);
        let mut rest = &output[..];
        let mut frames = Vec::new();
        while let [first, length, ..] = *rest {
            let (header_bytes, bytes) = match length {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                127 => (10, rest[2..10].iter().fold(0, |bytes, byte| bytes << 8 | usize::from(*byte))),
                length => (2, usize::from(length)),
            };
            let payload = &rest[header_bytes..header_bytes + bytes];
            frames.push(match (first, payload) {
                (0x81, text) => String::from_utf8(text.to_vec()).expect("text frames are UTF-8"),
                (0x88, []) => "close".to_owned(),
                (0x88, [high, low, reason @ ..]) => {
                    format!("close {} {}", u16::from_be_bytes([*high, *low]), reason.escape_ascii())
                }
                (0x8a, payload) => format!("pong {}", payload.escape_ascii()),
                (first, _) => panic!("a frame that begins with {first:#x}"),
            });
            rest = &rest[header_bytes + bytes..];
        }
        assert!(rest.is_empty(), "half a frame");
        frames
    }
}

/// A client's frame, its first byte given.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

    let mut frame = vec![first];
    match payload.len() {
        bytes @ 0..126 => frame.push(0x80 | bytes as u8),
        bytes @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(bytes as u16).to_be_bytes());
        }
        bytes => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(bytes as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
