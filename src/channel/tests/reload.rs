//! Other rules for channels that have a past.

use super::*;

/// The rules of [`channels`], changed.
fn reconfigured(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { namespaces: channels().namespaces, ..Config::default() };
    config.ingest.idempotency_ms = IDEMPOTENCY_MS as u32;
    config.shards.history_bytes_max = u64::MAX;
    change(&mut config);
    config
}

fn set(config: &mut Config, name: &str, change: impl FnOnce(&mut Namespace)) {
    let namespace = config.namespaces.by_name.iter_mut().find(|namespace| namespace.name == name).unwrap();
    change(Arc::make_mut(namespace));
}

fn offsets_of(channels: &mut Channels, channel: &ChannelName, now_ms: u64) -> Option<Vec<u64>> {
    let found = channels.history(&history_of(channel, -1, None, false), now_ms)?;
    Some(found.publications.iter().map(|publication| publication.offset).collect())
}

/// All that a reload leaves to be done later.
fn follow(channels: &mut Channels, now_ms: u64) {
    let mut calls = 0;
    while channels.expire(now_ms, 3).is_some_and(|due_ms| due_ms <= now_ms) {
        calls += 1;
        assert!(calls < 100_000, "it comes to an end");
    }
}

#[test]
fn shrunk_history_is_cut_at_once_for_who_asks_and_soon_for_all() {
    for follows_first in [false, true] {
        let mut channels = channels();
        let (kept, deep) = (name("kept:a"), name("deep:a"));
        for number in 0..20 {
            channels.publish(publish_of(&kept, number), 0);
            channels.publish(publish_of(&deep, number), 0);
        }
        let bytes = channels.history_figures().0;
        channels.reconfigure(&reconfigured(|config| {
            set(config, "kept", |namespace| namespace.history_size = 2);
            set(config, "deep", |namespace| namespace.history_ttl_ms = 1_000);
        }));
        if follows_first {
            follow(&mut channels, 100);
            assert!(channels.history_figures().0 < bytes);
        }
        assert_eq!(offsets_of(&mut channels, &kept, 100).unwrap(), [19, 20]);
        assert_eq!(offsets_of(&mut channels, &deep, 999).unwrap().len(), 20);
        assert_eq!(offsets_of(&mut channels, &deep, 1_000).unwrap().len(), 0);
        assert_eq!(channels.publish(publish_of(&kept, 20), 1_000).published.position.unwrap().offset, 21);
        assert_eq!(offsets_of(&mut channels, &kept, 1_000).unwrap(), [20, 21]);
    }
}

#[test]
fn longer_history_keeps_what_is_there() {
    let mut channels = channels();
    let kept = name("kept:a");
    (0..20).for_each(|number| _ = channels.publish(publish_of(&kept, number), 0));
    channels.reconfigure(&reconfigured(|config| {
        set(config, "kept", |namespace| (namespace.history_size, namespace.history_ttl_ms) = (9, 2 * TTL_MS));
    }));
    // The old schedule says that it is over.
    channels.expire(u64::from(TTL_MS), 1);
    assert_eq!(offsets_of(&mut channels, &kept, u64::from(TTL_MS)).unwrap(), [16, 17, 18, 19, 20]);
    (0..20).for_each(|number| _ = channels.publish(publish_of(&kept, number), u64::from(TTL_MS)));
    assert_eq!(offsets_of(&mut channels, &kept, u64::from(TTL_MS)).unwrap().len(), 9);
}

#[test]
fn without_history_streams_go_and_a_later_one_is_another() {
    for follows_first in [false, true] {
        let mut channels = channels();
        let names: Vec<_> = (0..50).map(|number| name(&format!("kept:{number}"))).collect();
        let position = |channels: &mut Channels, now_ms| {
            names
                .iter()
                .map(|name| channels.publish(publish_of(name, 1), now_ms).published.position)
                .collect::<Vec<_>>()
        };
        let before = position(&mut channels, 0);
        let none = |config: &mut Config| set(config, "kept", |namespace| namespace.history_size = 0);
        channels.reconfigure(&reconfigured(none));
        if follows_first {
            follow(&mut channels, 1);
            assert_eq!(channels.streams(), 0);
        }
        assert!(position(&mut channels, 2).iter().all(Option::is_none));
        assert_eq!(offsets_of(&mut channels, &names[0], 2), None);
        follow(&mut channels, 3);
        assert_eq!((channels.streams(), channels.history_figures().0), (0, channels.streams.bytes() as u64));
        channels.reconfigure(&reconfigured(|_| {}));
        let after = position(&mut channels, 4);
        assert!(before.iter().zip(&after).all(|(before, after)| {
            let (before, after) = (before.as_ref().unwrap(), after.as_ref().unwrap());
            (before.offset, after.offset) == (1, 1) && before.epoch != after.epoch
        }));
    }
}

#[test]
fn less_room_for_history_is_reached_step_by_step() {
    const MIB: u64 = 1 << 20;
    let mut channels = channels();
    for number in 0..64 {
        let channel = name(&format!("deep:{number}"));
        for _ in 0..8 {
            let data = Bytes::from(vec![b'1'; 16 * 1024]);
            channels.publish(Publish { data, ..publish_of(&channel, 1) }, number);
        }
    }
    let bytes = channels.history_figures().0;
    assert!(bytes > 8 * MIB);
    channels.reconfigure(&reconfigured(|config| config.shards.history_bytes_max = 2 * MIB));
    let mut before = bytes;
    while channels.expire(64, 1_000).is_some_and(|due_ms| due_ms <= 64) {
        let after = channels.history_figures().0;
        assert!(before - after <= MIB + 64 * 1024, "a step forgets {} bytes", before - after);
        before = after;
    }
    assert!(channels.streams.bytes() as u64 <= 2 * MIB + 64 * 1024, "{} bytes", channels.streams.bytes());
    assert_eq!(offsets_of(&mut channels, &name("deep:63"), 64).unwrap().len(), 8, "the youngest stay");
}

#[test]
fn keys_and_users_follow_other_bounds() {
    let mut channels = channels();
    let keyed = |number| Publish { idempotency_key: Some("key".into()), ..publish_of(&name("plain:a"), number) };
    assert!(channels.publish(keyed(1), 0).publication.is_some());
    assert!((0..3).all(|_| channels.admit_user(7)), "any number");
    channels.reconfigure(&reconfigured(|config| {
        config.ingest.idempotency_ms = 2 * IDEMPOTENCY_MS as u32;
        config.client.user_connections_max = 2;
    }));
    assert!(channels.publish(keyed(2), IDEMPOTENCY_MS).publication.is_none(), "it is remembered for longer");
    assert!(channels.publish(keyed(3), 2 * IDEMPOTENCY_MS).publication.is_some());
    assert!(!channels.admit_user(7) && channels.admit_user(8));
    (0..2).for_each(|_| channels.user_left(7));
    assert!(channels.admit_user(7) && !channels.admit_user(7));
}
