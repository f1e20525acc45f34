//! The command line as a shell sees it: the real binary, its output and its exit codes.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A folder of a test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("tidegate-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder can be made");
        Folder(folder)
    }

    fn write(&self, text: &str) -> String {
        let file = self.0.join("tidegate.toml");
        fs::write(&file, text).expect("a file can be written");
        file.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The binary, without any setting of the shell that runs the tests. One that hangs is ended, and its test fails.
fn tidegate(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_tidegate")]);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TIDEGATE_") {
            command.env_remove(variable);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    tidegate(arguments).output().expect("the binary runs")
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = tidegate(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It may refuse its arguments before it has read.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the binary ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are text")
}

#[track_caller]
fn assert_outcome(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "stdout: {}\nstderr: {}", stdout(output), stderr(output));
}

#[test]
fn a_good_configuration_can_be_used() {
    let folder = Folder::new();
    let file = folder.write(&format!("[client.token]\nhmac_secret = \"{SECRET}\"\n"));
    let output = run(&["check-config", "--strict", "--config", &file]);
    assert_outcome(&output, 0);
    let summary = stdout(&output);
    assert!(
        summary.starts_with(&format!(
            "{file} can be used: clients on 127.0.0.1:8000, producers on 127.0.0.1:7400, operators on 127.0.0.1:9000, "
        )),
        "{summary}"
    );
    assert!(summary.ends_with(", 0 namespaces\n"), "{summary}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn every_mistake_of_a_configuration_is_told() {
    let folder = Folder::new();
    let file = folder.write("[client]\nlisten = \"localhost:80\"\nping_interval = 25\n[shutdown]\nspread = \"1h\"\n");
    let output = run(&["check-config", "--config", &file]);
    assert_outcome(&output, 2);
    assert_eq!(stdout(&output), "");
    let messages = stderr(&output);
    assert!(messages.starts_with("error: the configuration has 3 mistakes:\n"), "{messages}");
    for message in [
        "tidegate.toml:2:10: client.listen: expected an IP address and a port",
        "tidegate.toml:3:17: client.ping_interval: expected a duration from 1s to 10m",
        "tidegate.toml:5:10: shutdown.spread: expected a duration from 0s to 10m",
    ] {
        assert!(messages.contains(message), "{messages}");
    }
}

#[test]
fn unknown_keys_are_warnings_unless_strict() {
    let folder = Folder::new();
    let file = folder.write("[client]\nallow_anonymus = true\n");
    let message = format!("{file}:2:1: client.allow_anonymus: unknown; did you mean client.allow_anonymous?\n");
    let output = run(&["check-config", "--config", &file]);
    assert_outcome(&output, 0);
    assert!(
        stderr(&output).starts_with(&format!("warning: {message}note: no client can connect")),
        "{}",
        stderr(&output)
    );
    let output = run(&["check-config", "--strict", "--config", &file]);
    assert_outcome(&output, 2);
    assert_eq!(stderr(&output), format!("error: {message}"));
}

#[test]
fn the_environment_is_checked_too() {
    let output =
        tidegate(&["check-config"]).env("TIDEGATE_CLIENT_LISTEN", "nowhere").output().expect("the binary runs");
    assert_outcome(&output, 2);
    assert!(
        stderr(&output).starts_with("error: environment variable TIDEGATE_CLIENT_LISTEN: client.listen: expected"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_reference_passes_its_own_check() {
    let reference = run(&["config-reference"]);
    assert_outcome(&reference, 0);
    let output = run_with_input(&["check-config", "--strict", "--config", "/dev/stdin"], &reference.stdout);
    assert_outcome(&output, 0);
}

#[test]
fn the_servers_of_the_sdks_suites_can_be_used() {
    let folder = fs::read_dir("tests/suites").expect("tests run in the folder of the repository");
    let files: Vec<PathBuf> = folder.map(|entry| entry.expect("a folder can be read").path()).collect();
    let servers: Vec<&PathBuf> =
        files.iter().filter(|file| file.extension().is_some_and(|end| end == "toml")).collect();
    assert!(servers.len() >= 6, "{servers:?}");
    for server in servers {
        let output = run(&["check-config", "--config", &server.display().to_string()]);
        assert_outcome(&output, 0);
        // Their secrets are short, which is all that may be said of them.
        let doubts = stderr(&output);
        assert!(doubts.lines().all(|line| line.contains("shorter than 32 bytes")), "{}: {doubts}", server.display());
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let mut child =
        tidegate(&["config-reference"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the binary ends");
    assert_outcome(&output, 0);
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_missing_file_is_named() {
    for command in
        [&["serve"][..], &["check-config"], &["token", "--user", "1"], &["tail", "a:b"], &["publish", "a:b", "1"]]
    {
        let output = run(&[command, &["--config", "/nonexistent/tidegate.toml"]].concat());
        assert_outcome(&output, 2);
        assert_eq!(
            stderr(&output),
            "error: /nonexistent/tidegate.toml: cannot be read: No such file or directory (os error 2)\n"
        );
    }
}

#[test]
fn a_server_that_would_be_open_to_all_does_not_start() {
    let folder = Folder::new();
    let file = folder.write("[client]\nlisten = \"0.0.0.0:0\"\nallow_anonymous = true\n");
    let output = run(&["serve", "--config", &file]);
    assert_outcome(&output, 2);
    assert!(stderr(&output).contains("set client.allow_public_without_authentication = true"), "{}", stderr(&output));
    let output = run_with_input(&["serve", "--demo", "--config", "/dev/stdin"], b"[client]\nlisten = \"0.0.0.0:0\"\n");
    assert_outcome(&output, 2);
    assert!(
        stderr(&output).starts_with("error: --demo: client.listen: 0.0.0.0:0 is beyond loopback"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn mistakes_in_the_command_line_are_usage_errors() {
    for arguments in [
        &[][..],
        &["sevre"],
        &["serve", "--no-such-option"],
        &["check-config", "positional"],
        &["token"],
        &["token", "--user", ""],
        &["token", "--user", "1", "--expires", "1"],
        &["token", "--user", "1", "--info", "{"],
        &["token", "--user", "1", "--secret", "s", "--config", "f"],
        &["token", "--user", "1", "--client", "c"],
        &["token", "--user", "1", "--channel", "a:b", "--subscribe", "a:b"],
        &["publish", "a:b"],
        &["publish", "", "1"],
        &["publish", "a:b", "1", "--address", "7400"],
        &["publish", "a:b", "1", "--address", "h:1", "--unix", "/s"],
        &["tail"],
        &["tail", "a:b", "--url", "http://127.0.0.1:8000"],
        &["tail", "a:b", "--url", "https://127.0.0.1:8000"],
        &["tail", "a:b", "--token", "t", "--user", "u"],
    ] {
        let output = run(arguments);
        assert_outcome(&output, 2);
        assert_eq!(stdout(&output), "", "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
    }
}

fn claims_of(output: &Output, validation: &Validation) -> Value {
    assert_outcome(output, 0);
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::decode::<Value>(stdout(output).trim_end(), &key, validation).expect("the token verifies").claims
}

#[test]
fn a_token_proves_its_user() {
    let output = run(&[
        "token",
        "--user",
        "42",
        "--expires",
        "5m",
        "--channel",
        "news:eu",
        "--channel",
        "news:us",
        "--info",
        r#"{"name":"Ada"}"#,
        "--secret",
        SECRET,
    ]);
    let claims = claims_of(&output, &Validation::new(Algorithm::HS256));
    assert_eq!(claims["sub"], "42");
    assert_eq!(claims["channels"], json!(["news:eu", "news:us"]));
    assert_eq!(claims["info"], json!({"name": "Ada"}));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    let expires = claims["exp"].as_u64().expect("it expires");
    assert!((now + 270..=now + 300).contains(&expires), "{expires} at {now}");
    assert_eq!(claims.get("channel"), None, "a connection token must not name one (protocol.md section 16)");
}

#[test]
fn a_subscription_token_opens_one_channel() {
    let output = run(&[
        "token",
        "--user",
        "42",
        "--subscribe",
        "$news:eu",
        "--client",
        "c-1",
        "--info",
        "1",
        "--secret",
        SECRET,
    ]);
    let claims = claims_of(&output, &Validation::new(Algorithm::HS256));
    assert_eq!(
        (&claims["sub"], &claims["channel"], &claims["client"]),
        (&json!("42"), &json!("$news:eu"), &json!("c-1"))
    );
    assert_eq!((claims.get("channels"), &claims["info"]), (None, &json!(1)));
}

#[test]
fn a_token_follows_the_configuration() {
    let folder = Folder::new();
    let file = folder.write(&format!(
        "[client.token]\nhmac_secret = \"{SECRET}\"\naudience = \"push\"\nissuer = \"shop\"\nuser_id_claim = \"uid\"\n"
    ));
    let output = run(&["token", "--user", "42", "--expires", "never", "--config", &file]);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&["push"]);
    validation.set_issuer(&["shop"]);
    validation.set_required_spec_claims(&["aud", "iss", "sub"]);
    let claims = claims_of(&output, &validation);
    assert_eq!((claims.get("exp"), &claims["uid"]), (None, &json!("42")));
}

#[test]
fn without_a_secret_there_is_no_token() {
    let output = run(&["token", "--user", "42"]);
    assert_outcome(&output, 2);
    assert!(stderr(&output).contains("TIDEGATE_CLIENT_TOKEN_HMAC_SECRET"), "{}", stderr(&output));
    let output = tidegate(&["token", "--user", "42"])
        .env("TIDEGATE_CLIENT_TOKEN_HMAC_SECRET", SECRET)
        .output()
        .expect("the binary runs");
    assert_eq!(claims_of(&output, &Validation::new(Algorithm::HS256))["sub"], "42");
}

#[test]
fn publishing_to_no_server_says_so() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    drop(listener);
    let output = run(&["publish", "demo:news", "1", "--address", &address]);
    assert_outcome(&output, 1);
    assert!(
        stderr(&output).starts_with(&format!("error: no server at {address}: Connection refused")),
        "{}",
        stderr(&output)
    );
    let output = run(&["publish", "demo:news", "1", "--unix", "/nonexistent/ingest.sock"]);
    assert_outcome(&output, 1);
    assert!(
        stderr(&output).starts_with("error: no server at /nonexistent/ingest.sock: No such file"),
        "{}",
        stderr(&output)
    );
}

/// Answers commands, one by one, on one connection; what it was sent.
fn answer(stream: impl Read + Write, answers: &[&str]) -> Vec<u8> {
    let mut stream = BufReader::new(stream);
    let mut received = Vec::new();
    for answer in answers {
        let arguments = read_number(&mut stream, &mut received);
        for _ in 0..arguments {
            let length = read_number(&mut stream, &mut received);
            let mut argument = vec![0; length + 2];
            stream.read_exact(&mut argument).expect("an argument");
            received.extend(argument);
        }
        stream.get_mut().write_all(answer.as_bytes()).expect("the client reads");
    }
    received
}

fn read_number(stream: &mut impl BufRead, received: &mut Vec<u8>) -> usize {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    received.extend(line.as_bytes());
    line[1..].trim_end().parse().expect("a length")
}

/// Runs `publish` against a server that answers as told; the command's outcome, and what the server was sent.
fn publish(arguments: &[&str], input: &[u8], answers: &'static [&'static str]) -> (Output, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0, answers));
    let output = run_with_input(&[&["publish"], arguments, &["--address", &address]].concat(), input);
    let received = server.join().expect("the server was sent whole commands");
    (output, String::from_utf8(received).expect("text"))
}

#[test]
fn publish_tells_how_many_subscribers_there_are() {
    let (output, received) = publish(&["demo:news", r#"{"a":1}"#], b"", &[":3\r\n"]);
    assert_outcome(&output, 0);
    assert_eq!(stdout(&output), "3 subscribers\n");
    assert_eq!(received, "*3\r\n$7\r\nPUBLISH\r\n$9\r\ndemo:news\r\n$7\r\n{\"a\":1}\r\n");
}

#[test]
fn publish_with_an_id_tells_the_position() {
    let (output, received) = publish(&["demo:news", "-7", "--id", "k1"], b"", &["*2\r\n:12\r\n$4\r\nAbCd\r\n"]);
    assert_outcome(&output, 0);
    assert_eq!(stdout(&output), "offset 12 epoch AbCd\n");
    assert_eq!(received, "*5\r\n$10\r\nTG.PUBLISH\r\n$9\r\ndemo:news\r\n$2\r\n-7\r\n$2\r\nID\r\n$2\r\nk1\r\n");
}

#[test]
fn publish_reads_standard_input_and_gives_its_password() {
    let (output, received) = publish(&["demo:news", "-", "--password", "pw"], b"[1,\n2]", &["+OK\r\n", ":1\r\n"]);
    assert_outcome(&output, 0);
    assert_eq!(stdout(&output), "1 subscriber\n");
    assert_eq!(received, "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n*3\r\n$7\r\nPUBLISH\r\n$9\r\ndemo:news\r\n$6\r\n[1,\n2]\r\n");
}

#[test]
fn a_refused_publication_is_a_failure() {
    let (output, _) = publish(&["demo:news", "{"], b"", &["-ERR payload is not JSON\r\n"]);
    assert_outcome(&output, 1);
    assert_eq!(stderr(&output), "error: the server refused: ERR payload is not JSON\n");
    let (output, _) = publish(&["demo:news", "1"], b"", &["-NOAUTH Authentication required.\r\n"]);
    assert_outcome(&output, 1);
    assert!(stderr(&output).contains("give --password"), "{}", stderr(&output));
    let (output, _) = publish(&["demo:news", "1"], b"", &["HTTP/1.1 400 Bad Request\r\n"]);
    assert_outcome(&output, 1);
    assert!(stderr(&output).contains("does not speak the Redis protocol"), "{}", stderr(&output));
}

#[test]
fn publish_finds_the_socket_of_the_configuration() {
    let folder = Folder::new();
    let socket = folder.0.join("ingest.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let server = thread::spawn(move || answer(listener.accept().expect("a client").0, &[":0\r\n"]));
    let file = folder.write(&format!("[ingest]\nlisten = \"none\"\nunix = \"{}\"\n", socket.display()));
    let output = run(&["publish", "demo:news", "1", "--config", &file]);
    assert_outcome(&output, 0);
    assert_eq!(stdout(&output), "0 subscribers\n");
    server.join().expect("the server was sent a whole command");
}

/// A server's side of one client's connection.
struct Peer(WebSocket<TcpStream>);

impl Peer {
    fn accept(listener: &TcpListener) -> Peer {
        let (stream, _) = listener.accept().expect("a client");
        Peer(tungstenite::accept(stream).expect("an upgrade"))
    }

    fn receive(&mut self) -> Value {
        let message = self.0.read().expect("a command");
        serde_json::from_str(message.to_text().expect("text")).expect("JSON")
    }

    fn send(&mut self, text: &str) {
        self.0.send(Message::text(text)).expect("the client reads");
    }

    fn close(mut self, code: u16, reason: &'static str) {
        self.0
            .close(Some(CloseFrame { code: CloseCode::from(code), reason: reason.into() }))
            .expect("the client reads");
        while self.0.read().is_ok() {}
    }
}

#[test]
fn tail_prints_publications_answers_pings_and_recovers() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    let server = thread::spawn(move || {
        let mut peer = Peer::accept(&listener);
        assert_eq!(peer.receive(), json!({"id": 1, "connect": {"token": "t", "name": "tail"}}));
        peer.send(r#"{"id":1,"connect":{"client":"x","version":"1","ping":25,"pong":true}}"#);
        assert_eq!(peer.receive(), json!({"id": 2, "subscribe": {"channel": "hh:1", "recoverable": true}}));
        peer.send("{\"id\":2,\"subscribe\":{\"recoverable\":true,\"epoch\":\"ep\"}}\n{\"push\":{\"channel\":\"hh:1\",\"pub\":{\"data\":{\"n\": 1},\"offset\":1}}}");
        peer.send("{}");
        assert_eq!(peer.receive(), json!({}));
        peer.close(3001, "shutdown");

        let mut peer = Peer::accept(&listener);
        peer.receive();
        peer.send(r#"{"id":1,"connect":{"client":"x","version":"1"}}"#);
        assert_eq!(
            peer.receive(),
            json!({"id": 2, "subscribe": {"channel": "hh:1", "recoverable": true, "recover": true, "epoch": "ep", "offset": 1}})
        );
        peer.send(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"ep","offset":1,"recovered":true,"was_recovering":true,"publications":[{"data":2,"offset":2}]}}"#);
        peer.close(3503, "force disconnect");
    });
    let output = run(&["tail", "hh:1", "--url", &url, "--token", "t", "--json"]);
    server.join().expect("the client did as a client does");
    assert_outcome(&output, 1);
    assert_eq!(
        stdout(&output),
        "{\"channel\":\"hh:1\",\"offset\":1,\"data\":{\"n\": 1}}\n{\"channel\":\"hh:1\",\"offset\":2,\"data\":2}\n"
    );
    let messages = stderr(&output);
    assert!(messages.starts_with("subscribed to hh:1\nshutdown (3001); again in "), "{messages}");
    assert!(messages.ends_with("error: the server closed the connection: force disconnect (3503)\n"), "{messages}");
}

#[test]
fn tail_ends_when_its_reader_goes_away() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("ws://{}", listener.local_addr().expect("it is bound"));
    let mut child = tidegate(&["tail", "a:b", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut peer = Peer::accept(&listener);
    peer.receive();
    drop(child.stdout.take());
    peer.send(r#"{"id":1,"connect":{"client":"x","version":"1"}}"#);
    peer.receive();
    peer.send("{\"id\":2,\"subscribe\":{}}\n{\"push\":{\"channel\":\"a:b\",\"pub\":{\"data\":1}}}");
    let output = child.wait_with_output().expect("the binary ends");
    assert_outcome(&output, 0);
    assert_eq!(stderr(&output), "subscribed to a:b\n");
}

#[test]
fn tail_waits_for_a_server_that_is_not_there_yet() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let mut child = tidegate(&["tail", "a:b", "--url", &format!("ws://{address}")])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut messages = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut message = String::new();
    messages.read_line(&mut message).expect("a message");
    assert!(
        message.starts_with(&format!("cannot connect to ws://{address}/connection/websocket: Connection refused")),
        "{message}"
    );
    assert!(message.contains("; again in "), "{message}");
    let listener = TcpListener::bind(address).expect("the port is free still");
    let mut peer = Peer::accept(&listener);
    assert_eq!(peer.receive()["id"], 1);
    peer.close(3500, "invalid token");
    assert_eq!(child.wait().expect("the binary ends").code(), Some(1));
}

#[test]
fn tail_does_not_try_again_where_there_is_no_use() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let url = format!("ws://{}/elsewhere", listener.local_addr().expect("it is bound"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = BufReader::new(stream.try_clone().expect("a descriptor can be doubled"));
        let mut line = String::new();
        while head.read_line(&mut line).expect("a request head") > 2 {
            line.clear();
        }
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").expect("the client reads");
    });
    let output = run(&["tail", "a:b", "--url", &url]);
    server.join().expect("the client asked");
    assert_outcome(&output, 1);
    assert_eq!(
        stderr(&output),
        format!("error: {url} answers HTTP 404 Not Found, not the upgrade to WebSocket; is the URL right?\n")
    );
}

#[test]
fn help_teaches_by_example() {
    for command in ["serve", "check-config", "config-reference", "token", "publish", "tail"] {
        let output = run(&[command, "--help"]);
        assert_outcome(&output, 0);
        assert!(stdout(&output).contains(&format!("Examples:\n  tidegate {command}")), "{}", stdout(&output));
    }
    let version = run(&["--version"]);
    assert_eq!(stdout(&version), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
    assert!(!Path::new("tidegate.toml").exists(), "no command leaves a file behind");
}
