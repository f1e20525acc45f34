//! The server under a service manager: what it tells, the sockets it is passed, and `tidegate drain`.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use support::{
    PATIENCE,
    client::Client,
    http,
    server::{Launch, Server},
    wait_for,
};

/// The binary, with these arguments and nothing of the shell's that runs the tests.
fn tidegate(arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_tidegate")]).args(arguments).stdin(Stdio::null());
    command.output().expect("the binary runs")
}

fn drain(address: SocketAddr, arguments: &[&str]) -> Output {
    tidegate(&[&["drain", "--address", &address.to_string()], arguments].concat())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

#[test]
fn a_drain_is_seen_by_balancers_before_clients_are_told_and_waits_for_the_end() {
    let settings = "shutdown.unready_delay = \"2s\"\nshutdown.spread = \"500ms\"\nshutdown.timeout = \"20s\"";
    let mut server = Server::start(settings);
    let admin = server.admin_address();
    let mut first = Client::anonymous(&server);
    let began = Instant::now();
    let draining = std::thread::spawn(move || drain(admin, &[]));
    wait_for("/health says 503", || (http::get(admin, "/health").ok()?.status == 503).then_some(()));
    // Who comes by a balancer that has not noticed yet is served like anyone.
    let mut late = Client::anonymous(&server);
    late.subscribe("open:late");
    assert!(began.elapsed() < Duration::from_secs(2), "the machine is too slow for this test");
    for client in [&mut first, &mut late] {
        assert_eq!(client.close_frame(), (3001, "shutdown".to_owned()));
        client.assert_ends();
    }
    assert!(began.elapsed() >= Duration::from_secs(2), "told after {:?}", began.elapsed());
    assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));
    let output = draining.join().expect("the command ends");
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("drains: it serves for 2s still"), "{told}");
    assert!(told.contains("clients left: 2\n"), "{told}");
    assert!(text(&output.stdout).contains("has ended after"), "{output:?}");
}

#[test]
fn a_drain_that_is_refused_says_what_to_do() {
    let mut server = Server::start("admin.password = \"open sesame\"\nshutdown.spread = \"100ms\"");
    let admin = server.admin_address();
    for (arguments, message) in [
        (&[][..], "wants a password: give --password"),
        (&["--password", "open barley"], "has another password: see admin.password"),
    ] {
        let output = drain(admin, arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(message), "{output:?}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for (address, message) in [
        (nobody, "no server at"),
        (server.client_address(), "is not the operators' port"),
        (server.ingest_address(), "its answer is no HTTP"),
    ] {
        let output = drain(address, &["--password", "open sesame"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stderr).contains(message), "{address}: {output:?}");
    }
    assert_eq!(http::get(admin, "/health").expect("the server is there").status, 200);
    let output = drain(admin, &["--password", "open sesame", "--no-wait"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));
}

#[test]
fn a_service_manager_is_told_of_start_and_stop() {
    let path = std::env::temp_dir().join(format!("tidegate-notify-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).expect("a socket can be made");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let told = || {
        let mut buffer = [0; 1024];
        let bytes = manager.recv(&mut buffer).expect("the service manager is told something");
        text(&buffer[..bytes]).to_owned()
    };
    let settings = "shutdown.spread = \"100ms\"".to_owned();
    let mut server = Server::launch(Launch { settings, notify_socket: Some(path.clone()), ..Launch::default() });
    assert!(told().starts_with("READY=1\n"));
    assert!(told().contains("STATUS=clients: 0, producers: 0, shards: "));
    server.terminate();
    assert!(told().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\n"));
    assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn who_comes_to_a_passed_socket_while_the_server_is_away_waits_for_its_successor() {
    let settings = "shutdown.spread = \"100ms\"".to_owned();
    let mut server = Server::launch(Launch { settings, passes_client_socket: true, ..Launch::default() });
    let clients: Vec<Client> = (0..8).map(|_| Client::anonymous(&server)).collect();
    server.terminate();
    for mut client in clients {
        assert_eq!(client.close_frame().0, 3001);
        client.assert_ends();
    }
    assert_eq!(server.wait_for_end(PATIENCE).code(), Some(0));

    let mut early = TcpStream::connect(server.client_address()).expect("the socket listens on");
    early.write_all(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("the kernel takes it");
    server.start_again();
    let mut answer = [0; 12];
    early.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    early.read_exact(&mut answer).expect("the successor answers");
    assert_eq!(text(&answer), "HTTP/1.1 404");
    Client::anonymous(&server).subscribe("open:next");
}

/// What becomes of a server that is passed a socket under a name, with these variables.
fn serve_with(socket: OwnedFd, name: &str, variables: &[(&str, &str)]) -> String {
    const SCRIPT: &str = "exec 3<&0 0</dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", SCRIPT, "sh", env!("CARGO_BIN_EXE_tidegate"), "serve"])
        .stdin(Stdio::from(socket))
        .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", name)])
        .envs(variables.iter().copied())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    text(&output.stderr).to_owned()
}

#[test]
fn a_passed_socket_that_cannot_be_used_stops_the_start() {
    let tcp = || -> OwnedFd { TcpListener::bind("127.0.0.1:0").expect("a free port").into() };
    let message = serve_with(tcp(), "tidegate.socket", &[]);
    assert!(
        message.contains("set FileDescriptorName= in its .socket unit to client, ingest, admin or api"),
        "{message}"
    );
    let message = serve_with(tcp(), "client", &[]);
    assert!(message.contains("where client.listen says 127.0.0.1:8000. Make both the same"), "{message}");
    let path: PathBuf = std::env::temp_dir().join(format!("tidegate-passed-{}", std::process::id()));
    let unix = UnixListener::bind(&path).expect("a socket can be made");
    let listen = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let message = serve_with(unix.into(), "ingest", &[("TIDEGATE_CLIENT_LISTEN", &listen.to_string())]);
    assert!(message.contains("where ingest.unix says \"none\""), "{message}");
    std::fs::remove_file(path).expect("it is there");
    let message = serve_with(tcp(), "client", &[("LISTEN_FDS", "3")]);
    assert!(message.contains("promises a socket as descriptor 4, where nothing is open"), "{message}");
}
