//! What one address, one user or one client may not do to all others.

use std::net::IpAddr;

use super::*;
use crate::{
    limits::{CONNECTION_HOST_BYTES, HANDSHAKE_MS_MIN, REFUSAL_LINGER_MS_MAX, REFUSALS_MAX},
    network::{Prefix, PrefixSet},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

impl Stage {
    fn newcomer(&mut self, address: &str, shard: usize) -> Client {
        let address = address.parse::<IpAddr>().unwrap();
        let peer = self.network.connect_from(address, shard, ROOM);
        let client = Client { peer, unread: Vec::new(), is_ended: false };
        self.settle();
        client
    }

    /// A client that is upgraded and connected, behind what it has said already.
    fn connect(&mut self, client: &mut Client) {
        client.peer.write(UPGRADE);
        self.settle();
        client.take_head();
        client.say(r#"{"id":1,"connect":{}}"#);
        self.settle();
        let heard = client.hear();
        assert!(heard.len() == 1 && heard[0].contains(r#""connect""#), "{heard:?}");
    }

    fn deny(&mut self, prefixes: &[&str]) {
        let prefixes: PrefixSet = prefixes.iter().map(|prefix| prefix.parse::<Prefix>().unwrap()).collect();
        let prefixes = Arc::new(prefixes);
        for outlet in &mut self.control.to_shards {
            outlet.send(ToShard::Deny { prefixes: Arc::clone(&prefixes) });
        }
        self.settle();
    }

    fn memory(&mut self, is_short: bool, shed_bytes: u64) {
        self.control.to_shards[0].send(ToShard::Memory { is_short, shed_bytes });
        self.settle();
    }

    fn turn_after(&mut self, ms: u64) {
        self.network.pass(ms);
        self.settle();
    }
}

impl Client {
    /// The status of an answer, and whether it says when to come again.
    fn refusal(&mut self) -> (u16, bool) {
        self.read(usize::MAX);
        let text = String::from_utf8(std::mem::take(&mut self.unread)).unwrap();
        let status = text.strip_prefix("HTTP/1.1 ").unwrap_or_else(|| panic!("no answer: {text:?}"));
        (status[..3].parse().unwrap(), text.contains("\r\nRetry-After: "))
    }
}

fn header(address: &str) -> Vec<u8> {
    let IpAddr::V4(address) = address.parse().unwrap() else { panic!("an address of IPv4") };
    [SIGNATURE, &[0x21, 0x11, 0, 12], &address.octets(), &[10, 0, 0, 1, 0xc0, 0, 0x1f, 0x90]].concat()
}

#[test]
fn an_address_and_a_network_have_no_more_connections_than_allowed_on_all_shards() {
    let mut stage = Stage::new(2, 1024, |config| {
        config.client.limits.address_connections_max = 2;
        config.client.limits.network_connections_max = 3;
    });
    let mut first = stage.newcomer("192.0.2.1", 0);
    stage.connect(&mut first);
    let second = stage.newcomer("::ffff:192.0.2.1", 1);
    assert_eq!(stage.newcomer("192.0.2.1", 0).refusal(), (429, true));
    let _third = stage.newcomer("192.0.2.2", 1);
    assert_eq!(stage.newcomer("192.0.2.3", 0).refusal(), (429, true));
    let _other = stage.newcomer("192.0.3.1", 0);
    assert_eq!(stage.count(0, "address_connections_exhausted"), 1);
    assert_eq!(stage.count(0, "network_connections_exhausted"), 1);

    // One is reset, so that the kernel does not know its peer any more; one says goodbye.
    second.peer.reset();
    stage.settle();
    let mut again = stage.newcomer("192.0.2.1", 0);
    stage.connect(&mut again);
    drop(first);
    drop(again);
    stage.turn_after(10_000);
    for shard in [0, 1, 0] {
        let mut client = stage.newcomer("192.0.2.9", shard);
        stage.connect(&mut client);
        drop(client);
        stage.settle();
    }
}

#[test]
fn an_address_begins_no_more_connections_than_allowed() {
    let mut stage = Stage::new(2, 1024, |config| config.client.limits.address_accepts_per_second = 2);
    let mut kept = Vec::new();
    for number in 0..4 {
        kept.push(stage.newcomer("192.0.2.1", number % 2));
    }
    assert_eq!(stage.newcomer("192.0.2.1", 0).refusal(), (429, true));
    // IPv6 hosts choose from a /64.
    for host in 1..5 {
        kept.push(stage.newcomer(&format!("2001:db8::{host}"), 0));
    }
    assert_eq!(stage.newcomer("2001:db8::5", 1).refusal(), (429, true));
    let _other = stage.newcomer("192.0.2.2", 0);
    assert_eq!(stage.count(0, "accepts_too_frequent") + stage.count(1, "accepts_too_frequent"), 2);
    stage.turn_after(500);
    let mut later = stage.newcomer("192.0.2.1", 1);
    stage.connect(&mut later);
}

#[test]
fn the_oldest_handshakes_make_room_once_they_have_had_their_time() {
    let mut stage = Stage::new(1, 1024, |config| config.client.limits.handshakes_max = 2);
    let mut slow: Vec<Client> = (0..2).map(|_| stage.newcomer("192.0.2.1", 0)).collect();
    slow[1].peer.write(UPGRADE);
    stage.settle();
    slow[1].take_head();
    assert_eq!(stage.newcomer("192.0.2.1", 0).refusal(), (503, true));
    stage.turn_after(HANDSHAKE_MS_MIN);
    for number in 0..2 {
        let mut healthy = stage.newcomer("192.0.2.1", 0);
        stage.connect(&mut healthy);
        match number {
            0 => assert_eq!(slow[0].refusal(), (503, true)),
            _ => assert!(slow[1].hear().is_empty(), "there is room once the first has gone"),
        }
    }
    let mut waiting = stage.newcomer("192.0.2.1", 0);
    let mut next = stage.newcomer("192.0.2.1", 0);
    assert_eq!(slow[1].hear(), ["close 3013"]);
    stage.connect(&mut waiting);
    stage.connect(&mut next);
    assert_eq!(stage.count(0, "handshakes_exhausted"), 3);
    assert_eq!(stage.shards[0].state.admitting.handshakes.under_way(), 0);
}

#[test]
fn who_is_turned_away_keeps_no_socket_for_long() {
    let mut stage = Stage::new(1, 1024, |config| config.client.deny = vec!["192.0.2.0/24".parse().unwrap()]);
    let mut denied: Vec<Client> = (0..REFUSALS_MAX + 10).map(|_| stage.newcomer("192.0.2.1", 0)).collect();
    assert_eq!(denied[0].refusal(), (403, false));
    assert_eq!(stage.network.sockets(), REFUSALS_MAX, "what is more is closed without an answer");
    stage.turn_after(REFUSAL_LINGER_MS_MAX + 100);
    assert_eq!(stage.network.sockets(), 0);
    assert_eq!(stage.count(0, "address_denied"), REFUSALS_MAX as u64 + 10);
    let mut healthy = stage.newcomer("192.0.3.1", 0);
    stage.connect(&mut healthy);
}

#[test]
fn a_balancer_tells_whose_connection_it_is() {
    let mut stage = Stage::new(1, 1024, |config| {
        config.client.proxy_protocol_from = vec!["10.0.0.0/8".parse().unwrap()];
        config.client.deny = vec!["192.0.2.66".parse().unwrap()];
        config.client.limits.address_connections_max = 1;
    });
    let mut client = stage.newcomer("10.0.0.1", 0);
    for byte in header("192.0.2.1") {
        client.peer.write(&[byte]);
        stage.settle();
    }
    stage.connect(&mut client);
    let mut crowded = stage.newcomer("10.0.0.1", 0);
    crowded.peer.write(&[&header("192.0.2.1")[..], UPGRADE].concat());
    stage.settle();
    assert_eq!(crowded.refusal(), (429, true));
    let mut denied = stage.newcomer("10.0.0.2", 0);
    denied.peer.write(&header("192.0.2.66"));
    stage.settle();
    assert_eq!(denied.refusal(), (403, false));
    let mut looking = stage.newcomer("10.0.0.1", 0);
    looking.peer.write(&[SIGNATURE, &[0x20, 0, 0, 0], UPGRADE].concat());
    stage.settle();
    looking.take_head();
    drop(client);
    stage.settle();
    let mut together = stage.newcomer("10.0.0.1", 0);
    together.peer.write(&header("192.0.2.1"));
    stage.connect(&mut together);
}

#[test]
fn a_balancer_without_a_header_and_a_header_without_a_balancer_are_refused() {
    let mut stage =
        Stage::new(1, 1024, |config| config.client.proxy_protocol_from = vec!["10.0.0.0/8".parse().unwrap()]);
    let mut bare = stage.newcomer("10.0.0.1", 0);
    bare.peer.write(UPGRADE);
    let mut old = stage.newcomer("10.0.0.1", 0);
    old.peer.write(b"PROXY TCP4 192.0.2.1 10.0.0.1 49152 8000\r\n");
    let mut liar = stage.newcomer("192.0.2.1", 0);
    liar.peer.write(&[&header("192.0.2.2")[..], UPGRADE].concat());
    let mut old_liar = stage.newcomer("192.0.2.1", 0);
    old_liar.peer.write(&[b"PROXY TCP4 192.0.2.2 10.0.0.1 49152 8000\r\n", UPGRADE].concat());
    let mut silent = stage.newcomer("10.0.0.1", 0);
    silent.peer.write(&header("192.0.2.1")[..20]);
    stage.settle();
    for (client, status) in [(&mut bare, 400), (&mut old, 400), (&mut liar, 400), (&mut old_liar, 505)] {
        assert_eq!(client.refusal(), (status, false));
    }
    assert_eq!(stage.count(0, "proxy_header_invalid"), 2);
    stage.turn_after(6_000);
    assert_eq!(silent.refusal().0, 408);
}

#[test]
fn commands_beyond_their_rate_are_answered_and_then_end_the_connection() {
    let mut stage = Stage::new(1, 1024, |config| {
        config.client.limits.commands_per_second = 5;
        config.client.limits.publications_per_second = 2;
    });
    let mut client = stage.client(0, ROOM);
    let say = |client: &mut Client, stage: &mut Stage, command: &str| {
        client.say(command);
        stage.settle();
        client.hear().join(" ")
    };
    let publish = r#"{"id":3,"publish":{"channel":"plain:1","data":1}}"#;
    for number in 0..8 {
        let heard = say(&mut client, &mut stage, publish);
        assert_eq!(heard.contains("111"), number >= 4, "{number}: {heard}");
    }
    assert!(say(&mut client, &mut stage, r#"{"id":4,"subscribe":{"channel":"plain:2"}}"#).contains("subscribe"));
    assert!(stage.shards[0].state.connections[0].extra.is_some());
    stage.turn_after(4_100);
    assert!(stage.shards[0].state.connections[0].extra.is_none(), "full buckets are forgotten");
    assert!(say(&mut client, &mut stage, publish).contains(r#""publish":{}"#));

    let history = r#"{"id":5,"history":{"channel":"plain:1"}}"#;
    let heard = say(&mut client, &mut stage, &vec![history; 40].join("\n"));
    assert!(heard.contains("111") && heard.ends_with("close 3013"), "{heard}");
    assert_eq!(stage.count(0, "publications_too_frequent"), 4);
    // Of ten and ten more one each was used by the publication; what is one more still ends it.
    assert_eq!(stage.count(0, "commands_too_frequent"), 11);
}

#[test]
fn newly_denied_addresses_are_found_among_the_connected() {
    let mut stage =
        Stage::new(2, 1024, |config| config.client.proxy_protocol_from = vec!["10.0.0.0/8".parse().unwrap()]);
    let mut direct = stage.newcomer("192.0.2.1", 0);
    stage.connect(&mut direct);
    let mut by_balancer = stage.newcomer("10.0.0.1", 1);
    by_balancer.peer.write(&header("192.0.2.2"));
    stage.connect(&mut by_balancer);
    let mut half = stage.newcomer("192.0.2.3", 1);
    let mut other = stage.newcomer("198.51.100.1", 0);
    stage.connect(&mut other);
    let mut crowd: Vec<Client> = (0..1_500).map(|_| stage.newcomer("198.51.100.2", 0)).collect();
    let mut last = stage.newcomer("192.0.2.4", 0);
    // The balancer's own address is nobody's of its clients.
    stage.deny(&["192.0.2.0/24", "10.0.0.0/8"]);
    assert_eq!(direct.hear(), ["close 3507"]);
    assert_eq!(by_balancer.hear(), ["close 3507"]);
    assert_eq!((half.refusal(), last.refusal()), ((403, false), (403, false)));
    assert_eq!(stage.newcomer("192.0.2.1", 1).refusal(), (403, false));
    assert!(other.hear().is_empty());
    stage.connect(&mut crowd[0]);
    stage.deny(&[]);
    let mut again = stage.newcomer("192.0.2.1", 0);
    stage.connect(&mut again);
}

#[test]
fn where_memory_is_short_only_those_are_heard_who_are_connected() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.client(0, ROOM);
    stage.memory(true, 0);
    let mut newcomer = stage.newcomer("192.0.2.1", 0);
    newcomer.peer.write(UPGRADE);
    stage.settle();
    assert_eq!(newcomer.refusal(), (503, true));
    client.say(r#"{"id":2,"subscribe":{"channel":"plain:1"}}"#);
    stage.settle();
    assert!(client.hear()[0].contains("subscribe"));
    assert_eq!((stage.count(0, "memory_short"), stage.count(0, "memory")), (1, 0));
    stage.memory(false, 0);
    let mut later = stage.newcomer("192.0.2.1", 0);
    stage.connect(&mut later);
}

#[test]
fn what_memory_is_closed_for_is_closed_in_order() {
    const COST: u64 = CONNECTION_HOST_BYTES;
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut clients: Vec<Client> = (0..125).map(|_| stage.client(0, ROOM)).collect();
    let mut slow: Vec<Client> = (0..2).map(|_| stage.subscriber(0, 2_000, "plain:1")).collect();
    let mut slower = stage.subscriber(0, 1_000, "plain:1");
    let mut handshakes: Vec<Client> = (0..3).map(|_| stage.newcomer("192.0.2.1", 0)).collect();
    for _ in 0..10 {
        stage.publish("plain:1", &format!("{:?}", "x".repeat(1_000)), true);
        stage.settle();
    }
    let is_reset = |client: &mut Client| {
        // What has arrived already, and then the end.
        client.read(usize::MAX);
        client.read(usize::MAX);
        client.is_ended
    };
    // The one for which the most waits.
    stage.memory(true, 1);
    assert_eq!(stage.count(0, "memory"), 1);
    assert!(is_reset(&mut slower));
    // The others, and the oldest handshake.
    let waiting_bytes = stage.shards[0].figures().outbox_bytes;
    stage.memory(true, waiting_bytes + 2 * COST + 1);
    assert_eq!(stage.count(0, "memory"), 3);
    assert!(slow.iter_mut().all(is_reset));
    assert_eq!(handshakes[0].refusal(), (503, true));
    // The other handshakes, and a 64th of the clients: those that came last.
    stage.memory(true, 1 << 30);
    assert_eq!((handshakes[1].refusal(), handshakes[2].refusal()), ((503, true), (503, true)));
    assert!(clients[123..].iter_mut().all(|client| client.hear() == ["close 3011"]));
    assert!(clients[..123].iter_mut().all(|client| client.hear().is_empty()));
    assert_eq!(stage.shards[0].figures().connections, 123);
}

#[test]
fn a_users_commands_are_counted_on_all_shards() {
    let token = {
        use jsonwebtoken::{EncodingKey, Header, encode};
        let claims = serde_json::json!({ "sub": "ann" });
        encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    };
    let mut stage = Stage::new(2, 1024, |config| {
        config.client.token.hmac_secret = Some(SECRET.into());
        config.client.limits.user_commands_per_second = 3;
    });
    let mut refused = 0;
    let mut devices: Vec<Client> = (0..2).map(|shard| stage.stranger(shard, ROOM)).collect();
    for device in &devices {
        device.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    }
    stage.settle();
    devices.iter_mut().for_each(|device| _ = device.hear());
    for number in 0..10 {
        let device = &mut devices[number % 2];
        device.say(r#"{"id":2,"unsubscribe":{"channel":"plain:1"}}"#);
        stage.settle();
        refused += usize::from(device.hear().join(" ").contains("111"));
    }
    assert_eq!(refused, 4);
    // Another's are none of them.
    let mut other = stage.client(0, ROOM);
    other.say(r#"{"id":2,"unsubscribe":{"channel":"plain:1"}}"#);
    stage.settle();
    assert!(!other.hear().join(" ").contains("111"));
}

const SECRET: &str = "a secret of thirty-two bytes or so";

#[test]
fn bytes_beyond_their_rate_wait_in_the_socket_and_none_is_lost() {
    let mut stage = Stage::new(1, 1024, |config| config.client.limits.received_bytes_per_second = 10_000);
    let mut subscriber = stage.subscriber(0, ROOM, "plain:1");
    let mut client = stage.client(0, ROOM);
    let text = "x".repeat(4_000);
    for number in 0..20 {
        client.say(&format!(r#"{{"id":{},"publish":{{"channel":"plain:1","data":"{text}"}}}}"#, number + 2));
    }
    let mut replies = Vec::new();
    let mut pushes = 0;
    let mut seconds = 0;
    while replies.len() < 20 {
        stage.turn_after(100);
        replies.append(&mut client.hear());
        pushes += subscriber.hear().len();
        seconds += 1;
        assert!(seconds < 200, "{} replies", replies.len());
    }
    // 80 KB at 10 a second, of which 20 pass at once and a receive brings 16.
    assert!((40..=80).contains(&seconds), "{seconds} tenths of a second");
    assert_eq!(pushes, 20);
    for (number, reply) in replies.iter().enumerate() {
        assert!(reply.starts_with(&format!(r#"{{"id":{}"#, number + 2)), "{reply}");
    }
    assert!(stage.count(0, "bytes_too_frequent") > 0);
}
