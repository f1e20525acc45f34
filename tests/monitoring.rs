//! What operators watch the server by: its metrics in the eyes of Prometheus, alert rules, the dashboard and the runbook.
//!
//! Alerts are shown firing and silent by `promtool`; that what they and the dashboard name exists is read off a running
//! server.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{
    client::{Client, token},
    http,
    producer::Producer,
    server::Server,
    wait_for,
};

/// Keys without which some metrics are not there, and a back end that nobody answers for.
const SETTINGS: &str = "
client.token.jwks_public_endpoint = \"http://127.0.0.1:1/keys\"
hooks.rpc_endpoint = \"http://127.0.0.1:1/rpc\"
log.audit_file = \"/dev/null\"
";

/// Labels that Prometheus adds.
const SCRAPE_LABELS: [&str; 2] = ["instance", "job"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `promtool`, of the path or as `make test-tools` has put it.
fn promtool(arguments: &[&str]) -> Command {
    let own = root("target/tools/bin/promtool");
    let mut command = Command::new(if own.exists() { own } else { PathBuf::from("promtool") });
    command.args(arguments).current_dir(root("monitoring"));
    command
}

fn assert_passes(mut command: Command, input: &str) {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("promtool: {error}; `make test-tools` installs it"));
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}:\n{text}");
}

/// A server with something in each of its metrics.
fn metrics_of_a_server_in_use() -> String {
    let server = Server::start(SETTINGS);
    let mut client = Client::user(&server, "42");
    client.subscribe("open:news");
    let mut producer = Producer::connect(&server);
    producer.publish("open:news", "1");
    producer.command(&["NONSENSE"]).error();
    assert_eq!(client.next_data(), 1);
    client.command("rpc", serde_json::json!({ "method": "m", "data": {} }));
    http::get(server.admin_address(), "/metrics").expect("the admin port answers").body
}

/// Every metric of a text in the Prometheus format, with the values of its labels.
fn metrics(text: &str) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
    let mut metrics: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = metrics.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split_terminator("\",") {
            let (name, value) = label.split_once("=\"").expect("a label has a value");
            metric.entry(name.to_owned()).or_default().insert(value.trim_end_matches('"').to_owned());
        }
    }
    metrics
}

/// A metric that an expression names, and what it demands of its labels: name, operator, value.
struct Named<'a> {
    metric: &'a str,
    labels: Vec<(&'a str, bool, &'a str)>,
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// What an expression of PromQL selects of our metrics.
fn selections(expression: &str) -> Vec<Named<'_>> {
    let mut selections = Vec::new();
    let mut rest = expression;
    while let Some(begin) = ["tidegate_", "process_"].iter().filter_map(|prefix| rest.find(prefix)).min() {
        let end = rest[begin..].find(|character| !is_word(character)).map_or(rest.len(), |length| begin + length);
        let metric = &rest[begin..end];
        let is_whole = !rest[..begin].ends_with(is_word);
        rest = &rest[end..];
        if !is_whole || rest.starts_with('"') {
            continue;
        }
        let selector =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(selector, _)| selector);
        let labels = selector.split_terminator("\",").map(|label| {
            let end = label.find(|character| !is_word(character)).expect("a label is compared");
            let (name, comparison) = label.split_at(end);
            let (operator, value) = comparison.split_once('"').expect("a label is compared with a text");
            (name, operator == "=~", value.trim_end_matches('"'))
        });
        selections.push(Named { metric, labels: labels.collect() });
    }
    selections
}

/// Labels that an expression sums by.
fn grouping(expression: &str) -> Vec<&str> {
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
    groups.flat_map(|(labels, _)| labels.split(',').map(str::trim)).collect()
}

/// What an expression names that the server does not have.
fn missing(expression: &str, metrics: &BTreeMap<String, BTreeMap<String, BTreeSet<String>>>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut known: BTreeSet<&str> = SCRAPE_LABELS.into();
    for Named { metric, labels } in selections(expression) {
        let Some(has) = metrics.get(metric) else {
            missing.push(format!("there is no metric {metric}"));
            continue;
        };
        known.extend(has.keys().map(String::as_str));
        for (label, is_pattern, value) in labels.into_iter().filter(|(label, ..)| !SCRAPE_LABELS.contains(label)) {
            let Some(values) = has.get(label) else {
                missing.push(format!("{metric} has no label {label}"));
                continue;
            };
            let wanted = if is_pattern { value.split('|').collect() } else { vec![value] };
            let absent = wanted.into_iter().filter(|value| !values.contains(*value));
            missing.extend(absent.map(|value| format!("{metric} never has {label}={value:?}")));
        }
    }
    let absent = grouping(expression).into_iter().filter(|label| !known.contains(label));
    missing.extend(absent.map(|label| format!("nothing in it has a label {label}")));
    missing.into_iter().map(|what| format!("{what}: {expression}")).collect()
}

/// Names of the alerts with their expressions.
fn alerts() -> Vec<(String, String)> {
    let text = read("monitoring/alerts.yml");
    let alerts = text.split("- alert: ").skip(1).map(|alert| {
        let (name, rest) = alert.split_once('\n').expect("a name ends its line");
        let (_, rest) = rest.split_once("expr: >-\n").expect("an alert has an expression");
        (name.to_owned(), rest.lines().next().expect("it has a line").trim().to_owned())
    });
    alerts.collect()
}

/// Expressions of the dashboard's panels.
fn panels() -> Vec<String> {
    fn collect(value: &serde_json::Value, expressions: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                expressions.extend(members.get("expr").and_then(|expr| expr.as_str()).map(str::to_owned));
                members.values().for_each(|member| collect(member, expressions));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, expressions)),
            _ => {}
        }
    }
    let dashboard = serde_json::from_str(&read("monitoring/dashboard.json")).expect("the dashboard is JSON");
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    expressions
}

#[test]
fn metrics_pass_the_eyes_of_prometheus_and_hold_what_rules_and_dashboard_name() {
    let text = metrics_of_a_server_in_use();
    assert_passes(promtool(&["check", "metrics"]), &text);
    let metrics = metrics(&text);
    let (alerts, panels) = (alerts(), panels());
    assert!(alerts.len() >= 15 && panels.len() >= 20, "{} alerts, {} panels", alerts.len(), panels.len());
    let expressions = alerts.iter().map(|(_, expression)| expression).chain(&panels);
    let missing: Vec<String> = expressions.flat_map(|expression| missing(expression, &metrics)).collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn what_is_not_there_is_found_missing() {
    let metrics = metrics("tidegate_a_total{reason=\"x\"} 1\ntidegate_b 2\n");
    let count = |expression: &str| missing(expression, &metrics).len();
    assert_eq!(count("sum by (reason) (rate(tidegate_a_total{reason=~\"x\",instance=\"i\"}[5m])) / tidegate_b > 0"), 0);
    assert_eq!(count("tidegate_c"), 1);
    assert_eq!(count("tidegate_a_total{reason=~\"x|y\"}"), 1);
    assert_eq!(count("tidegate_b{reason=\"x\"}"), 1);
    assert_eq!(count("sum by (shard) (tidegate_b)"), 1);
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    assert_passes(promtool(&["check", "rules", "alerts.yml"]), "");
    assert_passes(promtool(&["test", "rules", "alerts.test.yml"]), "");
    let tests = read("monitoring/alerts.test.yml");
    for (alert, _) in alerts() {
        for kind in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {kind}\n")), "no test shows that {alert} {kind}");
        }
    }
}

#[test]
fn each_alert_has_its_section_in_the_runbook() {
    let runbook = read("docs/runbook.md");
    let alerts: Vec<String> = alerts().into_iter().map(|(name, _)| name).collect();
    for alert in &alerts {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "docs/runbook.md has no section {alert}");
    }
    let sections = runbook.lines().filter_map(|line| line.strip_prefix("## Tidegate"));
    for section in sections {
        assert!(alerts.contains(&format!("Tidegate{section}")), "no alert leads to the section Tidegate{section}");
    }
}

#[test]
fn states_and_latencies_are_those_of_the_clients() {
    let server = Server::start("");
    let state = |state: &str| server.metrics().sum("tidegate_connection_states", &[("state", state)]);
    let _mute = std::net::TcpStream::connect(server.client_address()).expect("the port accepts");
    let _upgraded = Client::upgraded(&server);
    let mut connected = Client::anonymous(&server);
    wait_for("each socket is in its state", || {
        (["head", "awaiting_connect", "connected"].map(state) == [Some(1.0); 3]).then_some(())
    });
    connected.subscribe("open:news");
    Producer::connect(&server).publish("open:news", "1");
    assert_eq!(connected.next_data(), 1);
    let metrics = server.metrics();
    let count = |name: &str| metrics.sum(&format!("tidegate_{name}_seconds_count"), &[]);
    assert_eq!((count("accept_to_connected"), count("ingest_to_socket")), (Some(1.0), Some(1.0)));
    assert!(count("loop_turn").is_some_and(|turns| turns >= 3.0));
    let sum = metrics.sum("tidegate_ingest_to_socket_seconds_sum", &[]).expect("there is a sum");
    assert!(sum > 0.0 && sum < 5.0, "{sum}");
    connected.send_command("connect", serde_json::json!({ "token": token(&serde_json::json!({})) }));
    assert_eq!(connected.close_frame().0, 3501);
    drop(connected);
    wait_for("a socket that is gone is in no state", || (state("connected") == Some(0.0)).then_some(()));
}
