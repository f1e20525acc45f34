//! When clients are pinged.

use super::*;

#[test]
fn a_late_pong_does_not_put_off_the_next_ping() {
    let mut stage = Stage::new(1, 1024, |_| {});
    let mut client = stage.client(0, ROOM);
    let first_ms = wait_for_ping(&mut stage, &mut client);
    // The simulated network is a bad one, so the client has more time than a pong should take.
    for _ in 0..90 {
        stage.network.pass(100);
        stage.settle();
    }
    client.say("{}");
    let second_ms = wait_for_ping(&mut stage, &mut client);
    assert!((25_000..25_500).contains(&(second_ms - first_ms)), "{} ms between pings", second_ms - first_ms);
}

fn wait_for_ping(stage: &mut Stage, client: &mut Client) -> u64 {
    for _ in 0..500 {
        stage.network.pass(100);
        stage.settle();
        if client.hear() == ["{}"] {
            return stage.network.now_ms();
        }
    }
    panic!("no ping comes");
}
