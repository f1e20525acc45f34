//! What RESP says, checked from outside: exact texts, any cut of the stream, round trips.

use bytes::BytesMut;
use proptest::{collection::vec, prelude::*};

use super::*;

/// Small, so that each is reached.
const LIMITS: Limits = Limits {
    arguments_max: 6,
    bulk_bytes_max: 100,
    command_bytes_max: 300,
    line_bytes_max: 40,
    is_unauthenticated: false,
};

/// The commands of a stream that arrives in pieces, up to its first violation.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> (Vec<Vec<Vec<u8>>>, Option<Violation>) {
    let (mut parser, mut input, mut commands) = (Parser::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match parser.take(&mut input, limits) {
                Ok(Some(command)) => commands.push(command.arguments_from(0).map(<[u8]>::to_vec).collect()),
                Ok(None) => break,
                Err(violation) => return (commands, Some(violation)),
            }
        }
        assert!(parser.bytes_min() > input.len(), "asks for bytes that are there");
    }
    (commands, None)
}

#[track_caller]
fn check_refused(input: &str, limits: &Limits, text: &str) {
    for pieces in [vec![input.as_bytes()], input.as_bytes().chunks(1).collect()] {
        let (_, violation) = read(pieces, limits);
        let mut reply = Vec::new();
        violation.expect("a violation").reply().write(Version::Two, &mut reply);
        assert_eq!(String::from_utf8(reply).unwrap(), format!("-ERR Protocol error: {text}\r\n"), "{input:?}");
    }
}

#[track_caller]
fn check_read(input: &str, expected: &[&[&str]]) {
    let expected: Vec<Vec<Vec<u8>>> =
        expected.iter().map(|command| command.iter().map(|text| text.as_bytes().to_vec()).collect()).collect();
    assert_eq!(read([input.as_bytes()], &LIMITS), (expected.clone(), None), "{input:?}");
    assert_eq!(read(input.as_bytes().chunks(1), &LIMITS), (expected, None), "{input:?} byte by byte");
}

#[test]
fn arrays_and_lines_may_follow_each_other() {
    check_read(
        "*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\nPING\r\n\r\n  \n*0\r\n*-1\r\n*1\r\n$0\r\n\r\nECHO \"a b\" 'c'\n",
        &[&["ECHO", "a\r\n"], &["PING"], &[""], &["ECHO", "a b", "c"]],
    );
}

#[test]
fn an_argument_shares_the_received_bytes() {
    let mut input = BytesMut::from(&b"*2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n*1"[..]);
    let received = input.as_ptr();
    let command = Parser::new().take(&mut input, &LIMITS).unwrap().unwrap();
    assert_eq!(command.share(1).unwrap().as_ptr(), received.wrapping_add(18));
    assert_eq!(command.share(1).unwrap(), "hello");
    assert_eq!(command.share(2), None);
    assert_eq!(command.bytes_len(), 25);
    assert_eq!(input, "*1");
}

#[test]
fn a_partial_payload_names_the_bytes_it_needs() {
    let mut parser = Parser::new();
    let head = b"*2\r\n$4\r\nECHO\r\n$50\r\nabc";
    assert_eq!(parser.parse(head, &LIMITS), Ok(Parsed::Partial { bytes_min: head.len() - 3 + 50 + 2 }));
}

#[test]
fn garbage_gets_the_answers_of_redis() {
    check_refused("*a\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*+1\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*01\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*7\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*99999999999999999999\r\n", &LIMITS, "invalid multibulk length");
    check_refused("*1\rx", &LIMITS, "invalid multibulk length");
    check_refused("*1\r\nPING\r\n", &LIMITS, "expected '$', got 'P'");
    check_refused("*1\r\n\r\n", &LIMITS, "expected '$', got '\\r'");
    check_refused("*1\r\n$a\r\n", &LIMITS, "invalid bulk length");
    check_refused("*1\r\n$-1\r\n", &LIMITS, "invalid bulk length");
    check_refused("*1\r\n$-9223372036854775808\r\n", &LIMITS, "invalid bulk length");
    check_refused("*1\r\n$999999999999999999999\r\n", &LIMITS, "invalid bulk length");
    check_refused("*1\r\n$999999999999\r\n", &LIMITS, "invalid bulk length: 999999999999 bytes, 100 are allowed");
    check_refused("*1\r\n$101\r\n", &LIMITS, "invalid bulk length: 101 bytes, 100 are allowed");
    check_refused("\"PING\r\n", &LIMITS, "unbalanced quotes in request");
    check_refused("a b c d e f g\r\n", &LIMITS, "invalid multibulk length");
    check_refused(&format!("*{}", "1".repeat(60)), &LIMITS, "too big mbulk count string");
    check_refused(&format!("*1\r\n${}", "1".repeat(60)), &LIMITS, "too big bulk count string");
    check_refused(&"a".repeat(60), &LIMITS, "too big inline request");
    check_refused(&format!("{}\r\n", "a".repeat(60)), &LIMITS, "too big inline request");
    let bulk = format!("$90\r\n{}\r\n", "a".repeat(90));
    check_refused(&format!("*4\r\n{bulk}{bulk}{bulk}{bulk}"), &LIMITS, "too big command");
}

#[test]
fn a_wrong_length_is_not_guessed_at() {
    check_refused("*1\r\n$3\r\nPING\r\n", &LIMITS, "expected a line end behind an argument: its length is wrong");
    check_refused("*1\r\n$5\r\nPING\r\n\r\n", &LIMITS, "expected a line end behind an argument: its length is wrong");
}

#[test]
fn before_authentication_limits_are_those_of_redis() {
    let limits = Limits::before_authentication();
    check_refused("*11\r\n", &limits, "unauthenticated multibulk length");
    check_refused("*1\r\n$16385\r\n", &limits, "unauthenticated bulk length");
    assert_eq!(read([&b"*10\r\n$16384\r\n"[..]], &limits), (vec![], None));
}

#[test]
fn replies_are_written_in_both_versions() {
    #[track_caller]
    fn check(reply: Reply, two: &str, three: &str) {
        for (version, expected) in [(Version::Two, two), (Version::Three, three)] {
            let mut output = Vec::new();
            reply.write(version, &mut output);
            assert_eq!(String::from_utf8(output).unwrap(), expected);
        }
    }
    check(Reply::OK, "+OK\r\n", "+OK\r\n");
    check(Reply::Error("ERR a\r\nb".into()), "-ERR a  b\r\n", "-ERR a  b\r\n");
    check(Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
    check(Reply::bulk("a\r\n"), "$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n");
    check(Reply::Null, "$-1\r\n", "_\r\n");
    check(Reply::Array(vec![Reply::Integer(1), Reply::Null]), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n");
    check(Reply::ArrayHead(3), "*3\r\n", "*3\r\n");
    check(
        Reply::Map(vec![(Reply::bulk("a"), Reply::Integer(1))]),
        "*2\r\n$1\r\na\r\n:1\r\n",
        "%1\r\n$1\r\na\r\n:1\r\n",
    );
    check(Reply::Verbatim("abc".into()), "$3\r\nabc\r\n", "=7\r\ntxt:abc\r\n");
}

/// Streams that are nearly right: whole commands, with bytes changed here and there.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let argument = vec(prop_oneof![Just(b'a'), Just(b'"'), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..30);
    let array = vec(argument, 1..7).prop_map(|arguments| {
        let mut bytes = Vec::new();
        write_command(arguments.iter().map(Vec::as_slice), &mut bytes);
        bytes
    });
    let line =
        vec(prop_oneof![Just(b'a'), Just(b' '), Just(b'"'), Just(b'\\'), any::<u8>()], 0..40).prop_map(|mut line| {
            line.extend_from_slice(b"\r\n");
            line
        });
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (vec(prop_oneof![3 => array, 1 => line], 0..6), changes).prop_map(|(commands, changes)| {
        let mut stream = commands.concat();
        for (index, byte) in changes {
            if !stream.is_empty() {
                let index = index.index(stream.len());
                stream[index] = byte;
            }
        }
        stream
    })
}

proptest! {
    #[test]
    fn any_cut_says_the_same(stream in stream(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = read([stream.as_slice()], &LIMITS);
        prop_assert_eq!(&read(stream.chunks(1), &LIMITS), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(&read(cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]), &LIMITS), &whole);
    }

    #[test]
    fn what_is_written_is_read(commands in vec(vec(vec(any::<u8>(), 0..40), 1..6), 0..6)) {
        let mut stream = Vec::new();
        for command in &commands {
            write_command(command.iter().map(Vec::as_slice), &mut stream);
        }
        prop_assert_eq!(read([stream.as_slice()], &LIMITS), (commands, None));
    }

    #[test]
    fn bytes_without_sense_do_no_harm(stream in vec(any::<u8>(), 0..200)) {
        let whole = read([stream.as_slice()], &Limits::new(1 << 20));
        prop_assert_eq!(read(stream.chunks(1), &Limits::new(1 << 20)), whole);
    }
}
