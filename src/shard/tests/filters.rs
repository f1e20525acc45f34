//! Subscriptions that are sent those publications only whose tags pass.

use super::*;
use crate::{limits::CHANNEL_FILTER_NODES_MAX, protocol::Tags};

/// Every namespace lets clients filter, and take deltas.
fn with_filters(config: &mut Config) {
    for namespace in &mut config.namespaces.by_name {
        let namespace = Arc::make_mut(namespace);
        namespace.allow_tags_filter = true;
        namespace.allowed_delta_types = vec![crate::config::DeltaType::Fossil];
    }
}

impl Stage {
    fn publish_tagged(&mut self, channel: &str, data: &str, tags: &[(&str, &str)]) {
        let tags: Tags = tags.iter().copied().collect();
        self.publish_with(channel, data, |publish| publish.tags = Some(tags));
    }

    /// A client that is connected and has asked for a subscription: what it is answered.
    fn filtering(&mut self, shard: usize, channel: &str, filter: &str, more: &str) -> (Client, String) {
        let mut client = self.client(shard, ROOM);
        let answer = self.filter(&mut client, channel, filter, more);
        (client, answer)
    }

    fn filter(&mut self, client: &mut Client, channel: &str, filter: &str, more: &str) -> String {
        client.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}","tf":{filter}{more}}}}}"#));
        self.settle();
        client.hear().remove(0)
    }

    fn topics(&self, shard: usize) -> usize {
        self.shards[shard].state.topics.len()
    }
}

const BITCOIN: &str = r#"{"key":"ticker","cmp":"eq","val":"BTC"}"#;
const DEAR: &str = r#"{"op":"and","nodes":[{"key":"price","cmp":"gte","val":"99.95"},{"key":"ticker","cmp":"ex"}]}"#;
const MADE: &str = r#"{"id":2,"subscribe":{}}"#;

#[test]
fn each_hears_what_passes_its_filter_and_equal_filters_share() {
    let mut stage = Stage::new(2, 1024, with_filters);
    for shard in [0, 1] {
        let mut clients: Vec<Client> = [BITCOIN, DEAR, BITCOIN]
            .iter()
            .map(|filter| {
                let (client, answer) = stage.filtering(shard, "plain:1", filter, "");
                assert_eq!(answer, MADE);
                client
            })
            .collect();
        clients.push(stage.subscriber(shard, ROOM, "plain:1"));
        assert_eq!(stage.topics(shard), 3, "a topic for each filter, and one without");
        stage.publish_tagged("plain:1", "1", &[("ticker", "BTC"), ("price", "99.9")]);
        stage.publish_tagged("plain:1", "2", &[("ticker", "ETH"), ("price", "100")]);
        stage.publish("plain:1", "3", true);
        stage.publish_tagged("plain:1", "4", &[("ticker", "BTC"), ("price", "99.950")]);
        stage.settle();
        let heard: Vec<Vec<String>> = clients.iter_mut().map(|client| data(&client.hear())).collect();
        assert_eq!(heard, [vec!["1", "4"], vec!["2", "4"], vec!["1", "4"], vec!["1", "2", "3", "4"]]);
        let mut clients = clients.into_iter();
        let (mut bitcoin, mut dear) = (clients.next().unwrap(), clients.next().unwrap());
        drop(clients);
        stage.settle();
        assert_eq!(stage.topics(shard), 2);
        bitcoin.say(r#"{"id":3,"unsubscribe":{"channel":"plain:1"}}"#);
        stage.settle();
        assert_eq!((bitcoin.hear().len(), stage.topics(shard)), (1, 1));
        assert_eq!(stage.filter(&mut bitcoin, "plain:1", DEAR, ""), MADE, "another filter from now on");
        assert_eq!(stage.topics(shard), 1);
        let again = stage.filter(&mut dear, "plain:1", BITCOIN, "");
        assert!(again.contains(r#""code":105"#), "{again}");
        drop((bitcoin, dear));
        stage.settle();
        assert_eq!((stage.topics(shard), stage.shards[shard].figures().subscriptions), (0, 0));
    }
}

#[test]
fn what_is_recovered_is_filtered_and_positions_do_not_fall_behind() {
    let mut stage = Stage::new(2, 1024, with_filters);
    for number in 1..=6 {
        stage.publish_tagged("kept:1", &number.to_string(), &[("ticker", if number % 3 == 0 { "BTC" } else { "ETH" })]);
    }
    stage.settle();
    for (offset, expected, from) in [(0, vec!["3", "6"], 0), (3, vec!["6"], 3), (5, vec!["6"], 5), (6, vec![], 6)] {
        let more = format!(r#","recover":true,"offset":{offset}"#);
        let (mut client, answer) = stage.filtering(0, "kept:1", BITCOIN, &more);
        assert!(answer.contains(r#""recovered":true"#), "{answer}");
        assert_eq!(
            data(&answer.split(r#"{"data""#).map(|part| format!(r#""data"{part}"#)).collect::<Vec<_>>()[1..]),
            expected
        );
        let is_from = answer.contains(&format!(r#""offset":{from},"positioned""#));
        assert!(is_from || from == 0, "the client goes on from there by what it is given: {answer}");
        stage.publish_tagged("kept:1", "7", &[("ticker", "BTC")]);
        stage.settle();
        assert_eq!(data(&client.hear()), ["7"]);
        // For the next round, the stream ends with the sixth again.
        stage = Stage::new(2, 1024, with_filters);
        for number in 1..=6 {
            let ticker = if number % 3 == 0 { "BTC" } else { "ETH" };
            stage.publish_tagged("kept:1", &number.to_string(), &[("ticker", ticker)]);
        }
        stage.settle();
    }
    // Nothing of it passes: the client stands at the top.
    let nothing = r#"{"key":"ticker","cmp":"eq","val":"DOGE"}"#;
    let (_, answer) = stage.filtering(0, "kept:1", nothing, r#","recover":true,"offset":2"#);
    assert!(answer.contains(r#""recovered":true,"offset":6"#) && !answer.contains("publications"), "{answer}");
}

#[test]
fn a_filter_that_cannot_be_is_refused_and_nothing_else_is_disturbed() {
    let mut stage = Stage::new(1, 1024, |config| {
        with_filters(config);
        let plain = config.namespaces.by_name.iter_mut().find(|namespace| namespace.name == "plain").unwrap();
        Arc::make_mut(plain).allow_tags_filter = false;
    });
    let mut client = stage.client(0, ROOM);
    let deep = format!("{}{BITCOIN}{}", r#"{"op":"not","nodes":["#.repeat(30), "]}".repeat(30));
    let broad = format!(r#"{{"key":"a","cmp":"in","vals":["b"{}]}}"#, r#","b""#.repeat(300));
    let refused = [
        ("plain:1", BITCOIN, ""),
        ("kept:1", BITCOIN, r#","delta":"fossil""#),
        ("kept:1", "{}", ""),
        ("kept:1", r#"{"op":"and"}"#, ""),
        ("kept:1", r#"{"key":"a","cmp":"eq"}"#, ""),
        ("kept:1", &deep, ""),
        ("kept:1", &broad, ""),
    ];
    for (channel, filter, more) in refused {
        let answer = stage.filter(&mut client, channel, filter, more);
        assert_eq!(answer, r#"{"id":2,"error":{"code":107,"message":"bad request"}}"#, "{filter}");
    }
    assert_eq!(stage.topics(0), 0);
    assert!(stage.filter(&mut client, "kept:1", BITCOIN, "").contains("recoverable"));
}

#[test]
fn the_filters_of_a_channel_have_a_limit_together() {
    let mut stage = Stage::new(1, 1024, with_filters);
    let filter = |number: usize| format!(r#"{{"key":"a","cmp":"in","vals":["{number}"{}]}}"#, r#","b""#.repeat(254));
    let mut clients = Vec::new();
    for number in 0..CHANNEL_FILTER_NODES_MAX / 256 {
        let (client, answer) = stage.filtering(0, "plain:1", &filter(number), "");
        assert_eq!(answer, MADE);
        clients.push(client);
    }
    let (mut client, answer) = stage.filtering(0, "plain:1", BITCOIN, "");
    assert_eq!(answer, r#"{"id":2,"error":{"code":106,"message":"limit exceeded"}}"#);
    assert_eq!(stage.filter(&mut client, "plain:2", BITCOIN, ""), MADE, "another channel has its own");
    assert_eq!(stage.filtering(0, "plain:1", &filter(0), "").1, MADE, "one that is there already costs nothing");
    clients.pop();
    stage.settle();
    assert_eq!(stage.filtering(0, "plain:1", BITCOIN, "").1, MADE);
}

#[test]
fn a_publication_that_is_no_json_parts_with_those_only_that_would_be_sent_it() {
    let mut stage = Stage::new(1, 1024, with_filters);
    let (mut bitcoin, _) = stage.filtering(0, "plain:1", BITCOIN, "");
    let (mut dear, _) = stage.filtering(0, "plain:1", DEAR, "");
    stage.publish_with("plain:1", "no JSON", |publish| {
        publish.is_json = false;
        publish.tags = Some([("ticker", "BTC")].into_iter().collect());
    });
    stage.settle();
    assert_eq!((bitcoin.hear(), dear.hear()), (vec!["close 3506".to_owned()], Vec::new()));
}

/// The payloads of pushes, which are numbers.
fn data(heard: &[String]) -> Vec<String> {
    let payload = |push: &String| {
        let (_, behind) = push.split_once(r#""data":"#).expect("a publication");
        behind.chars().take_while(char::is_ascii_digit).collect()
    };
    heard.iter().map(payload).collect()
}
