//! Clients that mean harm, or that vanish, beside others that must not notice.
//!
//! `make abuse` runs these with the numbers that issue 6 names; by default they are smaller.

mod support;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket},
    unistd::Uid,
};
use serde_json::json;
use support::{
    PATIENCE,
    authority::{Authority, certificates},
    bystander::Bystander,
    http,
    producer::Producer,
    server::{Launch, Server},
    swarm::Swarm,
    wait_for,
};

/// A number that `make abuse` makes larger.
fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Connects from an address of this host's own.
fn connect_from(source: Ipv4Addr, target: SocketAddr) -> TcpStream {
    let SocketAddr::V4(target) = target else { panic!("tests listen on IPv4") };
    let socket: OwnedFd =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::from(std::net::SocketAddrV4::new(source, 0))).expect("loopback has it");
    connect(socket.as_raw_fd(), &SockaddrIn::from(target)).expect("the client port accepts");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream
}

/// The answer to a connection that has said nothing.
fn refusal(stream: &mut TcpStream) -> (u16, bool) {
    let response = http::read_response(stream).expect("an answer");
    (response.status, response.head.contains("\r\nRetry-After: "))
}

#[test]
fn limits_by_address_hold_on_all_shards_and_end_with_connections() {
    let server =
        Server::start("client.limits.address_connections_max = 10\nclient.limits.network_connections_max = 15");
    let from = |last| connect_from(Ipv4Addr::new(127, 0, 9, last), server.client_address());
    let mut first: Vec<TcpStream> = (0..10).map(|_| from(1)).collect();
    wait_for("ten are accepted", || {
        (server.metrics().sum("tidegate_sockets", &[]).unwrap_or_default() >= 10.0).then_some(())
    });
    assert_eq!(refusal(&mut from(1)), (429, true));
    let second: Vec<TcpStream> = (0..5).map(|_| from(2)).collect();
    server.wait_until_counted("address_connections_exhausted", 1);
    wait_for("five more are accepted", || {
        (server.metrics().sum("tidegate_accepted_sockets_total", &[]).unwrap_or_default() >= 16.0).then_some(())
    });
    assert_eq!(refusal(&mut from(3)), (429, true));
    assert_eq!(server.metrics().reason("network_connections_exhausted"), 1);
    // Resets, of which the kernel tells when it has forgotten the peer.
    for stream in first.drain(..) {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger).expect("it can be set");
    }
    drop(second);
    wait_for("all have gone", || {
        (server.metrics().sum("tidegate_sockets", &[]).unwrap_or_default() == 0.0).then_some(())
    });
    let mut bystander = Bystander::new(&server);
    for _ in 0..3 {
        let again: Vec<TcpStream> = (0..10).map(|_| from(1)).collect();
        bystander.assert_untouched();
        drop(again);
        wait_for("all but one have gone", || {
            (server.metrics().sum("tidegate_sockets", &[]).unwrap_or_default() <= 1.0).then_some(())
        });
    }
    assert_eq!(server.metrics().reason("address_connections_exhausted"), 1);
    let log = server.log();
    assert!(log.contains("network_connections_exhausted") && log.contains("127.0.9.1"), "{log}");
}

#[test]
fn descriptors_run_out_while_limits_act() {
    let server = Server::launch(Launch {
        settings: "client.limits.address_connections_max = 40\nshards.cores = [0]".to_owned(),
        descriptors_max: Some(200),
        ..Launch::default()
    });
    let mut bystander = Bystander::new(&server);
    let from = |last| connect_from(Ipv4Addr::new(127, 0, 8, last), server.client_address());
    let mut crowd: Vec<TcpStream> = (0..60).map(|_| from(1)).collect();
    server.wait_until_counted("address_connections_exhausted", 20);
    for host in 2..8 {
        crowd.extend((0..40).map(|_| from(host)));
    }
    server.wait_until_counted("descriptors_exhausted", 1);
    bystander.assert_untouched();
    drop(crowd);
    wait_for("all but the bystander have gone", || {
        (server.metrics().sum("tidegate_sockets", &[]).unwrap_or_default() == 1.0).then_some(())
    });
    let again: Vec<TcpStream> = (0..40).map(|_| from(1)).collect();
    bystander.assert_untouched();
    assert_eq!(server.metrics().reason("address_connections_exhausted"), 20, "nobody is counted twice");
    drop(again);
}

#[test]
fn memory_that_ends_turns_new_clients_away_and_closes_some() {
    // No host has so much: memory is short from the first second on, but not below half of the reserve.
    let total_bytes = kibibytes("MemTotal:") * 1024;
    let left_bytes = kibibytes("MemAvailable:") * 1024;
    let reserve = left_bytes + left_bytes / 2;
    assert!(reserve < 2 * total_bytes);
    let server = Server::start(&format!("client.limits.memory_reserve = {reserve}"));
    server.wait_until_counted("memory_short", 0);
    let refused = wait_for("a new client is turned away", || {
        let response = http::get(server.client_address(), "/connection/websocket").ok()?;
        (response.status == 503).then_some(response)
    });
    assert!(refused.head.contains("\r\nRetry-After: 10") && refused.body.contains("memory"), "{refused:?}");
    let metrics = server.metrics();
    assert_eq!(metrics.sum("tidegate_memory_short", &[]), Some(1.0));
    assert!(metrics.sum("tidegate_memory_left_bytes", &[]).is_some_and(|bytes| bytes > 0.0));
    assert!(metrics.reason("memory_short") >= 1);
}

fn kibibytes(label: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").expect("/proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix(label)).expect("the kernel says it");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn addresses_are_denied_while_the_server_runs() {
    let server = Server::start("client.deny = [\"127.0.7.0/24\"]");
    let deny = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["deny", "--address", &server.admin_address().to_string()])
            .args(arguments)
            .output()
            .expect("the program runs");
        let text = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
        (output.status.success(), text.into_owned())
    };
    let from = |host: Ipv4Addr| connect_from(host, server.client_address());
    let (configured, other) = (Ipv4Addr::new(127, 0, 7, 1), Ipv4Addr::new(127, 0, 6, 1));
    assert_eq!(refusal(&mut from(configured)), (403, false));
    let mut bystander = Bystander::new(&server);
    let mut waiting = from(other);
    assert_eq!(deny(&["list"]), (true, "127.0.7.0/24 (client.deny)\n".to_owned()));
    assert_eq!(deny(&["add", "127.0.6.0/24"]), (true, "127.0.7.0/24 (client.deny)\n127.0.6.0/24\n".to_owned()));
    assert_eq!(refusal(&mut waiting), (403, false), "who is there already is found");
    assert_eq!(refusal(&mut from(other)), (403, false));
    let (is_done, message) = deny(&["remove", "127.0.7.0/24"]);
    assert!(!is_done && message.contains("take it out of the configuration"), "{message}");
    assert!(!deny(&["add", "127.0.0.1/8"]).0);
    assert!(deny(&["remove", "127.0.6.0/24"]).0);
    wait_for("the address may connect again", || {
        let mut stream = from(other);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
        (refusal(&mut stream).0 == 404).then_some(())
    });
    bystander.assert_untouched();
    assert_eq!(http::post(server.admin_address(), "/deny?add=127.0.0.1", "", "").expect("an answer").status, 403);
}

/// How long the slowest of 95 in 100 publications took to reach all of the healthy.
fn delivery_time(swarm: &mut Swarm, producer: &mut Producer, published: &mut usize) -> Duration {
    const SAMPLES: usize = 40;
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let began = Instant::now();
            *published += 1;
            producer.publish("open:healthy", &json!({ "number": *published }).to_string());
            let wanted = *published;
            swarm.run_until("a publication reaches all", PATIENCE, |member| member.received.len() >= wanted);
            thread::sleep(Duration::from_millis(5));
            began.elapsed() - Duration::from_millis(5)
        })
        .collect();
    times.sort_unstable();
    times[SAMPLES * 95 / 100]
}

#[test]
fn slow_handshakes_do_not_slow_the_healthy() {
    let (slow, healthy) = (number("ABUSE_SLOW", 1_000), number("ABUSE_HEALTHY", 300));
    let server = Server::start(&format!("client.limits.handshakes_max = {}", slow / 4));
    let mut swarm = Swarm::new(slow + healthy);
    subscribe_healthy(&mut swarm, &server, healthy);
    let mut producer = Producer::connect(&server);
    let mut published = 0;
    delivery_time(&mut swarm, &mut producer, &mut published);
    // A busy machine makes single rounds slow, quiet or not.
    let mut rounds = Vec::new();
    for _ in 0..4 {
        let quiet = delivery_time(&mut swarm, &mut producer, &mut published);
        let slow = SlowCrowd::begin(server.client_address(), slow, HTTP_HEAD);
        let beside = delivery_time(&mut swarm, &mut producer, &mut published);
        slow.end();
        rounds.push((quiet, beside));
        if beside <= 2 * quiet {
            break;
        }
    }
    println!("{slow} slow handshakes beside {healthy} healthy clients: quiet and beside them {rounds:?}");
    assert!(rounds.iter().any(|(quiet, beside)| *beside <= 2 * *quiet), "{rounds:?}");
    assert!(server.metrics().reason("handshakes_exhausted") > 0, "the limit has acted");
    // And others still find their way in.
    let mut bystander = Bystander::new(&server);
    bystander.assert_untouched();
    swarm.run_for(Duration::from_millis(10));
}

/// A hundred at a time: whoever is made to wait by this thread would be taken for slow itself.
fn subscribe_healthy(swarm: &mut Swarm, server: &Server, healthy: usize) {
    for first in (0..healthy).step_by(100) {
        for _ in first..healthy.min(first + 100) {
            swarm.add(server.client_address(), vec!["open:healthy".to_owned()]);
        }
        swarm.run_until("all subscribe", PATIENCE, |member| member.is_subscribed());
    }
}

/// How long the slowest of 99 in 100 deliveries took, of so many publications to all of the healthy.
fn delivery_p99(swarm: &mut Swarm, producer: &mut Producer, published: &mut usize) -> Duration {
    const PUBLICATIONS: usize = 100;
    let mut times = Vec::new();
    for _ in 0..PUBLICATIONS {
        *published += 1;
        let (began, wanted) = (Instant::now(), *published);
        producer.publish("open:healthy", &json!({ "number": wanted }).to_string());
        swarm.run_until("a publication reaches all", PATIENCE, |member| member.received.len() >= wanted);
        times.extend(swarm.members().iter().map(|member| member.received_at - began));
        thread::sleep(Duration::from_millis(5));
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[test]
fn a_storm_of_tls_handshakes_does_not_slow_the_healthy() {
    let (slow, healthy) = (number("ABUSE_SLOW", 600), number("ABUSE_HEALTHY", 200));
    let authority = Authority::new();
    let settings = certificates("client.tls", &[&authority.issue("localhost")]);
    let server = Server::start(&(settings + "client.request_head_timeout = \"3s\"\n"));
    let mut swarm = Swarm::secure(slow + healthy + 100, authority.client_config());
    subscribe_healthy(&mut swarm, &server, healthy);
    let mut producer = Producer::connect(&server);
    let mut published = 0;
    delivery_p99(&mut swarm, &mut producer, &mut published);
    let ended_well = || server.metrics().sum("tidegate_tls_handshakes_total", &[]).unwrap_or_default();
    let garbage = || server.metrics().reason("tls_handshake_failed");
    let mut rounds = Vec::new();
    for _ in 0..4 {
        let quiet = delivery_p99(&mut swarm, &mut producer, &mut published);
        let (full_before, garbage_before) = (ended_well(), garbage());
        let storm = HandshakeStorm::begin(&server, slow);
        wait_for("the storm to begin", || {
            (ended_well() >= full_before + 10.0 && garbage() >= garbage_before + 10).then_some(())
        });
        let beside = delivery_p99(&mut swarm, &mut producer, &mut published);
        let (full, garbage) = (ended_well() - full_before, garbage() - garbage_before);
        server.wait_until_counted("tls_handshake_timeout", 1);
        storm.end();
        assert!(full >= 10.0 && garbage >= 10, "there was a storm: {full} full handshakes, {garbage} of garbage");
        rounds.push((quiet, beside, full, garbage));
        if beside <= 2 * quiet {
            break;
        }
    }
    println!(
        "{slow} stalled handshakes beside {healthy} healthy clients: p99 quiet and beside them, full, garbage {rounds:?}"
    );
    assert!(rounds.iter().any(|(quiet, beside, ..)| *beside <= 2 * *quiet), "{rounds:?}");
    wait_for("what the storm has left is let go", || {
        (server.metrics().sum("tidegate_sockets", &[]) == Some(healthy as f64)).then_some(())
    });
    assert_eq!(server.metrics().sum("tidegate_tls_handshakes_under_way", &[]), Some(0.0));
    // And others still find their way in.
    swarm.add(server.client_address(), vec!["open:healthy".to_owned()]);
    swarm.run_until("one more subscribes", PATIENCE, |member| member.is_subscribed());
}

/// Full handshakes one after the other, others that stall, and garbage in place of some.
struct HandshakeStorm {
    stalled: SlowCrowd,
    full: Vec<Child>,
    stop: mpsc::Sender<()>,
    garbage: thread::JoinHandle<()>,
}

impl HandshakeStorm {
    /// Clients that shake hands at the same time, as fast as they can.
    const FULL: usize = 2;

    fn begin(server: &Server, stalled: usize) -> Self {
        let target = server.client_address();
        let full = || {
            // With what CPU others leave: what the server makes of it is in question, not how busy the machine is.
            Command::new("nice")
                .args(["-n", "10", "openssl", "s_time", "-new", "-time", "600", "-connect", &target.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl runs; `make test-tools` installs what the tests need")
        };
        let (stop, stopped) = mpsc::channel::<()>();
        let garbage = move || {
            let hello: Vec<u8> = [22, 3, 1, 0, 200].into_iter().chain((0..200_u8).map(|byte| byte ^ 0x5a)).collect();
            while stopped.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
                // The server may refuse it before all is written.
                let _ = TcpStream::connect(target).and_then(|mut stream| stream.write_all(&hello));
            }
        };
        Self {
            stalled: SlowCrowd::begin(target, stalled, CLIENT_HELLO_HEAD),
            full: (0..Self::FULL).map(|_| full()).collect(),
            stop,
            garbage: thread::spawn(garbage),
        }
    }

    fn end(self) {
        for mut child in self.full {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
        }
        drop(self.stop);
        self.garbage.join().expect("it ends");
        self.stalled.end();
    }
}

/// The head of a request, and of a TLS handshake's first message, of 512 bytes, that do not come to an end.
const HTTP_HEAD: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: a\r\nX-Slow: ";
const CLIENT_HELLO_HEAD: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// Sockets that send something byte by byte, and come again when they are closed.
struct SlowCrowd {
    stop: mpsc::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl SlowCrowd {
    fn begin(target: SocketAddr, sockets: usize, head: &'static [u8]) -> Self {
        let (stop, stopped) = mpsc::channel();
        let connect = move || {
            let stream = TcpStream::connect(target).ok()?;
            stream.set_nonblocking(true).ok()?;
            Some(stream)
        };
        let mut crowd: Vec<Option<TcpStream>> = (0..sockets).map(|_| connect()).collect();
        let drip = move || {
            let mut sent = 0;
            loop {
                let byte = [*head.get(sent).unwrap_or(&b'x')];
                for (place, member) in crowd.iter_mut().enumerate() {
                    let is_alive = member.as_mut().is_some_and(|stream| stream.write(&byte).is_ok());
                    if !is_alive {
                        *member = connect();
                    }
                    if place % 100 == 0
                        && stopped.recv_timeout(Duration::from_millis(10)) != Err(mpsc::RecvTimeoutError::Timeout)
                    {
                        return;
                    }
                }
                sent += 1;
            }
        };
        Self { stop, thread: thread::spawn(drip) }
    }

    fn end(self) {
        drop(self.stop);
        self.thread.join().expect("the crowd is there");
    }
}

/// A network namespace whose only way to the host can be cut.
struct Island {
    name: String,
    outside: String,
}

impl Island {
    const HOST: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 1);
    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);

    /// None where this process may not make one.
    fn new() -> Option<Self> {
        let id = std::process::id() % 100_000;
        let island = Self { name: format!("tidegate-{id}"), outside: format!("tg{id}a") };
        let inside = format!("tg{id}b");
        let is_there = Uid::effective().is_root() && ip(&["netns", "add", &island.name]);
        let is_joined = is_there
            && ip(&["link", "add", &island.outside, "type", "veth", "peer", "name", &inside, "netns", &island.name])
            && ip(&["address", "add", &format!("{}/24", Self::HOST), "dev", &island.outside])
            && ip(&["link", "set", &island.outside, "up"])
            && ip(&["-n", &island.name, "address", "add", &format!("{}/24", Self::GUEST), "dev", &inside])
            && ip(&["-n", &island.name, "link", "set", &inside, "up"]);
        is_joined.then_some(island)
    }

    /// Connects clients from within.
    fn clients(&self, target: SocketAddr, count: usize) -> Vec<TcpStream> {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace has a name");
        let connect_all = move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter");
            (0..count).map(|_| connected(target)).collect()
        };
        thread::spawn(connect_all).join().expect("all connect")
    }

    fn cut(&self) {
        assert!(ip(&["link", "set", &self.outside, "down"]));
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
        let _ = ip(&["link", "delete", &self.outside]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A client that is connected and will never say anything again.
fn connected(target: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(target).expect("the client port accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let connect = br#"{"id":1,"connect":{}}"#;
    let upgrade = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {target}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let frame = [&[0x81, 0x80 | connect.len() as u8, 0, 0, 0, 0], &connect[..]].concat();
    stream.write_all(&[upgrade.as_bytes(), &frame].concat()).expect("the server reads");
    stream
}

#[test]
fn clients_that_vanish_without_a_word_are_let_go() {
    let vanishing = number("ABUSE_VANISHING", 500);
    let Some(island) = Island::new() else {
        println!("skipped: this needs root and `ip netns`, to cut clients off from the server");
        return;
    };
    raise_descriptors(vanishing as u64 + 1_000);
    let server = Server::start(
        "client.listen = \"0.0.0.0:{client_port}\"\nclient.allow_public_without_authentication = true\n\
         client.ping_interval = \"4s\"\nclient.pong_timeout = \"2s\"\nclient.pong_grace = \"2s\"",
    );
    let mut bystander = Bystander::new(&server);
    let target = SocketAddr::new(IpAddr::V4(Island::HOST), server.client_address().port());
    let lost = island.clients(target, vanishing);
    let connections = |server: &Server| server.metrics().sum("tidegate_connections", &[]).unwrap_or_default();
    wait_for("all are connected", || (connections(&server) >= (vanishing + 1) as f64).then_some(()));
    island.cut();
    let began = Instant::now();
    let end = began + Duration::from_secs(40);
    while server.metrics().sum("tidegate_sockets", &[]) != Some(1.0) {
        assert!(Instant::now() < end, "{} are there still", connections(&server));
        bystander.assert_untouched();
        thread::sleep(Duration::from_millis(200));
    }
    println!("{vanishing} clients that vanished were let go within {:?}", began.elapsed());
    let metrics = server.metrics();
    assert_eq!(metrics.reason("no_pong") as usize, vanishing);
    assert_eq!(metrics.sum("tidegate_outbox_bytes", &[]), Some(0.0));
    bystander.assert_untouched();
    drop(lost);
}

fn raise_descriptors(count: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("limits can be read");
    assert!(hard >= count, "this test needs {count} descriptors; raise the limit with `ulimit -Hn {count}`");
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(count), hard).expect("the soft limit may be raised to the hard one");
}
