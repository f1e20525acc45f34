//! The rules of protocol.md sections 7 and 9 one by one, and all of them against a naive model.

mod reload;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    config::{Namespace, RecoveryMode},
    limits::{HISTORY_REPLY_PUBLICATIONS_MAX, STREAM_POSITION_MS, STREAM_UNUSED_MS},
    mesh::{ChannelHasher, ClientInfo, ConnectionId, ReplyTo, Version},
    protocol::Tags,
};

const SIZE: u32 = 5;
const TTL_MS: u32 = 10_000;
const IDEMPOTENCY_MS: u64 = 2_000;

/// The home shard: one without subscribers, but for the tests that are about them.
const HOME: u16 = 63;

/// `kept:` keeps 5 publications for 10 s, `deep:` keeps 1,000, `cache:` 2 and recovers the latest; `plain:` keeps none.
fn channels() -> Channels {
    channels_within(u64::MAX)
}

/// The same with a bound to the bytes of history.
fn channels_within(history_bytes_max: u64) -> Channels {
    channels_that_compress(0, history_bytes_max)
}

/// The same with history compressed from so many bytes on.
fn channels_that_compress(history_compression_bytes_min: u32, history_bytes_max: u64) -> Channels {
    let namespace = |name: &str, history_size, history_ttl_ms| {
        let name = name.into();
        Arc::new(Namespace {
            name,
            history_size,
            history_ttl_ms,
            history_compression_bytes_min,
            ..Namespace::default()
        })
    };
    let cache =
        Namespace { force_recovery_mode: RecoveryMode::Cache, ..Namespace::clone(&namespace("cache", 2, TTL_MS)) };
    let by_name = vec![
        Arc::new(cache),
        namespace("deep", 1_000, TTL_MS),
        namespace("kept", SIZE, TTL_MS),
        namespace("plain", 0, 0),
    ];
    Channels::with_rules(Namespaces { without: None, by_name }, HOME, history_bytes_max, IDEMPOTENCY_MS, 1)
}

fn name(name: &str) -> ChannelName {
    ChannelHasher::with_key([0; 16]).name(name)
}

fn publish_of(channel: &ChannelName, number: u64) -> Publish {
    Publish::json(channel.clone(), number.to_string().into())
}

fn publish(channels: &mut Channels, channel: &ChannelName, count: u64, now_ms: u64) -> Position {
    let mut position = None;
    for number in 0..count {
        position = channels.publish(publish_of(channel, number), now_ms).published.position;
    }
    position.expect("the namespace keeps history")
}

fn connection(shard: u16) -> ConnectionId {
    ConnectionId { shard, index: 1, generation: 2 }
}

fn subscribe_of(channel: &ChannelName, recover: Option<Position>) -> Subscribe {
    Subscribe {
        channel: channel.clone(),
        connection: connection(0),
        command: 7,
        subscribers: 1,
        recover,
        reject_unrecovered: false,
        positioned: true,
        recoverable: true,
        member: None,
        data: None,
    }
}

fn position(offset: u64, epoch: &str) -> Position {
    Position { offset, epoch: epoch.into() }
}

/// Offsets that a recovery from there brings; none: unrecovered.
fn recover(channels: &mut Channels, channel: &ChannelName, from: Position, now_ms: u64) -> Option<Vec<u64>> {
    let offset = from.offset;
    match channels.subscribe(&subscribe_of(channel, Some(from)), now_ms).subscribed.recovery {
        Some(Recovery::Recovered { from, publications }) => {
            assert_eq!(from, offset, "the client goes on from the offset that it named");
            Some(offsets(&publications))
        }
        Some(Recovery::Unrecovered) => None,
        other => panic!("recovery was asked for, and not to be rejected: {other:?}"),
    }
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications.iter().map(|publication| publication.offset).collect()
}

fn history_of(channel: &ChannelName, limit: i32, since: Option<Position>, reverse: bool) -> History {
    let limit_max = HISTORY_REPLY_PUBLICATIONS_MAX;
    History { channel: channel.clone(), limit, limit_max, since, reverse, reply_to: ReplyTo::Nobody }
}

fn history(
    channels: &mut Channels,
    channel: &ChannelName,
    limit: i32,
    since: Option<Position>,
    reverse: bool,
) -> Option<Vec<u64>> {
    let result = channels.history(&history_of(channel, limit, since, reverse), 0);
    result.map(|found| offsets(&found.publications))
}

// Publications.

#[test]
fn stored_publications_are_numbered_from_one_in_one_epoch() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let first = channels.publish(publish_of(&channel, 0), 0);
    let position = first.published.position.unwrap();
    let publication = first.publication.unwrap();
    assert_eq!((position.offset, publication.offset), (1, 1));
    assert_eq!(publication.epoch.as_ref(), Some(&position.epoch));
    assert!(position.epoch.len() == 8 && position.epoch.bytes().all(|letter| letter.is_ascii_alphabetic()));
    let second = channels.publish(publish_of(&channel, 0), 0).published.position.unwrap();
    assert_eq!((second.offset, second.epoch), (2, position.epoch.clone()));
    let other = publish(&mut channels, &name("kept:b"), 1, 0);
    assert_eq!(other.offset, 1);
    assert_ne!(other.epoch, position.epoch);
}

#[test]
fn what_is_not_stored_has_no_position() {
    let mut channels = channels();
    for channel in ["plain:a", "unknown:a", "none"] {
        let outcome = channels.publish(publish_of(&name(channel), 0), 0);
        assert_eq!(outcome.published.position, None);
        let publication = outcome.publication.unwrap();
        assert_eq!((publication.offset, publication.epoch.as_ref()), (0, None));
    }
    let skipping = Publish { skip_history: true, ..publish_of(&name("kept:a"), 0) };
    assert_eq!(channels.publish(skipping, 0).published.position, None);
    assert_eq!(publish(&mut channels, &name("kept:a"), 1, 0).offset, 1, "no offset was taken");
    assert_eq!(channels.streams(), 1);
}

#[test]
fn a_publication_goes_to_the_shards_with_subscribers() {
    let (mut channels, channel) = (channels(), name("plain:a"));
    assert_eq!(channels.publish(publish_of(&channel, 0), 0).shards, 0);
    channels.interest(&channel, 2, 4);
    channels.subscribe(&subscribe_of(&channel, None), 0);
    let outcome = channels.publish(publish_of(&channel, 0), 0);
    assert_eq!((outcome.shards, outcome.published.subscribers), (0b101, 5));
    channels.interest(&channel, 0, 0);
    channels.interest(&channel, 2, 3);
    let outcome = channels.publish(publish_of(&channel, 0), 0);
    assert_eq!((outcome.shards, outcome.published.subscribers), (0b100, 3));
    assert_eq!(channels.subscribers(&channel), 3);
    channels.interest(&channel, 2, 0);
    assert_eq!((channels.channels(), channels.streams()), (0, 0));
}

#[test]
fn a_stored_payload_does_not_hold_the_buffer_it_came_in() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let buffer = Bytes::from(vec![b'1'; 1 << 20]);
    let publication = Publish { data: buffer.slice(10..20), ..publish_of(&channel, 0) };
    channels.publish(publication, 0);
    assert!(buffer.is_unique());
}

#[test]
fn a_duplicate_is_answered_like_the_first_and_not_delivered() {
    let mut channels = channels();
    for (channel, is_stored) in [(name("kept:a"), true), (name("plain:a"), false)] {
        channels.interest(&channel, 0, 1);
        let keyed = |number| Publish { idempotency_key: Some("once".into()), ..publish_of(&channel, number) };
        let first = channels.publish(keyed(1), 0);
        assert!(first.publication.is_some());
        assert_eq!(first.published.position.is_some(), is_stored);
        let second = channels.publish(keyed(2), IDEMPOTENCY_MS - 1);
        assert!(second.publication.is_none());
        assert_eq!((second.shards, second.published), (0, first.published.clone()));
        let after_the_window = channels.publish(keyed(3), IDEMPOTENCY_MS);
        assert!(after_the_window.publication.is_some());
        assert_eq!(after_the_window.published.position.map(|position| position.offset), is_stored.then_some(2));
    }
}

// Subscriptions: section 7.

#[test]
fn a_plain_subscription_has_no_position_and_costs_no_stream() {
    let mut channels = channels();
    let plain = Subscribe { positioned: false, recoverable: false, ..subscribe_of(&name("kept:a"), None) };
    assert_eq!(channels.subscribe(&plain, 0).subscribed.position, None);
    let positioned = subscribe_of(&name("plain:a"), None);
    assert_eq!(channels.subscribe(&positioned, 0).subscribed.position, None);
    assert_eq!((channels.channels(), channels.streams()), (2, 0));
}

#[test]
fn a_subscription_is_told_the_top() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let empty = channels.subscribe(&subscribe_of(&channel, None), 0).subscribed;
    assert_eq!((empty.connection, empty.command), (connection(0), 7));
    let at = empty.position.unwrap();
    assert_eq!(at.offset, 0);
    assert!(empty.recovery.is_none());
    let top = publish(&mut channels, &channel, 3, 0);
    assert_eq!((top.offset, &top.epoch), (3, &at.epoch));
    assert_eq!(channels.subscribe(&subscribe_of(&channel, None), 0).subscribed.position, Some(top));
}

#[test]
fn recovery_brings_exactly_what_was_missed() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 4, 0);
    let epoch = &*top.epoch;
    assert_eq!(recover(&mut channels, &channel, position(2, epoch), 0), Some(vec![3, 4]));
    assert_eq!(recover(&mut channels, &channel, position(4, epoch), 0), Some(vec![]));
    assert_eq!(recover(&mut channels, &channel, position(2, ""), 0), Some(vec![3, 4]));
}

#[test]
fn recovery_fails_in_another_epoch() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    publish(&mut channels, &channel, 4, 0);
    assert_eq!(recover(&mut channels, &channel, position(2, "XXXXXXXX"), 0), None);
    assert_eq!(recover(&mut channels, &channel, position(4, "XXXXXXXX"), 0), None);
}

#[test]
fn recovery_fails_beyond_the_top() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 4, 0);
    assert_eq!(recover(&mut channels, &channel, position(5, &top.epoch), 0), None);
    assert_eq!(recover(&mut channels, &channel, position(u64::MAX, &top.epoch), 0), None);
}

#[test]
fn recovery_fails_when_something_was_evicted() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 9, 0);
    assert_eq!(recover(&mut channels, &channel, position(3, &top.epoch), 0), None);
    assert_eq!(recover(&mut channels, &channel, position(4, &top.epoch), 0), Some(vec![5, 6, 7, 8, 9]));
}

#[test]
fn recovery_fails_when_something_has_expired_whether_it_was_freed_or_not() {
    for frees in [true, false] {
        let (mut channels, channel) = (channels(), name("kept:a"));
        let top = publish(&mut channels, &channel, 2, 0);
        publish(&mut channels, &channel, 1, 5_000);
        let now_ms = u64::from(TTL_MS);
        if frees {
            channels.expire(now_ms, usize::MAX);
        }
        assert_eq!(recover(&mut channels, &channel, position(0, &top.epoch), now_ms - 1).is_some(), !frees);
        assert_eq!(recover(&mut channels, &channel, position(1, &top.epoch), now_ms), None);
        assert_eq!(recover(&mut channels, &channel, position(2, &top.epoch), now_ms), Some(vec![3]));
        assert_eq!(recover(&mut channels, &channel, position(3, &top.epoch), now_ms * 2), Some(vec![]));
    }
}

#[test]
fn recovery_from_the_beginning_needs_everything() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    assert_eq!(recover(&mut channels, &channel, position(0, ""), 0), Some(vec![]));
    publish(&mut channels, &channel, 5, 0);
    assert_eq!(recover(&mut channels, &channel, position(0, ""), 0), Some(vec![1, 2, 3, 4, 5]));
    publish(&mut channels, &channel, 1, 0);
    assert_eq!(recover(&mut channels, &channel, position(0, ""), 0), None);
}

#[test]
fn recovery_of_more_than_a_reply_may_carry_fails() {
    let (mut channels, channel) = (channels(), name("deep:a"));
    let top = publish(&mut channels, &channel, 400, 0);
    let most = HISTORY_REPLY_PUBLICATIONS_MAX as u64;
    let recovered = recover(&mut channels, &channel, position(400 - most, &top.epoch), 0);
    assert_eq!(recovered.map(|offsets| offsets.len()), Some(HISTORY_REPLY_PUBLICATIONS_MAX));
    assert_eq!(recover(&mut channels, &channel, position(399 - most, &top.epoch), 0), None);
}

#[test]
fn a_history_is_as_long_as_whoever_asks_may_have_it() {
    let (mut channels, channel) = (channels(), name("deep:a"));
    publish(&mut channels, &channel, 400, 0);
    for (limit, limit_max, found) in [(-1, 1_000, 400), (-1, 300, 300), (350, 300, 300), (350, 1_000, 350), (0, 9, 0)] {
        let history = channels.history(&History { limit_max, ..history_of(&channel, limit, None, false) }, 0);
        assert_eq!(history.expect("the channel keeps history").publications.len(), found, "{limit} of {limit_max}");
    }
}

#[test]
fn an_unrecovered_subscription_begins_at_the_top_unless_it_is_to_be_rejected() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 9, 0);
    let mut subscribe = subscribe_of(&channel, Some(position(1, &top.epoch)));
    let subscribed = channels.subscribe(&subscribe, 0).subscribed;
    assert!(matches!(subscribed.recovery, Some(Recovery::Unrecovered)));
    assert_eq!(subscribed.position, Some(top.clone()));
    subscribe.reject_unrecovered = true;
    assert!(matches!(channels.subscribe(&subscribe, 0).subscribed.recovery, Some(Recovery::Rejected)));
    subscribe.recover = Some(position(9, &top.epoch));
    assert!(matches!(channels.subscribe(&subscribe, 0).subscribed.recovery, Some(Recovery::Recovered { .. })));
}

#[test]
fn a_cache_recovers_the_latest_publication_and_nothing_else() {
    let (mut channels, channel) = (channels(), name("cache:a"));
    assert_eq!(recover(&mut channels, &channel, position(0, ""), 0), None, "there is nothing yet");
    let epoch = channels.subscribe(&subscribe_of(&channel, None), 0).subscribed.position.unwrap().epoch;
    assert_eq!(recover(&mut channels, &channel, position(0, &epoch), 0), None);
    publish(&mut channels, &channel, 7, 0);
    for (from, offset) in [("", 0), (&*epoch, 0), (&epoch, 6), ("ANOTHER", 7), ("", 7), (&epoch, 9)] {
        assert_eq!(recover(&mut channels, &channel, position(offset, from), 0), Some(vec![7]), "{from:?} {offset}");
    }
    assert_eq!(recover(&mut channels, &channel, position(7, &epoch), 0), Some(vec![]), "the client has it");
    let later_ms = u64::from(TTL_MS);
    assert_eq!(recover(&mut channels, &channel, position(7, &epoch), later_ms), Some(vec![]), "gone, but it has it");
    assert_eq!(recover(&mut channels, &channel, position(6, &epoch), later_ms), None);
}

#[test]
fn history_gives_way_where_it_would_expire_first() {
    const BYTES_MAX: u64 = 1 << 20;
    let mut channels = channels_within(BYTES_MAX);
    let payload =
        |channel: &ChannelName, number: u64| Publish { data: vec![b'1'; 10_000].into(), ..publish_of(channel, number) };
    let (old, quiet, watched) = (name("kept:old"), name("kept:quiet"), name("kept:watched"));
    let top = channels.publish(payload(&old, 0), 0).published.position.unwrap();
    channels.expire(u64::from(TTL_MS), usize::MAX);
    // A position alone, of which the first is watched.
    let at = channels.subscribe(&subscribe_of(&watched, None), 1).subscribed.position.unwrap();
    channels.history(&history_of(&quiet, 0, None, false), 1);
    for number in 0..200 {
        channels.publish(payload(&name(&format!("deep:{}", number / 10)), number), 2 + number);
        assert!(channels.history_figures().0 <= BYTES_MAX + 100_000, "{:?}", channels.history_figures());
    }
    let evicted = channels.history_figures().1;
    assert!((80..150).contains(&evicted), "{evicted}");
    // The oldest publications are gone and the youngest there, with the positions of both.
    assert_eq!(history(&mut channels, &name("deep:0"), -1, None, false).unwrap().len(), 0);
    assert_eq!(channels.history(&history_of(&name("deep:0"), 0, None, false), 300).unwrap().position.offset, 10);
    assert_eq!(history(&mut channels, &name("deep:19"), -1, None, false).unwrap().len(), 10);
    // What has subscribers keeps its epoch.
    let again = channels.subscribe(&subscribe_of(&watched, None), 300).subscribed.position.unwrap();
    assert_eq!(again, at);
    assert_eq!(recover(&mut channels, &old, position(0, &top.epoch), 300), None);
}

#[test]
fn positions_without_subscribers_give_way_when_there_is_nothing_else() {
    let mut channels = channels_within(100_000);
    for number in 0..10_000 {
        channels.history(&history_of(&name(&format!("kept:{number}")), 0, None, false), number);
    }
    assert!(channels.streams() < 1_000, "{} streams", channels.streams());
    assert_eq!(channels.history_figures().1, 0, "there was no publication to evict");
}

#[test]
fn a_channel_without_history_recovers_nothing() {
    let mut channels = channels();
    let subscribed = channels.subscribe(&subscribe_of(&name("plain:a"), Some(position(0, ""))), 0).subscribed;
    assert!(matches!(subscribed.recovery, Some(Recovery::Unrecovered)));
    assert_eq!(subscribed.position, None);
}

// History: section 9.

#[test]
fn history_goes_by_limit_position_and_direction() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 9, 0);
    let at = |offset| Some(position(offset, &top.epoch));
    // Stored: 5 to 9.
    for (limit, since, reverse, expected) in [
        (0, None, false, vec![]),
        (-1, None, false, vec![5, 6, 7, 8, 9]),
        (2, None, false, vec![5, 6]),
        (100, None, false, vec![5, 6, 7, 8, 9]),
        (-1, None, true, vec![9, 8, 7, 6, 5]),
        (2, None, true, vec![9, 8]),
        (-1, at(6), false, vec![7, 8, 9]),
        (1, at(6), false, vec![7]),
        (-1, at(4), false, vec![5, 6, 7, 8, 9]),
        (-1, at(9), false, vec![]),
        (-1, at(20), false, vec![]),
        (0, at(1), false, vec![]),
        (-1, at(7), true, vec![6, 5]),
        (1, at(7), true, vec![6]),
        (-1, at(10), true, vec![9, 8, 7, 6, 5]),
        (-1, at(u64::MAX), true, vec![9, 8, 7, 6, 5]),
        (-1, at(5), true, vec![]),
        (-1, at(2), true, vec![]),
        (-1, Some(position(6, "")), false, vec![7, 8, 9]),
    ] {
        let found = history(&mut channels, &channel, limit, since.clone(), reverse);
        assert_eq!(found, Some(expected), "limit {limit}, since {since:?}, reverse {reverse}");
    }
    let found = channels.history(&history_of(&channel, 0, None, false), 0).unwrap();
    assert_eq!(found.position, top);
}

#[test]
fn history_since_a_position_that_is_gone_is_refused() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 9, 0);
    assert_eq!(history(&mut channels, &channel, -1, Some(position(3, &top.epoch)), false), None);
    for (limit, reverse) in [(-1, false), (-1, true), (0, false)] {
        assert_eq!(history(&mut channels, &channel, limit, Some(position(6, "XXXXXXXX")), reverse), None);
    }
}

#[test]
fn history_carries_no_more_than_a_reply_may() {
    let (mut channels, channel) = (channels(), name("deep:a"));
    publish(&mut channels, &channel, 400, 0);
    for limit in [-1, i32::MIN, 301, i32::MAX] {
        let forwards = history(&mut channels, &channel, limit, None, false).unwrap();
        assert_eq!(forwards, (1..=300).collect::<Vec<_>>());
        let backwards = history(&mut channels, &channel, limit, None, true).unwrap();
        assert_eq!(backwards, (101..=400).rev().collect::<Vec<_>>());
    }
}

#[test]
fn a_channel_without_history_has_none() {
    assert_eq!(history(&mut channels(), &name("plain:a"), 0, None, false), None);
}

// What expires.

#[test]
fn a_position_outlives_history_and_then_ends() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 3, 0);
    let after_history_ms = u64::from(TTL_MS);
    assert_eq!(channels.expire(0, usize::MAX), Some(after_history_ms));
    assert_eq!(channels.expire(after_history_ms, usize::MAX), Some(STREAM_POSITION_MS));
    let found = channels.history(&history_of(&channel, -1, None, false), after_history_ms).unwrap();
    assert_eq!((found.publications.len(), found.position), (0, top.clone()));
    // The question has prolonged its life.
    channels.expire(STREAM_POSITION_MS, usize::MAX);
    assert_eq!(channels.streams(), 1);
    assert_eq!(channels.expire(STREAM_POSITION_MS + after_history_ms, usize::MAX), None);
    assert_eq!(channels.streams(), 0);
    assert_ne!(publish(&mut channels, &channel, 1, STREAM_POSITION_MS * 2).epoch, top.epoch);
}

#[test]
fn a_stream_lives_as_long_as_it_has_subscribers() {
    for (publications, outlives_ms) in [(0, STREAM_UNUSED_MS), (1, STREAM_POSITION_MS)] {
        let (mut channels, channel) = (channels(), name("kept:a"));
        let at = channels.subscribe(&subscribe_of(&channel, None), 0).subscribed.position.unwrap();
        for number in 0..publications {
            channels.publish(publish_of(&channel, number), 0);
        }
        let years_ms = 10 * 365 * STREAM_POSITION_MS;
        assert_eq!(channels.expire(years_ms, usize::MAX), None);
        assert_eq!(
            channels.subscribe(&subscribe_of(&channel, None), years_ms).subscribed.position.unwrap().epoch,
            at.epoch
        );
        channels.interest(&channel, 0, 0);
        assert_eq!(channels.expire(years_ms + 1, usize::MAX), Some(years_ms + outlives_ms));
        assert_eq!(channels.expire(years_ms + outlives_ms, usize::MAX), None);
        assert_eq!(channels.streams(), 0);
    }
}

#[test]
fn expiry_keeps_to_its_budget_and_gives_all_memory_back() {
    let mut channels = channels();
    let empty_bytes = channels.bytes();
    for number in 0..200 {
        let channel = name(&format!("kept:{number}"));
        let keyed = Publish { idempotency_key: Some("key".into()), ..publish_of(&channel, 0) };
        channels.publish(keyed, 0);
        publish(&mut channels, &channel, 4, 0);
    }
    assert!(channels.bytes() > empty_bytes + 200 * 5 * size_of::<Publication>() as u64);
    // 200 keys and 1,000 publications, and then 200 streams.
    let now_ms = STREAM_POSITION_MS * 2;
    let mut calls = 0;
    while channels.expire(now_ms, 100).is_some_and(|due_ms| due_ms <= now_ms) {
        calls += 1;
        assert!(calls <= 14, "a call with work to do uses its budget");
    }
    assert!(calls >= 11, "a call does not exceed its budget, but it took {calls} only");
    channels.expire(now_ms, usize::MAX);
    assert_eq!((channels.streams(), channels.next_due_ms()), (0, None));
    assert!(channels.bytes() < empty_bytes + 20_000, "{} bytes are held for nothing", channels.bytes());
}

#[test]
fn figures_follow_what_is_held() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let before = channels.bytes();
    let large = Publish { data: vec![b'1'; 100_000].into(), ..publish_of(&channel, 0) };
    channels.publish(large, 0);
    assert!((before + 100_000..before + 102_000).contains(&channels.bytes()));
    publish(&mut channels, &channel, u64::from(SIZE), 0);
    assert!(channels.bytes() < before + 2_000);
}

// Members.

fn member(user: &str, is_present: bool, is_announced: bool) -> Arc<Member> {
    let info = ClientInfo { user: user.into(), client: "c".into(), conn_info: None, chan_info: None };
    Arc::new(Member { info, is_present, is_announced })
}

fn join(channels: &mut Channels, channel: &ChannelName, index: u32, member: &Arc<Member>) -> SubscribeOutcome {
    let connection = ConnectionId { shard: 2, index, generation: 1 };
    let subscribe = Subscribe { connection, member: Some(Arc::clone(member)), ..subscribe_of(channel, None) };
    channels.subscribe(&subscribe, 0)
}

fn presence(channels: &Channels, channel: &ChannelName, stats_only: bool) -> PresenceFound {
    let question = Presence { channel: channel.clone(), stats_only, reply_to: ReplyTo::Nobody };
    channels.presence(&question)
}

fn stats(channels: &Channels, channel: &ChannelName) -> (u32, u32) {
    match presence(channels, channel, true) {
        PresenceFound::Stats(stats) => (stats.clients, stats.users),
        found => panic!("{found:?}"),
    }
}

#[test]
fn whoever_comes_and_goes_is_announced_and_counted() {
    let (mut channels, channel) = (channels(), name("plain:a"));
    channels.interest(&channel, 5, 1);
    let erin = member("erin", true, true);
    let told = join(&mut channels, &channel, 1, &erin).told.unwrap();
    assert_eq!((told.announcement.change, told.shards), (MemberChange::Join, 0b10_0100), "the subscriber's own, too");
    assert_eq!(told.announcement.member, erin);
    join(&mut channels, &channel, 2, &erin);
    assert!(join(&mut channels, &channel, 3, &member("", true, false)).told.is_none());
    assert!(join(&mut channels, &channel, 4, &member("silent", false, true)).told.is_some());
    assert_eq!(stats(&channels, &channel), (3, 2), "the last one is not present");
    match presence(&channels, &channel, false) {
        PresenceFound::Members(members) => {
            let users: Vec<&str> = members.iter().map(|member| &*member.info.user).collect();
            assert_eq!(users, ["erin", "erin", ""]);
        }
        found => panic!("{found:?}"),
    }
    let gone = ConnectionId { shard: 2, index: 1, generation: 1 };
    let told = channels.leave(&channel, gone).unwrap();
    assert_eq!((told.announcement.change, told.shards), (MemberChange::Leave, 0b10_0100));
    assert!(channels.leave(&channel, gone).is_none(), "it has left already");
    assert_eq!((stats(&channels, &channel), stats(&channels, &name("plain:b"))), ((2, 2), (0, 0)));
    assert_eq!(channels.members(), 3);
}

#[test]
fn who_is_rejected_has_not_come_and_who_is_alone_is_told_to_nobody() {
    let (mut channels, channel) = (channels(), name("kept:a"));
    let top = publish(&mut channels, &channel, 9, 0);
    let subscribe = Subscribe {
        reject_unrecovered: true,
        member: Some(member("erin", true, true)),
        ..subscribe_of(&channel, Some(position(1, &top.epoch)))
    };
    let outcome = channels.subscribe(&subscribe, 0);
    assert!(outcome.told.is_none() && matches!(outcome.subscribed.recovery, Some(Recovery::Rejected)));
    assert_eq!((channels.members(), stats(&channels, &channel)), (0, (0, 0)));
    join(&mut channels, &channel, 1, &member("erin", true, true));
    for shard in [0, 2] {
        channels.interest(&channel, shard, 0);
    }
    let told = channels.leave(&channel, ConnectionId { shard: 2, index: 1, generation: 1 });
    assert_eq!((told.unwrap().shards, channels.members()), (0, 0));
}

#[test]
fn a_presence_reply_is_bounded() {
    let (mut channels, channel) = (channels(), name("plain:a"));
    let erin = member("erin", true, false);
    for index in 0..PRESENCE_REPLY_CLIENTS_MAX as u32 {
        join(&mut channels, &channel, index, &erin);
    }
    assert!(
        matches!(presence(&channels, &channel, false), PresenceFound::Members(members) if members.len() == PRESENCE_REPLY_CLIENTS_MAX)
    );
    join(&mut channels, &channel, u32::MAX, &erin);
    assert!(matches!(presence(&channels, &channel, false), PresenceFound::TooMany));
    assert_eq!(stats(&channels, &channel), (PRESENCE_REPLY_CLIENTS_MAX as u32 + 1, 1));
}

// The model: every publication ever made, and the rules as sentences over it.

#[derive(Debug, Clone)]
enum Step {
    Publish { channel: usize, skip_history: bool, key: Option<u8> },
    Interest { channel: usize, shard: u16, subscribers: u32 },
    Subscribe { channel: usize, shard: u16, from: Option<(u64, From)>, reject: bool },
    History { channel: usize, limit: i32, since: Option<(u64, From)>, reverse: bool },
    Pass { ms: u64 },
    Expire { budget: usize },
}

#[derive(Debug, Clone, Copy)]
enum From {
    Present,
    Empty,
    Another,
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0..3_usize;
    let from = || prop_oneof![3 => Just(From::Present), 1 => Just(From::Empty), 1 => Just(From::Another)];
    let since = || prop::option::weighted(0.7, (0..20_u64, from()));
    let ms = prop_oneof![0..100_u64, 0..12_000_u64, 0..2 * STREAM_UNUSED_MS, 0..2 * STREAM_POSITION_MS];
    prop_oneof![
        8 => (channel.clone(), prop::bool::weighted(0.1), prop::option::weighted(0.3, 0..3_u8))
            .prop_map(|(channel, skip_history, key)| Step::Publish { channel, skip_history, key }),
        1 => (channel.clone(), 0..3_u16, 0..3_u32)
            .prop_map(|(channel, shard, subscribers)| Step::Interest { channel, shard, subscribers }),
        4 => (channel.clone(), 0..3_u16, since(), any::<bool>())
            .prop_map(|(channel, shard, from, reject)| Step::Subscribe { channel, shard, from, reject }),
        3 => (channel, -2..8_i32, since(), any::<bool>())
            .prop_map(|(channel, limit, since, reverse)| Step::History { channel, limit, since, reverse }),
        3 => ms.prop_map(|ms| Step::Pass { ms }),
        2 => (1..6_usize).prop_map(|budget| Step::Expire { budget }),
    ]
}

/// A channel's whole past in its present epoch.
#[derive(Default)]
struct Past {
    epoch: Option<Arc<str>>,
    /// Payload and time of each stored publication; offset 1 is the first.
    publications: Vec<(u64, u64)>,
    used_ms: u64,
    /// Since the epoch was last seen there was a moment at which it may have ended.
    may_have_ended: bool,
    keys: BTreeMap<u8, (Option<Position>, u64)>,
    interest: BTreeMap<u16, u32>,
}

impl Past {
    fn top(&self) -> u64 {
        self.publications.len() as u64
    }

    fn subscribers(&self) -> u32 {
        self.interest.values().sum()
    }

    /// Offset and payload of what is still to be had.
    fn stored(&self, now_ms: u64) -> Vec<(u64, u64)> {
        let all = self.publications.iter().enumerate();
        let fresh = all.filter(|(_, (_, at_ms))| at_ms + u64::from(TTL_MS) > now_ms);
        let fresh: Vec<_> = fresh.map(|(index, &(payload, _))| (index as u64 + 1, payload)).collect();
        fresh[fresh.len().saturating_sub(SIZE as usize)..].to_vec()
    }

    /// Notes the epoch that was seen, and that it is a new one only if the old may have ended.
    fn see_epoch(&mut self, epoch: &Arc<str>, now_ms: u64) {
        self.look_for_end(now_ms);
        if self.epoch.as_ref() != Some(epoch) {
            assert!(self.epoch.is_none() || self.may_have_ended, "the stream ended too early");
            self.epoch = Some(Arc::clone(epoch));
            self.publications.clear();
        }
        self.may_have_ended = false;
        self.used_ms = now_ms;
    }

    fn look_for_end(&mut self, now_ms: u64) {
        let outlives_ms = if self.publications.is_empty() { STREAM_UNUSED_MS } else { STREAM_POSITION_MS };
        self.may_have_ended |= self.stored(now_ms).is_empty() && self.used_ms + outlives_ms <= now_ms;
    }

    fn position_from(&self, offset: u64, from: From) -> Position {
        let epoch = match from {
            From::Present => self.epoch.as_deref().unwrap_or("NONEYET"),
            From::Empty => "",
            From::Another => "ANOTHER",
        };
        position(offset, epoch)
    }
}

fn payloads(publications: &[Arc<Publication>]) -> Vec<(u64, u64)> {
    let payload = |publication: &Publication| std::str::from_utf8(&publication.data).unwrap().parse().unwrap();
    publications.iter().map(|publication| (publication.offset, payload(publication))).collect()
}

fn run(steps: Vec<Step>, compression_bytes_min: u32) {
    let mut channels = channels_that_compress(compression_bytes_min, u64::MAX);
    // The first two have one hash, which must cost them nothing but their counts.
    let names = [("kept:a", 5), ("kept:b", 5), ("kept:c", 6)];
    let names = names.map(|(name, hash)| ChannelName { hash, name: name.into() });
    let mut pasts: [Past; 3] = Default::default();
    let (mut now_ms, mut payload) = (0, 0);
    for step in steps {
        match step {
            Step::Publish { channel, skip_history, key } => {
                payload += 1;
                let idempotency_key = key.map(|key| Bytes::from(vec![key]));
                let request = Publish { skip_history, idempotency_key, ..publish_of(&names[channel], payload) };
                let outcome = channels.publish(request, now_ms);
                let past = &mut pasts[channel];
                let known = key.and_then(|key| past.keys.get(&key)).filter(|(_, expires_ms)| now_ms < *expires_ms);
                if let Some((position, _)) = known {
                    assert!(outcome.publication.is_none());
                    assert_eq!(outcome.published.position, *position);
                    continue;
                }
                let publication = outcome.publication.expect("not a duplicate");
                assert_eq!(payloads(&[Arc::clone(&publication)]), [(publication.offset, payload)]);
                assert_eq!(outcome.published.position.is_none(), skip_history);
                if let Some(position) = &outcome.published.position {
                    past.see_epoch(&position.epoch, now_ms);
                    past.publications.push((payload, now_ms));
                    assert_eq!((position.offset, publication.offset), (past.top(), past.top()));
                }
                if let Some(key) = key {
                    past.keys.insert(key, (outcome.published.position, now_ms + IDEMPOTENCY_MS));
                }
            }
            Step::Interest { channel, shard, subscribers } => {
                // The shard's loop names the time in every turn.
                channels.expire(now_ms, 0);
                channels.interest(&names[channel], shard, subscribers);
                set_interest(&mut pasts, channel, shard, subscribers);
            }
            Step::Subscribe { channel, shard, from, reject } => {
                let recover = from.map(|(offset, from)| pasts[channel].position_from(offset, from));
                let request = Subscribe {
                    connection: connection(shard),
                    reject_unrecovered: reject,
                    ..subscribe_of(&names[channel], recover.clone())
                };
                let answer = channels.subscribe(&request, now_ms).subscribed;
                let past = &mut pasts[channel];
                let position = answer.position.expect("the namespace keeps history");
                past.see_epoch(&position.epoch, now_ms);
                assert_eq!(position.offset, past.top());
                let expected = recover.as_ref().map(|from| {
                    let stored = past.stored(now_ms);
                    let missed: Vec<_> = stored.into_iter().filter(|(offset, _)| *offset > from.offset).collect();
                    let nothing_missing = from.offset <= past.top() && missed.len() as u64 == past.top() - from.offset;
                    let same = from.epoch.is_empty() || Some(&from.epoch) == past.epoch.as_ref();
                    (same && nothing_missing).then_some(missed)
                });
                match (answer.recovery, expected) {
                    (None, None) => {}
                    (Some(Recovery::Recovered { publications, .. }), Some(Some(missed))) => {
                        assert_eq!(payloads(&publications), missed);
                    }
                    (Some(Recovery::Unrecovered), Some(None)) => assert!(!reject),
                    (Some(Recovery::Rejected), Some(None)) => assert!(reject),
                    (recovery, expected) => panic!("{recovery:?}, expected {expected:?}"),
                }
                set_interest(&mut pasts, channel, shard, 1);
            }
            Step::History { channel, limit, since, reverse } => {
                let since = since.map(|(offset, from)| pasts[channel].position_from(offset, from));
                let answer = channels.history(&history_of(&names[channel], limit, since.clone(), reverse), now_ms);
                let past = &mut pasts[channel];
                // If it has, the question begins a stream anew, whose epoch the model does not know yet.
                past.look_for_end(now_ms);
                let may_have_ended = past.may_have_ended;
                let first = past.stored(now_ms).first().map_or(past.top() + 1, |(offset, _)| *offset);
                let is_gone = |since: &Position| {
                    let is_another = !since.epoch.is_empty() && Some(&since.epoch) != past.epoch.as_ref();
                    let is_evicted = since.offset < past.top() && since.offset + 1 < first;
                    is_another || (is_evicted && limit != 0 && !reverse)
                };
                let is_refused = since.as_ref().is_some_and(is_gone);
                let Some(found) = answer else {
                    assert!(is_refused || may_have_ended, "{since:?} refused");
                    if !may_have_ended {
                        past.used_ms = now_ms;
                    }
                    continue;
                };
                assert!(!is_refused || may_have_ended, "{since:?} answered");
                past.see_epoch(&found.position.epoch, now_ms);
                assert_eq!(found.position.offset, past.top());
                let mut expected = past.stored(now_ms);
                if reverse {
                    expected.reverse();
                }
                if let Some(since) = &since {
                    assert!(since.epoch.is_empty() || since.epoch == found.position.epoch);
                    expected
                        .retain(|(offset, _)| if reverse { *offset < since.offset } else { *offset > since.offset });
                }
                expected.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                assert_eq!(payloads(&found.publications), expected);
            }
            Step::Pass { ms } => now_ms += ms,
            Step::Expire { budget } => {
                channels.expire(now_ms, budget);
            }
        }
        for (name, past) in names.iter().zip(&mut pasts) {
            assert_eq!(channels.subscribers(name), past.subscribers());
            if past.subscribers() > 0 {
                past.used_ms = now_ms;
            }
            past.look_for_end(now_ms);
        }
    }
    // In the end everything goes, and every byte of it.
    for shard in 0..3 {
        for name in &names {
            channels.interest(name, shard, 0);
        }
    }
    while let Some(due_ms) = channels.next_due_ms() {
        channels.expire(due_ms, 3);
    }
    assert_eq!((channels.channels(), channels.streams()), (0, 0));
}

/// Channels of one hash share their interest. Where it ends by the name of one, nobody notes when the other was used last.
fn set_interest(pasts: &mut [Past; 3], channel: usize, shard: u16, subscribers: u32) {
    let shared = if channel < 2 { 0..2 } else { 2..3 };
    for index in shared {
        let past = &mut pasts[index];
        if subscribers == 0 {
            past.interest.remove(&shard);
            if index != channel && past.subscribers() == 0 {
                past.used_ms = 0;
            }
        } else {
            past.interest.insert(shard, subscribers);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn channels_agree_with_the_model(steps in prop::collection::vec(step(), 1..120), compression_bytes_min in 0..6_u32) {
        run(steps, compression_bytes_min);
    }
}

/// On one of 64 home shards the six highest bits of every hash are alike; tables must not degrade to a search.
#[test]
fn the_tags_of_one_home_shard_differ() {
    let mut random = Random::new(3);
    let mut tags: std::collections::HashMap<u64, u32> = std::collections::HashMap::new();
    for _ in 0..10_000 {
        let hash = random.next_u64() >> 6;
        *tags.entry(table_hash(hash) >> 57).or_default() += 1;
    }
    assert_eq!(tags.len(), 128);
    assert!(tags.values().all(|&count| count < 160), "{tags:?}");
}

#[test]
fn subscribers_on_the_home_shard_are_counted_where_somebody_must_know_them() {
    let mut channels = channels();
    for (name, counted) in [(name("plain:a"), 0), (name("kept:a"), 2)] {
        channels.interest(&name, HOME, 2);
        assert_eq!((channels.counts_own(&name), channels.subscribers(&name)), (counted > 0, counted));
        channels.interest(&name, 1, 3);
        assert_eq!(channels.subscribers(&name), counted + 3);
        channels.interest(&name, HOME, 0);
        channels.interest(&name, 1, 0);
        assert_eq!(channels.subscribers(&name), 0);
    }
    assert_eq!(channels.channels(), 0);
}

// Versions.

fn versioned(channel: &ChannelName, number: u64, epoch: &str) -> Publish {
    Publish { version: Some(Box::new(Version { number, epoch: epoch.to_owned() })), ..publish_of(channel, number) }
}

#[test]
fn a_version_that_is_not_newer_is_dropped_and_answered_with_the_position() {
    let mut channels = channels();
    let channel = name("kept:versions");
    for (number, epoch, offset, is_delivered) in [
        (5, "a", 1, true),
        (5, "a", 1, false),
        (4, "", 1, false),
        // Of another epoch, any number is new.
        (1, "b", 2, true),
        (9, "a", 3, true),
        (9, "", 3, false),
        (10, "", 4, true),
        // What was last had no epoch.
        (1, "a", 5, true),
    ] {
        let outcome = channels.publish(versioned(&channel, number, epoch), 0);
        let position = outcome.published.position.expect("the namespace keeps history");
        assert_eq!((position.offset, outcome.publication.is_some()), (offset, is_delivered), "{number} {epoch:?}");
    }
    // What has no version is always new, and changes nothing.
    assert!(channels.publish(publish_of(&channel, 0), 0).publication.is_some());
    assert!(channels.publish(versioned(&channel, 1, "a"), 0).publication.is_none());
    // What is not stored is delivered whatever its version.
    let skipping = Publish { skip_history: true, ..versioned(&channel, 1, "a") };
    assert!(channels.publish(skipping, 0).publication.is_some());
    assert!(channels.publish(versioned(&name("plain:versions"), 1, ""), 0).publication.is_some());
    assert!(channels.publish(versioned(&name("plain:versions"), 1, ""), 0).publication.is_some());
}

#[test]
fn history_that_is_removed_leaves_its_position() {
    let mut channels = channels();
    let channel = name("kept:removed");
    let position = publish(&mut channels, &channel, 5, 0);
    let bytes = channels.history_figures().0;
    channels.remove_history(&channel);
    channels.remove_history(&name("kept:nothing"));
    let found = channels.history(&history_of(&channel, -1, None, false), 0).expect("the stream goes on");
    assert_eq!((found.publications.len(), found.position), (0, position.clone()));
    assert!(channels.history_figures().0 < bytes);
    assert_eq!(channels.history_figures().1, 0, "nothing was lost for want of room");
    assert_eq!(publish(&mut channels, &channel, 1, 0).offset, position.offset + 1);
    assert_eq!(history(&mut channels, &channel, 10, None, false), Some(vec![position.offset + 1]));
}

// Compression.

/// A publication of whatever kind, one of many.
fn various(channel: &ChannelName, random: &mut Random, number: u64) -> Publish {
    let symbols = ["EURUSD", "GBPUSD"];
    let payload = format!("{{\"symbol\":\"{}\",\"bid\":{}}}", symbols[number as usize % 2], random.next_u64() % 1_000);
    let one_in = |count: u64, random: &mut Random| random.next_u64().is_multiple_of(count);
    let info = ClientInfo {
        user: "42".into(),
        client: "c".into(),
        conn_info: Some(Bytes::from_static(b"{\"name\":\"Ada\"}")),
        chan_info: None,
    };
    Publish {
        data: if one_in(20, random) { Bytes::new() } else { payload.repeat(1 + random.next_u64() as usize % 3).into() },
        is_json: one_in(2, random),
        delta: one_in(2, random),
        tags: one_in(4, random).then(|| Tags::from_json(b"{\"symbol\":\"EURUSD\"}").unwrap()),
        info: one_in(4, random).then(|| Box::new(info)),
        ..publish_of(channel, number)
    }
}

#[test]
fn compressed_history_is_what_plain_history_is_and_takes_less() {
    let channel = name("deep:a");
    let mut random = Random::new(5);
    let mut plain = channels();
    let mut packed = channels_that_compress(2_000, u64::MAX);
    let mut now_ms = 0;
    for number in 0..3_000 {
        now_ms += random.next_u64() % 20;
        let seed = random.next_u64();
        let publication = |channels: &mut Channels| {
            let publish = various(&channel, &mut Random::new(seed), number);
            channels.publish(publish, now_ms).publication.expect("it is new")
        };
        assert_eq!(publication(&mut plain), publication(&mut packed));
        if number % 7 > 0 {
            continue;
        }
        let position = |offset| Some(Position { offset, epoch: "".into() });
        let offset = number.saturating_sub(random.next_u64() % 400);
        let recovered = |channels: &mut Channels| {
            let answer = channels.subscribe(&subscribe_of(&channel, position(offset)), now_ms).subscribed;
            format!("{:?} {:?}", answer.position, answer.recovery)
        };
        assert_eq!(recovered(&mut plain), recovered(&mut packed));
        let (limit, reverse) = (random.next_u64() as i32 % 50, random.next_u64().is_multiple_of(2));
        let since = position(offset).filter(|_| random.next_u64().is_multiple_of(2));
        let found = |channels: &mut Channels| {
            let found = channels.history(&history_of(&channel, limit, since.clone(), reverse), now_ms);
            found.map(|found| (found.publications, found.position))
        };
        assert_eq!(found(&mut plain), found(&mut packed));
    }
    // What compresses, and what is kept decompressed, is the same for any number of channels.
    let growth = |channels: &mut Channels| {
        let (before, _) = channels.history_figures();
        let mut random = Random::new(8);
        for number in 0..5_000 {
            channels.publish(various(&name(&format!("deep:{}", number % 5)), &mut random, number), now_ms);
        }
        channels.history_figures().0 - before
    };
    let (plain_bytes, packed_bytes) = (growth(&mut plain), growth(&mut packed));
    assert!(packed_bytes < plain_bytes / 2, "{packed_bytes} bytes instead of {plain_bytes}");
    assert_eq!(plain.packer_figures(), PackerFigures::default());
    let figures = packed.packer_figures();
    assert!(figures.frame_bytes < figures.payload_bytes / 2 && figures.unpacked_blocks > 0, "{figures:?}");
    // Every sum goes back to nothing.
    for channels in [&mut plain, &mut packed] {
        channels.interest(&channel, 0, 0);
        channels.interest(&channel, HOME, 0);
        for ms in [u64::from(TTL_MS), STREAM_POSITION_MS] {
            now_ms += 2 * ms;
            channels.expire(now_ms, usize::MAX);
        }
        assert_eq!(channels.streams(), 0);
    }
}

#[test]
fn a_storm_decompresses_each_block_once_and_the_newest_publication_never() {
    let channel = name("deep:a");
    let mut channels = channels_that_compress(1_000, u64::MAX);
    let mut random = Random::new(6);
    let newest = (0..200).map(|number| channels.publish(various(&channel, &mut random, number), 0).publication).last();
    let newest = newest.flatten().expect("it is new");
    let blocks = channels.packer_figures().payload_bytes / 1_000;
    for missed in (1..=200).rev().chain(1..=200) {
        let from = Position { offset: 200 - missed, epoch: "".into() };
        let Some(Recovery::Recovered { publications, .. }) =
            channels.subscribe(&subscribe_of(&channel, Some(from)), 0).subscribed.recovery
        else {
            panic!("nothing is missing")
        };
        assert_eq!(publications.len() as u64, missed);
        assert!(Arc::ptr_eq(publications.last().expect("one at least"), &newest));
    }
    let unpacked = channels.packer_figures().unpacked_blocks;
    assert!(unpacked > 3 && unpacked <= blocks, "{unpacked} of {blocks}");
}

#[test]
fn compressed_history_keeps_the_bounds_of_replies_and_of_the_shard() {
    let channel = name("deep:a");
    let mut channels = channels_that_compress(1, 4 << 20);
    let publish = |number: u8| Publish { data: vec![number; 5 << 20].into(), ..publish_of(&channel, 0) };
    for number in 0..5 {
        channels.publish(publish(number), 0);
    }
    // The newest alone is more than the shard may hold: it is what must stay last, and goes first when it is old.
    assert!(channels.history_figures().0 <= 4 << 20);
    let mut channels = channels_that_compress(1, 64 << 20);
    for number in 0..5 {
        channels.publish(publish(number), 0);
    }
    assert!(channels.history_figures().0 < 6 << 20, "four of five are compressed");
    let mut found = |reverse| {
        let found = channels.history(&history_of(&channel, -1, None, reverse), 0).expect("a stream");
        found.publications.iter().map(|publication| (publication.offset, publication.data[0])).collect::<Vec<_>>()
    };
    assert_eq!(found(false), [(1, 0), (2, 1), (3, 2)]);
    assert_eq!(found(true), [(5, 4), (4, 3), (3, 2)]);
    let recovered = |channels: &mut Channels, offset| {
        let from = Position { offset, epoch: "".into() };
        channels.subscribe(&subscribe_of(&channel, Some(from)), 0).subscribed.recovery
    };
    assert!(matches!(recovered(&mut channels, 1), Some(Recovery::Unrecovered)));
    let Some(Recovery::Recovered { publications, .. }) = recovered(&mut channels, 2) else { panic!("all of it fits") };
    assert_eq!(publications.len(), 3);
}
