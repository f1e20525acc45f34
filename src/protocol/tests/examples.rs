//! Messages as the reference writes them in JSON (protocol.md sections 4 to 9 and 18).

use crate::protocol::{
    ClientInfoView, ConnectResult, Delta, Disconnect, Encoding, ErrorCode, HistoryResultView, PresenceStats,
    PublicationView, Push, Refresh, RefreshResult, Reply, ServerSubscription, Shape, SubscribeResult, Tags,
    Unsubscribe,
};

fn reply(command: u32, reply: &Reply<'_>) -> String {
    let mut out = Vec::new();
    Encoding::Json.write_reply(&mut out, command, reply);
    String::from_utf8(out).expect("JSON")
}

fn push(channel: &str, push: &Push<'_>) -> String {
    let mut out = Vec::new();
    Encoding::Json.write_push(Shape::Bidirectional, &mut out, channel, push);
    String::from_utf8(out).expect("JSON")
}

fn publication(data: &'static [u8], offset: u64) -> PublicationView<'static> {
    PublicationView { data, info: None, offset, tags: None, delta: Delta::None, epoch: Some("lhAHFFqz") }
}

#[test]
fn subscribe_results_are_those_of_the_reference() {
    let written = |command, result| reply(command, &Reply::Subscribe(result));
    let plain = SubscribeResult::default();
    assert_eq!(written(2, plain), r#"{"id":2,"subscribe":{}}"#);
    let fresh = SubscribeResult { recoverable: true, positioned: true, epoch: "lhAHFFqz", ..plain };
    assert_eq!(written(2, fresh), r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","positioned":true}}"#);
    let publications = [publication(br#"{"n": 3}"#, 3)];
    let recovered =
        SubscribeResult { was_recovering: true, recovered: true, offset: 2, publications: &publications, ..fresh };
    assert_eq!(
        written(10, recovered),
        r#"{"id":10,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","publications":[{"data":{"n": 3},"offset":3}],"recovered":true,"offset":2,"positioned":true,"was_recovering":true}}"#
    );
    let at_top = SubscribeResult { publications: &[], offset: 3, ..recovered };
    assert_eq!(
        written(12, at_top),
        r#"{"id":12,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","recovered":true,"offset":3,"positioned":true,"was_recovering":true}}"#
    );
    let unrecovered = SubscribeResult { recovered: false, ..at_top };
    assert_eq!(
        written(14, unrecovered),
        r#"{"id":14,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","offset":3,"positioned":true,"was_recovering":true}}"#
    );
    let positioned = SubscribeResult { positioned: true, epoch: "GlGpPYWD", ..plain };
    assert_eq!(written(30, positioned), r#"{"id":30,"subscribe":{"epoch":"GlGpPYWD","positioned":true}}"#);
}

#[test]
fn connect_results_are_those_of_the_reference() {
    let result = ConnectResult {
        client: "f62a001b",
        version: "6.9.1 OSS",
        ping_seconds: 25,
        pong: true,
        ..ConnectResult::default()
    };
    assert_eq!(
        reply(1, &Reply::Connect(result)),
        r#"{"id":1,"connect":{"client":"f62a001b","version":"6.9.1 OSS","ping":25,"pong":true}}"#
    );
    let subs = [
        ("#42", SubscribeResult::default()),
        ("a\"b", SubscribeResult { positioned: true, epoch: "e", ..SubscribeResult::default() }),
    ];
    let result = ConnectResult { expires: true, ttl_seconds: 3600, data: Some(b"{}"), subs: &subs, ..result };
    assert_eq!(
        reply(1, &Reply::Connect(result)),
        r##"{"id":1,"connect":{"client":"f62a001b","version":"6.9.1 OSS","expires":true,"ttl":3600,"data":{},"subs":{"#42":{},"a\"b":{"epoch":"e","positioned":true}},"ping":25,"pong":true}}"##
    );
    let result = ConnectResult {
        client: "bf06",
        version: "6.9.1",
        subs: &[("news", SubscribeResult::default())],
        ping_seconds: 25,
        session: "aee1",
        ..ConnectResult::default()
    };
    let mut out = Vec::new();
    Encoding::Json.write_push(Shape::Unidirectional, &mut out, "", &Push::Connect(result));
    assert_eq!(
        String::from_utf8_lossy(&out),
        r#"{"connect":{"client":"bf06","version":"6.9.1","subs":{"news":{}},"ping":25,"session":"aee1"}}"#
    );
}

#[test]
fn void_results_and_errors_are_those_of_the_reference() {
    assert_eq!(reply(5, &Reply::Unsubscribe), r#"{"id":5,"unsubscribe":{}}"#);
    assert_eq!(reply(3, &Reply::Publish), r#"{"id":3,"publish":{}}"#);
    assert_eq!(reply(7, &Reply::Rpc(None)), r#"{"id":7,"rpc":{}}"#);
    assert_eq!(reply(7, &Reply::Rpc(Some(b"[1, 2]"))), r#"{"id":7,"rpc":{"data":[1, 2]}}"#);
    assert_eq!(
        reply(20, &ErrorCode::UnrecoverablePosition.into()),
        r#"{"id":20,"error":{"code":112,"message":"unrecoverable position"}}"#
    );
    assert_eq!(
        reply(1, &ErrorCode::Internal.into()),
        r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#
    );
    let refreshed = RefreshResult { expires: true, ttl_seconds: 500, ..RefreshResult::default() };
    assert_eq!(reply(4, &Reply::Refresh(refreshed)), r#"{"id":4,"refresh":{"expires":true,"ttl":500}}"#);
}

#[test]
fn histories_and_presence_have_all_their_fields_even_if_they_are_empty() {
    let empty = HistoryResultView { publications: &[], epoch: "", offset: 0 };
    assert_eq!(reply(7, &Reply::History(empty)), r#"{"id":7,"history":{"publications":[],"epoch":"","offset":0}}"#);
    let publications = [publication(b"1", 1), publication(b"2", 2)];
    let full = HistoryResultView { publications: &publications, epoch: "e", offset: 2 };
    assert_eq!(
        reply(7, &Reply::History(full)),
        r#"{"id":7,"history":{"publications":[{"data":1,"offset":1},{"data":2,"offset":2}],"epoch":"e","offset":2}}"#
    );
    assert_eq!(reply(8, &Reply::Presence(&[])), r#"{"id":8,"presence":{"presence":{}}}"#);
    let client = ClientInfoView { client: "c-1", chan_info: Some(b"{}"), ..ClientInfoView::default() };
    assert_eq!(
        reply(8, &Reply::Presence(&[client])),
        r#"{"id":8,"presence":{"presence":{"c-1":{"user":"","client":"c-1","chan_info":{}}}}}"#
    );
    assert_eq!(
        reply(9, &Reply::PresenceStats(PresenceStats::default())),
        r#"{"id":9,"presence_stats":{"num_clients":0,"num_users":0}}"#
    );
}

#[test]
fn publications_are_pushed_as_the_reference_does() {
    let pushed = |channel, publication| push(channel, &Push::Publication(publication));
    let first = publication(br#"{"n": 1}"#, 1);
    assert_eq!(
        pushed("hh:1", first),
        r#"{"push":{"channel":"hh:1","pub":{"data":{"n": 1},"offset":1,"epoch":"lhAHFFqz"}}}"#
    );
    let tags = Tags::from_json(br#"{"a":"b"}"#).expect("strings");
    let second = PublicationView { tags: Some(&tags), ..publication(br#"{"n": 2}"#, 2) };
    assert_eq!(
        pushed("hh:1", second),
        r#"{"push":{"channel":"hh:1","pub":{"data":{"n": 2},"offset":2,"tags":{"a":"b"}}}}"#
    );
    let info = ClientInfoView { user: "42", client: "c-1", conn_info: Some(br#"{"name": "Al"}"#), chan_info: None };
    let by_client = PublicationView { info: Some(info), ..publication(br#"{"x":1}"#, 0) };
    assert_eq!(
        pushed("news", by_client),
        r#"{"push":{"channel":"news","pub":{"data":{"x":1},"info":{"user":"42","client":"c-1","conn_info":{"name": "Al"}}}}}"#
    );
    let anonymous = ClientInfoView { client: "c", ..ClientInfoView::default() };
    let by_nobody = PublicationView { info: Some(anonymous), ..publication(b"1", 0) };
    assert_eq!(pushed("c", by_nobody), r#"{"push":{"channel":"c","pub":{"data":1,"info":{"user":"","client":"c"}}}}"#);
}

#[test]
fn deltas_are_strings() {
    let base = PublicationView { delta: Delta::Full, ..publication(br#"{"n": 0}"#, 1) };
    assert_eq!(
        push("d", &Push::Publication(base)),
        r#"{"push":{"channel":"d","pub":{"data":"{\"n\": 0}","offset":1}}}"#
    );
    let patch = PublicationView { delta: Delta::Patch, ..publication(b"1e\n1c@0,2:1}1pcLoR;", 2) };
    assert_eq!(
        push("d", &Push::Publication(patch)),
        r#"{"push":{"channel":"d","pub":{"data":"1e\n1c@0,2:1}1pcLoR;","offset":2,"delta":true}}}"#
    );
}

#[test]
fn no_line_feed_and_no_quote_breaks_a_push() {
    assert_eq!(
        push("a\"b\n", &Push::Publication(publication(b"[1,\n2]\n", 0))),
        r#"{"push":{"channel":"a\"b\n","pub":{"data":[1,2]}}}"#
    );
}

#[test]
fn other_pushes_are_those_of_the_reference() {
    assert_eq!(
        push("hh:srv", &Push::Unsubscribe(Unsubscribe::SERVER)),
        r#"{"push":{"channel":"hh:srv","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#
    );
    assert_eq!(push("", &Push::Message(b"{\"a\":\n1}")), r#"{"push":{"message":{"data":{"a":1}}}}"#);
    let info = ClientInfoView { user: "42", client: "c-1", ..ClientInfoView::default() };
    assert_eq!(
        push("jl:1", &Push::Join(info)),
        r#"{"push":{"channel":"jl:1","join":{"info":{"user":"42","client":"c-1"}}}}"#
    );
    let subscription =
        ServerSubscription { recoverable: true, epoch: "e", offset: 3, positioned: true, data: Some(b"{}") };
    assert_eq!(
        push("srv", &Push::Subscribe(subscription)),
        r#"{"push":{"channel":"srv","subscribe":{"recoverable":true,"epoch":"e","offset":3,"positioned":true,"data":{}}}}"#
    );
    assert_eq!(
        push("", &Push::Refresh(Refresh { expires: true, ttl_seconds: 3600 })),
        r#"{"push":{"refresh":{"expires":true,"ttl":3600}}}"#
    );
    assert_eq!(
        push("", &Push::Disconnect(Disconnect::INVALID_TOKEN)),
        r#"{"push":{"disconnect":{"code":3500,"reason":"invalid token"}}}"#
    );
}
