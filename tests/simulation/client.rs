//! A client as the network may bring it: it connects, subscribes, publishes, stalls and vanishes, and holds
//! everything that it is told against the ledger.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidegate::{
    channel::Random,
    protocol::{Claims, mint},
    uring::simulated::{Peer, Read, SimulatedNetwork},
};

use crate::{
    carrier::{self, Carrier, Stepped, Stream, Uplink},
    frames,
    ledger::{Content, Ledger, Place, Producer, Promise, Reception, Seen, promise, tag},
};

/// The secret of the simulated server's tokens.
pub const SECRET: &str = "a secret of no worth, long enough for HMAC";

/// Channels that clients subscribe to by themselves.
pub const CHANNELS: [&str; 10] =
    ["plain:0", "plain:1", "kept:0", "kept:1", "sync:0", "oldest:0", "latest:0", "cache:0", "room:0", "room:1"];

/// Whether the server knows who is in the channel, and tells it.
pub fn has_members(channel: &str) -> bool {
    channel.starts_with("room:")
}

/// Close codes that a client of a simulation can bring upon itself.
const CODES: [u16; 5] = [3001, 3008, 3012, 3502, 3504];

/// Where the server has subscribed the client, it cannot resubscribe by itself: it must connect anew.
const INSUFFICIENT_STATE: u16 = 3010;

/// More was said by requests than a session keeps until it can hear it.
const TOO_MANY_REQUESTS: u16 = 3013;

/// What a client has in its hands when it acts.
pub struct World<'a> {
    pub network: &'a SimulatedNetwork,
    pub ledger: &'a mut Ledger,
    pub random: &'a mut Random,
    /// No more mischief: read, answer, and wait for the end.
    pub is_calm: bool,
}

/// A client.
pub struct Client {
    /// Its number as a producer.
    pub number: Producer,
    pub user: Option<String>,
    carrier: Carrier,
    is_one_way: bool,
    shards: usize,
    peer: Option<Peer>,
    stream: Stream,
    /// What a client of a stream says, once it is connected.
    uplink: Uplink,
    /// Where it says it: session and node.
    session: (String, String),
    phase: Phase,
    unread: Vec<u8>,
    next_command: u32,
    commands: BTreeMap<u32, Command>,
    pub receptions: BTreeMap<String, Reception>,
    /// Where streams stood when the client left them last.
    left: BTreeMap<String, Place>,
    /// What the client has seen in channels that it has left.
    seen: BTreeMap<String, Seen>,
    /// What the server calls it.
    pub id: String,
    /// Who was in each channel, as the server said last.
    present: BTreeMap<String, BTreeSet<String>>,
    /// In each channel, whom the client has seen come or go, and whether that was a coming.
    members: BTreeMap<String, BTreeMap<String, bool>>,
    stalled_steps: u64,
    /// A client that is gone has a successor soon, which knows what it knew.
    pub is_gone: bool,
    trace: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Upgrading,
    Connecting,
    Connected,
    Closing,
}

enum Command {
    /// `asked`: the channels that come with it, and from where.
    Connect {
        asked: BTreeMap<String, Option<Place>>,
    },
    Subscribe {
        channel: String,
        from: Option<Place>,
        rejects: bool,
        content: Content,
    },
    Unsubscribe {
        channel: String,
    },
    Publish {
        channel: String,
        count: u64,
        sees_own: bool,
    },
    History {
        channel: String,
        limit: i64,
        reverse: bool,
    },
    /// `is_in`: the client is in the channel, and has not asked to leave it.
    Presence {
        channel: String,
        stats_only: bool,
        is_in: bool,
    },
}

impl Client {
    /// A client that has just begun to connect; `left`: where its predecessor left streams.
    pub fn new(
        number: Producer,
        shards: usize,
        left: BTreeMap<String, Place>,
        user: Option<String>,
        trace: bool,
        world: &mut World<'_>,
    ) -> Self {
        let room_max = world.random.one_of(&[800, 8_000]);
        let room = 200 + world.random.below(room_max) as usize;
        let peer = world.network.connect(world.random.below(shards as u64) as usize, room);
        let (carrier, is_one_way) = match world.random.below(10) {
            0..5 => (Carrier::WebSocket, false),
            5..7 => (Carrier::Chunks, false),
            7 => (Carrier::Events, false),
            8 => (Carrier::WebSocket, true),
            _ => (world.random.one_of(&[Carrier::Chunks, Carrier::Events]), true),
        };
        let mut client = Self {
            number,
            user,
            carrier,
            is_one_way,
            shards,
            peer: Some(peer),
            stream: Stream::default(),
            uplink: Uplink::default(),
            session: (String::new(), String::new()),
            phase: Phase::Upgrading,
            unread: Vec::new(),
            next_command: 1,
            commands: BTreeMap::new(),
            receptions: BTreeMap::new(),
            left,
            seen: BTreeMap::new(),
            id: String::new(),
            present: BTreeMap::new(),
            members: BTreeMap::new(),
            stalled_steps: 0,
            is_gone: false,
            trace,
        };
        client.open(world);
        client
    }

    /// Sends the request with which a connection begins.
    fn open(&mut self, world: &mut World<'_>) {
        let path = self.carrier.path(self.is_one_way);
        let request = match self.carrier {
            Carrier::WebSocket => format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            Carrier::Chunks | Carrier::Events => carrier::post(path, &self.connect(world).to_string()),
        };
        self.write(request.as_bytes());
    }

    /// How it connects, for whoever wonders whether the seeds bring every kind.
    pub fn kind(&self) -> &'static str {
        match (self.carrier, self.is_one_way) {
            (Carrier::WebSocket, false) => "websockets",
            (Carrier::WebSocket, true) => "one-way websockets",
            (_, false) => "streams",
            (_, true) => "one-way streams",
        }
    }

    /// Whether the server knows it as a client.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected && !self.is_gone
    }

    /// Reads, answers, and perhaps does something of its own. Whether anything happened.
    pub fn step(&mut self, world: &mut World<'_>) -> bool {
        if self.is_gone {
            return false;
        }
        if self.stalled_steps > 0 && !world.is_calm {
            self.stalled_steps -= 1;
            return false;
        }
        let was_busy = self.read(world) | self.step_uplink(world);
        if self.is_gone || world.is_calm || self.phase == Phase::Closing {
            return was_busy;
        }
        match world.random.below(200) {
            0..50 if self.phase == Phase::Connected && !self.is_one_way => self.command(world),
            50..54 => {
                let steps_max = world.random.one_of(&[20, 300]);
                self.stalled_steps = world.random.below(steps_max);
            }
            54 => self.vanish(world),
            55 if self.phase == Phase::Connected && self.carrier == Carrier::WebSocket => self.close(world),
            _ => return was_busy,
        }
        true
    }

    /// Whether the server owes it nothing that it has asked for.
    pub fn is_answered(&self) -> bool {
        self.is_gone || self.commands.is_empty()
    }

    /// What its successor begins with.
    pub fn legacy(&mut self) -> BTreeMap<String, Place> {
        for (channel, reception) in &self.receptions {
            if let Some(place) = &reception.place {
                self.left.insert(channel.clone(), place.clone());
            }
        }
        std::mem::take(&mut self.left)
    }

    /// Everything was answered, and everything that was published is here.
    pub fn check_complete(&self, ledger: &mut Ledger) {
        assert!(self.is_connected(), "client {} is still {:?}", self.number, self.phase);
        assert!(self.commands.is_empty(), "commands {:?} were not answered", self.commands.keys());
        for (channel, reception) in &self.receptions {
            assert!(reception.is_made(), "{channel} was asked for and never made");
            reception.check_complete(ledger);
        }
    }

    /// Leaves in one of the ways in which clients leave.
    pub fn vanish(&mut self, world: &mut World<'_>) {
        let Some(peer) = self.peer.take() else { return };
        match world.random.below(4) {
            0 => peer.reset(),
            // Nobody would ever notice a listener's silence: there is no pong.
            1 if !self.is_one_way => peer.fall_silent(),
            _ => drop(peer),
        }
        self.end();
    }

    fn end(&mut self) {
        self.peer = None;
        self.uplink = Uplink::default();
        self.is_gone = true;
    }

    /// Says good-bye first.
    pub fn close(&mut self, world: &mut World<'_>) {
        if self.phase != Phase::Connected || self.carrier != Carrier::WebSocket {
            return self.vanish(world);
        }
        self.send_frame(frames::CLOSE, &1000_u16.to_be_bytes(), world);
        self.phase = Phase::Closing;
    }

    fn read(&mut self, world: &mut World<'_>) -> bool {
        let Some(peer) = &self.peer else { return false };
        let bytes_max = if world.is_calm { usize::MAX } else { 1 + world.random.below(4_000) as usize };
        let outcome = peer.read(&mut self.unread, bytes_max);
        if self.phase == Phase::Upgrading {
            self.finish_upgrade(world);
        }
        if self.carrier != Carrier::WebSocket && self.phase != Phase::Upgrading {
            for message in self.stream.take(self.carrier, &mut self.unread) {
                self.line(&message, world);
            }
            if self.stream.has_ended && !self.is_gone {
                assert_eq!(self.phase, Phase::Closing, "client {} is not told why its stream ends", self.number);
                self.end();
            }
        }
        while self.carrier == Carrier::WebSocket
            && self.phase != Phase::Upgrading
            && let Some((opcode, payload)) = frames::decode(&mut self.unread)
        {
            match opcode {
                frames::TEXT => payload.split(|byte| *byte == b'\n').for_each(|line| self.line(line, world)),
                frames::PING => self.send_frame(frames::PONG, &payload, world),
                frames::CLOSE => self.closed_by_server(&payload, world),
                other => panic!("client {} is sent a frame of opcode {other}", self.number),
            }
            if self.is_gone {
                return true;
            }
        }
        match outcome {
            Read::Bytes(bytes) => bytes > 0,
            Read::Ended | Read::Reset => {
                self.end();
                true
            }
        }
    }

    fn step_uplink(&mut self, world: &mut World<'_>) -> bool {
        if self.is_gone {
            return false;
        }
        let (session, node) = &self.session;
        match self.uplink.step(session, node, self.shards, world) {
            Stepped::Idle => false,
            Stepped::Busy => true,
            Stepped::Lost => {
                self.vanish(world);
                true
            }
        }
    }

    fn finish_upgrade(&mut self, world: &mut World<'_>) {
        let Some(head) = carrier::take_head(&mut self.unread) else { return };
        if self.carrier != Carrier::WebSocket && head.starts_with("HTTP/1.1 200 ") {
            assert!(head.contains("\r\nTransfer-Encoding: chunked\r\n"), "{head}");
            self.phase = Phase::Connecting;
            return;
        }
        if !head.starts_with("HTTP/1.1 101 ") {
            // No place for it, or too late: the answer says so and the connection ends.
            assert!(head.starts_with("HTTP/1.1 503 ") || head.starts_with("HTTP/1.1 408 "), "{head}");
            self.unread.clear();
            return self.end();
        }
        assert!(head.to_ascii_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        self.phase = Phase::Connecting;
        let connect = self.connect(world);
        self.send_frames(&connect.to_string(), world);
    }

    /// What a connection begins with. Who only listens says at once what it wants to hear.
    fn connect(&mut self, world: &mut World<'_>) -> Value {
        let mut connect = json!({});
        let mut asked = BTreeMap::new();
        if let Some(user) = &self.user {
            connect["token"] = json!(mint(SECRET.as_bytes(), &Claims { sub: user, ..Claims::default() }));
            asked.insert(format!("#{user}"), None);
        }
        for _ in 0..if self.is_one_way { 1 + world.random.below(3) } else { 0 } {
            let channel = world.random.one_of(&CHANNELS);
            let from = self.left.get(channel).cloned();
            connect["subs"][channel] = match &from {
                Some(from) => json!({ "recover": true, "offset": from.offset, "epoch": from.epoch }),
                None => json!({}),
            };
            asked.insert(channel.to_owned(), from);
        }
        for channel in asked.keys() {
            self.receptions.insert(channel.clone(), Reception::ask(channel, Seen::new(), Content::Whole));
        }
        let id = self.next_id(Command::Connect { asked });
        if self.is_one_way { connect } else { json!({ "id": id, "connect": connect }) }
    }

    fn closed_by_server(&mut self, payload: &[u8], world: &mut World<'_>) {
        let code = payload.get(..2).map_or(0, |code| u16::from_be_bytes(code.try_into().unwrap()));
        let answers_own = self.phase == Phase::Closing && code == 1000;
        let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
        if !answers_own {
            self.check_code(code, &reason);
        }
        if world.random.chance(2, 3) && self.phase != Phase::Closing {
            self.send_frame(frames::CLOSE, &payload[..2], world);
        }
        if world.random.chance(1, 8) && !world.is_calm {
            self.peer.take().expect("the frame came from somewhere").fall_silent();
        }
        self.end();
    }

    fn check_code(&self, code: u16, reason: &str) {
        let is_expected = match code {
            INSUFFICIENT_STATE => self.is_one_way,
            TOO_MANY_REQUESTS => self.carrier != Carrier::WebSocket && !self.is_one_way,
            code => CODES.contains(&code),
        };
        assert!(is_expected, "client {} is closed with {code} {reason}", self.number);
        if self.trace {
            println!("          client {} is closed with {code} {reason}", self.number);
        }
    }

    fn line(&mut self, line: &[u8], world: &mut World<'_>) {
        if self.is_gone {
            return;
        }
        let message: Value = serde_json::from_slice(line).expect("the server sends JSON");
        if self.trace {
            println!("          client {} is told {:.150}", self.number, message.to_string());
        }
        let knows_its_end = self.carrier != Carrier::WebSocket && self.phase == Phase::Closing;
        assert!(!knows_its_end, "client {} is told {message} behind its end", self.number);
        if message == json!({}) {
            // Some pongs are forgotten.
            if !self.is_one_way && (world.is_calm || world.random.chance(29, 30)) {
                self.send_text("{}", world);
            }
        } else if self.is_one_way {
            self.push(&message, world);
        } else if let Some(id) = message.get("id").and_then(Value::as_u64) {
            let command = self.commands.remove(&(id as u32)).expect("a reply to a command that was not answered");
            self.reply(command, &message, world);
        } else {
            self.push(message.get("push").expect("neither reply nor push nor ping"), world);
        }
    }

    fn reply(&mut self, command: Command, reply: &Value, world: &mut World<'_>) {
        if let Some(error) = reply.get("error") {
            match command {
                // It was taken back before it was made.
                Command::Subscribe { channel, .. }
                    if self.awaits_unsubscribe(&channel) && error["temporary"] == true => {}
                Command::Subscribe { channel, from: Some(_), rejects: true, .. } => {
                    assert_eq!(error["code"], 112, "{channel}: {error}");
                    self.receptions.remove(&channel);
                    self.left.remove(&channel);
                }
                Command::History { .. } => assert_eq!(error["code"], 112),
                _ => panic!("client {} is refused: {error}", self.number),
            }
            return;
        }
        match command {
            Command::Connect { asked } => {
                assert_eq!(self.phase, Phase::Connecting);
                self.phase = Phase::Connected;
                let result = &reply["connect"];
                assert!(result["client"].is_string(), "{reply}");
                assert_eq!(result.get("pong") == Some(&json!(true)), !self.is_one_way, "{reply}");
                let text = |name: &str| result.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
                (self.id, self.session) = (text("client"), (text("session"), text("node")));
                let subs = result.get("subs").and_then(Value::as_object).cloned().unwrap_or_default();
                assert!(subs.keys().eq(asked.keys()), "{reply}");
                for (channel, from) in asked {
                    self.subscribed(&channel, from, &subs[&channel], world);
                }
            }
            Command::Subscribe { channel, from, content, .. } => {
                let result = &reply["subscribe"];
                assert_eq!(result.get("delta").is_some(), content == Content::Deltas, "{channel}: {result}");
                self.subscribed(&channel, from, result, world);
            }
            Command::Unsubscribe { channel } => {
                assert!(reply.get("unsubscribe").is_some(), "{reply}");
                self.leave(&channel);
            }
            Command::Presence { channel, stats_only: true, is_in } => {
                let (clients, users) =
                    (reply["presence_stats"]["num_clients"].as_u64(), &reply["presence_stats"]["num_users"]);
                assert!(clients >= Some(u64::from(is_in)) && users.as_u64() <= clients, "{channel}: {reply}");
            }
            Command::Presence { channel, stats_only: false, is_in } => {
                let present = reply["presence"]["presence"].as_object().expect("always there, if empty");
                assert!(present.contains_key(&self.id) || !is_in, "{channel}: {} is not in {reply}", self.id);
                self.present.insert(channel, present.keys().cloned().collect());
            }
            Command::Publish { channel, count, sees_own } => {
                world.ledger.answer(&channel, self.number, count);
                if sees_own && let Some(reception) = self.receptions.get(&channel) {
                    assert!(reception.last(self.number) >= count, "{channel}: answered before it was seen");
                }
            }
            Command::History { channel, limit, reverse } => {
                let result = &reply["history"];
                let publications = result["publications"].as_array().expect("always there, if empty");
                assert!(limit < 0 || publications.len() as i64 <= limit, "{reply}");
                let offsets: Vec<u64> = publications.iter().map(|one| one["offset"].as_u64().unwrap()).collect();
                let follows = |pair: &[u64]| if reverse { pair[0] == pair[1] + 1 } else { pair[0] + 1 == pair[1] };
                assert!(offsets.windows(2).all(follows), "{channel}: {offsets:?}");
                let epoch = result["epoch"].as_str().unwrap();
                for publication in publications {
                    let offset = publication["offset"].as_u64().unwrap();
                    let (producer, count) = origin(&publication["data"]);
                    world.ledger.place(&channel, &Place { epoch: epoch.to_owned(), offset }, producer, count);
                }
            }
        }
    }

    /// A subscription is made; it may bring what was missed since `from`.
    fn subscribed(&mut self, channel: &str, from: Option<Place>, result: &Value, world: &mut World<'_>) {
        let now_ms = world.network.now_ms();
        let Some(reception) = self.receptions.get_mut(channel) else { return };
        let place = result["epoch"].as_str().map(|epoch| Place {
            epoch: epoch.to_owned(),
            offset: result.get("offset").and_then(Value::as_u64).unwrap_or(0),
        });
        assert_eq!(result.get("was_recovering").is_some(), from.is_some(), "{channel}: {result}");
        if let Some(place) = &place {
            world.ledger.see_epoch(channel, &place.epoch, now_ms);
        }
        let publications = result.get("publications").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_recovered = result.get("recovered") == Some(&Value::Bool(true));
        match from {
            Some(_) if is_recovered && promise(channel) == Promise::EveryFromLatest && !publications.is_empty() => {
                assert_eq!(publications.len(), 1, "{channel}: the latest stands for all");
                let latest = publications[0]["offset"].as_u64().unwrap();
                let epoch = place.expect("a cache has a stream").epoch;
                reception.make(world.ledger, Some(Place { epoch, offset: latest - 1 }));
            }
            Some(from) if is_recovered => {
                // Where nothing passes the filter, the client goes on from the top.
                let is_at_top = reception.is_filtered() && publications.is_empty();
                let begins = is_at_top || place.as_ref() == Some(&from);
                assert!(begins, "{channel}: recovery from {from:?} begins at {place:?}");
                reception.make(world.ledger, place);
            }
            Some(from) => {
                reception.make(world.ledger, place);
                reception.check_unrecovered(world.ledger, &from, now_ms);
            }
            None => {
                assert!(!is_recovered);
                reception.make(world.ledger, place);
            }
        }
        for publication in &publications {
            see(reception, publication, false, world);
        }
    }

    fn push(&mut self, push: &Value, world: &mut World<'_>) {
        if push.get("connect").is_some() {
            assert!(self.is_one_way, "{push}");
            let command = self.commands.remove(&1).expect("one connect for a connection");
            return self.reply(command, push, world);
        }
        if let Some(disconnect) = push.get("disconnect") {
            let code = disconnect["code"].as_u64().expect("a code") as u16;
            self.check_code(code, disconnect["reason"].as_str().expect("a reason"));
            match self.carrier {
                // The close frame says the same.
                Carrier::WebSocket => {}
                Carrier::Chunks | Carrier::Events if world.random.chance(1, 2) => self.end(),
                Carrier::Chunks | Carrier::Events => self.phase = Phase::Closing,
            }
            return;
        }
        let channel = push["channel"].as_str().expect("pushes of this server name their channel");
        if let Some(publication) = push.get("pub") {
            let reception = self.receptions.get_mut(channel);
            let reception = reception.unwrap_or_else(|| panic!("client {} is not in {channel}", self.number));
            return see(reception, publication, true, world);
        }
        if let Some(member) = push.get("join") {
            return self.see_member(channel, &member["info"], true);
        }
        if let Some(member) = push.get("leave") {
            return self.see_member(channel, &member["info"], false);
        }
        assert_eq!(push["unsubscribe"]["code"], 2500, "{push}");
        assert!(channel.starts_with("sync:"), "only this namespace resynchronises: {push}");
        self.leave(channel);
    }

    /// Somebody comes or goes: each does so by turns, and after the client's own coming.
    fn see_member(&mut self, channel: &str, info: &Value, comes: bool) {
        assert!(has_members(channel) && self.receptions.get(channel).is_some_and(Reception::is_made), "{channel}");
        let id = info["client"].as_str().expect("a client has an id").to_owned();
        let seen = self.members.entry(channel.to_owned()).or_default();
        if seen.is_empty() {
            assert!(comes && id == self.id, "{channel}: {} first hears of {id}, not of its own coming", self.id);
        } else {
            assert!(id != self.id, "{channel}: {id} comes twice, or sees itself go");
        }
        let before = seen.insert(id.clone(), comes);
        assert!(before != Some(comes), "{channel}: {id} comes or goes twice in a row");
    }

    /// Asks who is in the channels that tell it.
    pub fn ask_presence(&mut self, world: &mut World<'_>) {
        if self.is_one_way {
            return;
        }
        for channel in CHANNELS.into_iter().filter(|channel| has_members(channel)) {
            let question = self.presence(channel, false);
            self.send_text(&question.to_string(), world);
        }
    }

    /// Nothing is under way, and these are subscribed: the server says so, and so does what the client has seen.
    pub fn check_members(&self, channel: &str, subscribed: &BTreeSet<String>) {
        assert!(
            self.is_one_way || self.present.get(channel) == Some(subscribed),
            "{channel}: who is there, says the server to {}: {:?}, not {subscribed:?}",
            self.id,
            self.present.get(channel)
        );
        for (id, has_come) in self.members.get(channel).into_iter().flatten() {
            assert_eq!(*has_come, subscribed.contains(id), "{channel}: what {} has seen of {id}", self.id);
        }
    }

    fn leave(&mut self, channel: &str) {
        self.members.remove(channel);
        for command in self.commands.values_mut() {
            if let Command::Publish { channel: into, sees_own, .. } = command {
                *sees_own &= into != channel;
            }
        }
        // If there is none, the server has taken the client out already.
        if let Some(reception) = self.receptions.remove(channel) {
            if let Some(place) = &reception.place {
                self.left.insert(channel.to_owned(), place.clone());
            }
            self.seen.insert(channel.to_owned(), reception.into_seen());
        }
    }

    /// One command, or two in one frame.
    fn command(&mut self, world: &mut World<'_>) {
        let mut lines = Vec::new();
        for _ in 0..=world.random.below(2) {
            let channel = world.random.one_of(&CHANNELS);
            let line = match world.random.below(10) {
                0..5 => self.subscribe(channel, world),
                5 => self.unsubscribe(channel, world),
                6 if has_members(channel) => Some(self.presence(channel, world.random.chance(1, 2))),
                6 if promise(channel).has_stream() => Some(self.history(channel, world)),
                7..10 if !has_one_producer(channel) => Some(self.publish(channel, world)),
                _ => None,
            };
            lines.extend(line.map(|line| line.to_string()));
        }
        if !lines.is_empty() {
            self.send_text(&lines.join("\n"), world);
        }
    }

    fn subscribe(&mut self, channel: &str, world: &mut World<'_>) -> Option<Value> {
        if self.receptions.contains_key(channel) || self.awaits_unsubscribe(channel) {
            return None;
        }
        let from = self.left.get(channel).cloned();
        let rejects = from.is_some() && world.random.chance(1, 4);
        let mut request = json!({ "channel": channel, "flag": if rejects { 3 } else { 1 } });
        if let Some(from) = &from {
            request["recover"] = json!(true);
            request["offset"] = json!(from.offset);
            request["epoch"] = json!(from.epoch);
        }
        let content = world.random.one_of(&[Content::Whole, Content::Deltas, Content::Deltas, Content::Even]);
        let (name, value) = tag(2);
        match content {
            Content::Whole => {}
            Content::Deltas => request["delta"] = json!("fossil"),
            Content::Even => request["tf"] = json!({ "key": name, "cmp": "eq", "val": value }),
        }
        let seen = self.seen.remove(channel).unwrap_or_default();
        self.receptions.insert(channel.to_owned(), Reception::ask(channel, seen, content));
        let id = self.next_id(Command::Subscribe { channel: channel.to_owned(), from, rejects, content });
        Some(json!({ "id": id, "subscribe": request }))
    }

    fn unsubscribe(&mut self, channel: &str, world: &mut World<'_>) -> Option<Value> {
        let reception = self.receptions.get(channel)?;
        if self.awaits_unsubscribe(channel) || !reception.is_made() && world.random.chance(1, 2) {
            return None;
        }
        let id = self.next_id(Command::Unsubscribe { channel: channel.to_owned() });
        Some(json!({ "id": id, "unsubscribe": { "channel": channel } }))
    }

    fn publish(&mut self, channel: &str, world: &mut World<'_>) -> Value {
        let hears_all = |reception: &Reception| reception.is_made() && !reception.is_filtered();
        let sees_own = self.receptions.get(channel).is_some_and(hears_all)
            && !channel.starts_with("sync:")
            && !self.awaits_unsubscribe(channel);
        let count = world.ledger.send(channel, self.number, world.network.now_ms());
        let id = self.next_id(Command::Publish { channel: channel.to_owned(), count, sees_own });
        let data = payload(channel, self.number, count, world.random);
        json!({ "id": id, "publish": { "channel": channel, "data": data } })
    }

    fn history(&mut self, channel: &str, world: &mut World<'_>) -> Value {
        let limit = world.random.below(12) as i64 - 2;
        let reverse = world.random.chance(1, 2);
        let id = self.next_id(Command::History { channel: channel.to_owned(), limit, reverse });
        let mut request = json!({ "channel": channel, "limit": limit, "reverse": reverse });
        if let Some(place) = self.left.get(channel) {
            request["since"] = json!({ "offset": place.offset, "epoch": place.epoch });
        }
        json!({ "id": id, "history": request })
    }

    fn presence(&mut self, channel: &str, stats_only: bool) -> Value {
        let is_in = self.receptions.get(channel).is_some_and(Reception::is_made) && !self.awaits_unsubscribe(channel);
        let id = self.next_id(Command::Presence { channel: channel.to_owned(), stats_only, is_in });
        let method = if stats_only { "presence_stats" } else { "presence" };
        json!({ "id": id, method: { "channel": channel } })
    }

    fn awaits_unsubscribe(&self, channel: &str) -> bool {
        self.commands
            .values()
            .any(|command| matches!(command, Command::Unsubscribe { channel: leaving } if leaving == channel))
    }

    fn next_id(&mut self, command: Command) -> u32 {
        let id = self.next_command;
        self.next_command += 1;
        self.commands.insert(id, command);
        id
    }

    fn send_text(&mut self, text: &str, world: &mut World<'_>) {
        if self.trace {
            println!("          client {} says {text:.150}", self.number);
        }
        match self.carrier {
            Carrier::WebSocket => self.send_frames(text, world),
            Carrier::Chunks | Carrier::Events => self.uplink.say(text.to_owned()),
        }
    }

    fn send_frames(&mut self, text: &str, world: &mut World<'_>) {
        let mut cuts: Vec<usize> =
            (0..world.random.below(3)).map(|_| world.random.below(text.len() as u64 + 1) as usize).collect();
        cuts.sort_unstable();
        let mut bytes = Vec::new();
        frames::encode_text(&mut bytes, text, &cuts, (world.random.next_u64() as u32).to_be_bytes());
        self.write(&bytes);
    }

    fn send_frame(&mut self, opcode: u8, payload: &[u8], world: &mut World<'_>) {
        let mut bytes = Vec::new();
        frames::encode(&mut bytes, opcode, true, payload, (world.random.next_u64() as u32).to_be_bytes());
        self.write(&bytes);
    }

    fn write(&self, bytes: &[u8]) {
        if let Some(peer) = &self.peer {
            peer.write(bytes);
        }
    }
}

/// Where publications may be dropped, only one producer's count tells which ones.
pub fn has_one_producer(channel: &str) -> bool {
    matches!(promise(channel), Promise::Last | Promise::Some)
}

/// A payload that says whose it is. Where the last publication must come through, it is smaller than any outbox.
pub fn payload(channel: &str, producer: Producer, count: u64, random: &mut Random) -> Value {
    let padding = match random.below(100) {
        0 if !has_one_producer(channel) => 20_000,
        1..4 if !has_one_producer(channel) => 2_500,
        _ => random.below(250) as usize,
    };
    json!({ "producer": producer, "count": count, "padding": "x".repeat(padding) })
}

fn origin(data: &Value) -> (Producer, u64) {
    (data["producer"].as_u64().unwrap() as Producer, data["count"].as_u64().unwrap())
}

fn see(reception: &mut Reception, publication: &Value, is_live: bool, world: &mut World<'_>) {
    let (producer, count) = origin(&reception.payload(world.ledger, publication));
    let offset = publication.get("offset").and_then(Value::as_u64).unwrap_or(0);
    reception.see(world.ledger, producer, count, offset, is_live);
}
