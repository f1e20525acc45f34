//! Clients that do not read, and what that means for them and for others.

use super::*;

#[test]
fn a_slow_client_resumes_its_own_subscription_by_itself_and_the_servers_by_connecting() {
    for (command, expected) in [
        (r#"{"id":1,"connect":{}}{"id":2,"subscribe":{"channel":"sync:1"}}"#, r#""unsubscribe":{"code":2500"#),
        (r#"{"id":1,"connect":{"subs":{"sync:1":{}}}}"#, "close 3010"),
    ] {
        let mut stage = Stage::new(1, 1024, |config| config.shards.outbox_bytes_max = 4_096);
        let mut client = stage.stranger(0, 500);
        client.say(&command.replace("}{", "}\n{"));
        stage.settle();
        client.hear();
        for _ in 0..100 {
            stage.publish("sync:1", &format!("\"{}\"", "x".repeat(100)), true);
            stage.settle();
        }
        let mut heard = Vec::new();
        for _ in 0..100 {
            heard.append(&mut client.hear());
            stage.settle();
        }
        assert!(heard.last().is_some_and(|last| last.contains(expected)), "{:?}", heard.last());
        assert_eq!(stage.count(0, "resync"), 1);
    }
}
