//! What may not be called where, and what to write in its place.

use crate::source::Source;

/// One ban.
struct Ban {
    /// As it stands in code.
    call: &'static str,
    /// Where it is banned.
    place: Place,
    /// What to write in its place, or why not at all.
    instead: &'static str,
}

/// Modules by name.
enum Place {
    Everywhere,
    In(&'static [&'static str]),
    Outside(&'static [&'static str]),
}

impl Place {
    fn contains(&self, module: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::In(modules) => modules.contains(&module),
            Self::Outside(modules) => !modules.contains(&module),
        }
    }
}

/// Modules that run on a shard's thread.
const ON_SHARDS: Place =
    Place::In(&["uring", "websocket", "protocol", "session", "channel", "fanout", "mesh", "shard"]);

/// Modules that only compute: bytes and times in, decisions out.
const SANS_IO: Place = Place::In(&["websocket", "protocol", "resp", "session", "channel", "fanout"]);

const BANS: &[Ban] = &[
    Ban { call: "todo!", place: Place::Everywhere, instead: "what is not built has no name yet" },
    Ban { call: "unimplemented!", place: Place::Everywhere, instead: "what is not built has no name yet" },
    Ban { call: "dbg!", place: Place::Everywhere, instead: "`tracing::debug!`" },
    Ban {
        call: ".unwrap()",
        place: Place::Everywhere,
        instead: "`expect` with the reason why it holds, or a typed error",
    },
    Ban { call: "println!", place: Place::Outside(&["cli", "main"]), instead: "`tracing`" },
    Ban { call: "eprintln!", place: Place::Outside(&["cli", "main"]), instead: "`tracing`" },
    Ban {
        call: "process::exit",
        place: Place::Outside(&["cli", "server", "main"]),
        instead: "a result that the caller acts on",
    },
    Ban { call: "unbounded", place: Place::Everywhere, instead: "a bounded queue whose maximum is in limits.rs" },
    Ban {
        call: "unbounded_channel",
        place: Place::Everywhere,
        instead: "a bounded queue whose maximum is in limits.rs",
    },
    Ban {
        call: "thread::sleep",
        place: ON_SHARDS,
        instead: "the timer wheel: a shard that sleeps stops all its clients",
    },
    Ban { call: "Mutex", place: ON_SHARDS, instead: "a message: a shard shares no state" },
    Ban { call: "RwLock", place: ON_SHARDS, instead: "a message: a shard shares no state" },
    Ban {
        call: "Arc::clone",
        place: Place::In(&["fanout"]),
        instead: "`Rc`: a count shared between cores is paid per subscriber",
    },
    Ban { call: "Instant::now", place: SANS_IO, instead: "the time as an argument: the simulator owns the clock" },
    Ban { call: "SystemTime::now", place: SANS_IO, instead: "the time as an argument: the simulator owns the clock" },
    Ban { call: "TcpStream", place: SANS_IO, instead: "slices: only the loop touches a socket" },
    Ban { call: "File::open", place: SANS_IO, instead: "slices: only the loop touches files" },
];

/// A banned call that stands for a reason.
pub struct Exception {
    /// The file.
    pub path: &'static str,
    /// The call.
    pub call: &'static str,
    /// How often it stands there.
    pub count: usize,
    /// Why it may.
    pub reason: &'static str,
}

/// Banned calls in one file, and exceptions that it does not need any more.
pub fn violations(source: &Source, exceptions: &[Exception]) -> Vec<String> {
    let mut violations = banned_calls(source);
    for exception in exceptions.iter().filter(|exception| exception.path == source.path) {
        let named = format!("`{}`", exception.call);
        let count = violations.iter().filter(|violation| violation.contains(&named)).count();
        if count < exception.count {
            violations.push(format!("{}: {named} stands {count} times, {} are excepted", source.path, exception.count));
        } else if count == exception.count && !exception.reason.is_empty() {
            violations.retain(|violation| !violation.contains(&named));
        }
    }
    violations
}

fn banned_calls(source: &Source) -> Vec<String> {
    let module = source.module();
    BANS.iter()
        .filter(|ban| ban.place.contains(module))
        .flat_map(|ban| {
            source.positions(ban.call).map(move |position| {
                format!(
                    "{}:{}: `{}` is banned here; instead: {}",
                    source.path,
                    source.line(position),
                    ban.call,
                    ban.instead
                )
            })
        })
        .collect()
}

/// `unsafe`, and leave for it, outside the ring.
pub fn unsafe_violations(source: &Source) -> Vec<String> {
    if source.module() == "uring" {
        return Vec::new();
    }
    ["unsafe", "allow(unsafe_code)", "expect(unsafe_code)"]
        .iter()
        .flat_map(|word| source.positions(word))
        .map(|position| {
            format!(
                "{}:{}: only src/uring is trusted with `unsafe`; give it a safe surface there",
                source.path,
                source.line(position)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        violations(&Source::new(path, text), &[])
    }

    #[test]
    fn each_ban_is_found_where_it_holds() {
        for ban in BANS {
            let module = match ban.place {
                Place::Everywhere => "control",
                Place::In(modules) => modules[0],
                Place::Outside(_) => "shard",
            };
            let found = found(&format!("src/{module}/file.rs"), &format!("fn f() {{\n{} }}", ban.call));
            assert_eq!(found.len(), 1, "`{}` was not found in {module}", ban.call);
            assert!(found[0].starts_with(&format!("src/{module}/file.rs:2: ")), "{found:?}");
        }
    }

    #[test]
    fn a_ban_ends_where_its_place_ends() {
        assert!(found("src/cli/mod.rs", "println!()").is_empty());
        assert!(found("src/control/mod.rs", "Mutex::new()").is_empty());
        assert!(found("src/shard/mod.rs", "Instant::now()").is_empty());
    }

    #[test]
    fn an_exception_holds_for_its_count_only() {
        let exceptions =
            [Exception { path: "src/shard/mod.rs", call: "Mutex", count: 1, reason: "a test of this rule" }];
        let count = |text| violations(&Source::new("src/shard/mod.rs", text), &exceptions).len();
        assert_eq!(count("Mutex::new()"), 0);
        assert_eq!(count("Mutex::new() Mutex::new()"), 2);
        assert_eq!(count("nothing"), 1);
        assert_eq!(count("Mutex::new() RwLock::new()"), 1);
    }

    #[test]
    fn comments_and_tests_may_name_what_is_banned() {
        assert!(found("src/shard/mod.rs", "// no Mutex\n#[cfg(test)] mod tests { fn f() { x.unwrap() } }").is_empty());
    }

    #[test]
    fn unsafe_outside_the_ring_is_found() {
        assert_eq!(unsafe_violations(&Source::new("src/mesh/bell.rs", "fn f() { unsafe { g() } }")).len(), 1);
        assert_eq!(unsafe_violations(&Source::new("src/mesh/bell.rs", "#![allow(unsafe_code)]")).len(), 1);
        assert!(unsafe_violations(&Source::new("src/uring/ring.rs", "unsafe {}")).is_empty());
    }
}
