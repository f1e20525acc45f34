//! Clients that ask for more than shards can answer at once.

use super::*;
use crate::limits::CLIENT_REQUESTS_MAX;

/// Fewer than a client's message may hold, more than a shard's queue.
const COMMANDS: usize = 1_300;

#[test]
fn questions_wait_in_their_sockets_while_answers_are_behind() {
    let mut stage = Stage::new(2, 64, |_| {});
    let channel = stage.channel("kept", 1);
    let mut client = stage.client(0, ROOM);
    let question = format!(r#"{{"id":2,"history":{{"channel":"{channel}"}}}}"#);
    let questions = vec![question; COMMANDS].join("\n");
    let mut held_max = 0;
    for _ in 0..60 {
        client.say(&questions);
        while stage.network.carry() {}
        stage.shards[0].turn();
        // The home is quicker than the shard that asks.
        for _ in 0..20 {
            stage.shards[1].turn();
            stage.shards[0].state.mesh.to_shards[1].flush();
        }
        held_max = held_max.max(stage.shards[1].state.mesh.held());
    }
    assert!(held_max <= CLIENT_REQUESTS_MAX + COMMANDS, "{held_max} answers wait");
    let mut answers = 0;
    while answers < 60 * COMMANDS {
        stage.settle();
        answers += client.hear().len();
    }
    assert_eq!(stage.shards[0].state.requests, 0);
}

#[test]
fn publications_wait_at_home_while_a_shard_is_behind() {
    let mut stage = Stage::new(3, 4, |_| {});
    let channel = stage.channel("plain", 1);
    let mut subscriber = stage.subscriber(2, ROOM, &channel);
    let publisher = stage.client(0, ROOM);
    for round in 0..200 {
        let publish = |number| format!(r#"{{"id":3,"publish":{{"channel":"{channel}","data":{number}}}}}"#);
        let commands: Vec<String> = (round * 100..round * 100 + 100).map(publish).collect();
        publisher.say(&commands.join("\n"));
        while stage.network.carry() {}
        // The subscriber's shard does nothing meanwhile.
        for shard in [0, 1, 0, 1] {
            stage.shards[shard].turn();
        }
    }
    assert!(stage.shards[1].state.mesh.held() <= 4, "{} deliveries wait", stage.shards[1].state.mesh.held());
    assert!(stage.shards[1].state.deferred.len() <= CLIENT_REQUESTS_MAX);
    let mut heard = Vec::new();
    while heard.len() < 20_000 {
        stage.settle();
        heard.append(&mut subscriber.hear());
    }
    for (number, push) in heard.iter().enumerate() {
        assert!(push.contains(&format!(r#""data":{number},"#)), "{push} is not {number}");
    }
}
