//! `serve --demo`, which `make run` runs: everything that the console shows at once is there without any configuration.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::{
    client::Client,
    http,
    server::{Launch, Server},
};

#[test]
fn the_demonstration_ticks_and_lets_anyone_in() {
    let server = Server::launch(Launch { is_demo: true, ..Launch::default() });
    let console = format!("http://{}/", server.admin_address());
    assert!(server.log().contains(&console), "the console's address is printed:\n{}", server.log());
    assert_eq!(http::get(server.admin_address(), "/").expect("the console").status, 200);

    let mut client = Client::anonymous(&server);
    client.subscribe("demo:ticks");
    let first = client.next_push();
    let began = Instant::now();
    const TICKS: u64 = 20;
    let last = (0..TICKS).map(|_| client.next_push()).last().expect("some ticks");
    let took = began.elapsed();
    assert_eq!(
        last["pub"]["offset"].as_u64().expect("kept"),
        first["pub"]["offset"].as_u64().expect("kept") + TICKS,
        "the namespace keeps history"
    );
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_secs(4),
        "ten ticks a second, not {TICKS} in {took:?}"
    );

    client.subscribe("demo:chat");
    let reply = client.command("publish", json!({ "channel": "demo:chat", "data": "hello" }));
    assert!(reply["publish"].is_object(), "{reply}");
}
