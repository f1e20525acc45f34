//! One connection's slot in its shard's slab.
//!
//! Owns what a connection costs while it is idle. What it needs only at times lives in [`Extra`],
//! which is made on first use and goes when it is empty.

use bytes::Bytes;

use super::{grants::Granted, hooks::Asking, rates::Charged, wheel::TimerLinks};
use crate::{
    fanout::{Form, Marks, Outbox, Subscriptions, Turn},
    limits::CONNECTION_BYTES,
    mesh::{ConnectionId, Subscribed},
    session::{ServerSide, Session, Transient},
    uring::{Socket, Token},
};

/// A client's socket and all that is known of it.
#[repr(align(64))]
pub struct Connection {
    /// Its socket.
    pub socket: Socket,
    /// How many connections the shard had before this one; with the index it names a connection for good.
    pub generation: u32,
    /// Its one timer: a deadline, or the heartbeat.
    pub timer: TimerLinks,
    /// The topics that it is in.
    pub subscriptions: Subscriptions,
    /// What it needs at times.
    pub extra: Option<Box<Extra>>,
    /// When its token expires, in seconds since 1970; 0: never. Until its connect command is accepted it has no token, and
    /// this is when it was accepted: the low bits of the shard's milliseconds.
    pub expires_unix_seconds: u32,
    /// What it is given this turn.
    pub entry: u32,
    /// Where its conversation stands.
    pub session: Session,
    /// What its program calls itself, by [`Programs`](super::programs::Programs).
    pub program: u16,
    /// How it is written to.
    pub form: Form,
    flags: u16,
}

/// A design review is due when this fails: it is the price of every idle client.
const _: () = assert!(size_of::<Connection>() == CONNECTION_BYTES);

/// What a shard must remember of a connection, in one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Flag {
    /// There is something to receive. It waits in the list of readable connections, or for the end of its session's pause.
    Readable = 0,
    /// The peer has ended: receiving goes on until that is seen.
    Ended = 1,
    /// The kernel watches for room to write.
    WritableParked = 2,
    /// It has an outbox, to which everything new is appended.
    Backlogged = 3,
    /// A ping was sent; its timer runs to the pong's deadline.
    Pinged = 4,
    /// Its pong is late, and TCP says that the network is to blame.
    Graced = 5,
    /// Its socket is to be closed as soon as nothing waits to be sent.
    Dropping = 6,
    /// Our side of the stream is to be shut as soon as nothing waits to be sent.
    Shutting = 7,
    /// It counts as a connected client.
    Connected = 8,
    /// It has left its topics and is on its way out.
    Left = 9,
    /// It has a user.
    Identified = 10,
    /// It was refused a place in the process's count of connections, or has given it back.
    Refused = 11,
    /// It has a place for uplinks, and will have no user.
    Uplink = 12,
    /// Its inflater's window is that of a cohort, and nothing else may enter it.
    InCohort = 13,
    /// It is counted among its user's connections, which are limited.
    Counted = 14,
}

/// What a connection needs at times.
#[derive(Default)]
pub struct Extra {
    /// While a balancer's header is awaited: what has come of it.
    pub proxy_header: Option<Vec<u8>>,
    /// The session's: partial input.
    pub transient: Option<Box<Transient>>,
    /// What waits to be sent.
    pub outbox: Option<Box<Outbox>>,
    /// While its connect command waits for server-side subscriptions.
    pub connecting: Option<Box<Connecting>>,
    /// Subscriptions that wait for their home shards.
    pub pending: Vec<Pending>,
    /// `info` of its token.
    pub info: Option<Bytes>,
    /// `meta` of its token: what the application's back end knows of the connection, a JSON text.
    pub meta: Option<Box<[u8]>>,
    /// What tokens say of single subscriptions.
    pub grants: Vec<Granted>,
    /// What it has asked the application's back end.
    pub asking: Option<Box<Asking>>,
    /// What it has done of late, where that is limited.
    pub charged: Option<Box<Charged>>,
}

/// A connect command under way.
pub struct Connecting {
    /// Its id.
    pub command: u32,
    /// When the socket was accepted: the low bits of the shard's milliseconds.
    pub accepted_ms: u32,
    /// What the application tells the client.
    pub data: Option<Bytes>,
    /// What still waits for other shards: server-side subscriptions, or the user's admission.
    pub waiting: usize,
    /// While the user's admission is under way: what comes then.
    pub admission: Option<AwaitedAdmission>,
    /// Those that are made.
    pub made: Vec<Subscribed>,
    /// Payload bytes of what they recovered.
    pub recovered_bytes: usize,
    /// Items of the outbox that were given before the command; the others wait for its reply.
    pub items_ahead: usize,
}

/// What follows when a user may have one more connection.
pub struct AwaitedAdmission {
    /// User id.
    pub user: String,
    /// Server-side subscriptions to make.
    pub channels: Vec<ServerSide>,
}

/// A subscription under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its topic.
    pub topic: u32,
    /// The command's id; 0: server-side.
    pub command: u32,
    /// What the subscription will be like.
    pub marks: Marks,
    /// The back end is asked by this question whether the client may subscribe; none: the home shard is asked.
    pub question: Option<u32>,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(socket: Socket, generation: u32, session: Session) -> Self {
        Self {
            socket,
            generation,
            timer: TimerLinks::default(),
            subscriptions: Subscriptions::default(),
            extra: None,
            expires_unix_seconds: 0,
            entry: Turn::NO_ENTRY,
            session,
            program: 0,
            form: Form::default(),
            flags: 0,
        }
    }

    /// Its name in requests to the kernel, at this index.
    pub fn token(&self, index: u32) -> Token {
        Token::new(index, self.generation)
    }

    /// The topic of its user's personal channel, which keeps the user's id; none: the client is anonymous, or not known
    /// yet. The connection is in it from the moment when it is known, if only silently, so that topic is its first.
    pub fn user_topic(&self) -> Option<u32> {
        self.has(Flag::Identified).then(|| self.subscriptions.first_topic())
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags & flag.bit() != 0
    }

    /// Sets a flag: whether it was set before.
    pub fn set(&mut self, flag: Flag) -> bool {
        let was_set = self.has(flag);
        self.flags |= flag.bit();
        was_set
    }

    /// Clears a flag: whether it was set before.
    pub fn clear(&mut self, flag: Flag) -> bool {
        let was_set = self.has(flag);
        self.flags &= !flag.bit();
        was_set
    }

    /// Whether its session waits until the application's back end has answered a question about it.
    pub fn is_asking_enough(&self) -> bool {
        let asking = self.extra.as_ref().and_then(|extra| extra.asking.as_ref());
        asking.is_some_and(|asking| asking.is_paused())
    }

    /// Whether a balancer has yet to say whose connection it is.
    pub fn awaits_proxy_header(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.proxy_header.is_some())
    }

    /// The extras, made if there are none.
    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Gives the extras back if they are empty.
    pub fn drop_empty_extra(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_empty()) {
            self.extra = None;
        }
    }
}

impl Flag {
    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl Extra {
    fn is_empty(&self) -> bool {
        self.proxy_header.is_none()
            && self.transient.is_none()
            && self.outbox.is_none()
            && self.connecting.is_none()
            && self.pending.is_empty()
            && self.info.is_none()
            && self.meta.is_none()
            && self.grants.is_empty()
            && self.asking.is_none()
            && self.charged.is_none()
    }
}

/// Makes client ids out of connection ids, so that no connection has to remember its own.
pub struct ClientIds {
    key: [u8; 16],
}

impl ClientIds {
    /// Ids under a secret key: clients can neither guess nor relate them.
    pub fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    /// The client id of a connection, in the form of a version 4 UUID.
    pub fn of(&self, connection: ConnectionId) -> String {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(36);
        for (position, byte) in self.bytes_of(connection).into_iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(HEX[usize::from(byte >> 4)].into());
            text.push(HEX[usize::from(byte & 0x0f)].into());
        }
        text
    }

    /// The bytes of a client id: cheaper than the text to compare with many.
    pub fn bytes_of(&self, connection: ConnectionId) -> [u8; 16] {
        use siphasher::sip128::{Hasher128, SipHasher13};
        use std::hash::Hasher;

        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write_u16(connection.shard);
        hasher.write_u32(connection.index);
        hasher.write_u32(connection.generation);
        let mut bytes = hasher.finish128().as_bytes();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        bytes
    }

    /// The bytes of a client id as [`ClientIds::of`] writes it; none: it is none.
    pub fn parse(text: &str) -> Option<[u8; 16]> {
        let digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        });
        let digits: Vec<u8> = digits.collect::<Option<_>>()?;
        let is_uuid = text.len() == 36 && [8, 13, 18, 23].iter().all(|position| text.as_bytes()[*position] == b'-');
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        bytes.try_into().ok().filter(|_| is_uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_uuids_and_differ() {
        let ids = ClientIds::new([7; 16]);
        let id = |shard, index, generation| ids.of(ConnectionId { shard, index, generation });
        let one = id(0, 1, 2);
        assert_eq!(one.len(), 36);
        assert_eq!((one.as_bytes()[14], one.as_bytes()[8]), (b'4', b'-'));
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'));
        assert_eq!(one, id(0, 1, 2));
        assert!([id(1, 1, 2), id(0, 2, 2), id(0, 1, 3)].iter().all(|other| *other != one));
        assert_eq!(ClientIds::parse(&one), Some(ids.bytes_of(ConnectionId { shard: 0, index: 1, generation: 2 })));
        for wrong in ["", "-", &one[1..], &one.replace('-', "0"), &one.to_ascii_uppercase(), &one.replace('-', "")] {
            assert_eq!(ClientIds::parse(wrong), None, "{wrong}");
        }
        assert_ne!(one, ClientIds::new([8; 16]).of(ConnectionId { shard: 0, index: 1, generation: 2 }));
    }
}
