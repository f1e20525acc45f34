//! Traces of publications: what a collector is told, as OpenTelemetry's own messages read it, and what the server does
//! without one.

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use support::{
    client::Client,
    http,
    producer::{Producer, Reply, encode},
    server::Server,
    wait_for,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Spans that a publication has beside those of its shards, and that each shard has.
const OWN_SPANS: usize = 4;
const SHARD_SPANS: usize = 4;

/// A collector that ends with the test.
struct Collector {
    child: Child,
    _stdin: ChildStdin,
    address: SocketAddr,
}

impl Collector {
    fn start() -> Self {
        Self::start_at(0)
    }

    fn start_at(port: u16) -> Self {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut command = Command::new(tests.join(".venv/bin/python"));
        command.arg(tests.join("python/collector.py")).arg(port.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("python: {error}; `make test-tools` installs it"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("it says its port");
        let port = line.trim().parse().unwrap_or_else(|_| panic!("no port: {line:?}"));
        let stdin = child.stdin.take().expect("it is piped");
        Self { child, _stdin: stdin, address: (Ipv4Addr::LOCALHOST, port).into() }
    }

    /// Lines of configuration that name it.
    fn settings(&self, more: &str) -> String {
        settings(self.address, more)
    }

    fn ask(&self, path: &str) -> Value {
        let response = http::get(self.address, path).expect("the collector answers");
        serde_json::from_str(&response.body).expect("JSON")
    }

    /// The spans, once there are so many.
    fn spans(&self, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} spans"), || {
            let spans = self.ask("/spans").as_array().expect("a list").clone();
            assert!(spans.len() <= count, "more than {count}: {spans:#?}");
            (spans.len() == count).then_some(spans)
        })
    }

    fn answer_next(&self, answers: &Value) {
        http::post(self.address, "/answers", "", &answers.to_string()).expect("the collector answers");
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // It may have ended by itself, with what it has to say on the test's standard error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn settings(collector: SocketAddr, more: &str) -> String {
    format!("tracing.endpoint = \"http://{collector}/v1/traces\"\nshards.cores = [0, 1]\n{more}\n")
}

fn spans_by(server: &Server, outcome: &str) -> f64 {
    server.metrics().sum("tidegate_trace_spans_total", &[("outcome", outcome)]).expect("the server traces")
}

/// Subscribers on both shards: how many are on each is the kernel's choice.
fn subscribers(server: &Server, channel: &str) -> Vec<Client> {
    let on_shards = |server: &Server| server.metrics().by_label("tidegate_subscriptions", "shard");
    let mut clients = Vec::new();
    wait_for("subscribers on both shards", || {
        let mut client = Client::anonymous(server);
        client.subscribe(channel);
        clients.push(client);
        on_shards(server).values().all(|count| *count > 0.0).then_some(())
    });
    clients
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

fn number(span: &Value, attribute: &str) -> u64 {
    span["attributes"][attribute].as_u64().unwrap_or_else(|| panic!("no {attribute}: {span:#}"))
}

/// Fails unless each span but the first lies within its parent.
fn assert_nested(spans: &[Value], root: &Value) {
    for span in spans {
        let time = |span: &Value, end: &str| span[end].as_u64().expect("nanoseconds");
        assert!(time(span, "begin") <= time(span, "end"), "{span:#}");
        assert_eq!(span["trace"], root["trace"]);
        if span["id"] == root["id"] {
            continue;
        }
        let parent = spans.iter().find(|other| other["id"] == span["parent"]);
        let parent = parent.unwrap_or_else(|| panic!("no parent: {span:#}"));
        assert!(time(parent, "begin") <= time(span, "begin"), "{span:#} in {parent:#}");
        assert!(time(span, "end") <= time(parent, "end"), "{span:#} in {parent:#}");
    }
}

#[test]
fn a_publication_is_followed_from_its_producer_to_the_last_subscriber() {
    let collector = Collector::start();
    let server = Server::start(&collector.settings(
        "tracing.sample_one_in = 1\ntracing.service_name = \"push\"\ntracing.include_channel = true\n\
         tracing.headers = [\"X-Key: a key\"]",
    ));
    let clients = subscribers(&server, "kept:traced");
    let payload = r#"{"number":1}"#;
    Producer::connect(&server).publish("kept:traced", payload);
    let spans = collector.spans(OWN_SPANS + 2 * SHARD_SPANS);

    let roots = named(&spans, "publication");
    let [root] = roots[..] else { panic!("{roots:#?}") };
    assert_nested(&spans, root);
    assert_eq!((&root["parent"], &root["kind"], &root["scope"]), (&json!(""), &json!(2), &json!("tidegate")));
    assert_eq!(root["resource"]["service.name"], "push");
    let attributes = &root["attributes"];
    assert_eq!(attributes["messaging.destination.name"], "kept:traced");
    assert_eq!((&attributes["tidegate.namespace"], &attributes["tidegate.producer"]), (&json!("kept"), &json!("resp")));
    assert_eq!(number(root, "messaging.message.body.size"), payload.len() as u64);
    assert_eq!(attributes.get("tidegate.incomplete"), None);
    assert_eq!(number(named(&spans, "history")[0], "tidegate.offset"), 1);

    let fan_outs = named(&spans, "fan-out");
    let mut shards: Vec<u64> = fan_outs.iter().map(|span| number(span, "tidegate.shard")).collect();
    shards.sort_unstable();
    assert_eq!(shards, [0, 1]);
    let told: u64 = fan_outs.iter().map(|span| number(span, "tidegate.subscribers")).sum();
    assert_eq!(told, clients.len() as u64);
    let sends: u64 = named(&spans, "write").iter().map(|span| number(span, "tidegate.turn.sends")).sum();
    assert!(sends >= told, "{sends} sends to {told} subscribers");
    let last_write = named(&spans, "write").iter().filter_map(|span| span["end"].as_u64()).max();
    assert_eq!(root["end"].as_u64(), last_write);

    let request = &collector.ask("/figures")["requests"][0];
    assert_eq!(request["path"], "/v1/traces");
    let fields = &request["fields"];
    assert_eq!((&fields["x-key"], &fields["content-type"]), (&json!("a key"), &json!("application/x-protobuf")));
    wait_for("spans are counted", || (spans_by(&server, "exported") == spans.len() as f64).then_some(()));
}

#[test]
fn a_producers_trace_goes_on_and_its_word_counts() {
    let collector = Collector::start();
    let server = Server::start(&collector.settings("tracing.sample_one_in = 0\napi.insecure = true"));
    let mut producer = Producer::connect(&server);
    let traceparent = |flags: &str| format!("00-{TRACE}-{PARENT}-{flags}");
    let mut publish =
        |flags: &str| producer.command(&["TG.PUBLISH", "open:traced", "1", "TRACEPARENT", &traceparent(flags)]);
    assert!(matches!(publish("00"), Reply::Array(_)), "not traced, but published");
    assert!(matches!(publish("01"), Reply::Array(_)));
    let api = |traceparent: &str| {
        let fields = format!("traceparent: {traceparent}\r\n");
        let body = r#"{"channel":"open:traced","data":1}"#;
        let response = http::post(server.admin_address(), "/api/publish", &fields, body).expect("the port answers");
        assert_eq!(response.status, 200, "{response:?}");
    };
    api(&traceparent("00"));
    api("no traceparent");
    api(&traceparent("01"));
    let spans = collector.spans(2 * OWN_SPANS);
    let roots = named(&spans, "publication");
    let mut producers: Vec<&str> =
        roots.iter().filter_map(|root| root["attributes"]["tidegate.producer"].as_str()).collect();
    producers.sort_unstable();
    assert_eq!(producers, ["api", "resp"]);
    for root in roots {
        assert_eq!((&root["trace"], &root["parent"]), (&json!(TRACE), &json!(PARENT)));
        assert_eq!(root["flags"], 0x301, "its parent is elsewhere");
        assert_eq!(root["attributes"].get("messaging.destination.name"), None, "names may be personal");
    }
    assert!(spans.iter().all(|span| span["trace"] == TRACE));
}

#[test]
fn one_in_so_many_is_traced() {
    const PUBLICATIONS: usize = 10_000;
    let collector = Collector::start();
    let server =
        Server::start(&collector.settings("tracing.sample_one_in = 10\ntracing.traces_per_second_max = 10000"));
    let mut producer = Producer::connect(&server);
    let command = encode(&["PUBLISH", "open:traced", "1"]);
    for _ in 0..PUBLICATIONS / 100 {
        producer.write(&command.repeat(100));
        (0..100).for_each(|_| _ = producer.reply().integer());
    }
    // Nobody is subscribed.
    let traces = wait_for("all that is traced is told", || {
        let waiting = server.metrics().sum("tidegate_trace_spans_waiting", &[]).expect("the server traces");
        let told = spans_by(&server, "exported");
        (waiting == 0.0 && told > 0.0).then_some(told as usize / OWN_SPANS)
    });
    // A machine that is busy may leave the control thread no time for notes.
    let dropped = spans_by(&server, "dropped") as usize / OWN_SPANS;
    // Gaps from 1 to 19: a thousand of them differ from their mean by 17 times the root of a thousand, in hundredths.
    assert!((850..=1150).contains(&(traces + dropped)), "{traces} and {dropped} of {PUBLICATIONS}");
    assert_eq!(collector.ask("/figures")["traces"], traces);
}

#[test]
fn a_collector_that_has_no_time_is_told_again() {
    let collector = Collector::start();
    collector.answer_next(&json!([[503, { "Retry-After": "1" }], [429, {}]]));
    let server = Server::start(&collector.settings("tracing.sample_one_in = 1"));
    Producer::connect(&server).publish("open:traced", "1");
    let spans = collector.spans(OWN_SPANS);
    assert_nested(&spans, named(&spans, "publication")[0]);
    assert_eq!(collector.ask("/figures")["requests"].as_array().expect("a list").len(), 3);
    assert!(server.log().contains("the collector of traces does not take them"));

    collector.answer_next(&json!([[400, {}]]));
    Producer::connect(&server).publish("open:traced", "1");
    wait_for("it is rejected", || (spans_by(&server, "rejected") == OWN_SPANS as f64).then_some(()));
    assert_eq!(collector.ask("/figures")["spans"], OWN_SPANS, "and not sent again");
}

#[test]
fn without_its_collector_the_server_goes_on_and_drops_spans_until_a_reload_names_another() {
    const PUBLICATIONS: usize = 8_000;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let away = free.local_addr().expect("it is bound");
    drop(free);
    let all = "tracing.sample_one_in = 1\ntracing.traces_per_second_max = 10000";
    let server = Server::start(&settings(away, all));
    let mut client = Client::anonymous(&server);
    client.subscribe("open:traced");
    let mut producer = Producer::connect(&server);
    let command = encode(&["PUBLISH", "open:traced", "1"]);
    for _ in 0..PUBLICATIONS / 100 {
        producer.write(&command.repeat(100));
        (0..100).for_each(|_| assert_eq!(producer.reply().integer(), 1));
        (0..100).for_each(|_| assert_eq!(client.next_data(), 1));
    }
    wait_for("spans find no room", || (spans_by(&server, "dropped") > 0.0).then_some(()));
    assert_eq!(spans_by(&server, "exported"), 0.0);
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains("the collector of traces does not take them")).count();
    assert!((1..=6).contains(&lines), "a line in ten seconds: {log}");

    let collector = Collector::start();
    server.configure(&collector.settings(all));
    server.hang_up();
    wait_for("what waited is told", || (spans_by(&server, "exported") > 0.0).then_some(()));
}

#[test]
fn nothing_is_told_where_tracing_is_off() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.set_nonblocking(true).expect("the option can be set");
    let address = listener.local_addr().expect("it is bound");
    let server = Server::start("tracing.sample_one_in = 1");
    let mut producer = Producer::connect(&server);
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    for _ in 0..100 {
        producer.command(&["TG.PUBLISH", "open:traced", "1", "TRACEPARENT", &traceparent]);
    }
    assert_eq!(server.metrics().sum("tidegate_trace_spans_total", &[]), None);

    // What comes after a reload is traced, and nothing of before.
    server.configure(&format!("tracing.sample_one_in = 1\ntracing.endpoint = \"http://{address}/v1/traces\""));
    server.hang_up();
    wait_for("the server traces", || server.metrics().sum("tidegate_trace_spans_total", &[]));
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(listener.accept().is_err(), "nothing was traced");
    producer.publish("open:traced", "1");
    let mut stream = wait_for("a request", || listener.accept().ok()).0;
    stream.set_nonblocking(false).expect("the option can be set");
    let mut head = [0; 20];
    stream.read_exact(&mut head).expect("it says something");
    assert_eq!(&head, b"POST /v1/traces HTTP");
}
