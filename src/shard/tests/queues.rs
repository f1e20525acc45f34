//! In which turn messages of other threads are taken in.

use super::*;
use crate::limits::TURN_BYTES_MAX;

#[test]
fn publications_leave_their_home_in_the_turn_that_takes_them_in() {
    for home in 0..2 {
        let mut stage = Stage::new(2, 64, |_| {});
        let channel = stage.channel("plain", home);
        let mut subscriber = stage.subscriber(home, ROOM, &channel);
        stage.publish(&channel, "1", true);
        stage.shards[home].turn();
        while stage.network.carry() {}
        assert_eq!(subscriber.hear().len(), 1, "at home on shard {home}");
    }
}

#[test]
fn other_shards_hear_of_a_publication_before_its_home_begins_to_send_it() {
    let mut stage = Stage::new(2, 64, |_| {});
    let channel = stage.channel("plain", 0);
    let _subscribers = [0, 1].map(|shard| stage.subscriber(shard, ROOM, &channel));
    stage.shards[1].state.mesh.bell.begin_sleep();
    stage.publish(&channel, "1", true);
    stage.network.deeds();
    stage.shards[0].turn();
    let deeds = stage.network.deeds();
    let place = |deed| deeds.iter().position(|candidate| *candidate == deed);
    assert!(place("ring").unwrap() < place("send").unwrap(), "{deeds:?}");
}

#[test]
fn a_queue_that_fills_every_turn_starves_no_other() {
    const LONG: usize = 1024 * 1024;
    let mut stage = Stage::new(2, 256, |_| {});
    let [here, there] = [0, 1].map(|home| stage.channel("plain", home));
    let mut subscriber = stage.subscriber(0, ROOM, &here);
    let _flooded = stage.subscriber(0, ROOM, &there);
    let long = format!("\"{}\"", "x".repeat(LONG));
    let flood = |stage: &mut Stage| {
        (0..=TURN_BYTES_MAX / LONG).for_each(|_| stage.publish(&there, &long, true));
        stage.shards[1].turn();
        stage.shards[0].turn();
        while stage.network.carry() {}
    };
    flood(&mut stage);
    stage.publish(&here, "1", true);
    let mut turns = 0;
    while subscriber.hear().is_empty() {
        flood(&mut stage);
        turns += 1;
        assert!(turns < 8, "the publication waits behind those of the other shard");
    }
}
