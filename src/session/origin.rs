//! Which web pages may connect.
//!
//! Browsers let every page open a WebSocket to every host and send the page's origin along; a
//! server that does not look lends its users' identities to strangers' pages (RFC 6455 section 10.2).

/// Whether a page of this origin may connect to this host: its own host's pages, and those of
/// `allowed`, which are exact, or have one `*` for a part, or are "*" for any.
pub fn is_allowed<'a>(origin: &str, host: Option<&str>, allowed: impl IntoIterator<Item = &'a str>) -> bool {
    let is_same_host = match (origin.split_once("://"), host) {
        (Some((_, authority)), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    };
    is_same_host || allowed.into_iter().any(|pattern| matches(pattern, origin))
}

/// Schemes and hosts know no case.
fn matches(pattern: &str, origin: &str) -> bool {
    let Some((front, back)) = pattern.split_once('*') else { return pattern.eq_ignore_ascii_case(origin) };
    let starts = origin.get(..front.len()).is_some_and(|start| start.eq_ignore_ascii_case(front));
    let rest = if starts { &origin[front.len()..] } else { return false };
    let Some((star, end)) = rest.len().checked_sub(back.len()).and_then(|start| rest.split_at_checked(start)) else {
        return false;
    };
    // A part of a host or of a port: what a path or a user's name would hold must not look like one.
    let is_part = star.chars().all(|character| character.is_ascii_alphanumeric() || "-._~:[]".contains(character));
    is_part && end.eq_ignore_ascii_case(back)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pages_of_the_same_host_and_port_may_connect() {
        assert!(is_allowed("http://Example.com:8000", Some("example.com:8000"), []));
        assert!(!is_allowed("http://example.com", Some("example.com:8000"), []));
        assert!(!is_allowed("http://evil.com", Some("example.com"), []));
        assert!(!is_allowed("null", Some("null"), []));
        assert!(!is_allowed("http://", None, []));
    }

    #[test]
    fn configured_origins_may_connect() {
        let is = |origin, pattern| is_allowed(origin, Some("here"), [pattern]);
        assert!(is("https://app.example.com", "https://app.example.com"));
        assert!(is("https://App.example.com", "https://app.Example.com"));
        assert!(!is("https://app.example.com.evil.com", "https://app.example.com"));
        assert!(is("https://app.example.com", "https://*.example.com"));
        assert!(!is("https://example.com", "https://*.example.com"));
        assert!(!is("https://evilexample.com", "https://*.example.com"));
        assert!(!is("http://app.example.com", "https://*.example.com"));
        assert!(is("null", "*"));
        assert!(is("http://localhost:5173", "http://localhost:*"));
        assert!(!is("aa", "aa*a"), "the parts of a pattern do not overlap");
    }

    #[test]
    fn hostile_origins_do_not_look_like_friendly_ones() {
        let is =
            |origin| is_allowed(origin, Some("here.example"), ["https://*.example.com", "https://app.example.org"]);
        for origin in [
            "",
            "null",
            "*",
            "https://",
            "https://.example.com.evil.example",
            "https://evil.example/.example.com",
            "https://evil.example#.example.com",
            "https://evil.example?.example.com",
            "https://evil.example\\.example.com",
            "https://evil.example@app.example.com",
            "https://user:password@app.example.com",
            "https://evil.example, https://app.example.com",
            "https://evil.example https://app.example.com",
            "http://app.example.com",
            "https://app.example.com:443@evil.example",
            "https://app.example.com.",
            "https://app.example.com\u{0}",
            "https://app.ex\u{430}mple.com",
            "https://app.example.org.",
            "https://app.example.org:8443",
            "https://app.example.org/",
            " https://app.example.org",
            "https:app.example.org",
            "//app.example.org",
            "here.example",
            "https://here.example.evil.example",
            "https://here.example:443",
            "https://evil.example@here.example",
        ] {
            assert!(!is(origin), "{origin:?}");
        }
        assert!(is("https://a.b.example.com") && is("https://app.example.org") && is("https://here.example"));
    }

    proptest! {
        /// No text beside an allowed origin is let in for what it begins or ends with.
        #[test]
        fn what_is_added_to_an_origin_makes_it_another(added in "[ -~]{1,12}", at in 0..40_usize) {
            let allowed = "https://app.example.org";
            let at = at.min(allowed.len());
            let origin = format!("{}{added}{}", &allowed[..at], &allowed[at..]);
            prop_assert!(!is_allowed(&origin, Some("here.example"), [allowed]) || origin.eq_ignore_ascii_case(allowed));
        }

        /// Whatever is let in by a pattern is of the host that the pattern means.
        #[test]
        fn a_star_stands_for_a_part_of_a_host(star in "[ -~]{0,20}") {
            let origin = format!("https://{star}.example.com");
            if is_allowed(&origin, None, ["https://*.example.com"]) {
                let host = origin.strip_prefix("https://").expect("it was written so");
                prop_assert!(!host.contains(['/', '@', '?', '#', '\\', ' ', ',', '%']), "{host}");
            }
        }
    }
}
