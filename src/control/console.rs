//! The console: one page, and what it is told each second.
//!
//! Owns the page's frame (settings, security policy) and the arithmetic of rates. The page itself is
//! `console.html`; it speaks to the real clients' port like any client, so what it shows of a
//! channel is what subscribers see.
//!
//! Invariant: what is put into the page and its policy has been validated ([`super::guard`]) or is
//! our own; otherwise a request's `Host` could inject a script.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    health::{Health, Status},
    metrics::sum_by_key,
    observer::{Snapshot, ThreadReport},
    process::{self, ProcessFigures},
};
use crate::{
    config::Config,
    limits::{CONSOLE_CHANNELS_MAX, CONSOLE_CLIENTS_MAX},
    mesh::{Histogram, ShardFigures, SlowConsumer, Talker},
};

/// Rates between figures further apart than this would show the past as the present.
const RATE_INTERVAL_MAX: Duration = Duration::from_secs(5);

const PAGE: &str = include_str!("console.html");

/// The page and its `Content-Security-Policy`.
pub struct Page {
    /// HTML.
    pub html: String,
    /// The policy: our own script and style, our own events, the clients' port; nothing else.
    pub policy: String,
}

/// The page for a request that addressed `host`. `nonce` must be unguessable and new each time
/// (CSP level 3, section 7.1).
pub fn page(config: &Config, demo: bool, host: &str, nonce: &str) -> Page {
    let client_url = client_url(config, host);
    let settings = Settings {
        client_url: format!("{client_url}/connection/websocket"),
        redis_cli: redis_cli(config),
        demo,
        version: env!("CARGO_PKG_VERSION"),
    };
    let settings = serde_json::to_string(&settings).expect("strings and a bool become JSON");
    let html = PAGE.replace("@NONCE@", nonce).replace("@SETTINGS@", &settings.replace('<', "\\u003c"));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
         connect-src 'self' {client_url}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Page { html, policy }
}

/// What the page cannot know by itself.
#[derive(Serialize)]
struct Settings {
    client_url: String,
    redis_cli: Option<String>,
    demo: bool,
    version: &'static str,
}

fn client_url(config: &Config, host: &str) -> String {
    let listen = config.client.listen;
    // A clients' port on one certain address is reached there only; else as this page was reached.
    let host = if listen.ip().is_unspecified() || listen.ip().is_loopback() {
        host.to_owned()
    } else {
        listen.ip().to_string()
    };
    let host = if host.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) { format!("[{host}]") } else { host };
    let scheme = if config.client.tls.port.is_on() { "wss" } else { "ws" };
    format!("{scheme}://{host}:{}", listen.port())
}

/// How to begin a redis-cli line that reaches the producers' port.
fn redis_cli(config: &Config) -> Option<String> {
    let mut line = match (&config.ingest.listen, &config.ingest.unix) {
        (Some(listen), _) if listen.ip().is_unspecified() || listen.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) => {
            format!("redis-cli -p {}", listen.port())
        }
        (Some(listen), _) => format!("redis-cli -h {} -p {}", listen.ip(), listen.port()),
        (None, Some(path)) => format!("redis-cli -s '{}'", path.display().to_string().replace('\'', "'\\''")),
        (None, None) => return None,
    };
    if config.ingest.password.is_some() {
        line.push_str(" --askpass");
    }
    Some(line)
}

/// What the console shows, once a second.
#[derive(Debug, Serialize)]
pub struct Overview {
    status: Status,
    uptime_seconds: u64,
    connections: u64,
    subscriptions: u64,
    producers: u64,
    outbox_bytes: u64,
    rates: Option<Rates>,
    memory: Memory,
    shards: Vec<ShardOverview>,
    top_channels: Vec<ChannelOverview>,
    slow_consumers: Vec<SlowConsumerOverview>,
    top_talkers: Vec<TalkerOverview>,
    rejections: Vec<Count>,
    dropped: Vec<Count>,
}

#[derive(Debug, Serialize)]
struct SlowConsumerOverview {
    client: String,
    user: String,
    shard: u16,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct TalkerOverview {
    client: String,
    user: String,
    shard: u16,
    bytes_per_second: f64,
}

/// Per second.
#[derive(Debug, PartialEq, Serialize)]
struct Rates {
    publications: f64,
    messages_sent: f64,
    messages_received: f64,
    bytes_sent: f64,
    bytes_received: f64,
}

#[derive(Debug, Serialize)]
struct Memory {
    resident_bytes: Option<u64>,
    table_bytes: u64,
    resident_bytes_per_connection: Option<f64>,
    table_bytes_per_connection: Option<f64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ShardOverview {
    shard: usize,
    status: Status,
    core: Option<u32>,
    connections: u64,
    channels: u64,
    subscriptions: u64,
    outbox_bytes: u64,
    messages_sent_per_second: Option<f64>,
    /// One turn in a hundred took longer since the last time.
    turn_ms: Option<f64>,
    /// What the control thread has waited for the last answer.
    answer_ms: Option<f64>,
    held_messages: u64,
}

#[derive(Debug, Serialize)]
struct ChannelOverview {
    name: Arc<str>,
    subscribers: u64,
    publications_per_second: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Count {
    name: String,
    total: u64,
    per_second: Option<f64>,
}

/// Turns totals into rates: it remembers the totals that the console was told last.
#[derive(Default)]
pub struct Overviews {
    previous: Option<Totals>,
}

impl Overviews {
    /// What the console shows now.
    pub fn next(&mut self, snapshot: &Snapshot, process: &ProcessFigures) -> Overview {
        let totals = Totals::of(snapshot);
        let previous = self.previous.as_ref().filter(|previous| totals.at - previous.at <= RATE_INTERVAL_MAX);
        let overview = overview(snapshot, process, &totals, previous);
        self.previous = Some(totals);
        overview
    }
}

struct Totals {
    at: Instant,
    /// Publications, messages sent and received, bytes sent and received.
    sums: [u64; 5],
    messages_sent_by_shard: Vec<u64>,
    turn_times: Vec<Histogram>,
    reasons: BTreeMap<&'static str, u64>,
    dropped: BTreeMap<&'static str, u64>,
    channels: HashMap<Arc<str>, ChannelTotals>,
}

/// A channel's deliveries by shard, and its subscribers.
#[derive(Default)]
struct ChannelTotals {
    subscribers: u64,
    deliveries: HashMap<u16, u64>,
}

impl Totals {
    fn of(snapshot: &Snapshot) -> Self {
        let sum = |value: fn(&ShardFigures) -> u64| snapshot.shard_figures().map(value).sum();
        let mut channels: HashMap<Arc<str>, ChannelTotals> = HashMap::new();
        for figures in snapshot.shard_figures() {
            for channel in &figures.top_channels {
                let totals = channels.entry(Arc::clone(&channel.name)).or_default();
                totals.subscribers += u64::from(channel.subscribers);
                totals.deliveries.insert(figures.shard, channel.deliveries);
            }
        }
        let sent =
            |report: &ThreadReport<ShardFigures>| report.figures.as_ref().map_or(0, |figures| figures.messages_sent);
        let turn_time = |report: &ThreadReport<ShardFigures>| {
            report.figures.as_ref().map(|figures| figures.turn_time.clone()).unwrap_or_default()
        };
        Self {
            at: snapshot.at,
            sums: [
                sum(|figures| figures.publications),
                sum(|figures| figures.messages_sent),
                sum(|figures| figures.messages_received),
                sum(|figures| figures.bytes_sent),
                sum(|figures| figures.bytes_received),
            ],
            messages_sent_by_shard: snapshot.shards.iter().map(sent).collect(),
            turn_times: snapshot.shards.iter().map(turn_time).collect(),
            reasons: sum_by_key(
                snapshot
                    .shard_figures()
                    .flat_map(|figures| &figures.reasons)
                    .chain(snapshot.ingest.figures.iter().flat_map(|figures| &figures.reasons)),
            ),
            dropped: sum_by_key(snapshot.shard_figures().flat_map(|figures| &figures.dropped)),
            channels,
        }
    }
}

fn overview(snapshot: &Snapshot, process: &ProcessFigures, totals: &Totals, previous: Option<&Totals>) -> Overview {
    let seconds = previous.map(|previous| (totals.at - previous.at).as_secs_f64()).filter(|seconds| *seconds > 0.0);
    let previous = previous.zip(seconds);
    let sum = |value: fn(&ShardFigures) -> u64| snapshot.shard_figures().map(value).sum::<u64>();
    let connections = sum(|figures| figures.connections);
    let table_bytes = sum(|figures| figures.connection_bytes);
    let per_connection = |bytes: u64| (connections > 0).then(|| bytes as f64 / connections as f64);
    Overview {
        status: Health::of(snapshot).status,
        uptime_seconds: process::uptime().as_secs(),
        connections,
        subscriptions: sum(|figures| figures.subscriptions),
        producers: snapshot.ingest.figures.as_ref().map_or(0, |figures| figures.connections),
        outbox_bytes: sum(|figures| figures.outbox_bytes),
        rates: previous.map(|(previous, seconds)| {
            let rate = |index: usize| rate(previous.sums[index], totals.sums[index], seconds);
            Rates {
                publications: rate(0),
                messages_sent: rate(1),
                messages_received: rate(2),
                bytes_sent: rate(3),
                bytes_received: rate(4),
            }
        }),
        memory: Memory {
            resident_bytes: process.resident_bytes,
            table_bytes,
            resident_bytes_per_connection: process.resident_bytes.and_then(per_connection),
            table_bytes_per_connection: per_connection(table_bytes),
            open_fds: process.open_fds,
            max_fds: process.max_fds,
        },
        shards: shards(snapshot, totals, previous),
        top_channels: top_channels(totals, previous),
        slow_consumers: slow_consumers(snapshot),
        top_talkers: top_talkers(snapshot),
        rejections: counts(totals, previous, |totals| &totals.reasons),
        dropped: counts(totals, previous, |totals| &totals.dropped),
    }
}

fn shards(snapshot: &Snapshot, totals: &Totals, previous: Option<(&Totals, f64)>) -> Vec<ShardOverview> {
    let shards = snapshot.shards.iter().enumerate();
    shards
        .map(|(shard, report)| {
            let figures = report.figures.as_deref();
            ShardOverview {
                shard,
                status: report.state.into(),
                core: figures.map(|figures| figures.core),
                connections: figures.map_or(0, |figures| figures.connections),
                channels: figures.map_or(0, |figures| figures.channels),
                subscriptions: figures.map_or(0, |figures| figures.subscriptions),
                outbox_bytes: figures.map_or(0, |figures| figures.outbox_bytes),
                messages_sent_per_second: previous.map(|(previous, seconds)| {
                    rate(previous.messages_sent_by_shard[shard], totals.messages_sent_by_shard[shard], seconds)
                }),
                turn_ms: previous.and_then(|(previous, _)| {
                    let turns = totals.turn_times[shard].since(&previous.turn_times[shard]);
                    turns.quantile(0.99).map(|turn_us| turn_us as f64 / 1000.0)
                }),
                answer_ms: report.answer_time.map(|time| time.as_secs_f64() * 1000.0),
                held_messages: figures.map_or(0, |figures| figures.mesh_holding),
            }
        })
        .collect()
}

fn top_channels(totals: &Totals, previous: Option<(&Totals, f64)>) -> Vec<ChannelOverview> {
    let mut channels: Vec<_> = totals
        .channels
        .iter()
        .map(|(name, channel)| ChannelOverview {
            name: Arc::clone(name),
            subscribers: channel.subscribers,
            publications_per_second: previous.and_then(|(previous, seconds)| {
                let before = previous.channels.get(name)?;
                // Each shard with subscribers is delivered every publication once, so shards agree;
                // the largest is of a shard whose subscribers were there all the time.
                let rates = channel
                    .deliveries
                    .iter()
                    .filter_map(|(shard, deliveries)| Some(rate(*before.deliveries.get(shard)?, *deliveries, seconds)));
                rates.max_by(f64::total_cmp)
            }),
        })
        .collect();
    let busy = |channel: &ChannelOverview| channel.publications_per_second.unwrap_or(0.0) * channel.subscribers as f64;
    channels.sort_by(|left, right| {
        let by_traffic = busy(right).total_cmp(&busy(left));
        by_traffic.then(right.subscribers.cmp(&left.subscribers)).then_with(|| left.name.cmp(&right.name))
    });
    channels.truncate(CONSOLE_CHANNELS_MAX);
    channels
}

/// Per second. A total that went backwards began anew (a channel whose last subscriber left and
/// came back), so all of it is new.
fn rate(before: u64, after: u64, seconds: f64) -> f64 {
    let difference = after.checked_sub(before).unwrap_or(after);
    difference as f64 / seconds
}

/// Counts that are not 0, the largest first.
fn counts(
    totals: &Totals,
    previous: Option<(&Totals, f64)>,
    of: fn(&Totals) -> &BTreeMap<&'static str, u64>,
) -> Vec<Count> {
    let counted = of(totals).iter().filter(|(_, total)| **total > 0);
    let mut counts: Vec<_> = counted
        .map(|(name, total)| {
            let per_second = previous
                .map(|(previous, seconds)| rate(of(previous).get(name).copied().unwrap_or_default(), *total, seconds));
            Count { name: (*name).to_owned(), total: *total, per_second }
        })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.total));
    counts
}

/// Of all shards those with the most.
fn slow_consumers(snapshot: &Snapshot) -> Vec<SlowConsumerOverview> {
    let of_shard = |figures: &ShardFigures| {
        let shard = figures.shard;
        figures.slow_consumers.clone().into_iter().map(move |slow| {
            let SlowConsumer { client, user, bytes } = slow;
            SlowConsumerOverview { client, user, shard, bytes }
        })
    };
    let mut slow: Vec<_> = snapshot.shard_figures().flat_map(of_shard).collect();
    slow.sort_by_key(|slow| std::cmp::Reverse(slow.bytes));
    slow.truncate(CONSOLE_CLIENTS_MAX);
    slow
}

fn top_talkers(snapshot: &Snapshot) -> Vec<TalkerOverview> {
    let of_shard = |figures: &ShardFigures| {
        let shard = figures.shard;
        figures.top_talkers.clone().into_iter().map(move |talker| {
            let Talker { client, user, bytes_per_second } = talker;
            TalkerOverview { client, user, shard, bytes_per_second }
        })
    };
    let mut talkers: Vec<_> = snapshot.shard_figures().flat_map(of_shard).collect();
    talkers.sort_by(|left, right| right.bytes_per_second.total_cmp(&left.bytes_per_second));
    talkers.truncate(CONSOLE_CLIENTS_MAX);
    talkers
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        control::{memory::MemoryFigures, observer::ThreadState, tests::config},
        mesh::{ChannelFigures, IngestFigures},
        tls::PortFigures,
    };

    fn snapshot(at: Instant, shards: Vec<ShardFigures>) -> Snapshot {
        let report = |figures| ThreadReport {
            state: ThreadState::Answering,
            figures: Some(Arc::new(figures)),
            answer_time: Some(Duration::ZERO),
        };
        let ingest = IngestFigures { connections: 3, reasons: vec![("wrong_password", 2)], ..IngestFigures::default() };
        Snapshot {
            at,
            stopping: false,
            shards: shards.into_iter().map(report).collect(),
            ingest: ThreadReport {
                state: ThreadState::Answering,
                figures: Some(Arc::new(ingest)),
                answer_time: Some(Duration::ZERO),
            },
            key_sets: None,
            reloads: Default::default(),
            hooks: Vec::new(),
            traces: None,
            memory: MemoryFigures::default(),
            tls: PortFigures::default(),
        }
    }

    fn shard(shard: u16, messages_sent: u64, channels: &[(&str, u32, u64)]) -> ShardFigures {
        ShardFigures {
            shard,
            connections: 50,
            connection_bytes: 5_000,
            publications: messages_sent / 10,
            messages_sent,
            reasons: vec![("bad_origin", 1), ("never", 0)],
            slow_consumers: vec![SlowConsumer {
                client: "c".to_owned(),
                user: "42".to_owned(),
                bytes: messages_sent + 1,
            }],
            top_channels: channels
                .iter()
                .map(|(name, subscribers, deliveries)| ChannelFigures {
                    name: (*name).into(),
                    subscribers: *subscribers,
                    deliveries: *deliveries,
                })
                .collect(),
            ..ShardFigures::default()
        }
    }

    #[test]
    fn rates_are_differences_over_time() {
        let start = Instant::now();
        let mut overviews = Overviews::default();
        let process = ProcessFigures { resident_bytes: Some(1_000_000), ..ProcessFigures::default() };
        let first = overviews.next(&snapshot(start, vec![shard(0, 1_000, &[]), shard(1, 0, &[])]), &process);
        assert_eq!(first.rates, None);
        assert_eq!(first.shards[0].messages_sent_per_second, None);
        let after = start + Duration::from_secs(2);
        let second = overviews.next(&snapshot(after, vec![shard(0, 3_000, &[]), shard(1, 500, &[])]), &process);
        let rates = second.rates.unwrap();
        assert_eq!((rates.publications, rates.messages_sent), (125.0, 1_250.0));
        assert_eq!(second.shards[0].messages_sent_per_second, Some(1_000.0));
        assert_eq!(second.shards[1].messages_sent_per_second, Some(250.0));
        assert_eq!((second.connections, second.producers), (100, 3));
        assert_eq!(second.memory.resident_bytes_per_connection, Some(10_000.0));
        assert_eq!(second.memory.table_bytes_per_connection, Some(100.0));
        let rejections: Vec<_> = second.rejections.iter().map(|count| (count.name.as_str(), count.total)).collect();
        assert_eq!(rejections, [("bad_origin", 2), ("wrong_password", 2)]);
        assert_eq!(second.rejections[0].per_second, Some(0.0));
        let slow: Vec<_> = second.slow_consumers.iter().map(|slow| (slow.shard, slow.bytes)).collect();
        assert_eq!(slow, [(0, 3_001), (1, 501)], "the largest first");
    }

    #[test]
    fn old_figures_give_no_rates() {
        let start = Instant::now();
        let mut overviews = Overviews::default();
        overviews.next(&snapshot(start, vec![shard(0, 0, &[])]), &ProcessFigures::default());
        let late = start + RATE_INTERVAL_MAX + Duration::from_millis(1);
        let overview = overviews.next(&snapshot(late, vec![shard(0, 9_000, &[])]), &ProcessFigures::default());
        assert_eq!(overview.rates, None);
    }

    #[test]
    fn top_channels_are_merged_over_shards_and_sorted_by_traffic() {
        let start = Instant::now();
        let mut overviews = Overviews::default();
        let before = vec![shard(0, 0, &[("a", 10, 100), ("b", 1, 50)]), shard(1, 0, &[("a", 5, 90), ("new", 7, 3)])];
        overviews.next(&snapshot(start, before), &ProcessFigures::default());
        let after = vec![
            shard(0, 0, &[("a", 10, 120), ("b", 1, 80)]),
            // Its channel "a" lost its last subscriber and got another one meanwhile.
            shard(1, 0, &[("a", 5, 4), ("new", 7, 3), ("late", 2, 1)]),
        ];
        let overview = overviews.next(&snapshot(start + Duration::from_secs(1), after), &ProcessFigures::default());
        let channels: Vec<_> = overview
            .top_channels
            .iter()
            .map(|channel| (&*channel.name, channel.subscribers, channel.publications_per_second))
            .collect();
        assert_eq!(channels, [("a", 15, Some(20.0)), ("b", 1, Some(30.0)), ("new", 7, Some(0.0)), ("late", 2, None)]);
    }

    #[test]
    fn an_empty_server_divides_by_nothing() {
        let empty = ShardFigures::default();
        let overview = Overviews::default().next(&snapshot(Instant::now(), vec![empty]), &ProcessFigures::default());
        assert_eq!(overview.memory.table_bytes_per_connection, None);
        assert_eq!(
            serde_json::to_value(&overview).unwrap()["memory"]["resident_bytes_per_connection"],
            serde_json::Value::Null
        );
    }

    #[test]
    fn the_policy_allows_our_own_and_the_clients_port_only() {
        let policy = |listen: &str, host: &str| {
            let mut config = config();
            config.client.listen = listen.parse::<SocketAddr>().unwrap();
            page(&config, false, host, "n0nce").policy
        };
        let local = policy("127.0.0.1:8000", "localhost");
        assert!(local.contains("connect-src 'self' ws://localhost:8000;"), "{local}");
        assert!(local.contains("default-src 'none'; script-src 'nonce-n0nce'; style-src 'nonce-n0nce'"), "{local}");
        assert!(policy("0.0.0.0:8000", "10.1.2.3").contains("ws://10.1.2.3:8000;"));
        assert!(policy("10.1.2.3:8000", "127.0.0.1").contains("ws://10.1.2.3:8000;"));
        assert!(policy("[::]:8000", "::1").contains("ws://[::1]:8000;"));
    }

    #[test]
    fn the_redis_line_reaches_the_producers_port() {
        let line = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            redis_cli(&config)
        };
        assert_eq!(line(|_| ()).as_deref(), Some("redis-cli -p 7400"));
        assert_eq!(
            line(|config| config.ingest.listen = Some(([10, 0, 0, 1], 7000).into())).as_deref(),
            Some("redis-cli -h 10.0.0.1 -p 7000")
        );
        assert_eq!(
            line(|config| config.ingest.password = Some("secret".into())).as_deref(),
            Some("redis-cli -p 7400 --askpass")
        );
        assert_eq!(
            line(|config| (config.ingest.listen, config.ingest.unix) = (None, Some("/run/it's".into()))).as_deref(),
            Some("redis-cli -s '/run/it'\\''s'")
        );
        assert_eq!(line(|config| config.ingest.listen = None), None);
    }

    #[test]
    fn the_page_is_filled_in_and_asks_nobody_else() {
        let page = page(&config(), true, "127.0.0.1", "n0nce");
        assert!(!page.html.contains("@NONCE@") && !page.html.contains("@SETTINGS@"));
        assert!(page.html.contains("\"demo\":true"));
        assert_eq!(page.html.matches("<script").count(), page.html.matches("<script nonce=\"n0nce\"").count());
        assert_eq!(page.html.matches("<style").count(), page.html.matches("<style nonce=\"n0nce\"").count());
        // The policy forbids them, so they would silently not work.
        for forbidden in ["https://", "style=\"", "onclick=", "<link rel=\"stylesheet", " src=\""] {
            assert!(!page.html.contains(forbidden), "{forbidden}");
        }
    }
}
