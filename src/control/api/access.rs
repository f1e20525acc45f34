//! Who may use the API: the keys that requests show (protocol.md section 19).

use std::borrow::Cow;

use subtle::{Choice, ConstantTimeEq};

use crate::{config::ApiConfig, http::query};

/// What a request shows of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// `X-API-Key`.
    pub header: Option<&'a str>,
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// What follows `?` in the target.
    pub query: Option<&'a str>,
}

impl Credentials<'_> {
    /// The key, where the first that is there counts.
    fn key(&self) -> Option<String> {
        if let Some(key) = self.header {
            return Some(key.to_owned());
        }
        if let Some(authorization) = self.authorization {
            let (scheme, key) = authorization.split_once(' ')?;
            return scheme.eq_ignore_ascii_case("apikey").then(|| key.trim().to_owned());
        }
        query::parameter(self.query?, "api_key").map(Cow::into_owned)
    }
}

/// Whether a request may ask. How long that takes tells nothing of the keys but their number and length.
pub fn may_ask(config: &ApiConfig, credentials: Credentials<'_>) -> bool {
    if config.insecure {
        return true;
    }
    let Some(key) = credentials.key() else { return false };
    let is_known = config.keys.iter().map(|known| known.as_bytes().ct_eq(key.as_bytes()));
    is_known.fold(Choice::from(0), |any, is_this| any | is_this).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(keys: &[&str]) -> ApiConfig {
        ApiConfig { keys: keys.iter().copied().map(Into::into).collect(), ..ApiConfig::default() }
    }

    fn header(key: &str) -> Credentials<'_> {
        Credentials { header: Some(key), ..Credentials::default() }
    }

    #[test]
    fn each_key_opens_in_each_of_its_places() {
        let config = config(&["one", "an other"]);
        for credentials in [
            header("one"),
            header("an other"),
            Credentials { authorization: Some("apikey one"), ..Credentials::default() },
            Credentials { authorization: Some("ApiKey an other"), ..Credentials::default() },
            Credentials { query: Some("api_key=one"), ..Credentials::default() },
            Credentials { query: Some("a=b&api_key=an%20other"), ..Credentials::default() },
        ] {
            assert!(may_ask(&config, credentials), "{credentials:?}");
        }
    }

    #[test]
    fn nothing_else_opens() {
        let configured = config(&["one", "two"]);
        for credentials in [
            Credentials::default(),
            header(""),
            header("on"),
            header("onetwo"),
            Credentials { authorization: Some("one"), ..Credentials::default() },
            Credentials { authorization: Some("Bearer one"), ..Credentials::default() },
            Credentials { query: Some("key=one"), ..Credentials::default() },
            // The first place counts alone.
            Credentials { query: Some("api_key=one"), ..header("wrong") },
        ] {
            assert!(!may_ask(&configured, credentials), "{credentials:?}");
            assert!(!may_ask(&config(&[]), credentials), "{credentials:?} without any key");
            assert!(may_ask(&ApiConfig { insecure: true, ..config(&["one"]) }, credentials));
        }
    }
}
