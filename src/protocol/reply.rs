//! Answers to commands (protocol.md sections 3 to 9).

use super::{
    ErrorCode, PublicationView,
    json::{Members, write_integer, write_string},
    publication::write_publication,
};

/// What a connect command brought.
#[derive(Debug, Clone, Copy)]
pub struct ConnectResult<'a> {
    /// The client id; never empty.
    pub client: &'a str,
    /// The server's name and version; never empty.
    pub version: &'a str,
    /// Server-side subscriptions, by channel.
    pub subs: &'a [(&'a str, SubscribeResult<'a>)],
    /// Seconds between pings.
    pub ping_seconds: u32,
    /// Whether the client has to answer pings.
    pub pong: bool,
}

/// What a subscription brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct SubscribeResult<'a> {
    /// The client may ask for what it missed when it comes back.
    pub recoverable: bool,
    /// The client is told offsets.
    pub positioned: bool,
    /// Identity of the stream; "" if the channel has none.
    pub epoch: &'a str,
    /// The stream's last offset; after a recovery the one that the client named.
    pub offset: u64,
    /// The client asked for what it missed.
    pub was_recovering: bool,
    /// It has got all of it.
    pub recovered: bool,
    /// What it missed, in order.
    pub publications: &'a [PublicationView<'a>],
}

/// What a channel's history holds.
#[derive(Debug, Clone, Copy)]
pub struct HistoryResultView<'a> {
    /// In the order asked for.
    pub publications: &'a [PublicationView<'a>],
    /// Identity of the stream.
    pub epoch: &'a str,
    /// The stream's last offset.
    pub offset: u64,
}

/// Appends the answer to a connect command.
pub fn reply_connect(out: &mut Vec<u8>, command: u32, result: &ConnectResult<'_>) {
    write_reply(out, command, "connect", |out| {
        let mut members = Members::begin(out);
        members.string("client", result.client);
        members.string("version", result.version);
        if !result.subs.is_empty() {
            let mut subs = Members::begin(members.name("subs"));
            for (channel, result) in result.subs {
                write_subscribe_result(subs.name_escaped(channel), result);
            }
            subs.end();
        }
        members.integer("ping", u64::from(result.ping_seconds));
        members.flag("pong", result.pong);
        members.end();
    });
}

/// Appends the answer to a subscribe command.
pub fn reply_subscribe(out: &mut Vec<u8>, command: u32, result: &SubscribeResult<'_>) {
    write_reply(out, command, "subscribe", |out| write_subscribe_result(out, result));
}

/// Appends the answer to an unsubscribe command.
pub fn reply_unsubscribe(out: &mut Vec<u8>, command: u32) {
    write_reply(out, command, "unsubscribe", |out| out.extend_from_slice(b"{}"));
}

/// Appends the answer to a publish command.
pub fn reply_publish(out: &mut Vec<u8>, command: u32) {
    write_reply(out, command, "publish", |out| out.extend_from_slice(b"{}"));
}

/// Appends the answer to a history command. All its fields are always there (section 4).
pub fn reply_history(out: &mut Vec<u8>, command: u32, result: &HistoryResultView<'_>) {
    write_reply(out, command, "history", |out| {
        let mut members = Members::begin(out);
        write_publications(members.name("publications"), result.publications);
        write_string(members.name("epoch"), result.epoch);
        write_integer(members.name("offset"), result.offset);
        members.end();
    });
}

/// Appends the answer to a command that was not carried out.
pub fn reply_error(out: &mut Vec<u8>, command: u32, error: ErrorCode) {
    write_reply(out, command, "error", |out| {
        let mut members = Members::begin(out);
        members.integer("code", u64::from(error.code()));
        members.string("message", error.message());
        members.flag("temporary", error.is_temporary());
        members.end();
    });
}

fn write_reply(out: &mut Vec<u8>, command: u32, method: &str, write_result: impl FnOnce(&mut Vec<u8>)) {
    let mut members = Members::begin(out);
    members.integer("id", u64::from(command));
    write_result(members.name(method));
    members.end();
}

fn write_subscribe_result(out: &mut Vec<u8>, result: &SubscribeResult<'_>) {
    let mut members = Members::begin(out);
    members.flag("recoverable", result.recoverable);
    members.string("epoch", result.epoch);
    if !result.publications.is_empty() {
        write_publications(members.name("publications"), result.publications);
    }
    members.flag("recovered", result.recovered);
    members.integer("offset", result.offset);
    members.flag("positioned", result.positioned);
    members.flag("was_recovering", result.was_recovering);
    members.end();
}

fn write_publications(out: &mut Vec<u8>, publications: &[PublicationView<'_>]) {
    out.push(b'[');
    for (index, publication) in publications.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_publication(out, publication, false);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON")
    }

    fn publication(data: &'static [u8], offset: u64) -> PublicationView<'static> {
        PublicationView { channel: "hh:1", data, info: None, offset, tags: None, epoch: Some("lhAHFFqz") }
    }

    #[test]
    fn subscribe_results_are_those_of_the_reference() {
        let plain = SubscribeResult::default();
        assert_eq!(written(|out| reply_subscribe(out, 2, &plain)), r#"{"id":2,"subscribe":{}}"#);
        let fresh = SubscribeResult { recoverable: true, positioned: true, epoch: "lhAHFFqz", ..plain };
        assert_eq!(
            written(|out| reply_subscribe(out, 2, &fresh)),
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","positioned":true}}"#
        );
        let publications = [publication(br#"{"n": 3}"#, 3)];
        let recovered =
            SubscribeResult { was_recovering: true, recovered: true, offset: 2, publications: &publications, ..fresh };
        assert_eq!(
            written(|out| reply_subscribe(out, 10, &recovered)),
            r#"{"id":10,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","publications":[{"data":{"n": 3},"offset":3}],"recovered":true,"offset":2,"positioned":true,"was_recovering":true}}"#
        );
        let at_top = SubscribeResult { publications: &[], offset: 3, ..recovered };
        assert_eq!(
            written(|out| reply_subscribe(out, 12, &at_top)),
            r#"{"id":12,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","recovered":true,"offset":3,"positioned":true,"was_recovering":true}}"#
        );
        let unrecovered = SubscribeResult { recovered: false, ..at_top };
        assert_eq!(
            written(|out| reply_subscribe(out, 14, &unrecovered)),
            r#"{"id":14,"subscribe":{"recoverable":true,"epoch":"lhAHFFqz","offset":3,"positioned":true,"was_recovering":true}}"#
        );
        let positioned = SubscribeResult { positioned: true, epoch: "GlGpPYWD", ..plain };
        assert_eq!(
            written(|out| reply_subscribe(out, 30, &positioned)),
            r#"{"id":30,"subscribe":{"epoch":"GlGpPYWD","positioned":true}}"#
        );
    }

    #[test]
    fn connect_results_are_those_of_the_reference() {
        let result =
            ConnectResult { client: "f62a001b", version: "6.9.1 OSS", subs: &[], ping_seconds: 25, pong: true };
        assert_eq!(
            written(|out| reply_connect(out, 1, &result)),
            r#"{"id":1,"connect":{"client":"f62a001b","version":"6.9.1 OSS","ping":25,"pong":true}}"#
        );
        let subs = [
            ("#42", SubscribeResult::default()),
            ("a\"b", SubscribeResult { positioned: true, epoch: "e", ..SubscribeResult::default() }),
        ];
        let result = ConnectResult { subs: &subs, ..result };
        assert_eq!(
            written(|out| reply_connect(out, 1, &result)),
            r##"{"id":1,"connect":{"client":"f62a001b","version":"6.9.1 OSS","subs":{"#42":{},"a\"b":{"epoch":"e","positioned":true}},"ping":25,"pong":true}}"##
        );
    }

    #[test]
    fn void_results_and_errors_are_those_of_the_reference() {
        assert_eq!(written(|out| reply_unsubscribe(out, 5)), r#"{"id":5,"unsubscribe":{}}"#);
        assert_eq!(written(|out| reply_publish(out, 3)), r#"{"id":3,"publish":{}}"#);
        assert_eq!(
            written(|out| reply_error(out, 20, ErrorCode::UnrecoverablePosition)),
            r#"{"id":20,"error":{"code":112,"message":"unrecoverable position"}}"#
        );
        assert_eq!(
            written(|out| reply_error(out, 1, ErrorCode::Internal)),
            r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#
        );
    }

    #[test]
    fn a_history_has_all_its_fields_even_if_it_is_empty() {
        let empty = HistoryResultView { publications: &[], epoch: "", offset: 0 };
        assert_eq!(
            written(|out| reply_history(out, 7, &empty)),
            r#"{"id":7,"history":{"publications":[],"epoch":"","offset":0}}"#
        );
        let publications = [publication(b"1", 1), publication(b"2", 2)];
        let full = HistoryResultView { publications: &publications, epoch: "e", offset: 2 };
        assert_eq!(
            written(|out| reply_history(out, 7, &full)),
            r#"{"id":7,"history":{"publications":[{"data":1,"offset":1},{"data":2,"offset":2}],"epoch":"e","offset":2}}"#
        );
    }
}
