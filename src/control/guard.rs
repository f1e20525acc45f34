//! Which requests to the operators' port are answered.
//!
//! The port has no password, but for commands to the running server, if one is set; it is the operator's because it listens on loopback. A browser on that
//! host also runs other people's pages, and they must neither read the console nor obtain its token:
//! - A foreign name that its owner lets resolve to 127.0.0.1 (DNS rebinding) shows in `Host`, so
//!   only names that cannot be rebound are answered: loopback names and addresses.
//! - A foreign page's own requests show in `Sec-Fetch-Site` and `Origin`, or lack the header that
//!   only the console's script can add without a preflight.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, Uri, Version, header};
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// The header that the console's script adds to its requests.
pub const CONSOLE_HEADER: &str = "x-tidegate-console";

/// The header that a command of the `tidegate` program has, and no page can give a request.
pub const COMMAND_HEADER: &str = "x-tidegate-command";

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RFC 9112 section 3.2.
    #[error("the request has no valid Host header")]
    NoHost,
    /// Possibly DNS rebinding.
    #[error(
        "this Host is not answered here, since any name may be made to point here: use http://127.0.0.1:PORT, \
         http://localhost:PORT or the address of [admin] listen; from another machine, an SSH tunnel (ssh -L)"
    )]
    ForeignHost,
    /// Another page's request.
    #[error("only the console's own page may ask for this; `tidegate token` mints a token on the command line")]
    ForeignPage,
    /// The operators' port is open to other machines, but the token is not.
    #[error(
        "the console's token is given to this machine only: open the console through an SSH tunnel (ssh -L), \
         or mint a token with `tidegate token`"
    )]
    ForeignMachine,
    /// No password of commands is set, and the peer is not on this host.
    #[error("commands are taken from this host only, unless admin.password is set: run `tidegate drain` there")]
    ForeignCommand,
    /// The password of commands is missing or another.
    #[error("commands need the password of admin.password, as Authorization: Bearer PASSWORD")]
    WrongPassword,
}

impl Refusal {
    /// Its label in the audit trail.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHost => "host_invalid",
            Self::ForeignHost => "host_forbidden",
            Self::ForeignPage => "page_forbidden",
            Self::ForeignMachine => "machine_forbidden",
            Self::ForeignCommand => "command_forbidden",
            Self::WrongPassword => "password_wrong",
        }
    }

    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoHost => StatusCode::BAD_REQUEST,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::ForeignPage | Self::ForeignMachine | Self::ForeignCommand => StatusCode::FORBIDDEN,
            Self::WrongPassword => StatusCode::UNAUTHORIZED,
        }
    }
}

/// The host that the request addresses, without its port, if it is answered. Under TLS (`is_secure`) any name is: a browser
/// has seen a certificate for it, which nobody has who makes a name of his own point here.
///
/// # Errors
/// [`Refusal::NoHost`], [`Refusal::ForeignHost`].
pub fn check_host(
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    listen: SocketAddr,
    is_secure: bool,
    path: &str,
) -> Result<String, Refusal> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (uri.authority(), named.next()) {
        (Some(authority), _) => authority.as_str(),
        (None, Some(host)) => host.to_str().map_err(|_| Refusal::NoHost)?,
        // No browser speaks HTTP/1.0, but simple probes do, and without Host.
        (None, None) if version == Version::HTTP_10 => return Ok(listen.ip().to_string()),
        (None, None) => return Err(Refusal::NoHost),
    };
    if named.next().is_some() {
        return Err(Refusal::NoHost);
    }
    let host = without_port(host).ok_or(Refusal::NoHost)?;
    // On a port that other machines reach anyway, a scraper may use the host's name: these pages
    // hold no secret that it could not read by address.
    let by_any_name = !listen.ip().is_loopback() && matches!(path, "/metrics" | "/health");
    if is_secure || by_any_name || cannot_be_rebound(host, listen.ip()) {
        Ok(host.to_owned())
    } else {
        Err(Refusal::ForeignHost)
    }
}

/// Whose page sent a request, as far as its headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The console's.
    OwnPage,
    /// Another one in the same browser.
    ForeignPage,
    /// A program, or a browser that tells nothing: `Sec-Fetch-Site` goes only to addresses that
    /// browsers trust, `Origin` not with every request.
    Unknown,
}

/// Whose page sent the request.
pub fn sender(headers: &HeaderMap) -> Sender {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let host = text(header::HOST);
    let own_origin = text(header::ORIGIN).map(|origin| {
        // The port speaks one of both, so no page can come from it by the other.
        let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        host.is_some_and(|host| from.is_some_and(|from| from.eq_ignore_ascii_case(host)))
    });
    let own_site = text(header::HeaderName::from_static("sec-fetch-site")).map(|site| site == "same-origin");
    if own_site == Some(false) || own_origin == Some(false) {
        Sender::ForeignPage
    } else if own_site.is_some() || own_origin.is_some() || headers.contains_key(CONSOLE_HEADER) {
        Sender::OwnPage
    } else {
        Sender::Unknown
    }
}

/// Whether the token may be given to this peer.
///
/// # Errors
/// [`Refusal::ForeignMachine`].
pub fn check_own_machine(peer: SocketAddr) -> Result<(), Refusal> {
    if peer.ip().to_canonical().is_loopback() { Ok(()) } else { Err(Refusal::ForeignMachine) }
}

/// Whether a command to the running server is taken: it comes from no page, and shows the password, or, where none is
/// set, comes from this host.
///
/// # Errors
/// [`Refusal::ForeignPage`], [`Refusal::ForeignCommand`], [`Refusal::WrongPassword`].
pub fn check_command(headers: &HeaderMap, peer: SocketAddr, password: Option<&Secret>) -> Result<(), Refusal> {
    // Browsers name a page's origin with every POST, and add this field to none without asking the server first.
    if headers.contains_key(header::ORIGIN) || !headers.contains_key(COMMAND_HEADER) {
        return Err(Refusal::ForeignPage);
    }
    let Some(password) = password else {
        return check_own_machine(peer).map_err(|_| Refusal::ForeignCommand);
    };
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let is_right = shown.is_some_and(|shown| password.as_bytes().ct_eq(shown).into());
    if is_right { Ok(()) } else { Err(Refusal::WrongPassword) }
}

fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest.split_once(']')?;
            (name, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let port_is_valid = port.is_none_or(|port| port.parse::<u16>().is_ok());
    (!name.is_empty() && port_is_valid).then_some(name)
}

fn cannot_be_rebound(host: &str, listen: IpAddr) -> bool {
    if let Ok(address) = host.parse::<IpAddr>() {
        // An address is not looked up. Listening on all addresses, any of them may be this host's.
        return address.to_canonical().is_loopback() || address == listen || listen.is_unspecified();
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn host(host: &'static str, listen: &str, path: &str) -> Result<String, Refusal> {
        let uri = Uri::from_static("/");
        check_host(Version::HTTP_11, &uri, &headers(&[("host", host)]), listen.parse().unwrap(), false, path)
    }

    #[test]
    fn hosts_that_cannot_be_rebound_are_answered() {
        let listen = "127.0.0.1:9000";
        for (named, expected) in [
            ("127.0.0.1:9000", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("localhost:9000", "localhost"),
            ("LOCALHOST:1", "LOCALHOST"),
            ("localhost.", "localhost."),
            ("tidegate.localhost:9000", "tidegate.localhost"),
            ("[::1]:9000", "::1"),
            ("[::ffff:127.0.0.1]:9000", "::ffff:127.0.0.1"),
        ] {
            assert_eq!(host(named, listen, "/"), Ok(expected.to_owned()), "{named}");
        }
        assert_eq!(host("10.0.0.7:9000", "10.0.0.7:9000", "/"), Ok("10.0.0.7".into()));
        assert_eq!(host("10.0.0.8:9000", "0.0.0.0:9000", "/"), Ok("10.0.0.8".into()));
    }

    #[test]
    fn hosts_that_may_be_rebound_are_refused() {
        for named in
            ["evil.example", "evil.example:9000", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.7"]
        {
            assert_eq!(host(named, "127.0.0.1:9000", "/"), Err(Refusal::ForeignHost), "{named}");
            assert_eq!(host(named, "127.0.0.1:9000", "/metrics"), Err(Refusal::ForeignHost), "{named}");
        }
        assert_eq!(host("tide.internal:9000", "0.0.0.0:9000", "/"), Err(Refusal::ForeignHost));
        assert_eq!(host("tide.internal:9000", "0.0.0.0:9000", "/metrics"), Ok("tide.internal".into()));
        let named = headers(&[("host", "tide.internal")]);
        let listen = "10.1.2.3:9000".parse().unwrap();
        let secure = check_host(Version::HTTP_11, &Uri::from_static("/"), &named, listen, true, "/");
        assert_eq!(secure, Ok("tide.internal".into()), "its certificate says that it is us");
    }

    #[test]
    fn a_host_must_be_there_once_and_well_formed() {
        for named in ["", ":9000", "[::1", "[::1]x", "localhost:port", "localhost:99999"] {
            assert_eq!(host(named, "127.0.0.1:9000", "/"), Err(Refusal::NoHost), "{named}");
        }
        let check = |version, fields: &[(&'static str, &'static str)], uri| {
            check_host(version, &Uri::from_static(uri), &headers(fields), "127.0.0.1:9000".parse().unwrap(), false, "/")
        };
        assert_eq!(check(Version::HTTP_11, &[], "/"), Err(Refusal::NoHost));
        assert_eq!(check(Version::HTTP_10, &[], "/"), Ok("127.0.0.1".into()));
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(check(Version::HTTP_11, &twice, "/"), Err(Refusal::NoHost));
        // The target's authority wins over Host (RFC 9112 section 3.2.2).
        let localhost = [("host", "localhost")];
        assert_eq!(check(Version::HTTP_11, &localhost, "http://evil.example/"), Err(Refusal::ForeignHost));
    }

    #[test]
    fn own_and_foreign_pages_are_told_apart() {
        let own = ("host", "127.0.0.1:9000");
        let all = [own, ("sec-fetch-site", "same-origin"), ("origin", "http://127.0.0.1:9000"), (CONSOLE_HEADER, "1")];
        let secure = ("origin", "https://127.0.0.1:9000");
        for fields in [&[own, all[1]][..], &[own, all[2]], &[own, all[3]], &all, &[own, secure]] {
            assert_eq!(sender(&headers(fields)), Sender::OwnPage, "{fields:?}");
        }
        for fields in [
            &[own, ("sec-fetch-site", "cross-site")][..],
            &[own, ("sec-fetch-site", "same-site")],
            &[own, ("sec-fetch-site", "none")],
            &[own, ("origin", "http://evil.example")],
            &[own, ("origin", "null")],
            &[own, ("origin", "http://127.0.0.1:9001"), ("sec-fetch-site", "same-origin")],
            &[own, ("origin", "http://evil.example"), (CONSOLE_HEADER, "1")],
            &[own, ("sec-fetch-site", "cross-site"), (CONSOLE_HEADER, "1")],
        ] {
            assert_eq!(sender(&headers(fields)), Sender::ForeignPage, "{fields:?}");
        }
        assert_eq!(sender(&headers(&[own])), Sender::Unknown);
    }

    #[test]
    fn commands_come_from_this_host_or_show_the_password() {
        let (own, foreign) = ("127.0.0.1:5000".parse().unwrap(), "10.0.0.9:5000".parse().unwrap());
        let command = (COMMAND_HEADER, "drain");
        let check = |fields: &[(&'static str, &'static str)], peer, password: Option<&str>| {
            check_command(&headers(fields), peer, password.map(Secret::from).as_ref())
        };
        assert_eq!(check(&[command], own, None), Ok(()));
        assert_eq!(check(&[command], foreign, None), Err(Refusal::ForeignCommand));
        for fields in [&[][..], &[command, ("origin", "http://127.0.0.1:9000")], &[("authorization", "Bearer right")]] {
            assert_eq!(check(fields, own, None), Err(Refusal::ForeignPage));
            assert_eq!(check(fields, own, Some("right")), Err(Refusal::ForeignPage));
        }
        for peer in [own, foreign] {
            assert_eq!(check(&[command, ("authorization", "Bearer right")], peer, Some("right")), Ok(()));
            for shown in ["Bearer wrong", "Bearer right ", "right", "Bearer "] {
                let refused = check(&[command, ("authorization", shown)], peer, Some("right"));
                assert_eq!(refused, Err(Refusal::WrongPassword), "{shown}");
            }
            assert_eq!(check(&[command], peer, Some("right")), Err(Refusal::WrongPassword));
        }
    }

    #[test]
    fn the_token_stays_on_this_machine() {
        for peer in ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"] {
            assert_eq!(check_own_machine(peer.parse().unwrap()), Ok(()));
        }
        assert_eq!(check_own_machine("10.0.0.9:5000".parse().unwrap()), Err(Refusal::ForeignMachine));
    }
}
