//! Questions to the application's back end: answered late, out of order, never, and after their clients have gone.

use serde_json::{Value, json};

use super::*;
use crate::{
    config::Hook,
    mesh::ToControl,
    protocol::{AttributesPatch, Claims, HookAnswer, mint},
};

const SECRET: &str = "the secret of the tests";

impl Stage {
    /// A shard with a back end that the test plays.
    fn hooked(hooks: &[Hook]) -> Self {
        Self::new(1, 1024, |config| {
            config.client.token.hmac_secret = Some(SECRET.into());
            config.client.ping_ms = 600_000;
            config.hooks.headers = vec!["Cookie".to_owned()];
            config.hooks.include_connection_meta = true;
            let asked = |hook: Hook| hooks.contains(&hook).then(|| "http://127.0.0.1:1/".to_owned());
            config.hooks.connect.endpoint = asked(Hook::Connect);
            config.hooks.refresh.endpoint = asked(Hook::Refresh);
            config.hooks.rpc.endpoint = asked(Hook::Rpc);
            config.hooks.disconnect.endpoint = asked(Hook::Disconnect);
            config.hooks.attributes.endpoint = asked(Hook::Attributes);
            for namespace in &mut config.namespaces.by_name {
                let namespace = Arc::make_mut(namespace);
                namespace.subscribe_proxy_enabled = hooks.contains(&Hook::Subscribe);
                namespace.publish_proxy_enabled = hooks.contains(&Hook::Publish);
                namespace.sub_refresh_proxy_enabled = hooks.contains(&Hook::SubRefresh);
            }
        })
    }

    /// What the back end was asked since the last call: numbers of questions that are waited for, and bodies.
    fn asked(&mut self) -> Vec<(Option<u32>, Value)> {
        let messages = std::iter::from_fn(|| self.control.inbound[0].try_recv().ok());
        let questions = messages.filter_map(|message| match message {
            ToControl::Hook(question) => Some(question),
            _ => None,
        });
        let read = |body: &[u8]| serde_json::from_slice(body).expect("a JSON text");
        questions.map(|question| (question.ticket.map(|ticket| ticket.number), read(&question.body))).collect()
    }

    /// The one question that was asked since the last call.
    #[track_caller]
    fn asked_once(&mut self) -> (u32, Value) {
        let asked = self.asked();
        let [(number, body)] = &asked[..] else { panic!("not one question: {asked:?}") };
        (number.expect("it is waited for"), body.clone())
    }

    fn answer_hook(&mut self, number: u32, hook: Hook, answer: Option<Value>) {
        let read = |body: Value| HookAnswer::read(hook, body.to_string().as_bytes(), false).expect("an answer");
        let answer = answer.map(read).map(Box::new);
        self.control.to_shards[0].send(ToShard::HookAnswered { number, answer });
        self.settle();
    }

    fn hear_after(&mut self, client: &mut Client, command: &Value) -> Vec<String> {
        client.say(&command.to_string());
        self.settle();
        client.hear()
    }

    fn pass_by(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.network.pass(500);
            self.settle();
        }
    }

    fn open_questions(&self) -> usize {
        self.shards[0].state.questions.len()
    }
}

fn signed(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

#[test]
fn an_answer_after_its_client_has_gone_is_nobodys() {
    let mut stage = Stage::hooked(&[Hook::Connect]);
    let first = stage.stranger(0, ROOM);
    first.say(r#"{"id":1,"connect":{"headers":{"cookie":"a=1"}}}"#);
    stage.settle();
    let (of_first, body) = stage.asked_once();
    assert_eq!(
        (&body["transport"], &body["protocol"], &body["encoding"]),
        (&json!("websocket"), &json!("json"), &json!("json"))
    );
    assert!(body["client"].as_str().is_some_and(|client| client.len() == 36) && body.get("user").is_none());
    first.peer.reset();
    stage.settle();
    let mut second = stage.stranger(0, ROOM);
    second.say(r#"{"id":1,"connect":{}}"#);
    stage.settle();
    let (of_second, _) = stage.asked_once();
    stage.answer_hook(of_first, Hook::Connect, Some(json!({"result": {"user": "mallory"}})));
    assert!(second.hear().is_empty(), "it has the slot of the first");
    stage.answer_hook(of_second, Hook::Connect, Some(json!({"result": {"user": "42"}})));
    assert!(second.hear()[0].contains(r##""#42""##));
    assert_eq!(stage.open_questions(), 0);
}

#[test]
fn a_connect_that_is_never_answered_ends_in_time() {
    let mut stage = Stage::hooked(&[Hook::Connect]);
    let mut client = stage.stranger(0, ROOM);
    client.say(r#"{"id":1,"connect":{}}"#);
    stage.settle();
    stage.pass_by(11);
    assert_eq!(client.hear(), ["close 3502"]);
    let (number, _) = stage.asked_once();
    stage.answer_hook(number, Hook::Connect, Some(json!({"result": {}})));
    assert!(client.hear().is_empty());
}

#[test]
fn publications_keep_their_order_whatever_the_order_of_the_answers() {
    let mut stage = Stage::hooked(&[Hook::Publish]);
    let mut client = stage.subscriber(0, ROOM, "kept:a");
    for number in 1..=3 {
        client.say(&json!({"id": 10 + number, "publish": {"channel": "kept:a", "data": number}}).to_string());
    }
    stage.settle();
    let numbers: Vec<u32> = stage.asked().iter().map(|(number, _)| number.unwrap()).collect();
    stage.answer_hook(numbers[2], Hook::Publish, Some(json!({"result": {"data": 33}})));
    stage.answer_hook(numbers[1], Hook::Publish, None);
    assert!(client.hear().is_empty(), "the first is not answered");
    stage.answer_hook(numbers[0], Hook::Publish, Some(json!({"result": {}})));
    let heard: Vec<Value> = client.hear().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let publications: Vec<&Value> =
        heard.iter().map(|heard| &heard["push"]["pub"]["data"]).filter(|data| !data.is_null()).collect();
    assert_eq!(publications, [&json!(1), &json!(33)]);
    let replies: Vec<u64> = heard.iter().filter_map(|heard| heard["id"].as_u64()).collect();
    assert_eq!(replies, [12, 11, 13], "{heard:?}");
    assert!(heard.iter().any(|heard| heard["id"] == 12 && heard["error"]["code"] == 100));
    assert_eq!(stage.open_questions(), 0);
}

#[test]
fn whoever_goes_takes_along_what_waits_for_its_turn() {
    let mut stage = Stage::hooked(&[Hook::Publish]);
    let client = stage.client(0, ROOM);
    for number in 1..=2 {
        client.say(&json!({"id": 10 + number, "publish": {"channel": "plain:a", "data": number}}).to_string());
    }
    stage.settle();
    let numbers: Vec<u32> = stage.asked().iter().map(|(number, _)| number.unwrap()).collect();
    stage.answer_hook(numbers[1], Hook::Publish, Some(json!({"result": {}})));
    client.peer.reset();
    stage.settle();
    assert_eq!(stage.open_questions(), 1);
    stage.answer_hook(numbers[0], Hook::Publish, Some(json!({"result": {}})));
    assert_eq!((stage.open_questions(), stage.shards[0].figures().publications), (0, 0));
}

#[test]
fn a_subscription_is_made_when_it_is_answered() {
    let mut stage = Stage::hooked(&[Hook::Subscribe]);
    let mut client = stage.client(0, ROOM);
    assert!(stage.hear_after(&mut client, &json!({"id": 2, "subscribe": {"channel": "kept:a", "data": 1}})).is_empty());
    let (number, body) = stage.asked_once();
    assert_eq!((&body["channel"], &body["data"], &body["user"]), (&json!("kept:a"), &json!(1), &json!("")));
    stage.publish("kept:a", "1", true);
    stage.settle();
    assert!(client.hear().is_empty(), "it is no subscriber yet");
    stage.answer_hook(number, Hook::Subscribe, Some(json!({"result": {"data": "hello"}})));
    let heard = client.hear();
    assert!(heard[0].contains(r#""data":"hello""#) && heard[0].contains(r#""offset":1"#), "{heard:?}");
    stage.publish("kept:a", "2", true);
    stage.settle();
    assert!(client.hear()[0].contains(r#""offset":2"#));
}

#[test]
fn a_subscription_that_is_taken_back_or_denied_leaves_nothing() {
    let mut stage = Stage::hooked(&[Hook::Subscribe]);
    let mut client = stage.client(0, ROOM);
    let subscribe = json!({"id": 2, "subscribe": {"channel": "kept:a"}});
    let channels = stage.shards[0].figures().channels;
    stage.hear_after(&mut client, &subscribe);
    let (taken_back, _) = stage.asked_once();
    let heard = stage.hear_after(&mut client, &json!({"id": 3, "unsubscribe": {"channel": "kept:a"}}));
    assert!(heard[0].contains(r#""id":2,"error""#) && heard[1].contains(r#""id":3,"unsubscribe""#), "{heard:?}");
    // The same command again is another question; the answer to the first is not its answer.
    assert!(stage.hear_after(&mut client, &subscribe).is_empty());
    let (denied, _) = stage.asked_once();
    stage.answer_hook(taken_back, Hook::Subscribe, Some(json!({"result": {}})));
    assert!(client.hear().is_empty());
    stage.answer_hook(denied, Hook::Subscribe, Some(json!({"error": {"code": 403, "message": "no"}})));
    assert_eq!(client.hear(), [r#"{"id":2,"error":{"code":403,"message":"no"}}"#]);
    let figures = stage.shards[0].figures();
    assert_eq!((figures.subscriptions, figures.channels, stage.open_questions()), (0, channels, 0));
}

#[test]
fn enough_questions_make_their_client_wait_and_no_other() {
    let mut stage = Stage::hooked(&[Hook::Rpc]);
    let max = u32::from(crate::limits::HOOK_QUESTIONS_PER_CLIENT_MAX);
    let mut greedy = stage.client(0, ROOM);
    let mut modest = stage.client(0, ROOM);
    for number in 0..max + 5 {
        greedy.say(&json!({"id": 10 + number, "rpc": {"method": "m"}}).to_string());
    }
    stage.settle();
    let asked = stage.asked();
    assert_eq!(asked.len() as u32, max);
    assert!(
        stage.hear_after(&mut modest, &json!({"id": 2, "subscribe": {"channel": "plain:a"}}))[0].contains("subscribe")
    );
    stage.answer_hook(asked[0].0.unwrap(), Hook::Rpc, Some(json!({"result": {"data": 1}})));
    assert_eq!(greedy.hear(), [r#"{"id":10,"rpc":{"data":1}}"#]);
    assert_eq!(stage.asked().len(), 1, "one more");
    for (number, _) in &asked[1..] {
        stage.answer_hook(number.unwrap(), Hook::Rpc, None);
    }
    assert_eq!(stage.asked().len(), 4);
}

#[test]
fn the_back_end_is_asked_on_time_whether_a_connection_goes_on() {
    let mut stage = Stage::hooked(&[Hook::Refresh]);
    let now = stage.shards[0].state.now_unix_seconds;
    let mut client = stage.stranger(0, ROOM);
    let token = signed(&json!({"sub": "42", "exp": now + 30, "meta": {"m": 1}}));
    let heard = stage.hear_after(&mut client, &json!({"id": 1, "connect": {"token": token}}));
    assert!(heard[0].contains("connect") && !heard[0].contains("ttl"), "{heard:?}");
    stage.pass_by(28);
    assert!(stage.asked().is_empty());
    stage.pass_by(3);
    let (first, body) = stage.asked_once();
    assert_eq!((&body["user"], &body["meta"]), (&json!("42"), &json!({"m": 1})));
    stage.answer_hook(first, Hook::Refresh, None);
    client.say("{}");
    stage.pass_by(55);
    assert!(stage.asked().is_empty());
    stage.pass_by(8);
    let (second, _) = stage.asked_once();
    client.say("{}");
    let later = stage.shards[0].state.now_unix_seconds + 100;
    stage.answer_hook(second, Hook::Refresh, Some(json!({"result": {"expire_at": later, "meta": {"m": 2}}})));
    stage.pass_by(98);
    assert!(stage.asked().is_empty());
    stage.pass_by(3);
    let (third, body) = stage.asked_once();
    assert_eq!(body["meta"], json!({"m": 2}));
    let heard = client.hear();
    assert!(heard.iter().all(|heard| heard == "{}"), "pings, which are answered: {heard:?}");
    stage.answer_hook(third, Hook::Refresh, Some(json!({"result": {"expired": true}})));
    assert_eq!(client.hear(), ["close 3005"]);
}

#[test]
fn the_back_end_is_asked_on_time_whether_a_subscription_goes_on() {
    let mut stage = Stage::hooked(&[Hook::SubRefresh]);
    let now = stage.shards[0].state.now_unix_seconds;
    let mut client = stage.stranger(0, ROOM);
    stage.hear_after(&mut client, &json!({"id": 1, "connect": {"token": signed(&json!({"sub": "42"}))}}));
    let token = signed(&json!({"sub": "42", "channel": "plain:a", "exp": now + 10}));
    let heard = stage.hear_after(&mut client, &json!({"id": 2, "subscribe": {"channel": "plain:a", "token": token}}));
    assert_eq!(heard, [r#"{"id":2,"subscribe":{}}"#]);
    stage.pass_by(8);
    assert!(stage.asked().is_empty());
    stage.pass_by(3);
    let (first, body) = stage.asked_once();
    assert_eq!((&body["user"], &body["channel"]), (&json!("42"), &json!("plain:a")));
    let later = stage.shards[0].state.now_unix_seconds + 20;
    stage.answer_hook(first, Hook::SubRefresh, Some(json!({"result": {"expire_at": later}})));
    stage.pass_by(22);
    let (second, _) = stage.asked_once();
    stage.answer_hook(second, Hook::SubRefresh, None);
    stage.pass_by(62);
    let (third, _) = stage.asked_once();
    stage.answer_hook(third, Hook::SubRefresh, Some(json!({"result": {"expired": true}})));
    let expected = r#"{"push":{"channel":"plain:a","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(client.hear(), [expected]);
    assert!(stage.shards[0].state.expiries.is_empty());
    // Without a token there is nothing to bring.
    let heard = stage.hear_after(&mut client, &json!({"id": 3, "subscribe": {"channel": "plain:a"}}));
    assert!(heard[0].contains("subscribe"));
    let heard = stage.hear_after(&mut client, &json!({"id": 4, "sub_refresh": {"channel": "plain:a"}}));
    assert!(heard[0].contains(r#""code":108"#));
}

#[test]
fn the_back_end_is_told_what_is_known_of_a_client_now() {
    let mut stage = Stage::hooked(&[Hook::Attributes]);
    let token = mint(SECRET.as_bytes(), &Claims { sub: "eve", ..Claims::default() });
    let mut client = stage.stranger(0, ROOM);
    stage.hear_after(&mut client, &json!({"id": 1, "connect": {"token": token}}));
    assert!(stage.asked().is_empty(), "it connects, and nothing has changed");
    for (patch, expected) in [(r#"{"a":{"b":1}}"#, json!({"a": {"b": 1}})), (r#"{"a":null}"#, Value::Null)] {
        let patch = AttributesPatch::read(patch.as_bytes(), &stage.shards[0].state.config.attributes).unwrap();
        stage.shards[0].state.change_attributes(&[0], &patch);
        stage.settle();
        let told = stage.asked();
        let [(None, body)] = &told[..] else { panic!("{told:?}") };
        assert_eq!((&body["user"], &body["meta"]), (&json!("eve"), &expected));
        assert_eq!((&body["transport"], &body["protocol"]), (&json!("websocket"), &json!("json")));
    }
}

#[test]
fn the_back_end_is_told_once_that_a_client_has_gone_and_why() {
    let mut stage = Stage::hooked(&[Hook::Disconnect]);
    let told = |stage: &mut Stage| {
        let told = stage.asked();
        told.into_iter()
            .map(|(ticket, body)| {
                assert_eq!(ticket, None, "nobody waits");
                (body["code"].as_u64().unwrap(), body["reason"].as_str().unwrap().to_owned())
            })
            .collect::<Vec<_>>()
    };
    let client = stage.client(0, ROOM);
    client.peer.reset();
    stage.settle();
    assert_eq!(told(&mut stage), [(3000, "connection closed".to_owned())]);
    let mut client = stage.client(0, ROOM);
    client.say("nonsense");
    stage.settle();
    assert_eq!(
        (client.hear(), told(&mut stage)),
        (vec!["close 3501".to_owned()], vec![(3501, "bad request".to_owned())])
    );
    client.peer.reset();
    stage.settle();
    let stranger = stage.stranger(0, ROOM);
    stranger.peer.reset();
    stage.settle();
    assert!(told(&mut stage).is_empty(), "once, and of strangers nothing");
    let mut client = stage.client(0, ROOM);
    stage.control.to_shards[0].send(ToShard::Shutdown { spread_ms: 0 });
    stage.settle();
    assert_eq!((client.hear(), told(&mut stage)), (vec!["close 3001".to_owned()], vec![(3001, "shutdown".to_owned())]));
}
