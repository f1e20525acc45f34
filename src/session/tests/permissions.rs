//! The table of permissions: who may do what where.

use super::config;
use crate::{
    protocol::ErrorCode,
    session::permission::{self, Subject},
};

const ANONYMOUS: Subject<'_> = Subject { user: "", is_operator: false };
const KNOWN: Subject<'_> = Subject { user: "42", is_operator: false };
const OPERATOR: Subject<'_> = Subject { user: "", is_operator: true };

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
        ("client:a#42", DENIED, DENIED, DENIED),
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
fn names() {
    assert_eq!(permission::check_name(&"a".repeat(255)), Ok(()));
    assert_eq!(permission::check_name(&"a".repeat(256)), Err(ErrorCode::BadRequest));
    assert_eq!(permission::check_name("é"), Err(ErrorCode::BadRequest));
    assert_eq!(permission::personal_channel("42"), "#42");
}
