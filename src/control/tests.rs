//! The control thread, run over the real mesh and a real socket, beside threads that play the shards.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixDatagram,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread::{self, JoinHandle},
};

use super::*;
use crate::{
    config::ShutdownConfig,
    mesh::{self, Admission, Answer, IngestFigures, IngestMesh, ReplyTo, ShardFigures, ShardMesh},
};

/// The defaults, for two shards.
pub fn config() -> Config {
    let mut config = Config::default();
    config.shards.cores = vec![0, 1];
    config.shutdown = ShutdownConfig { ms_max: 3_000, unready_ms: 0, spread_ms: 100 };
    config
}

/// What a test does to the threads it plays.
#[derive(Default)]
struct Play {
    /// Shard 0 has a client whose key it does not have.
    shard_0_wants_keys: AtomicBool,
    /// Messages with new keys.
    keys_new: AtomicU32,
    /// Answers that the last keys count.
    keys_kept: AtomicU32,
    /// Shard 1 reads nothing.
    shard_1_is_stuck: AtomicBool,
    /// Shard 1 ends.
    shard_1_ends: AtomicBool,
    /// Shards ignore the order to stop.
    shards_stay: AtomicBool,
    /// Questions that shard 0 has answered.
    answers: AtomicU32,
    /// Whether the ingest thread had ended when the first shard was told to.
    ingest_ended_first: AtomicBool,
    ingest_ended: AtomicBool,
    all_end: AtomicBool,
}

struct Server {
    address: SocketAddr,
    stop: mpsc::Sender<StopRequest>,
    play: Arc<Play>,
    control: Option<JoinHandle<Outcome>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        Self::start_with(config())
    }

    fn start_with(config: Config) -> Self {
        Self::start_under(ServiceManager::default(), config)
    }

    fn start_under(manager: ServiceManager, mut config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        config.admin.listen = address;
        let (shards, ingest, mesh) = mesh::build(2).unwrap();
        let play = Arc::new(Play::default());
        let mut threads = Vec::new();
        for shard in shards {
            let play = Arc::clone(&play);
            threads.push(thread::spawn(move || play_shard(shard, &play)));
        }
        let ingest_play = Arc::clone(&play);
        threads.push(thread::spawn(move || play_ingest(ingest, &ingest_play)));
        let (stop, stop_requests) = mpsc::channel(4);
        let operator_token: OperatorToken = Arc::new(|| "an-operator-token".to_owned());
        let hasher = ChannelHasher::default();
        let reloading = Reloading {
            written: config.clone(),
            load: Arc::new(|| Err(vec!["this test reads no file".to_owned()])),
            admission: Admission::new(config.client.connections_max),
        };
        let control = Control {
            tls: Ports::default(),
            config: Arc::new(config),
            reloading,
            mesh,
            hasher,
            listener,
            api_listener: None,
            operator_token,
            demo: true,
            manager,
        };
        let stop_sender = stop.clone();
        let control = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let reloads = mpsc::channel(RELOADS_WAITING_MAX);
            runtime.block_on(control.run_until((stop_sender, stop_requests), reloads)).unwrap()
        });
        Self { address, stop, play, control: Some(control), threads }
    }

    /// Status, head and body of one request on a connection of its own.
    fn request(&self, method: &str, target: &str, fields: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        let host = if fields.to_ascii_lowercase().contains("host:") { String::new() } else { self.host() };
        write!(stream, "{method} {target} HTTP/1.1\r\n{host}{fields}Connection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    fn get(&self, target: &str) -> (u16, String, String) {
        self.request("GET", target, "")
    }

    /// What the server API answers to a request that shows no key.
    fn disconnect_eve(&self) -> String {
        let body = r#"{"user":"eve"}"#;
        let fields = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let mut stream = self.connect();
        write!(stream, "POST /api/disconnect HTTP/1.1\r\n{}{fields}", self.host()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn host(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn outcome(&mut self) -> Outcome {
        self.control.take().unwrap().join().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.play.all_end.store(true, Ordering::Relaxed);
        if let Some(control) = self.control.take() {
            let _ = self.stop.blocking_send(StopRequest::Signal("end of the test"));
            let _ = self.stop.blocking_send(StopRequest::Signal("end of the test, at once"));
            let outcome = control.join();
            assert!(outcome.is_ok() || thread::panicking());
        }
        for played in self.threads.drain(..) {
            assert!(played.join().is_ok() || thread::panicking());
        }
    }
}

fn play_shard(mut mesh: ShardMesh, play: &Play) {
    let control = mesh.ingest_queue() + 1;
    let mut stopping = false;
    while !play.all_end.load(Ordering::Relaxed) {
        // Short sleeps stand for the ring of a real shard.
        thread::sleep(Duration::from_millis(1));
        if mesh.shard == 1 {
            if play.shard_1_ends.load(Ordering::Relaxed) {
                return;
            }
            if play.shard_1_is_stuck.load(Ordering::Relaxed) {
                continue;
            }
        }
        match mesh.inbound[control].try_recv() {
            Ok(ToShard::Observe { ticket, .. }) => {
                if mesh.shard == 0 {
                    play.answers.fetch_add(1, Ordering::Relaxed);
                }
                let figures = ShardFigures {
                    shard: mesh.shard,
                    connections: 10 + u64::from(mesh.shard),
                    messages_sent: 1_000,
                    ..ShardFigures::default()
                };
                mesh.to_control.send(ToControl::Shard { ticket, figures: Box::new(figures) });
            }
            Ok(ToShard::User { reply_to: ReplyTo::Control { ticket, part }, .. }) => {
                mesh.to_control.send(ToControl::Answer { ticket, part, answer: Answer::Connections(1) });
            }
            Ok(ToShard::Shutdown { spread_ms }) => {
                assert!(spread_ms <= 100);
                let ended = play.ingest_ended.load(Ordering::Relaxed);
                play.ingest_ended_first.store(ended, Ordering::Relaxed);
                stopping = true;
            }
            Ok(ToShard::TokenKeys { keys, is_current, is_answer }) => {
                assert!(!keys.is_empty());
                match is_current {
                    true => play.keys_new.fetch_add(1, Ordering::Relaxed),
                    false => play.keys_kept.fetch_add(1, Ordering::Relaxed),
                };
                assert!(is_current || is_answer);
            }
            Ok(other) => panic!("unexpected {other:?}"),
            Err(_) => {}
        }
        if mesh.shard == 0 && play.shard_0_wants_keys.swap(false, Ordering::Relaxed) {
            mesh.to_control.send(ToControl::TokenKeysWanted { shard: 0 });
        }
        if stopping && !play.shards_stay.load(Ordering::Relaxed) {
            mesh.to_control.send(ToControl::ShardStopped { shard: mesh.shard });
            mesh.to_control.ring();
            return;
        }
        mesh.to_control.ring();
    }
}

fn play_ingest(mut mesh: IngestMesh, play: &Play) {
    let control = mesh.to_shards.len();
    while !play.all_end.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
        match mesh.inbound[control].try_recv() {
            Ok(ToIngest::Observe { ticket }) => {
                let figures = IngestFigures { connections: 4, ..IngestFigures::default() };
                mesh.to_control.send(ToControl::Ingest { ticket, figures: Box::new(figures) });
                mesh.to_control.ring();
            }
            Ok(ToIngest::Shutdown) => {
                play.ingest_ended.store(true, Ordering::Relaxed);
                mesh.to_control.send(ToControl::IngestStopped);
                mesh.to_control.ring();
                return;
            }
            Ok(other) => panic!("unexpected {other:?}"),
            Err(_) => {}
        }
    }
}

#[test]
fn metrics_and_health_ask_all_threads() {
    let server = Server::start();
    let (status, head, body) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(body.contains("\ntidegate_connections{shard=\"1\"} 11\n"), "{body}");
    assert!(body.contains("\ntidegate_ingest_connections 4\n"), "{body}");
    let (status, _, body) = server.get("/health");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &health["status"]), (200, &"ok".into()));
    assert_eq!(health["shards"][1]["connections"], 11);
}

#[test]
fn an_idle_server_is_not_asked() {
    let server = Server::start();
    server.get("/health");
    let before = server.play.answers.load(Ordering::Relaxed);
    thread::sleep(CONSOLE_INTERVAL + Duration::from_millis(300));
    assert_eq!(server.play.answers.load(Ordering::Relaxed), before);
}

#[test]
fn a_stuck_shard_is_named_and_the_others_figures_still_come() {
    let server = Server::start();
    server.get("/metrics");
    server.play.shard_1_is_stuck.store(true, Ordering::Relaxed);
    let asked = Instant::now();
    let (status, _, body) = server.get("/health");
    assert!(asked.elapsed() >= observer::ANSWER_TIME_MAX);
    assert_eq!(status, 503);
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(health["stuck"], serde_json::json!(["shard-1"]));
    // Known to be stuck, it is not waited for again.
    let asked = Instant::now();
    let (_, _, body) = server.get("/metrics");
    assert!(asked.elapsed() < observer::ANSWER_TIME_MAX);
    assert!(body.contains("tidegate_thread_up{thread=\"shard-1\"} 0\n"), "{body}");
    assert!(body.contains("tidegate_thread_up{thread=\"shard-0\"} 1\n"), "{body}");
    server.play.shard_1_is_stuck.store(false, Ordering::Relaxed);
    let well_again = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(10));
        server.get("/health").0 == 200
    });
    assert!(well_again);
}

#[test]
fn the_console_is_told_every_second_while_it_is_open() {
    let server = Server::start();
    let stream = server.connect();
    write!(&stream, "GET /console/events HTTP/1.1\r\n{}\r\n", server.host()).unwrap();
    let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
    let mut overview = || -> serde_json::Value {
        let line = lines.find(|line| line.starts_with("data: ")).unwrap();
        serde_json::from_str(&line["data: ".len()..]).unwrap()
    };
    let first = overview();
    assert_eq!(first["connections"], 21);
    assert_eq!(first["rates"], serde_json::Value::Null);
    let second = overview();
    assert_eq!(second["rates"]["messages_sent"], 0.0);
    assert_eq!(second["shards"][1]["status"], "ok");
    drop(stream);
    // The loop notices that the console has gone at its next attempt to tell it something.
    thread::sleep(CONSOLE_INTERVAL * 2);
    let before = server.play.answers.load(Ordering::Relaxed);
    thread::sleep(CONSOLE_INTERVAL + Duration::from_millis(300));
    assert_eq!(server.play.answers.load(Ordering::Relaxed), before);
}

#[test]
fn the_token_is_for_the_consoles_own_page() {
    let server = Server::start();
    let own = "Sec-Fetch-Site: same-origin\r\n";
    let (status, head, body) = server.request("GET", "/console/token", own);
    assert_eq!((status, body.as_str()), (200, "{\"token\":\"an-operator-token\"}"));
    assert!(head.contains("cross-origin-resource-policy: same-origin"), "{head}");
    assert!(!head.contains("access-control-allow-origin"), "{head}");
    for foreign in ["", "Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        let (status, _, body) = server.request("GET", "/console/token", foreign);
        assert_eq!(status, 403, "{foreign}");
        assert!(!body.contains("an-operator-token"));
    }
    let rebound = format!("Host: evil.example:{}\r\n{own}", server.address.port());
    let (status, _, body) = server.request("GET", "/console/token", &rebound);
    assert_eq!(status, 421);
    assert!(!body.contains("an-operator-token"));
    let (status, ..) = server.request("GET", "/console/events", "Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(status, 403);
}

#[test]
fn the_page_has_its_policy_and_other_paths_have_hints() {
    let server = Server::start();
    let (status, head, body) = server.get("/");
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(body.contains("\"demo\":true"));
    let (_, _, second) = server.get("/");
    assert_ne!(body, second, "each page has a nonce of its own");
    let (status, _, body) = server.get("/metric");
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"));
    let (status, head, _) = server.request("POST", "/health", "Content-Length: 0\r\n");
    assert_eq!(status, 405);
    assert!(head.contains("allow: GET"), "{head}");
}

#[test]
fn the_server_api_waits_for_shards_but_not_for_ever() {
    const FAILED: &str = r#"{"error":{"code":100,"message":"internal server error"}}"#;
    let mut config = config();
    config.api.insecure = true;
    let server = Server::start_with(config);
    assert_eq!(server.disconnect_eve(), r#"{"result":{}}"#);
    server.play.shard_1_is_stuck.store(true, Ordering::Relaxed);
    let asked = Instant::now();
    assert_eq!(server.disconnect_eve(), FAILED);
    assert!(asked.elapsed() >= observer::ANSWER_TIME_MAX);
    server.play.shard_1_is_stuck.store(false, Ordering::Relaxed);
    // The late answer is nobody's.
    assert_eq!(server.disconnect_eve(), r#"{"result":{}}"#);
    // Who asks while the server stops is told at once.
    server.play.shards_stay.store(true, Ordering::Relaxed);
    server.stop.blocking_send(StopRequest::Signal("test")).unwrap();
    thread::sleep(Duration::from_millis(50));
    let asked = Instant::now();
    assert_eq!(server.disconnect_eve(), FAILED);
    assert!(asked.elapsed() < observer::ANSWER_TIME_MAX);
}

#[test]
fn a_signal_stops_producers_first_then_shards() {
    let mut server = Server::start();
    server.stop.blocking_send(StopRequest::Signal("SIGTERM")).unwrap();
    assert_eq!(server.outcome(), Outcome::Stopped);
    assert!(server.play.ingest_ended_first.load(Ordering::Relaxed));
}

#[test]
fn threads_that_do_not_stop_are_named_and_left() {
    let mut server = Server::start();
    server.play.shards_stay.store(true, Ordering::Relaxed);
    server.stop.blocking_send(StopRequest::Signal("SIGTERM")).unwrap();
    thread::sleep(Duration::from_millis(200));
    let (status, _, body) = server.get("/health");
    assert_eq!(status, 503);
    assert!(body.contains("\"status\":\"stopping\""), "{body}");
    let threads = vec!["shard-0".to_owned(), "shard-1".to_owned()];
    assert_eq!(server.outcome(), Outcome::TimedOut { threads });
}

#[test]
fn a_command_drains_as_a_signal_does_and_is_served_meanwhile() {
    let mut config = config();
    config.shutdown.unready_ms = 1_000;
    config.api.insecure = true;
    let mut server = Server::start_with(config);
    let command = "X-Tidegate-Command: drain\r\nContent-Length: 0\r\n";
    assert_eq!(server.request("GET", "/drain", "").0, 405);
    let (status, _, body) = server.request("POST", "/drain", "Content-Length: 0\r\n");
    assert_eq!(status, 403, "{body}");
    assert_eq!(server.get("/health").0, 200);
    let (status, _, body) = server.request("POST", "/drain", command);
    assert_eq!((status, &*body), (202, r#"{"unready_ms":1000,"spread_ms":100,"ms_max":3000}"#));
    assert_eq!(server.get("/health").0, 503);
    // All is served still, and whoever asks again hurries nobody.
    assert_eq!(server.disconnect_eve(), r#"{"result":{}}"#);
    assert_eq!(server.request("POST", "/drain", command).0, 202);
    assert_eq!(server.outcome(), Outcome::Stopped);
    assert!(server.play.ingest_ended_first.load(Ordering::Relaxed));
}

#[test]
fn a_command_shows_the_password_if_there_is_one() {
    let mut config = config();
    config.admin.password = Some("open sesame".into());
    let mut server = Server::start_with(config);
    let drain = |shown: &str| {
        let fields = format!("X-Tidegate-Command: drain\r\n{shown}Content-Length: 0\r\n");
        server.request("POST", "/drain", &fields).0
    };
    assert_eq!(drain(""), 401);
    assert_eq!(drain("Authorization: Bearer open barley\r\n"), 401);
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(drain("Authorization: Bearer open sesame\r\n"), 202);
    assert_eq!(server.outcome(), Outcome::Stopped);
}

/// A service manager that listens, and a server under its watchdog.
fn start_watched(name: &str, watchdog_time: Duration) -> (UnixDatagram, Server) {
    let path = std::env::temp_dir().join(format!("tidegate-service-{}-{name}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let server = Server::start_under(ServiceManager::connect(path.as_os_str(), Some(watchdog_time)).unwrap(), config());
    std::fs::remove_file(path).unwrap();
    (manager, server)
}

fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let bytes = manager.recv(&mut buffer).expect("the service manager is told something");
    String::from_utf8(buffer[..bytes].to_vec()).unwrap()
}

#[test]
fn the_service_manager_hears_of_the_whole_life() {
    let (manager, mut server) = start_watched("life", Duration::from_millis(300));
    assert_eq!(told(&manager), "READY=1\nSTATUS=serving\n");
    let began = Instant::now();
    for _ in 0..4 {
        assert_eq!(told(&manager), "WATCHDOG=1\nSTATUS=clients: 21, producers: 4, shards: 2\n");
    }
    assert!(began.elapsed() >= Duration::from_millis(290), "three times within the watchdog's time, no more");
    server.stop.blocking_send(StopRequest::Signal("SIGTERM")).unwrap();
    let stopping = std::iter::repeat_with(|| told(&manager)).find(|told| told.contains("STOPPING=1")).unwrap();
    assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=8000000\nSTATUS=stopping\n");
    assert_eq!(server.outcome(), Outcome::Stopped);
}

#[test]
fn the_watchdog_is_not_fed_while_a_shard_is_stuck() {
    let (manager, server) = start_watched("stuck", Duration::from_millis(300));
    assert!(told(&manager).contains("READY=1"));
    assert!(told(&manager).contains("WATCHDOG=1"));
    server.play.shard_1_is_stuck.store(true, Ordering::Relaxed);
    let is_stuck = |told: &String| told == "STATUS=not answering: shard-1\n";
    assert!(std::iter::repeat_with(|| told(&manager)).any(|told| is_stuck(&told)));
    for _ in 0..3 {
        assert!(is_stuck(&told(&manager)));
    }
    server.play.shard_1_is_stuck.store(false, Ordering::Relaxed);
    assert!(std::iter::repeat_with(|| told(&manager)).any(|told| told.contains("WATCHDOG=1")));
}

#[test]
fn a_second_signal_waits_for_nobody() {
    let mut server = Server::start();
    server.play.shards_stay.store(true, Ordering::Relaxed);
    let began = Instant::now();
    server.stop.blocking_send(StopRequest::Signal("SIGTERM")).unwrap();
    server.stop.blocking_send(StopRequest::Signal("SIGINT")).unwrap();
    assert_eq!(server.outcome(), Outcome::Interrupted);
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_lost_thread_stops_the_server() {
    let mut server = Server::start();
    server.play.shard_1_ends.store(true, Ordering::Relaxed);
    assert_eq!(server.outcome(), Outcome::ThreadLost { thread: "shard-1".into() });
}

/// A publisher of keys, one answer per connection; it counts its visitors.
fn publisher(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let visits = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&visits);
    thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let bytes = stream.read(&mut head).unwrap();
            assert!(head[..bytes].starts_with(b"GET /keys HTTP/1.1\r\n"));
            counter.fetch_add(1, Ordering::Relaxed);
            let length = body.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
        }
    });
    (address, visits)
}

#[test]
fn published_keys_are_fetched_and_the_last_ones_count() {
    const KEYS: &str = include_str!("../../tests/keys/jwks.json");
    let (address, visits) = publisher(&[("200 OK", KEYS), ("500 Internal Server Error", KEYS), ("200 OK", "{}")]);
    let mut config = config();
    config.client.token.jwks_public_endpoint = Some(format!("http://{address}/keys"));
    let server = Server::start_with(config);
    let metrics_with = |wanted: &str| {
        for _ in 0..1_000 {
            let metrics = server.get("/metrics").2;
            if metrics.contains(wanted) {
                return metrics;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{wanted} is never seen: {}", server.get("/metrics").2);
    };
    metrics_with("\ntidegate_token_key_fetches_total 1\n");
    while server.play.keys_new.load(Ordering::Relaxed) < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    server.play.shard_0_wants_keys.store(true, Ordering::Relaxed);
    metrics_with("\ntidegate_token_key_fetch_failures_total 1\n");
    while server.play.keys_kept.load(Ordering::Relaxed) < 1 {
        thread::sleep(Duration::from_millis(1));
    }
    server.play.shard_0_wants_keys.store(true, Ordering::Relaxed);
    let metrics = metrics_with("\ntidegate_token_key_fetch_failures_total 2\n");
    assert!(metrics.contains("\ntidegate_token_keys 7\n"), "{metrics}");
    assert_eq!((server.play.keys_new.load(Ordering::Relaxed), visits.load(Ordering::Relaxed)), (2, 3));
}
