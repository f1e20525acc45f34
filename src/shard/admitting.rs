//! Who may begin: the limits that act between accept and the first request, and what they remember until a connection
//! has gone.
//!
//! Owns the addresses of connections, where they are counted or told by a balancer; the kernel forgets them before it
//! tells of a reset. Leaves counting over all shards to `mesh`, and the words of the answer to `session`.
//!
//! Invariants:
//! - A connection with a place in the process's count is a handshake until it is connected or leaves. Were one counted
//!   and forgotten, others would be turned away for nobody's sake.
//! - Whoever is turned away has given back all that it was counted for, and of those at most [`REFUSALS_MAX`] wait for
//!   their peer's end: to be refused must not be a way to take sockets from others.

use std::{net::IpAddr, sync::Arc};

use super::{
    connection::{Connection, Flag},
    handshakes::{Handshake, Handshakes},
    state::State,
};
use crate::{
    config::Config,
    limits::{HANDSHAKE_MS_MIN, REFUSAL_LINGER_MS_MAX, REFUSALS_MAX},
    mesh::{CrowdLimits, Crowded, Place},
    network::{PrefixSet, Rate, proxy},
    protocol::Disconnect,
    session::{self, Phase, Session, TurnedAway},
    uring::{Socket, Token},
};

/// What a shard knows of those who come.
pub struct Admitting {
    /// Whom operators do not want.
    pub denied: Arc<PrefixSet>,
    /// Whose connections begin with the address of somebody else.
    balancers: PrefixSet,
    pub handshakes: Handshakes,
    /// Connections that were turned away and are not gone.
    refused: usize,
    /// Whether memory is short.
    pub is_memory_short: bool,
    /// The slot from which on connections are to be looked at, since their addresses may not connect any more.
    pub look_for_denied_from: Option<u32>,
    /// By slab index, as far as there is a reason to know.
    known: Vec<Option<Known>>,
}

/// A connection's other end.
#[derive(Clone, Copy)]
struct Known {
    address: IpAddr,
    /// Its end is to be told to those who count.
    is_counted: bool,
}

impl Admitting {
    pub fn new(config: &Config) -> Self {
        Self {
            denied: Arc::new(config.client.deny.iter().copied().collect()),
            balancers: config.client.proxy_protocol_from.iter().copied().collect(),
            handshakes: Handshakes::default(),
            refused: 0,
            is_memory_short: false,
            look_for_denied_from: None,
            known: Vec::new(),
        }
    }

    /// From now on these are balancers. Which addresses are denied, the control thread says.
    pub fn reconfigure(&mut self, config: &Config) {
        self.balancers = config.client.proxy_protocol_from.iter().copied().collect();
    }

    /// The address of a connection, if it was worth remembering.
    pub fn address(&self, index: u32) -> Option<IpAddr> {
        self.known.get(index as usize).copied().flatten().map(|known| known.address)
    }

    fn remember(&mut self, index: u32, known: Known) {
        let index = index as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, None);
        }
        self.known[index] = Some(known);
    }

    /// Bytes that are held for connections.
    pub fn bytes(&self) -> usize {
        self.known.capacity() * size_of::<Option<Known>>()
    }
}

impl State {
    /// Whether anything rests on the address of who is accepted.
    pub fn needs_address(&self) -> bool {
        let limits = &self.config.client.limits;
        !self.admitting.denied.is_empty()
            || !self.admitting.balancers.is_empty()
            || limits.counts_addresses()
            || limits.address_accepts_per_second > 0
    }

    /// A client was accepted. If there is no place for it, it is told so. The address is known if
    /// [`State::needs_address`].
    pub fn begin_connection(&mut self, socket: Socket, address: Option<IpAddr>) -> Token {
        self.counters.accepted += 1;
        let generation = self.next_generation();
        let index = self.connections.insert(Connection::new(socket, generation, Session::default()));
        let index = u32::try_from(index).expect("descriptors end before 2^32");
        if let Some(tls) = &mut self.tls {
            tls.begin(index);
        }
        self.counters.phases[Phase::Head as usize] += 1;
        self.connection_mut(index).expires_unix_seconds = self.now_ms as u32;
        match self.take_place(index).and_then(|()| self.begin_handshake(index, address)) {
            Ok(()) => self.schedule_phase_deadline(index),
            Err(why) => self.turn_away(index, why),
        }
        self.connection(index).token(index)
    }

    fn take_place(&mut self, index: u32) -> Result<(), TurnedAway> {
        // Where memory is short, those who are connected must still be heard.
        let is_memory_short = self.admitting.is_memory_short;
        let place = if is_memory_short { self.admission.enter_as(Place::Uplink) } else { self.admission.enter() };
        match place {
            Some(Place::Client) => {}
            Some(Place::Uplink) => _ = self.connection_mut(index).set(Flag::Uplink),
            None => {
                self.connection_mut(index).set(Flag::Refused);
                return Err(self.no_place());
            }
        }
        self.make_room_for_handshake().inspect_err(|_| self.give_place_back(index))?;
        let handshake = Handshake { index, generation: self.connection(index).generation, began_ms: self.now_ms };
        let connections = &self.connections;
        let is_under_way = |other: &Handshake| {
            let connection = connections.get(other.index as usize);
            connection.is_some_and(|connection| is_handshaking(connection, other))
        };
        self.admitting.handshakes.begin(handshake, is_under_way);
        Ok(())
    }

    /// Why new clients find no place.
    pub fn no_place(&self) -> TurnedAway {
        if self.admitting.is_memory_short { TurnedAway::MemoryShort } else { TurnedAway::ConnectionsExhausted }
    }

    /// Lets the oldest handshake go where there are too many, if it has had its time.
    fn make_room_for_handshake(&mut self) -> Result<(), TurnedAway> {
        let handshakes_max = self.config.client.limits.handshakes_max as usize;
        if handshakes_max == 0 || self.admitting.handshakes.under_way() < handshakes_max {
            return Ok(());
        }
        let oldest = self.oldest_handshake();
        let has_had_its_time = |oldest: &Handshake| self.now_ms.saturating_sub(oldest.began_ms) >= HANDSHAKE_MS_MIN;
        let oldest = oldest.filter(has_had_its_time).ok_or(TurnedAway::HandshakesExhausted)?;
        self.end_handshake_of(oldest.index, TurnedAway::HandshakesExhausted);
        Ok(())
    }

    /// The handshake that has been under way the longest.
    pub fn oldest_handshake(&mut self) -> Option<Handshake> {
        let connections = &self.connections;
        self.admitting.handshakes.oldest(|other| {
            let connection = connections.get(other.index as usize);
            connection.is_some_and(|connection| is_handshaking(connection, other))
        })
    }

    /// Ends a connection that has not come to its connect reply.
    pub fn end_handshake_of(&mut self, index: u32, why: TurnedAway) {
        if self.connection(index).session.phase() == Phase::Head {
            return self.turn_away(index, why);
        }
        self.disconnect(index, Disconnect::TOO_MANY_REQUESTS, why.reason());
    }

    fn begin_handshake(&mut self, index: u32, address: Option<IpAddr>) -> Result<(), TurnedAway> {
        match address.map(|address| address.to_canonical()) {
            Some(address) if self.admitting.balancers.contains(address) => {
                self.connection_mut(index).extra_mut().proxy_header = Some(Vec::new());
                Ok(())
            }
            Some(address) => self.admit_address(index, address, false),
            None => Ok(()),
        }
    }

    /// It is known whose connection it is. `is_told`: by a balancer, so that the kernel does not know it.
    fn admit_address(&mut self, index: u32, address: IpAddr, is_told: bool) -> Result<(), TurnedAway> {
        if is_told {
            self.admitting.remember(index, Known { address, is_counted: false });
        }
        let limits = &self.config.client.limits;
        if self.admitting.denied.contains(address) {
            return Err(TurnedAway::AddressDenied);
        }
        if let Some(rate) = Rate::new(limits.address_accepts_per_second)
            && !self.admission.may_begin(address, rate, self.now_ms * 1_000_000)
        {
            return Err(TurnedAway::AcceptsTooFrequent);
        }
        let is_counted = limits.counts_addresses();
        if is_counted {
            let limits = CrowdLimits {
                address_max: limits.address_connections_max,
                network_max: limits.network_connections_max,
            };
            self.admission.enter_address(address, limits).map_err(|crowded| match crowded {
                Crowded::Address => TurnedAway::AddressCrowded,
                Crowded::Network => TurnedAway::NetworkCrowded,
            })?;
        }
        if is_counted {
            self.admitting.remember(index, Known { address, is_counted });
        }
        Ok(())
    }

    /// What a balancer sends first: whose connection it is. What follows is the client's.
    pub fn hear_balancer(&mut self, index: u32, input: &[u8]) {
        let connection = self.connection_mut(index);
        if connection.has(Flag::Left) {
            return;
        }
        let header = connection.extra_mut().proxy_header.as_mut().expect("a balancer's header is awaited");
        header.extend_from_slice(input);
        let (source, bytes) = match proxy::parse(header) {
            Ok(proxy::Header::Incomplete) => return,
            Ok(proxy::Header::Complete { source, bytes }) => (source, bytes),
            Err(violation) => return self.turn_away(index, TurnedAway::NoProxyHeader(violation)),
        };
        let mut received = connection.extra_mut().proxy_header.take().expect("it was just read");
        connection.drop_empty_extra();
        if let proxy::Source::Client(address) = source
            && let Err(why) = self.admit_address(index, address, true)
        {
            return self.turn_away(index, why);
        }
        match &mut received[bytes..] {
            [] => {}
            input if self.tls.is_some() => self.receive_sealed(index, input),
            input => self.converse_with_input(index, input),
        }
    }

    /// Answers a connection that may not go on to its first request, and lets it go soon.
    pub fn turn_away(&mut self, index: u32, why: TurnedAway) {
        if self.connection(index).has(Flag::Left) {
            return;
        }
        if !self.connection(index).has(Flag::Refused) {
            self.admitting.handshakes.end();
            self.give_place_back(index);
        }
        self.count_address_no_more(index);
        self.admitting.refused += 1;
        self.count(index, why.reason(), "");
        if self.admitting.refused > REFUSALS_MAX {
            self.let_go(index);
        } else {
            self.answer_refusal(index, why);
        }
    }

    fn answer_refusal(&mut self, index: u32, why: TurnedAway) {
        let start = self.turn.replies.len();
        let session = &mut self.connections[index as usize].session;
        let phase_before = session.phase();
        session::turn_away(session, why, &mut self.turn.replies);
        let phase = session.phase();
        self.counters.phase_changed(phase_before, phase);
        self.give_replies(index, start);
        self.over(index);
        self.schedule(index, REFUSAL_LINGER_MS_MAX);
    }

    /// The connection is none of the process's count any more, though it still has its socket.
    fn give_place_back(&mut self, index: u32) {
        let connection = self.connection_mut(index);
        connection.set(Flag::Refused);
        let place = if connection.clear(Flag::Uplink) { Place::Uplink } else { Place::Client };
        self.admission.leave(place);
    }

    /// A connection's slot is about to go: it is counted no more.
    pub fn end_admission(&mut self, index: u32, connection: &Connection) {
        if connection.has(Flag::Refused) {
            self.admitting.refused -= 1;
        } else {
            self.admission.leave(if connection.has(Flag::Uplink) { Place::Uplink } else { Place::Client });
        }
        self.count_address_no_more(index);
        if let Some(known) = self.admitting.known.get_mut(index as usize) {
            *known = None;
        }
    }

    fn count_address_no_more(&mut self, index: u32) {
        if let Some(Some(known)) = self.admitting.known.get_mut(index as usize)
            && std::mem::take(&mut known.is_counted)
        {
            self.admission.leave_address(known.address);
        }
    }
}

/// Whether the connection that has the index is the one that was meant, and on its way to be connected.
fn is_handshaking(connection: &Connection, handshake: &Handshake) -> bool {
    connection.generation == handshake.generation && !connection.has(Flag::Left) && !connection.has(Flag::Connected)
}
