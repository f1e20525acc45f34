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
    let back_start = rest.len().checked_sub(back.len());
    back_start.and_then(|start| rest.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(back))
}

#[cfg(test)]
mod tests {
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
}
