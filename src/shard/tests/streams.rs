//! Clients whose messages go out on an HTTP answer without an end, clients that only listen, and uplinks.

use super::*;
use crate::{
    http::{Body, BodyLength, BodyRead},
    limits::uplinks_reserved,
};

/// A client that speaks HTTP.
struct HttpClient {
    peer: Peer,
    unread: Vec<u8>,
    is_ended: bool,
}

impl HttpClient {
    fn new(stage: &mut Stage, shard: usize, room: usize, request: &str) -> Self {
        let client = Self { peer: stage.network.connect(shard, room), unread: Vec::new(), is_ended: false };
        client.peer.write(request.as_bytes());
        stage.settle();
        client
    }

    fn read(&mut self) {
        if let Read::Ended | Read::Reset = self.peer.read(&mut self.unread, usize::MAX) {
            self.is_ended = true;
        }
    }

    /// Everything that was sent, taken apart: the head, the content so far, and whether the answer has ended.
    fn answer(&mut self) -> (String, String, bool) {
        self.read();
        let text = String::from_utf8(self.unread.clone()).expect("text");
        let (head, chunks) = text.split_once("\r\n\r\n").expect("a head");
        let mut body = Body::new(BodyLength::Chunked, usize::MAX / 2).unwrap();
        let is_whole = body.read(chunks.as_bytes()).expect("chunks") == BodyRead::Complete(chunks.len());
        (head.to_owned(), String::from_utf8(body.into_content()).unwrap(), is_whole)
    }

    /// The messages so far.
    fn messages(&mut self) -> Vec<String> {
        let (_, content, _) = self.answer();
        let lines = content.lines().filter(|line| !line.is_empty());
        lines.map(|line| line.strip_prefix("data: ").unwrap_or(line).to_owned()).collect()
    }

    /// The value of a member that is a string, in the first message.
    fn told(&mut self, member: &str) -> String {
        let message = self.messages().remove(0);
        let (_, value) = message.split_once(&format!("\"{member}\":\"")).expect("the connect reply has it");
        value.split('"').next().unwrap().to_owned()
    }
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn uplink(session: &str, node: &str, commands: &str) -> String {
    let data = commands.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    post("/emulation", &format!(r#"{{"session":"{session}","node":"{node}","data":"{data}"}}"#))
}

fn connect_and_subscribe(channel: &str) -> String {
    format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}")
}

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

const DONE: &str = "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n";

#[test]
fn a_publication_is_encoded_once_for_each_form() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let subscribe = connect_and_subscribe("plain:1");
    let one_way = r#"{"subs":{"plain:1":{}}}"#;
    let requests = [
        post("/connection/sse", &subscribe),
        post("/connection/http_stream", &subscribe),
        post("/connection/uni_sse", one_way),
        post("/connection/uni_http_stream", one_way),
    ];
    let mut websocket = stage.subscriber(0, ROOM, "plain:1");
    let mut clients: Vec<_> = requests.iter().map(|request| HttpClient::new(&mut stage, 0, ROOM, request)).collect();
    let channel = stage.hasher.name("plain:1");
    let forms = stage.shards[0].state.topics.of_channel(channel.hash, &channel.name).count();
    assert_eq!((forms, stage.shards[0].figures().connections), (5, 5));
    stage.publish("plain:1", "7", true);
    stage.publish("plain:1", "8", true);
    stage.settle();
    let wrapped = |number| format!(r#"{{"push":{{"channel":"plain:1","pub":{{"data":{number}}}}}}}"#);
    let bare = |number| format!(r#"{{"channel":"plain:1","pub":{{"data":{number}}}}}"#);
    assert_eq!(websocket.hear(), [wrapped(7), wrapped(8)]);
    for client in &mut clients[..2] {
        assert_eq!(client.messages()[2..], [wrapped(7), wrapped(8)]);
    }
    for client in &mut clients[2..] {
        assert_eq!(client.messages()[1..], [bare(7), bare(8)]);
    }
    assert_eq!(clients[0].answer().1.matches("\r\n").count(), 1, "the first bytes of a stream of events");

    let data = Bytes::from_static(b"1");
    stage.ingest.to_shards[0].send(ToShard::Broadcast { data, reply_to: ReplyTo::Nobody });
    stage.settle();
    assert_eq!(websocket.hear(), [r#"{"push":{"message":{"data":1}}}"#]);
    assert_eq!(clients[1].messages()[4], r#"{"push":{"message":{"data":1}}}"#);
    assert_eq!(clients[3].messages()[3], r#"{"message":{"data":1}}"#);
}

#[test]
fn an_idle_stream_costs_what_an_idle_websocket_costs() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let _websocket = stage.subscriber(0, ROOM, "plain:1");
    let stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/sse", &connect_and_subscribe("plain:1")));
    let listener = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/uni_sse", r#"{"subs":{"plain:1":{}}}"#));
    for client in [&stream, &listener] {
        client.peer.write(b"a request in the wrong place, half of it\r\n");
    }
    stage.settle();
    let state = &stage.shards[0].state;
    assert_eq!(state.connections.len(), 3);
    for (index, connection) in state.connections.iter() {
        assert!(connection.extra.is_none(), "connection {index} has something on the heap");
        assert_eq!(connection.subscriptions.iter(&state.further).count(), 1);
    }
    assert!(state.turn.replies.is_empty());
}

#[test]
fn commands_reach_their_session_by_any_shard_and_in_order() {
    let mut stage = Stage::new(3, 1024, |_| {});
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/http_stream", CONNECT));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let mut expected = 1;
    for shard in [1, 0, 2] {
        let publish = |id| format!(r#"{{"id":{id},"history":{{"channel":"kept:1"}}}}"#);
        // Three requests in a row on one connection, two commands in each.
        let requests: String = (0..3)
            .map(|request| {
                let id = expected + 1 + 2 * request;
                uplink(&session, &node, &format!("{}\n{}", publish(id), publish(id + 1)))
            })
            .collect();
        let mut sender = HttpClient::new(&mut stage, shard, ROOM, &requests);
        stage.settle();
        stage.settle();
        sender.read();
        assert_eq!(String::from_utf8_lossy(&sender.unread), DONE.repeat(3));
        expected += 6;
        let ids: Vec<String> =
            stream.messages().iter().map(|reply| reply[6..].split(',').next().unwrap().to_owned()).collect();
        assert_eq!(ids, (1..=expected).map(|id| id.to_string()).collect::<Vec<_>>());
    }
    assert!(stage.shards.iter().all(|shard| shard.state.requests == 0));
}

#[test]
fn uplinks_that_lead_nowhere() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/sse", CONNECT));
    let mut listener = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/uni_sse", "{}"));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let ask = |stage: &mut Stage, request: &str| {
        let mut client = HttpClient::new(stage, 1, ROOM, request);
        stage.settle();
        client.read();
        String::from_utf8(client.unread.clone()).unwrap()
    };
    let command = r#"{"id":2,"history":{"channel":"kept:1"}}"#;
    let heard = stream.messages().len();
    let forged = format!("{}A", &session[..session.len() - 1]);
    for session in ["", "x", &forged, &listener.told("session")] {
        assert!(ask(&mut stage, &uplink(session, &node, command)).starts_with("HTTP/1.1 204 "), "{session}");
    }
    assert!(ask(&mut stage, &uplink(&session, "elsewhere", command)).starts_with("HTTP/1.1 404 "));
    assert!(ask(&mut stage, &uplink(&session, "", command)).starts_with("HTTP/1.1 404 "));
    assert_eq!(stream.messages().len(), heard);
    assert_eq!((stage.count(1, "session_unknown"), stage.count(1, "node_unknown")), (3, 2));

    // The session ends by what it is sent, and later commands are nobody's.
    assert!(ask(&mut stage, &uplink(&session, &node, "?")).starts_with("HTTP/1.1 204 "));
    let (_, content, is_ended) = stream.answer();
    assert!(
        is_ended
            && content.ends_with("data: {\"push\":{\"disconnect\":{\"code\":3501,\"reason\":\"bad request\"}}}\n\n")
    );
    stage.settle();
    assert!(ask(&mut stage, &uplink(&session, &node, command)).starts_with("HTTP/1.1 204 "));
    assert!(stage.shards.iter().all(|shard| shard.state.requests == 0));
}

#[test]
fn a_full_server_hears_the_clients_that_it_holds() {
    let mut stage = Stage::new(1, 1024, |config| config.client.connections_max = 2);
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/http_stream", CONNECT));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let full = stage.client(0, ROOM);
    let ask = |stage: &mut Stage, request: &str| {
        let mut client = HttpClient::new(stage, 0, ROOM, request);
        client.read();
        (String::from_utf8(client.unread.clone()).unwrap(), client)
    };
    let history = uplink(&session, &node, r#"{"id":2,"history":{"channel":"kept:1"}}"#);
    let mut senders = Vec::new();
    for _ in 0..uplinks_reserved(2) {
        let (answer, sender) = ask(&mut stage, &history);
        assert_eq!(answer, DONE);
        senders.push(sender);
    }
    // The reserve is taken, too, as long as the requests' connections are kept.
    assert!(ask(&mut stage, &history).0.starts_with("HTTP/1.1 503 "));
    senders[0].unread.clear();
    senders[0].peer.write(UPGRADE);
    stage.settle();
    senders[0].read();
    assert!(senders[0].unread.starts_with(b"HTTP/1.1 503 "), "an uplink does not become a client");
    senders.clear();
    stage.settle();
    assert!(ask(&mut stage, &post("/connection/sse", CONNECT)).0.starts_with("HTTP/1.1 503 "));
    drop(full);
    stage.settle();
    assert!(ask(&mut stage, &post("/connection/sse", CONNECT)).0.starts_with("HTTP/1.1 200 "));
    assert_eq!(stream.messages().len(), 1 + uplinks_reserved(2) as usize);
}

#[test]
fn uplinks_wait_while_their_shard_holds_messages_back() {
    let mut stage = Stage::new(2, 4, |_| {});
    let channel = stage.channel("plain", 0);
    let mut subscriber = stage.subscriber(0, ROOM, &channel);
    let mut stream = HttpClient::new(&mut stage, 1, ROOM, &post("/connection/http_stream", CONNECT));
    let (session, node) = (stream.told("session"), stream.told("node"));
    const UPLINKS: usize = 60;
    let publish = |number| format!(r#"{{"id":9,"publish":{{"channel":"{channel}","data":{number}}}}}"#);
    let senders: Vec<_> = (0..UPLINKS)
        .map(|number| {
            let sender = HttpClient::new(&mut stage, 1, ROOM, "");
            sender.peer.write(uplink(&session, &node, &publish(number)).as_bytes());
            sender
        })
        .collect();
    while stage.network.carry() {}
    // The channel's home does nothing meanwhile, and the queue to it is short.
    for _ in 0..200 {
        stage.shards[1].turn();
    }
    assert!(stage.shards[1].state.mesh.held() <= 8, "{} messages are held back", stage.shards[1].state.mesh.held());
    let mut heard = Vec::new();
    for _ in 0..200 {
        stage.settle();
        heard.append(&mut subscriber.hear());
    }
    assert_eq!(heard.len(), UPLINKS);
    for mut sender in senders {
        sender.read();
        assert_eq!(String::from_utf8_lossy(&sender.unread), DONE);
    }
    assert_eq!(stream.messages().len(), 1 + UPLINKS);
}

#[test]
fn policies_of_slow_clients_hold_for_streams() {
    for (channel, expected) in [
        ("kept:1", r#"{"push":{"disconnect":{"code":3008,"reason":"slow","reconnect":true}}}"#),
        ("sync:1", r#"{"push":{"channel":"sync:1","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#),
    ] {
        for path in ["/connection/sse", "/connection/http_stream"] {
            let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 4_096);
            let mut client = HttpClient::new(&mut stage, 0, 2_000, &post(path, &connect_and_subscribe(channel)));
            client.read();
            for number in 0..100 {
                stage.publish(channel, &format!("\"{number} {}\"", "x".repeat(100)), true);
                stage.settle();
            }
            for _ in 0..100 {
                client.read();
                stage.settle();
            }
            // Chunk by chunk: whatever was dropped, the answer is still one.
            let messages = client.messages();
            assert_eq!(messages.last().map(String::as_str), Some(expected), "{path}");
            assert_eq!(client.answer().2, channel == "kept:1", "a disconnected client's answer ends");
            for (number, message) in messages[2..messages.len() - 1].iter().enumerate() {
                assert!(message.contains(&format!("\"{number} xx")), "{message} is not {number}");
            }
        }
    }
}

#[test]
fn a_stream_goes_when_its_client_goes() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/sse", &connect_and_subscribe("plain:1")));
    let other = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/uni_sse", "{}"));
    assert_eq!(stage.shards[0].figures().connections, 2);
    stream.peer.finish();
    drop(other);
    stage.settle();
    let figures = stage.shards[0].figures();
    assert_eq!((figures.connections, figures.sockets, figures.subscriptions), (0, 0, 0));
}

#[test]
fn streams_and_uplinks_when_the_server_stops() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/http_stream", CONNECT));
    let mut listener = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/uni_http_stream", "{}"));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let mut idle = HttpClient::new(&mut stage, 0, ROOM, &uplink(&session, &node, "{\"id\":2,\"rpc\":{}}"));
    stage.settle();
    stage.control.to_shards[0].send(ToShard::Shutdown { spread_ms: 0 });
    stage.settle();
    let end = r#"{"disconnect":{"code":3001,"reason":"shutdown","reconnect":true}}"#;
    assert_eq!(stream.messages().last(), Some(&format!("{{\"push\":{end}}}")));
    assert_eq!(listener.messages().last().map(String::as_str), Some(end));
    assert!(stream.answer().2 && listener.answer().2);
    idle.read();
    assert_eq!(String::from_utf8_lossy(&idle.unread), DONE, "between requests there is nothing to say");
    for client in [&mut stream, &mut listener, &mut idle] {
        client.read();
        assert!(client.is_ended);
        client.peer.finish();
    }
    stage.settle();
    assert_eq!(stage.shards[0].figures().sockets, 0);
}

#[test]
fn deadlines_of_requests_and_of_pongs() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/http_stream", CONNECT));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let mut listener = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/uni_http_stream", "{}"));
    let mut late =
        HttpClient::new(&mut stage, 0, ROOM, "POST /connection/sse HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{");
    // Kept alive as long as a request comes within the deadline of each.
    let mut sender = HttpClient::new(&mut stage, 0, ROOM, "");
    for _ in 0..3 {
        sender.peer.write(uplink(&session, &node, "{\"id\":2,\"rpc\":{}}").as_bytes());
        stage.settle();
        stage.network.pass(4_000);
        stage.settle();
    }
    sender.read();
    assert_eq!((String::from_utf8_lossy(&sender.unread), sender.is_ended), (DONE.repeat(3).into(), false));
    late.read();
    assert!(late.unread.starts_with(b"HTTP/1.1 408 "));
    stage.network.pass(5_000);
    stage.settle();
    sender.read();
    assert!(sender.is_ended);

    // Pinged like everybody, and only who can answer has to.
    for _ in 0..60 {
        stage.network.pass(1_000);
        stage.settle();
    }
    assert!(listener.messages().iter().filter(|message| *message == "{}").count() >= 2);
    assert!(!listener.answer().2);
    let (_, content, is_ended) = stream.answer();
    assert!(is_ended && content.contains(r#"{"push":{"disconnect":{"code":3012,"#), "{content}");
}

#[test]
fn pongs_come_by_uplink() {
    let mut stage = Stage::new(2, 1024, |_| {});
    let mut stream = HttpClient::new(&mut stage, 0, ROOM, &post("/connection/sse", CONNECT));
    let (session, node) = (stream.told("session"), stream.told("node"));
    let mut pings = 0;
    for _ in 0..120 {
        stage.network.pass(1_000);
        stage.settle();
        let heard = stream.messages().iter().filter(|message| *message == "{}").count();
        if heard > pings {
            pings = heard;
            drop(HttpClient::new(&mut stage, 1, ROOM, &uplink(&session, &node, "{}")));
        }
    }
    assert!(pings >= 4, "{pings} pings");
    assert!(!stream.answer().2);
}
