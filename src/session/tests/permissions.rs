//! The table of permissions: who may do what where.

use super::config;
use crate::{
    protocol::ErrorCode,
    session::permission::{self, Subject},
};

const ANONYMOUS: Subject<'_> = Subject { user: "", is_unrestricted: false, is_operator: false };
const KNOWN: Subject<'_> = Subject { user: "42", is_unrestricted: false, is_operator: false };
const OPERATOR: Subject<'_> = Subject { user: "", is_unrestricted: true, is_operator: true };

const DENIED: Result<(), ErrorCode> = Err(ErrorCode::PermissionDenied);
const UNKNOWN: Result<(), ErrorCode> = Err(ErrorCode::UnknownChannel);
const UNAVAILABLE: Result<(), ErrorCode> = Err(ErrorCode::NotAvailable);

#[test]
fn subscribing() {
    let namespaces = config().namespaces;
    let may = |subject, channel| permission::subscribe(&namespaces, subject, channel).map(|_| ());
    for (channel, anonymous, known, operator) in [
        ("open:a", Ok(()), Ok(()), Ok(())),
        ("client:a", DENIED, Ok(()), Ok(())),
        ("closed:a", DENIED, DENIED, Ok(())),
        ("subscriber:a", DENIED, Ok(()), Ok(())),
        ("plain", DENIED, Ok(()), Ok(())),
        ("$open:a", DENIED, DENIED, Ok(())),
        ("open:a#42", DENIED, DENIED, Ok(())),
        ("#42", DENIED, DENIED, Ok(())),
        ("#a:42", DENIED, DENIED, Ok(())),
        ("nowhere:a", UNKNOWN, UNKNOWN, UNKNOWN),
        ("$nowhere:a", UNKNOWN, UNKNOWN, UNKNOWN),
        (":a", UNKNOWN, UNKNOWN, UNKNOWN),
    ] {
        assert_eq!(may(ANONYMOUS, channel), anonymous, "anonymous, {channel}");
        assert_eq!(may(KNOWN, channel), known, "known, {channel}");
        assert_eq!(may(OPERATOR, channel), operator, "operator, {channel}");
    }
}

#[test]
fn publishing() {
    let namespaces = config().namespaces;
    let may =
        |subject, channel, is_subscribed| permission::publish(&namespaces, subject, channel, is_subscribed).map(|_| ());
    for (channel, anonymous, known, subscribed) in [
        ("open:a", Ok(()), Ok(()), Ok(())),
        ("client:a", DENIED, Ok(()), Ok(())),
        ("closed:a", DENIED, DENIED, DENIED),
        ("subscriber:a", DENIED, DENIED, Ok(())),
        ("#42", DENIED, Ok(()), Ok(())),
        ("#43", DENIED, DENIED, DENIED),
        ("client:a#42", DENIED, Ok(()), Ok(())),
        ("client:a#43,44", DENIED, DENIED, DENIED),
        ("#", DENIED, DENIED, DENIED),
        ("nowhere:a", UNKNOWN, UNKNOWN, UNKNOWN),
    ] {
        assert_eq!(may(ANONYMOUS, channel, false), anonymous, "anonymous, {channel}");
        assert_eq!(may(KNOWN, channel, false), known, "known, {channel}");
        assert_eq!(may(KNOWN, channel, true), subscribed, "subscribed, {channel}");
    }
    assert_eq!(may(ANONYMOUS, "subscriber:a", true), DENIED);
    assert_eq!(may(OPERATOR, "closed:a", false), Ok(()));
    assert_eq!(may(OPERATOR, "nowhere:a", false), UNKNOWN);
}

#[test]
fn reading_history() {
    let namespaces = config().namespaces;
    let may =
        |subject, channel, is_subscribed| permission::history(&namespaces, subject, channel, is_subscribed).map(|_| ());
    assert_eq!(may(ANONYMOUS, "open:a", true), UNAVAILABLE, "no history is kept");
    assert_eq!(may(OPERATOR, "open:a", true), UNAVAILABLE);
    assert_eq!(may(ANONYMOUS, "hh:a", false), Ok(()));
    assert_eq!(may(ANONYMOUS, "client:a", true), DENIED);
    assert_eq!(may(KNOWN, "client:a", false), Ok(()));
    assert_eq!(may(KNOWN, "subscriber:a", false), DENIED);
    assert_eq!(may(KNOWN, "subscriber:a", true), Ok(()));
    assert_eq!(may(OPERATOR, "subscriber:a", false), Ok(()));
    assert_eq!(may(KNOWN, "nowhere:a", true), UNKNOWN);
}

#[test]
fn asking_for_presence() {
    let namespaces = config().namespaces;
    let may = |subject, channel, is_subscribed| {
        permission::presence(&namespaces, subject, channel, is_subscribed).map(|_| ())
    };
    for (channel, anonymous, known, subscribed, operator) in [
        ("open:a", UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE),
        ("members:a", DENIED, DENIED, Ok(()), Ok(())),
        ("hh:a", Ok(()), Ok(()), Ok(()), Ok(())),
        ("client:a", DENIED, Ok(()), Ok(()), Ok(())),
        ("client:a#43", DENIED, DENIED, DENIED, Ok(())),
        ("nowhere:a", UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
    ] {
        assert_eq!(may(ANONYMOUS, channel, true), anonymous, "anonymous, {channel}");
        assert_eq!(may(KNOWN, channel, false), known, "known, {channel}");
        assert_eq!(may(KNOWN, channel, true), subscribed, "subscribed, {channel}");
        assert_eq!(may(OPERATOR, channel, false), operator, "operator, {channel}");
    }
}

#[test]
fn user_limited_channels() {
    let namespaces = config().namespaces;
    let may = |subject, channel| permission::subscribe(&namespaces, subject, channel).map(|_| ());
    for (channel, anonymous, known) in [
        ("members:room#42", DENIED, Ok(())),
        ("members:room#7,42,15", DENIED, Ok(())),
        ("members:room#7,15", DENIED, DENIED),
        ("members:room#420", DENIED, DENIED),
        ("members:room#", DENIED, DENIED),
        ("members:room#,", DENIED, DENIED),
        ("$members:room#42", DENIED, DENIED),
        // The personal channel of the user "7,42".
        ("members:#7,42", DENIED, DENIED),
        ("members:#42", DENIED, Ok(())),
        ("members:room", DENIED, Ok(())),
        // Where it is not allowed.
        ("open:room#42", DENIED, DENIED),
    ] {
        assert_eq!(may(ANONYMOUS, channel), anonymous, "anonymous, {channel}");
        assert_eq!(may(KNOWN, channel), known, "known, {channel}");
        assert_eq!(may(OPERATOR, channel), Ok(()), "operator, {channel}");
    }
}

#[test]
fn names() {
    let namespaces = config().namespaces;
    let check = |channel: &str| permission::check_name(&namespaces, channel);
    assert_eq!(check(&"a".repeat(255)), Ok(()));
    assert_eq!(check(&"a".repeat(256)), Err(ErrorCode::BadRequest));
    assert_eq!(check("é"), Err(ErrorCode::BadRequest));
    assert_eq!(check("nowhere:a"), Ok(()), "that there is no such namespace, permissions say");
    // With an expression: for what follows the namespace, in place of the rule of ASCII.
    for channel in ["named:abc", "$named:abc", "named:é"] {
        assert_eq!(check(channel), Ok(()), "{channel}");
    }
    for channel in ["named:", "named:a1", "named:a:b", &format!("named:{}", "a".repeat(250))] {
        assert_eq!(check(channel), Err(ErrorCode::BadRequest), "{channel}");
    }
}
