//! What a client is told unasked (protocol.md section 8).

use super::{
    PublicationView, Unsubscribe,
    json::{Members, write_integer, write_string, write_verbatim},
    publication::write_publication,
};

/// A ping: an empty reply (section 6).
pub const PING: &[u8] = b"{}";

/// Appends the push of a publication to a subscriber of its channel.
pub fn push_publication(out: &mut Vec<u8>, publication: &PublicationView<'_>) {
    // What the names, the braces and two numbers take, so that the buffer grows once.
    const OVERHEAD_BYTES: usize = 64;

    out.reserve(OVERHEAD_BYTES + publication.channel.len() + publication.data.len());
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    write_string(out, publication.channel);
    out.extend_from_slice(b",\"pub\":");
    write_publication(out, publication, true);
    out.extend_from_slice(b"}}");
}

/// Appends the push that tells a client that the server has ended a subscription of its.
pub fn push_unsubscribe(out: &mut Vec<u8>, channel: &str, unsubscribe: Unsubscribe) {
    out.extend_from_slice(b"{\"push\":{\"channel\":");
    write_string(out, channel);
    out.extend_from_slice(b",\"unsubscribe\":");
    let mut members = Members::begin(out);
    write_integer(members.name("code"), u64::from(unsubscribe.code()));
    members.string("reason", unsubscribe.reason());
    members.end();
    out.extend_from_slice(b"}}");
}

/// Appends the push of a message that belongs to no channel. `data` is a JSON text.
pub fn push_message(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(b"{\"push\":{\"message\":{\"data\":");
    write_verbatim(out, data);
    out.extend_from_slice(b"}}}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ClientInfoView;

    fn publication<'a>(channel: &'a str, data: &'a [u8]) -> PublicationView<'a> {
        PublicationView { channel, data, info: None, offset: 0, tags: None, epoch: None }
    }

    fn pushed(publication: &PublicationView<'_>) -> String {
        let mut out = Vec::new();
        push_publication(&mut out, publication);
        String::from_utf8(out).expect("JSON")
    }

    #[test]
    fn publications_are_pushed_as_the_reference_does() {
        let first = PublicationView { offset: 1, epoch: Some("lhAHFFqz"), ..publication("hh:1", br#"{"n": 1}"#) };
        assert_eq!(
            pushed(&first),
            r#"{"push":{"channel":"hh:1","pub":{"data":{"n": 1},"offset":1,"epoch":"lhAHFFqz"}}}"#
        );
        let second = PublicationView { offset: 2, tags: Some(br#"{"a":"b"}"#), data: br#"{"n": 2}"#, ..first };
        assert_eq!(
            pushed(&second),
            r#"{"push":{"channel":"hh:1","pub":{"data":{"n": 2},"offset":2,"tags":{"a":"b"}}}}"#
        );
        let info = ClientInfoView { user: "42", client: "c-1", conn_info: Some(br#"{"name": "Al"}"#) };
        let by_client = PublicationView { info: Some(info), ..publication("news", br#"{"x":1}"#) };
        assert_eq!(
            pushed(&by_client),
            r#"{"push":{"channel":"news","pub":{"data":{"x":1},"info":{"user":"42","client":"c-1","conn_info":{"name": "Al"}}}}}"#
        );
    }

    #[test]
    fn an_anonymous_publisher_has_an_empty_user() {
        let info = ClientInfoView { user: "", client: "c", conn_info: None };
        let by_client = PublicationView { info: Some(info), ..publication("c", b"1") };
        assert_eq!(pushed(&by_client), r#"{"push":{"channel":"c","pub":{"data":1,"info":{"user":"","client":"c"}}}}"#);
    }

    #[test]
    fn no_line_feed_and_no_quote_breaks_a_push() {
        let odd = publication("a\"b\n", b"[1,\n2]\n");
        assert_eq!(pushed(&odd), r#"{"push":{"channel":"a\"b\n","pub":{"data":[1,2]}}}"#);
    }

    #[test]
    fn other_pushes_are_those_of_the_reference() {
        let mut out = Vec::new();
        push_unsubscribe(&mut out, "hh:srv", Unsubscribe::SERVER);
        assert_eq!(out, br#"{"push":{"channel":"hh:srv","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#);
        out.clear();
        push_message(&mut out, b"{\"a\":\n1}");
        assert_eq!(out, br#"{"push":{"message":{"data":{"a":1}}}}"#);
    }
}
