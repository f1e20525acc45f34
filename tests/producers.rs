//! Producers push with the client libraries and tools that they already have, over TCP and the Unix socket, with and
//! without a password; what they get wrong is refused, counted, and hurts nobody else.

mod support;

use std::{io::Write, process::Stdio, time::Duration};

use serde_json::{Value, json};
use support::{
    bystander::Bystander,
    client::Client,
    producer::{Producer, Reply, encode},
    script,
    server::{Launch, Server},
    wait_for,
};

const PASSWORD: &str = "a password with spaces";

#[test]
fn ioredis_publishes() {
    library_publishes(|server, password| {
        script::run(script::node(server, "ioredis.mjs").env("TEST_INGEST_PASSWORD", password))
    });
}

#[test]
fn node_redis_publishes() {
    library_publishes(|server, password| {
        script::run(script::node(server, "node_redis.mjs").env("TEST_INGEST_PASSWORD", password))
    });
}

#[test]
fn redis_py_publishes() {
    library_publishes(|server, password| {
        script::run(script::python(server, "redis_py.py").env("TEST_INGEST_PASSWORD", password))
    });
}

/// Runs a script that does the same as each other library's, without and with a password, and checks what a client
/// receives of it.
fn library_publishes(run: impl Fn(&Server, &str) -> String) {
    for (settings, password) in [(String::new(), ""), (format!("ingest.password = {PASSWORD:?}"), PASSWORD)] {
        let server = Server::start(&settings);
        let mut client = Client::user(&server, "user");
        client.subscribe("open:producer");
        client.subscribe("kept:producer");
        run(&server, password);

        // Once over TCP, once over the Unix socket.
        let numbered: Vec<Value> = (0..=100).map(|number| json!({ "number": number })).collect();
        let mut expected = Expected::default();
        for _ in ["TCP", "Unix"] {
            expected.open.extend(numbered.clone());
            expected.kept.push(json!({ "once": true }));
            expected.personal.push(json!({ "personal": true }));
            expected.broadcast.push(json!({ "broadcast": true }));
        }
        let mut received = Expected::default();
        for _ in 0..expected.count() {
            received.take(&client.next_push());
        }
        assert_eq!(received, expected);
    }
}

/// What a client receives of a library's script, by the way it came.
#[derive(Debug, Default, PartialEq)]
struct Expected {
    open: Vec<Value>,
    kept: Vec<Value>,
    personal: Vec<Value>,
    broadcast: Vec<Value>,
}

impl Expected {
    fn count(&self) -> usize {
        self.open.len() + self.kept.len() + self.personal.len() + self.broadcast.len()
    }

    fn take(&mut self, push: &Value) {
        let (list, data) = match push["channel"].as_str() {
            Some("open:producer") => (&mut self.open, &push["pub"]["data"]),
            Some("kept:producer") => (&mut self.kept, &push["pub"]["data"]),
            Some("#user") => (&mut self.personal, &push["pub"]["data"]),
            None => (&mut self.broadcast, &push["message"]["data"]),
            Some(_) => panic!("a push from nowhere: {push}"),
        };
        list.push(data.clone());
    }
}

/// A dictionary of zstd.
const DICTIONARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ticks.dictionary");

#[test]
fn redis_py_publishes_what_it_has_compressed() {
    let server = Server::start(&format!("ingest.zstd_dictionaries = [{DICTIONARY:?}]"));
    let mut client = Client::user(&server, "user");
    client.subscribe("open:zstd");
    script::run(script::python(&server, "zstd_producer.py").arg(DICTIONARY));
    for number in 0..10 {
        let data = client.next_data();
        assert_eq!(data.as_array().expect("a list").len(), 4);
        assert!((0..4).all(|place| data[place]["number"] == number && data[place]["place"] == place), "{data}");
        assert_eq!(data[3]["symbol"], "EURUSD");
    }
    assert_eq!(client.next_push()["pub"]["data"], json!({ "personal": true }));
    assert_eq!(client.next_push()["message"]["data"], json!({ "broadcast": true }));
    let metrics = server.metrics();
    let total = |name: &str| metrics.sum(&format!("tidegate_ingest_zstd_{name}_total"), &[]).expect("it is counted");
    assert_eq!(total("payloads"), 12.0);
    assert!(total("received_bytes") > 0.0 && total("decompressed_bytes") > 2.0 * total("received_bytes"));
}

#[test]
fn redis_cli_publishes_what_zstd_has_compressed() {
    let server = Server::start(&format!("ingest.zstd_dictionaries = [{DICTIONARY:?}]"));
    let mut client = Client::anonymous(&server);
    client.subscribe("open:zstd");
    let port = server.ingest_address().port();
    for (number, options) in ["", "--no-content-size", "-19 --check", &format!("-D {DICTIONARY}")].iter().enumerate() {
        let line = format!("zstd -c {options} | redis-cli -p {port} -X frame TG.PUBLISH open:zstd frame ENCODING zstd");
        let mut child = script::command("bash", &server)
            .args(["-o", "pipefail", "-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash is here");
        let payload = json!({ "number": number, "list": vec![number; 100] });
        child.stdin.take().expect("it is piped").write_all(payload.to_string().as_bytes()).expect("zstd reads");
        let output = child.wait_with_output().expect("it is our child");
        assert!(output.status.success() && output.stdout.starts_with(b"0\n"), "{line}: {output:?}");
        assert_eq!(client.next_data(), payload);
    }
}

#[test]
fn wrong_compressed_payloads_are_refused_and_bombs_cost_their_bound() {
    let server = Server::start("ingest.payload_size_max = \"64KiB\"");
    let mut bystander = Bystander::new(&server);
    let mut producer = Producer::connect(&server);
    let compress = |payload: &[u8]| zstd::bulk::compress(payload, 3).expect("any bytes can be compressed");
    let bomb = compress(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 8 << 10);
    let mut streamed_bomb = zstd::stream::Encoder::new(Vec::new(), 3).expect("an encoder");
    streamed_bomb.write_all(&vec![b' '; 64 << 20]).expect("there is memory");
    let streamed_bomb = streamed_bomb.finish().expect("there is memory");
    let good = compress(b"{\"a\":[1,2,3]}");
    let dictionary = std::fs::read(DICTIONARY).expect("a file of the tests");
    let mut with_dictionary = zstd::bulk::Compressor::with_dictionary(3, &dictionary).expect("a dictionary");
    let foreign = with_dictionary.compress(b"{\"symbol\":\"EURUSD\"}").expect("any bytes can be compressed");
    let cases: &[(&[u8], &str)] = &[
        (&bomb, "ERR payload of 67108864 bytes, decompressed, is too long: ingest.payload_size_max allows 65536"),
        (&streamed_bomb, "ERR payload has more than 65536 bytes, decompressed, which is too long"),
        (b"{\"a\":1}", "ERR payload is not compressed with zstd: it does not begin with the bytes 28 b5 2f fd"),
        (b"", "ERR payload is not compressed with zstd"),
        (&good[..good.len() - 1], "ERR payload is not one whole zstd frame: "),
        (&[&good[..], b"more"].concat(), "ERR payload has 4 bytes behind its zstd frame"),
        (&good.repeat(2), "ERR payload has "),
        (&foreign, "ERR payload is compressed by dictionary 7400, which this server does not have"),
        (&compress(b"{"), "ERR payload is not valid JSON: "),
        (&compress(b""), "ERR payload is not valid JSON: "),
    ];
    for (payload, answer) in cases {
        let reply = producer.command(&[b"TG.PUBLISH", &b"open:a"[..], payload, b"ENCODING", b"zstd"]);
        assert!(reply.error().starts_with(answer), "{reply:?} instead of {answer}");
        bystander.assert_untouched();
    }
    for (arguments, answer) in [
        (&["TG.PUBLISH", "open:a", "1", "ENCODING"][..], "ERR syntax error: ENCODING needs a value"),
        (&["TG.PUBLISH", "open:a", "1", "ENCODING", "gzip"], "ERR ENCODING must be zstd, got 'gzip'"),
        (&["TG.SEND", "user", "1", "ID"], "ERR syntax error: expected ENCODING zstd, got 'ID'"),
        (&["TG.BROADCAST", "1", "ENCODING", "zstd", "ID"], "ERR syntax error: expected ENCODING zstd, got 'ID'"),
    ] {
        assert_eq!(producer.command(arguments).error(), answer);
    }
    let good = [b"TG.PUBLISH", &b"open:a"[..], &good, b"ENCODING", b"zstd"];
    assert!(matches!(producer.command(&good), Reply::Array(_)), "the connection goes on");
    for (reason, count) in
        [("payload_too_long", 2), ("payload_not_zstd", 5), ("unknown_dictionary", 1), ("payload_not_json", 2)]
    {
        server.wait_until_counted(reason, count);
    }
}

#[test]
fn redis_cli_publishes() {
    let server = Server::start("");
    let mut client = Client::anonymous(&server);
    client.subscribe("open:cli");
    let port = server.ingest_address().port().to_string();
    let socket = server.ingest_socket();
    let socket = socket.to_str().expect("the path is text");

    assert_eq!(redis_cli(&server, &["-p", &port, "PUBLISH", "open:cli", "1"], ""), "1\n");
    assert_eq!(redis_cli(&server, &["-p", &port, "-3", "PUBLISH", "open:cli", "2"], ""), "1\n");
    assert_eq!(redis_cli(&server, &["-s", socket, "PUBLISH", "open:cli", "3"], ""), "1\n");
    assert_eq!(redis_cli(&server, &["-p", &port], "PUBLISH open:cli 4\nPUBLISH open:cli '{\"five\": 5}'\n"), "1\n1\n");
    assert_eq!(redis_cli(&server, &["-p", &port, "PING"], ""), "PONG\n");
    let piped: String = (6..=1000).map(|number| format!("PUBLISH open:cli {number}\r\n")).collect();
    let told = redis_cli(&server, &["-p", &port, "--pipe"], &piped);
    assert!(told.contains("errors: 0, replies: 995"), "{told}");
    let wrong = redis_cli(&server, &["-p", &port, "PUBLISH", "open:cli"], "");
    assert!(wrong.contains("ERR wrong number of arguments for 'publish' command"), "{wrong}");

    for number in 1..=1000 {
        let data = client.next_data();
        assert_eq!(data, if number == 5 { json!({ "five": 5 }) } else { json!(number) });
    }
}

#[test]
fn redis_cli_needs_the_password() {
    let server = Server::start(&format!("ingest.password = {PASSWORD:?}"));
    let port = server.ingest_address().port().to_string();
    let publish = ["PUBLISH", "open:cli", "1"];
    let with = |options: &[&str]| {
        let arguments: Vec<&str> =
            ["-p", &port, "--no-auth-warning"].iter().chain(options).chain(&publish).copied().collect();
        redis_cli(&server, &arguments, "")
    };
    assert!(with(&[]).contains("NOAUTH Authentication required."));
    assert!(with(&["-a", "guessed"]).contains("WRONGPASS"));
    assert_eq!(with(&["-a", PASSWORD]), "0\n");
    assert_eq!(with(&["-3", "--user", "default", "-a", PASSWORD]), "0\n");
    server.wait_until_counted("authentication_required", 1);
    server.wait_until_counted("wrong_password", 1);
}

#[test]
fn redis_benchmark_publishes() {
    const REQUESTS: usize = 20_000;
    let server = Server::start("shards.outbox_size_max = \"64MiB\"");
    let mut client = Client::anonymous(&server);
    client.subscribe("open:benchmark");
    let port = server.ingest_address().port().to_string();
    for options in [&[][..], &["-3"], &["-P", "16"]] {
        let mut command = script::command("redis-benchmark", &server);
        command.args(["-p", &port, "-c", "8", "-q", "-n", &REQUESTS.to_string()]).args(options);
        let told = script::run(command.args(["PUBLISH", "open:benchmark", "{\"benchmark\":true}"]));
        assert!(told.contains("requests per second"), "{told}");
        for _ in 0..REQUESTS {
            assert_eq!(client.next_data(), json!({ "benchmark": true }));
        }
    }
    let mut command = script::command("redis-benchmark", &server);
    let told = script::run(command.args(["-p", &port, "-q", "-n", "1000", "-t", "ping"]));
    assert!(told.contains("PING_INLINE: ") && told.contains("PING_MBULK: "), "{told}");
}

#[test]
fn commands_of_one_connection_are_answered_in_order() {
    let server = Server::start("");
    let mut producer = Producer::connect(&server);
    let commands: [&[&str]; 9] = [
        &["PUBLISH", "kept:order", "1"],
        &["PING"],
        &["PUBLISH", "elsewhere:order", "1"],
        &["TG.PUBLISH", "kept:order", "2"],
        &["ECHO", "between"],
        &["PUBLISH", "open:order", "nonsense"],
        &["PUBSUB", "NUMSUB", "kept:order"],
        &["TG.SEND", "nobody", "{}"],
        &["PING", "last"],
    ];
    let mut written = commands.iter().flat_map(|command| encode(command)).collect::<Vec<_>>();
    written.extend_from_slice(b"ping inline\r\n");
    producer.write(&written);
    assert_eq!(producer.reply(), Reply::Integer(0));
    assert_eq!(producer.reply(), Reply::Status("PONG".to_owned()));
    assert!(producer.reply().error().starts_with("ERR "), "an unknown namespace");
    match producer.reply() {
        Reply::Array(position) => {
            assert_eq!(position[0], Reply::Integer(2));
            assert!(matches!(&position[1], Reply::Bulk(epoch) if !epoch.is_empty()), "{position:?}");
        }
        other => panic!("not a position: {other:?}"),
    }
    assert_eq!(producer.reply(), Reply::Bulk("between".to_owned()));
    assert!(producer.reply().error().contains("JSON"), "a payload that is not JSON");
    assert_eq!(producer.reply(), Reply::Array(vec![Reply::Bulk("kept:order".to_owned()), Reply::Integer(0)]));
    assert_eq!(producer.reply(), Reply::Integer(0));
    assert_eq!(producer.reply(), Reply::Bulk("last".to_owned()));
    assert_eq!(producer.reply(), Reply::Bulk("inline".to_owned()));
}

#[test]
fn a_transaction_is_answered_at_its_end() {
    let server = Server::start("");
    let mut producer = Producer::connect(&server);
    assert_eq!(producer.command(&["MULTI"]), Reply::Status("OK".to_owned()));
    assert_eq!(producer.command(&["PUBLISH", "open:a", "1"]), Reply::Status("QUEUED".to_owned()));
    assert_eq!(producer.command(&["PING"]), Reply::Status("QUEUED".to_owned()));
    let both = Reply::Array(vec![Reply::Integer(0), Reply::Status("PONG".to_owned())]);
    assert_eq!(producer.command(&["EXEC"]), both);
    assert!(producer.command(&["EXEC"]).error().starts_with("ERR EXEC without MULTI"));

    producer.command(&["MULTI"]);
    assert!(producer.command(&["PUBLISH", "open:a"]).error().starts_with("ERR wrong number"));
    assert!(producer.command(&["EXEC"]).error().starts_with("EXECABORT"));

    producer.command(&["MULTI"]);
    producer.command(&["PUBLISH", "open:a", "1"]);
    assert_eq!(producer.command(&["DISCARD"]), Reply::Status("OK".to_owned()));
    assert_eq!(producer.command(&["PING"]), Reply::Status("PONG".to_owned()));
}

#[test]
fn a_publication_with_a_key_is_made_once() {
    let server = Server::start("ingest.idempotency_window = \"1s\"");
    let mut client = Client::anonymous(&server);
    client.subscribe("kept:once");
    let mut first = Producer::connect(&server);
    let mut second = Producer::connect_unix(&server);
    let publish = ["TG.PUBLISH", "kept:once", "\"first\"", "ID", "key", "TAGS", "{\"a\":\"b\"}"];
    let position = first.command(&publish);
    assert_eq!(second.command(&publish), position);
    assert_eq!(second.command(&["TG.PUBLISH", "kept:once", "\"again\"", "ID", "key"]), position);
    first.command(&["TG.PUBLISH", "kept:once", "\"other\"", "ID", "another key"]);
    first.command(&["TG.PUBLISH", "kept:once", "\"passing\"", "SKIPHISTORY"]);
    let push = client.next_push();
    assert_eq!(push["pub"]["data"], "first");
    assert_eq!(push["pub"]["tags"], json!({ "a": "b" }));
    assert_eq!(client.next_data(), "other");
    let push = client.next_push();
    assert_eq!((&push["pub"]["data"], &push["pub"]["offset"]), (&json!("passing"), &Value::Null));

    wait_for("the key is forgotten when its window has passed", || (first.command(&publish) != position).then_some(()));
    assert_eq!(client.next_data(), "first");
    assert!(first.command(&["TG.PUBLISH", "kept:once", "1", "ID"]).error().starts_with("ERR "));
    assert!(first.command(&["TG.PUBLISH", "kept:once", "1", "TAGS", "nonsense"]).error().starts_with("ERR "));
}

#[test]
fn channels_with_subscribers_are_listed() {
    let server = Server::start("");
    let mut clients: Vec<Client> = (0..3).map(|_| Client::anonymous(&server)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.subscribe("open:all");
        client.subscribe(&format!("open:{index}"));
    }
    let mut producer = Producer::connect(&server);
    let bulk = |text: &str| Reply::Bulk(text.to_owned());
    let expected =
        [bulk("open:all"), Reply::Integer(3), bulk("open:1"), Reply::Integer(1), bulk("open:none"), Reply::Integer(0)];
    // Counts of other shards may be a little old.
    wait_for("all subscribers are counted", || {
        let counts = producer.command(&["PUBSUB", "NUMSUB", "open:all", "open:1", "open:none"]);
        (counts == Reply::Array(expected.to_vec())).then_some(())
    });
    let mut channels = |pattern: &[&str]| {
        let command: Vec<&str> = ["PUBSUB", "CHANNELS"].iter().chain(pattern).copied().collect();
        match producer.command(&command) {
            Reply::Array(names) => {
                let mut names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                names.sort_unstable();
                names.len()
            }
            other => panic!("not a list: {other:?}"),
        }
    };
    assert_eq!(channels(&[]), 4);
    assert_eq!(channels(&["open:[01]"]), 2);
    assert_eq!(channels(&["open:a*"]), 1);
    assert_eq!(channels(&["kept:*"]), 0);
    drop(clients);
    wait_for("nobody is left", || {
        (producer.command(&["PUBSUB", "CHANNELS"]) == Reply::Array(Vec::new())).then_some(())
    });
}

#[test]
fn payloads_are_as_the_namespace_says() {
    let server = Server::start("ingest.payload_size_max = \"64KiB\"");
    let mut client = Client::anonymous(&server);
    client.subscribe("open:json");
    let mut producer = Producer::connect(&server);
    assert!(producer.command(&["PUBLISH", "open:json", "not JSON"]).error().contains("JSON"));
    assert!(producer.command(&["PUBLISH", "open:json", ""]).error().starts_with("ERR "));
    assert!(producer.command(&["PUBLISH", "open:json", "{} {}"]).error().contains("JSON"));
    producer.publish("open:json", "{ \"spaces\":\n [1, 2] }");
    assert_eq!(client.next_data(), json!({ "spaces": [1, 2] }));
    let over = format!("\"{}\"", "x".repeat(64 * 1024));
    assert!(producer.command(&["PUBLISH", "open:json", &over]).error().starts_with("ERR "));
    let fits = format!("\"{}\"", "x".repeat(64 * 1024 - 2));
    assert_eq!(producer.publish("open:json", &fits), 1);
    assert_eq!(client.next_data().as_str().map(str::len), Some(64 * 1024 - 2));

    // A JSON client of a binary channel receives what is JSON, and is sent away by what is not.
    client.subscribe("bytes:any");
    producer.publish("bytes:any", "[1]");
    assert_eq!(client.next_data(), json!([1]));
    assert_eq!(producer.command(&[&b"PUBLISH"[..], b"bytes:any", b"\xff\x00"]), Reply::Integer(1));
    assert_eq!(client.close_frame().0, 3506);
}

#[test]
fn what_is_accepted_is_delivered_however_fast_it_comes() {
    const PRODUCERS: usize = 4;
    const PUBLICATIONS: usize = 10_000;
    let server = Server::start("shards.outbox_size_max = \"64MiB\"");
    let mut client = Client::anonymous(&server);
    client.subscribe("open:flood");
    std::thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            let server = &server;
            scope.spawn(move || {
                // All at once, and no reply read before the last command is out.
                let mut connection = Producer::connect(server);
                let flood: Vec<u8> = (0..PUBLICATIONS)
                    .flat_map(|number| encode(&["PUBLISH", "open:flood", &format!("[{producer},{number}]")]))
                    .collect();
                connection.write(&flood);
                for _ in 0..PUBLICATIONS {
                    assert_eq!(connection.reply(), Reply::Integer(1));
                }
            });
        }
        let mut next = [0; PRODUCERS];
        for _ in 0..PRODUCERS * PUBLICATIONS {
            let data = client.next_data();
            let producer = data[0].as_u64().expect("a producer") as usize;
            assert_eq!(data[1], next[producer], "of producer {producer}");
            next[producer] += 1;
        }
    });
}

#[test]
fn garbage_ends_its_connection_with_an_error() {
    let server = Server::start("ingest.payload_size_max = \"64KiB\"");
    let mut bystander = Bystander::new(&server);
    let long_line = "x".repeat(128 * 1024);
    let cases: &[(&str, &str, &str)] = &[
        ("no bulk string", "*1\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'"),
        ("a count that is no number", "*x\r\n", "-ERR Protocol error: invalid multibulk length"),
        ("an absurd count", "*2147483648\r\n", "-ERR Protocol error: invalid multibulk length"),
        ("a negative length", "*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length"),
        ("a length that is no number", "*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length"),
        ("an absurd length", "*1\r\n$999999999999999999999\r\n", "-ERR Protocol error: invalid bulk length"),
        ("an oversized bulk", "*1\r\n$1073741824\r\n", "-ERR Protocol error: invalid bulk length: 1073741824 bytes"),
        ("an endless inline command", &long_line, "-ERR Protocol error: too big inline request"),
        ("quotes that do not close", "PUBLISH \"open\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    ];
    let before = server.metrics().by_label("tidegate_ingest_rejections_total", "reason").values().sum::<f64>();
    for (index, (case, bytes, answer)) in cases.iter().enumerate() {
        let mut producer = if index % 2 == 0 { Producer::connect(&server) } else { Producer::connect_unix(&server) };
        producer.write(bytes.as_bytes());
        let answered = producer.until_end();
        assert!(answered.starts_with(answer) && answered.lines().count() == 1, "{case}: {answered:?}");
        let counted = server.metrics().by_label("tidegate_ingest_rejections_total", "reason");
        assert_eq!(counted.values().sum::<f64>() - before, (index + 1) as f64, "{case} is counted: {counted:?}");
        bystander.assert_untouched();
    }
    // A request of the web, sent here by a page that guesses ports.
    let mut producer = Producer::connect(&server);
    producer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nPUBLISH open:bystander 666\r\n");
    assert!(!producer.until_end().contains(":1"), "nothing is published after it");
    bystander.assert_untouched();
}

#[test]
fn wrong_commands_are_refused_and_the_connection_goes_on() {
    let server = Server::start("");
    let mut bystander = Bystander::new(&server);
    let mut producer = Producer::connect(&server);
    let cases: &[(&[&str], &str)] = &[
        (&["GET", "a"], "ERR unknown command 'GET', with args beginning with: 'a'"),
        (&["publish", "open:a"], "ERR wrong number of arguments for 'publish' command"),
        (&["PUBLISH", "open:a", "1", "2"], "ERR wrong number of arguments for 'publish' command"),
        (&["TG.SEND", "user"], "ERR wrong number of arguments for 'tg.send' command"),
        (&["TG.BROADCAST"], "ERR wrong number of arguments for 'tg.broadcast' command"),
        (&["HELLO", "4"], "NOPROTO unsupported protocol version"),
        (&["AUTH", "password"], "ERR AUTH <password> called without any password configured"),
        (&["CLIENT", "KILL"], "ERR unknown subcommand 'KILL'. Try CLIENT HELP."),
    ];
    for (command, answer) in cases {
        let reply = producer.command(command);
        assert!(reply.error().starts_with(answer), "{command:?}: {reply:?}");
        bystander.assert_untouched();
    }
    assert_eq!(producer.command(&["PING"]), Reply::Status("PONG".to_owned()));
    for reason in ["unknown_command", "wrong_arity"] {
        server.wait_until_counted(reason, 1);
    }
}

#[test]
fn nothing_is_done_before_authentication() {
    let server = Server::start(&format!("ingest.password = {PASSWORD:?}"));
    let mut client = Client::anonymous(&server);
    client.subscribe("open:secret");
    for mut producer in [Producer::connect(&server), Producer::connect_unix(&server)] {
        for command in
            [&["PUBLISH", "open:secret", "1"][..], &["TG.BROADCAST", "1"], &["PUBSUB", "CHANNELS"], &["MULTI"]]
        {
            assert_eq!(producer.command(command), Reply::Error("NOAUTH Authentication required.".to_owned()));
        }
        let wrong = "WRONGPASS invalid username-password pair or user is disabled.";
        assert_eq!(producer.command(&["AUTH", "guessed"]).error(), wrong);
        assert_eq!(producer.command(&["AUTH", "somebody", PASSWORD]).error(), wrong);
        assert_eq!(producer.command(&["HELLO", "3", "AUTH", "default", "guessed"]).error(), wrong);
        assert!(producer.command(&["HELLO", "3"]).error().starts_with("NOAUTH "));
        assert!(matches!(producer.command(&["HELLO", "3", "AUTH", "default", PASSWORD]), Reply::Map(_)));
        assert_eq!(producer.publish("open:secret", "2"), 1);
        assert_eq!(client.next_data(), 2);
    }
    server.wait_until_counted("wrong_password", 6);
}

#[test]
fn descriptors_that_run_out_pause_the_accepting() {
    const DESCRIPTORS_MAX: u32 = 128;
    let server = Server::launch(Launch { descriptors_max: Some(DESCRIPTORS_MAX), ..Launch::default() });
    let mut first = Producer::connect(&server);
    assert_eq!(first.command(&["PING"]), Reply::Status("PONG".to_owned()));
    // The kernel completes these connections; the server has no descriptors for the last of them.
    let held: Vec<Producer> = (0..DESCRIPTORS_MAX).map(|_| Producer::connect(&server)).collect();
    let pauses = || server.log().matches("no producer can be accepted").count();
    wait_for("the server says that it pauses", || (pauses() > 0).then_some(()));
    // It goes on trying, without a word more, and serves those who are there.
    std::thread::sleep(Duration::from_millis(350));
    assert_eq!(first.publish("open:descriptors", "1"), 0);
    assert_eq!(pauses(), 1, "it says so once:\n{}", server.log());
    drop(held);
    let mut late = Producer::connect(&server);
    assert_eq!(late.publish("open:descriptors", "2"), 0);
    wait_for("the server says that it goes on", || server.log().contains("producers are accepted again").then_some(()));
    server.wait_until_counted("descriptors_exhausted", 3);
}

/// What redis-cli prints.
fn redis_cli(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut child = script::command("redis-cli", server)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("redis-cli: {error}; `make test-tools` installs what the tests need"));
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("redis-cli reads");
    let output = child.wait_with_output().expect("it is our child");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
