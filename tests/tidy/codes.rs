//! Every code of the protocol's lists, and the test that reaches it (protocol.md sections 13, 14 and 15).
//!
//! A code that the server knows is reached by a test whose text names it; one that it never gives says why.

use std::{fs, path::Path};

/// A code of the lists.
pub struct Code {
    /// Its number.
    pub number: u32,
    /// As the list calls it.
    pub name: &'static str,
    /// What reaches it.
    pub reach: Reach,
}

/// What reaches a code.
pub enum Reach {
    /// A test: its file, and its name.
    Test(&'static str, &'static str),
    /// Nothing, by design; but what the application answers to a hook, or asks for by the server API, is passed on.
    Application(&'static str),
    /// Nothing, by design.
    Never(&'static str),
}

const fn code(number: u32, name: &'static str, reach: Reach) -> Code {
    Code { number, name, reach }
}

use Reach::{Application, Never, Test};

const BAD_INPUT: &str = "src/session/tests/bad_input.rs";
const SESSION_HOOKS: &str = "src/session/tests/hooks.rs";
const SHARD_USERS: &str = "src/shard/tests/user_requests.rs";

/// All of them.
pub const CODES: &[Code] = &[
    code(
        100,
        "internal server error",
        Test("src/session/tests/published_keys.rs", "a_publisher_that_is_down_makes_clients_come_back"),
    ),
    code(101, "unauthorized", Application("a client without credentials is closed with 3501, as section 5 says")),
    code(102, "unknown channel", Test(BAD_INPUT, "commands_that_are_answered_by_an_error")),
    code(103, "permission denied", Test(BAD_INPUT, "commands_that_are_answered_by_an_error")),
    code(104, "method not found", Application("only the application knows its methods; without it rpc is 108")),
    code(105, "already subscribed", Test(BAD_INPUT, "too_many_channels_and_the_same_channel_twice")),
    code(106, "limit exceeded", Test(BAD_INPUT, "too_many_channels_and_the_same_channel_twice")),
    code(107, "bad request", Test(BAD_INPUT, "commands_that_are_answered_by_an_error")),
    code(108, "not available", Test(BAD_INPUT, "commands_that_are_answered_by_an_error")),
    code(
        109,
        "token expired",
        Test("src/session/tests/connecting.rs", "an_expired_token_is_answered_and_the_client_closes"),
    ),
    code(
        110,
        "expired",
        Test("src/session/tests/tokens.rs", "a_bad_subscription_token_keeps_the_client_out_and_a_foreign_one_ends_it"),
    ),
    code(
        111,
        "too many requests",
        Test("src/shard/tests/abuse.rs", "commands_beyond_their_rate_are_answered_and_then_end_the_connection"),
    ),
    code(
        112,
        "unrecoverable position",
        Test("src/shard/tests/slow.rs", "a_client_that_reads_no_replies_recovers_only_so_much"),
    ),
    code(
        113,
        "concurrent pagination",
        Application("a page of history needs no state here, so pages may be asked for at once"),
    ),
    code(3000, "connection closed", Never("a connection that ends so is told nothing: its client sees the end itself")),
    code(3001, "shutdown", Test("src/shard/tests/ending.rs", "nothing_follows_a_close_frame")),
    code(3004, "internal server error", Test(SESSION_HOOKS, "a_connect_ends_as_the_back_end_says")),
    code(
        3005,
        "connection expired",
        Test("src/shard/tests/tokens.rs", "a_connection_ends_when_its_token_is_not_refreshed_in_time"),
    ),
    code(
        3006,
        "subscription expired",
        Test("src/shard/tests/tokens.rs", "a_server_side_subscription_ends_with_its_connection"),
    ),
    code(3008, "slow", Test("src/shard/tests/streams.rs", "policies_of_slow_clients_hold_for_streams")),
    code(3009, "write error", Application("a socket that cannot be written to cannot be told so")),
    code(
        3010,
        "insufficient state",
        Test(
            "src/shard/tests/slow.rs",
            "a_slow_client_resumes_its_own_subscription_by_itself_and_the_servers_by_connecting",
        ),
    ),
    code(3011, "force reconnect", Application("it is the application's wish, or nobody's")),
    code(3012, "no pong", Test("src/session/tests/conversations.rs", "deadlines_by_phase")),
    code(
        3013,
        "too many requests",
        Test("src/session/tests/uplinks.rs", "a_paused_session_keeps_a_message_of_commands_and_no_more"),
    ),
    code(3014, "state invalidated", Application("nothing here makes a client's tokens and positions void at once")),
    code(
        3500,
        "invalid token",
        Test("src/session/tests/connecting.rs", "a_forged_or_garbled_token_ends_the_connection"),
    ),
    code(
        3501,
        "bad request",
        Test("src/session/tests/conversations.rs", "pings_may_be_control_frames_which_tools_answer_by_themselves"),
    ),
    code(3502, "stale", Test("src/shard/tests/ending.rs", "a_client_whose_connect_takes_too_long_is_told_so")),
    code(3503, "force disconnect", Test("tests/javascript/devices.mjs", "one device is ended, or all but some")),
    code(
        3504,
        "connection limit",
        Test("src/shard/tests/users.rs", "a_user_has_no_more_connections_than_allowed_on_all_shards_together"),
    ),
    code(
        3505,
        "channel limit",
        Test("src/session/tests/connecting.rs", "the_tokens_channels_are_granted_whatever_their_rules"),
    ),
    code(
        3506,
        "inappropriate protocol",
        Test("src/shard/tests/encodings.rs", "a_publication_that_is_no_json_parts_with_subscribers_in_json"),
    ),
    code(3507, "permission denied", Test(SESSION_HOOKS, "a_one_way_client_is_told_an_error_as_a_disconnect")),
    code(3508, "not available", Test(BAD_INPUT, "commands_that_end_the_connection")),
    code(
        3509,
        "too many errors",
        Application("errors are not counted: a client that makes many costs what one does that makes none"),
    ),
    code(
        2000,
        "server unsubscribe",
        Test("src/shard/tests/server_side.rs", "a_connected_client_is_subscribed_and_unsubscribed_by_pushes"),
    ),
    code(
        2500,
        "insufficient state",
        Test(
            "src/shard/tests/slow.rs",
            "a_slow_client_resumes_its_own_subscription_by_itself_and_the_servers_by_connecting",
        ),
    ),
    code(
        2501,
        "subscription expired",
        Test("src/shard/tests/tokens.rs", "a_subscription_ends_when_its_token_is_not_refreshed_in_time"),
    ),
    code(2502, "state invalidated", Never("nothing here makes a subscription's token and position void at once")),
];

/// Where it is shown that what the application says is passed on, whatever its code: errors, and ends.
const PASSED_ON: [(&str, &str); 2] = [
    (SESSION_HOOKS, "any_error_of_the_back_end_is_passed_on"),
    (SHARD_USERS, "any_code_of_the_list_may_end_a_connection"),
];

/// Tests that are not there or do not name their code, and codes that the source has and the lists have not.
pub fn violations(root: &Path) -> Vec<String> {
    let mut violations = Vec::new();
    for Code { number, name, reach } in CODES {
        if let Application(reason) | Never(reason) = reach
            && reason.is_empty()
        {
            violations.push(format!("{number} {name}: say why nothing here reaches it"));
        }
        let tests = match reach {
            Test(file, test) => vec![(*file, *test)],
            Application(_) if *number < 1000 => vec![PASSED_ON[0]],
            Application(_) => vec![PASSED_ON[1]],
            Never(_) => Vec::new(),
        };
        for (file, test) in tests {
            let text = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !body_of(&text, test).is_some_and(|body| names(body, *number)) {
                violations.push(format!("{number} {name}: {file} has no test {test:?} that names it"));
            }
        }
    }
    for file in ["src/protocol/error.rs", "src/protocol/disconnect.rs", "src/protocol/unsubscribe.rs"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for number in declared(code) {
            if CODES.iter().all(|code| code.number != number) {
                violations.push(format!("{file}: {number} is in none of the lists"));
            }
        }
    }
    violations
}

/// The text of a test in Rust or JavaScript, up to the next one.
fn body_of<'a>(text: &'a str, test: &str) -> Option<&'a str> {
    let start = text.find(&format!("fn {test}(")).or_else(|| text.find(&format!("test('{test}'")))?;
    let rest = &text[start + 1..];
    let end = ["#[test]", "\ntest("].iter().filter_map(|mark| rest.find(mark)).min();
    Some(&rest[..end.unwrap_or(rest.len())])
}

/// Whether a text has the number, not as a part of another.
fn names(text: &str, number: u32) -> bool {
    let number = number.to_string();
    text.match_indices(&number).any(|(start, _)| {
        let is_digit = |character: Option<char>| character.is_some_and(|character| character.is_ascii_digit());
        !is_digit(text[..start].chars().next_back()) && !is_digit(text[start + number.len()..].chars().next())
    })
}

/// The codes that a file declares: `= 100,` of an enum, and `new(3000, ` of a constant.
fn declared(code: &str) -> Vec<u32> {
    let after = |mark: &'static str| {
        code.match_indices(mark).filter_map(move |(start, _)| {
            let digits: String = code[start + mark.len()..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
    };
    after(" = ").chain(after("new(")).filter(|number| *number >= 100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_stands_once() {
        let mut numbers: Vec<u32> = CODES.iter().map(|code| code.number).collect();
        numbers.sort_unstable();
        let lists = (100..=113).chain([2000, 2500, 2501, 2502]).chain([3000, 3001]).chain(3004..=3006);
        let lists: Vec<u32> = lists.chain(3008..=3014).chain(3500..=3509).collect();
        assert_eq!(numbers, lists, "the lists of protocol.md");
    }

    #[test]
    fn a_test_that_does_not_name_its_code_is_found() {
        let text = "#[test]\nfn one() { 3501 }\n#[test]\nfn other() { 135012 }\ntest('words', 7)\n";
        let reaches = |test, number| body_of(text, test).is_some_and(|body| names(body, number));
        assert!(reaches("one", 3501) && reaches("words", 7));
        assert!(!reaches("other", 3501) && !reaches("on", 3501) && !reaches("one", 7));
    }

    #[test]
    fn declared_codes_are_found() {
        assert_eq!(declared("Internal = 100,\nNo = 5,\nSelf::new(3001, \"x\")"), [100, 3001]);
    }
}
