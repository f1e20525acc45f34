//! What the application's back end is asked about, and what follows from each kind of answer.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{NOW, OPERATOR_KEY, config, recorder::Client, rules};
use crate::{
    config::{Config, Hook, Namespace},
    limits::CHANNEL_BYTES_MAX,
    protocol::{Encoding, HookAnswer, mint_operator},
    session::{Flow, Reason},
};

/// A server that asks a back end about everything.
fn asking() -> Config {
    let mut config = config();
    let endpoint = || Some("http://127.0.0.1:1/".to_owned());
    let hooks = &mut config.hooks;
    for hook in [&mut hooks.connect, &mut hooks.subscribe, &mut hooks.publish, &mut hooks.rpc] {
        hook.endpoint = endpoint();
    }
    config.hooks.headers = vec!["Cookie".to_owned(), "X-Real-IP".to_owned()];
    let asked = Namespace {
        name: "asked".to_owned(),
        subscribe_proxy_enabled: true,
        publish_proxy_enabled: true,
        allow_user_limited_channels: true,
        history_size: 10,
        history_ttl_ms: 60_000,
        allow_recovery: true,
        ..Namespace::default()
    };
    config.namespaces.by_name.insert(0, Arc::new(asked));
    config
}

fn client() -> Client {
    let mut client = Client::new(rules(asking()));
    client.upgrade();
    client
}

/// The back end's answer.
fn answer(hook: Hook, body: Value) -> Option<HookAnswer> {
    Some(HookAnswer::read(hook, body.to_string().as_bytes(), false).expect("an answer"))
}

/// A client whom the back end knows as user 42.
fn user() -> Client {
    let mut client = client();
    assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Paused);
    assert_eq!(client.answer(answer(Hook::Connect, json!({"result": {"user": "42"}}))), Flow::Continue);
    client.frames();
    client.shard.calls.clear();
    client
}

/// What a client is answered whose one question has this answer.
fn replies(client: &mut Client, command: &str, answer: Option<HookAnswer>) -> Vec<String> {
    assert_eq!(client.say(command), Flow::Continue, "{command}");
    assert!(client.frames().is_empty(), "it waits");
    assert_eq!(client.answer(answer), Flow::Continue);
    client.frames()
}

#[test]
fn a_connect_without_a_token_waits_for_the_back_end_and_so_does_what_follows_it() {
    let mut client = client();
    let connect = r#"{"id":1,"connect":{"data":{"d":1},"name":"js","version":"5","subs":{"open:a":{},"closed:z":{}},"headers":{"cookie":"c=1","x":"y"}}}"#;
    let message = format!("{connect}\n{}", r#"{"id":2,"subscribe":{"channel":"open:x"}}"#);
    assert_eq!(client.say(&message), Flow::Paused);
    assert!(client.session.is_paused() && client.frames().is_empty());
    assert_eq!(client.say(r#"{"id":3,"unsubscribe":{"channel":"open:y"}}"#), Flow::Paused);
    let asked = r#"ask connect {,"data":{"d":1},"name":"js","version":"5","channels":["open:a","closed:z"]}"#;
    assert_eq!(client.shard.calls, ["header 0 c=1 true", asked]);
    let result = json!({"result": {
        "user": "42", "expire_at": NOW + 60, "info": {"n": 1}, "data": {"hello": 1}, "meta": {"m": 1},
        "subs": {"closed:a": {"data": 7}},
    }});
    assert_eq!(client.answer(answer(Hook::Connect, result)), Flow::Continue);
    let frames = client.frames();
    assert!(frames[0].contains(r#""expires":true,"ttl":60,"data":{"hello":1},"#), "{frames:?}");
    assert!(frames[0].contains(r##""#42":{},"closed:a":{},"open:a":{}"##), "{frames:?}");
    assert!(frames[1].contains(r#""id":2,"subscribe""#) && frames[2].contains(r#""id":3,"unsubscribe""#));
    let connect = &client.shard.connects[0];
    assert_eq!((connect.user.as_str(), connect.meta.as_deref()), ("42", Some(&br#"{"m":1}"#[..])));
    assert_eq!(connect.channels[1].terms.data.as_deref(), Some(&b"7"[..]));
}

#[test]
fn a_connect_with_a_token_is_not_asked_about() {
    let mut client = Client::new(rules(asking()));
    let frames = client.connect_with(&mint_operator(OPERATOR_KEY, NOW + 60));
    assert!(frames[0].contains("connect") && client.shard.questions.is_empty());
    // Nor is the console, whatever it does.
    client.ask(r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#);
    client.ask(r#"{"id":3,"publish":{"channel":"asked:a","data":1}}"#);
    assert!(client.shard.questions.is_empty());
}

#[test]
fn a_connect_ends_as_the_back_end_says() {
    let error = json!({"error": {"code": 1000, "message": "not today", "temporary": true}});
    let disconnect = json!({"disconnect": {"code": 4501, "reason": "banned"}});
    for (answer, flow, frame, reason) in [
        (
            answer(Hook::Connect, error),
            Flow::Lingering,
            r#"{"id":1,"error":{"code":1000,"message":"not today","temporary":true}}"#,
            Reason::HookError,
        ),
        (answer(Hook::Connect, disconnect), Flow::Closing, "close 4501 banned", Reason::HookDisconnect),
        (None, Flow::Closing, "close 3004 internal server error", Reason::HookFailed),
        (
            answer(Hook::Connect, json!({"result": {"expire_at": NOW}})),
            Flow::Lingering,
            r#"{"id":1,"error":{"code":110,"message":"expired"}}"#,
            Reason::TokenConnectionExpired,
        ),
        (
            answer(Hook::Connect, json!({"result": {"subs": {"open:a": {"expire_at": NOW - 1}}}})),
            Flow::Lingering,
            r#"{"id":1,"error":{"code":110,"message":"expired"}}"#,
            Reason::TokenConnectionExpired,
        ),
        (
            answer(Hook::Connect, json!({"result": {"channels": ["nowhere:a"]}})),
            Flow::Lingering,
            r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#,
            Reason::ChannelUnknown,
        ),
    ] {
        let mut client = client();
        assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Paused);
        assert_eq!(client.answer(answer), flow);
        assert_eq!((client.frames(), &client.shard.counted[..]), (vec![frame.to_owned()], &[reason][..]));
        assert!(client.shard.connects.is_empty());
    }
}

#[test]
fn a_one_way_client_is_told_an_error_as_a_disconnect() {
    for (code, expected) in [(103, 3507), (109, 3005), (111, 3013), (1000, 3004)] {
        let mut client = Client::new(rules(asking()));
        let head = b"GET /connection/uni_sse HTTP/1.1\r\nHost: a\r\nCookie: c=2\r\nX-Real-IP: ::1\r\n\r\n";
        assert_eq!(client.send(head), Flow::Paused);
        assert_eq!(client.shard.calls[..2], ["header 0 c=2 false", "header 1 ::1 false"]);
        client.text();
        let error = json!({"error": {"code": code, "message": "no"}});
        assert_eq!(client.answer(answer(Hook::Connect, error)), Flow::Closing);
        assert!(client.text().contains(&format!(r#"{{"disconnect":{{"code":{expected},"#)), "{code}");
    }
}

#[test]
fn a_subscription_waits_for_the_back_end_while_other_commands_go_on() {
    let mut client = user();
    let subscribe = r#"{"id":2,"subscribe":{"channel":"asked:a","data":[1],"recoverable":true,"recover":true,"offset":3,"epoch":"e"}}"#;
    assert_eq!(client.say(subscribe), Flow::Continue);
    assert_eq!(client.shard.calls, [r#"ask subscribe {,"channel":"asked:a","data":[1]}"#]);
    assert!(client.frames().is_empty());
    assert_eq!(client.ask(r#"{"id":3,"subscribe":{"channel":"open:a"}}"#), [r#"{"id":3,"subscribe":{}}"#]);
    assert!(client.ask(r#"{"id":4,"subscribe":{"channel":"asked:a"}}"#)[0].contains(r#""code":105"#));
    let result = json!({"result": {"info": {"i": 1}, "data": {"d": 2}, "expire_at": NOW + 9,
        "override": {"presence": {"value": true}}}});
    assert_eq!(client.answer(answer(Hook::Subscribe, result)), Flow::Continue);
    assert_eq!(client.frames(), [r#"{"id":2,"subscribe":{}}"#]);
    let terms = client.shard.terms.pop().expect("terms");
    assert!(terms.recoverable && terms.emit_presence);
    assert_eq!(terms.recover.map(|position| position.offset), Some(3), "what the client asked for is not forgotten");
    assert_eq!((terms.expires_at, terms.data.as_deref()), (Some(NOW + 9), Some(&br#"{"d":2}"#[..])));
    assert_eq!(terms.chan_info.as_deref(), Some(&br#"{"i":1}"#[..]));
}

#[test]
fn whoever_is_asked_about_is_no_subscriber_yet() {
    let mut config = asking();
    let Some(namespace) = config.namespaces.by_name.first_mut().and_then(Arc::get_mut) else { panic!("no namespace") };
    namespace.publish_proxy_enabled = false;
    namespace.allow_publish_for_subscriber = true;
    namespace.allow_history_for_subscriber = true;
    let mut client = Client::new(rules(config));
    client.upgrade();
    assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Paused);
    let _ = client.answer(answer(Hook::Connect, json!({"result": {"user": "42"}})));
    client.frames();
    assert_eq!(client.say(r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#), Flow::Continue);
    for command in ["publish\":{\"data\":1,", "history\":{"] {
        let answer = client.ask(&format!(r#"{{"id":3,"{command}"channel":"asked:a"}}}}"#));
        assert!(answer[0].contains(r#""code":103"#), "{answer:?}");
    }
}

#[test]
fn the_order_of_who_decides_about_a_subscription() {
    let mut client = user();
    // A name that lists the user, and a private channel, are nothing to ask about.
    assert_eq!(client.ask(r#"{"id":2,"subscribe":{"channel":"asked:a#42"}}"#), [r#"{"id":2,"subscribe":{}}"#]);
    assert!(client.ask(r#"{"id":3,"subscribe":{"channel":"$asked:a"}}"#)[0].contains(r#""code":103"#));
    assert!(client.shard.questions.is_empty());
    // Somebody else's is.
    assert_eq!(client.say(r#"{"id":4,"subscribe":{"channel":"asked:a#7"}}"#), Flow::Continue);
    assert_eq!(client.shard.questions.len(), 1);
}

#[test]
fn commands_are_refused_as_the_back_end_says() {
    let subscribe = r#"{"id":2,"subscribe":{"channel":"asked:a"}}"#;
    let publish = r#"{"id":2,"publish":{"channel":"asked:a","data":1}}"#;
    let rpc = r#"{"id":2,"rpc":{"method":"m"}}"#;
    for (hook, command) in [(Hook::Subscribe, subscribe), (Hook::Publish, publish), (Hook::Rpc, rpc)] {
        let error = json!({"error": {"code": 103, "message": "permission denied"}});
        let expected = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
        let mut client = user();
        assert_eq!(replies(&mut client, command, answer(hook, error)), [expected]);
        assert_eq!(client.shard.counted, [Reason::HookError]);
        let mut client = user();
        let expected = r#"{"id":2,"error":{"code":100,"message":"internal server error","temporary":true}}"#;
        assert_eq!(replies(&mut client, command, None), [expected]);
        assert_eq!(client.shard.counted, [Reason::HookFailed]);
        assert_eq!(client.shard.calls.len(), 1, "nothing but the question: {:?}", client.shard.calls);
        let mut client = user();
        assert_eq!(client.say(command), Flow::Continue);
        let disconnect = json!({"disconnect": {"code": 4000, "reason": "enough"}});
        assert_eq!(client.answer(answer(hook, disconnect)), Flow::Closing);
        assert_eq!(
            (client.frames(), &client.shard.ends[..]),
            (vec!["close 4000 enough".to_owned()], &["4000 enough".to_owned()][..])
        );
    }
}

/// Those that the server never gives by itself are the application's to give.
#[test]
fn any_error_of_the_back_end_is_passed_on() {
    for code in [101, 104, 111, 113, 400, 1999] {
        let error = json!({"error": {"code": code, "message": "no", "temporary": code == 111}});
        let temporary = if code == 111 { r#","temporary":true"# } else { "" };
        let expected = format!(r#"{{"id":2,"error":{{"code":{code},"message":"no"{temporary}}}}}"#);
        let rpc = r#"{"id":2,"rpc":{"method":"m"}}"#;
        assert_eq!(replies(&mut user(), rpc, answer(Hook::Rpc, error)), [expected]);
    }
}

#[test]
fn a_user_whose_personal_channel_would_have_too_long_a_name_is_no_user() {
    let mut config = asking();
    config.client.personal_channel_namespace = Some("open".to_owned());
    let mut client = Client::new(rules(config));
    client.upgrade();
    assert_eq!(client.say(r#"{"id":1,"connect":{}}"#), Flow::Paused);
    let user = "u".repeat(CHANNEL_BYTES_MAX - "open:#".len() + 1);
    assert_eq!(client.answer(answer(Hook::Connect, json!({"result": {"user": user}}))), Flow::Closing);
    assert_eq!(client.frames(), ["close 3004 internal server error"]);
    assert_eq!(client.shard.counted, [Reason::HookFailed]);
}

#[test]
fn a_publication_goes_out_as_it_is_or_as_the_back_end_changes_it() {
    let publish = r#"{"id":2,"publish":{"channel":"asked:a","data":{"n": 1}}}"#;
    let mut client = user();
    let published = [r#"{"id":2,"publish":{}}"#];
    assert_eq!(replies(&mut client, publish, answer(Hook::Publish, json!({"result": {}}))), published);
    assert_eq!(client.shard.calls[0], r#"ask publish {,"channel":"asked:a","data":{"n": 1}}"#);
    assert_eq!(client.shard.calls[1], r#"publish asked:a {\"n\": 1}"#);
    assert_eq!(client.shard.publications, [(false, None, None)]);
    let result =
        json!({"result": {"data": {"n": 2}, "skip_history": true, "tags": {"t": "u"}, "idempotency_key": "k"}});
    assert_eq!(replies(&mut client, publish, answer(Hook::Publish, result)), published);
    assert_eq!(client.shard.calls[3], r#"publish asked:a {\"n\":2}"#);
    let (skip_history, tags, key) = client.shard.publications.pop().expect("a publication");
    assert!(skip_history && tags.is_some_and(|tags| tags.get("t") == Some("u")));
    assert_eq!(key, Some(Bytes::from_static(b"k")));
    // What the channel does not take is no answer.
    let bytes = answer(Hook::Publish, json!({"result": {"b64data": "/w=="}}));
    assert!(replies(&mut client, publish, bytes)[0].contains(r#""code":100"#));
    assert_eq!(client.shard.publications.len(), 1);
}

#[test]
fn rpc_is_answered_by_the_back_end_if_there_is_one() {
    let mut client = user();
    let command = r#"{"id":2,"rpc":{"method":"sum","data":[1,2]}}"#;
    let result = answer(Hook::Rpc, json!({"result": {"data": 3}}));
    assert_eq!(replies(&mut client, command, result), [r#"{"id":2,"rpc":{"data":3}}"#]);
    assert_eq!(client.shard.calls, [r#"ask rpc {,"method":"sum","data":[1,2]}"#]);
    let nothing = answer(Hook::Rpc, json!({"result": {}}));
    assert_eq!(replies(&mut client, r#"{"id":3,"rpc":{}}"#, nothing), [r#"{"id":3,"rpc":{}}"#]);
    assert_eq!(client.shard.calls[1], r#"ask rpc {,"method":""}"#);

    let mut client = Client::new(rules(config()));
    client.connect();
    assert!(client.ask(command)[0].contains(r#""code":108"#));
}

#[test]
fn a_client_that_is_asked_about_enough_pauses() {
    let mut client = user();
    client.shard.ask_pauses = true;
    let commands = "{\"id\":2,\"rpc\":{\"method\":\"a\"}}\n{\"id\":3,\"rpc\":{\"method\":\"b\"}}";
    assert_eq!(client.say(commands), Flow::Paused);
    assert_eq!(client.shard.questions.len(), 1);
    client.shard.ask_pauses = false;
    assert_eq!(client.answer(answer(Hook::Rpc, json!({"result": {"data": 1}}))), Flow::Continue);
    assert!(client.session.is_paused(), "the shard ends the pause, when it takes in more");
    assert_eq!(client.resume(), Flow::Continue);
    assert_eq!(client.shard.questions.len(), 1);
}

#[test]
fn payloads_that_the_back_end_could_not_read_are_refused() {
    let mut client = user();
    client.shard.form =
        crate::fanout::Form::new(Encoding::Protobuf, Default::default(), crate::fanout::Carrier::WebSocket);
    // rpc {data: 0xff, method: "m"} with the id 2.
    let command = [&[0x0a][..], &[0x08, 2, 0x6a, 6, 0x0a, 1, 0xff, 0x12, 1, b'm']].concat();
    assert_eq!(client.send(&super::recorder::masked(0x82, &command)), Flow::Continue);
    assert!(client.shard.questions.is_empty());
    assert_eq!(client.shard.counted, [Reason::CommandInvalid]);
}
