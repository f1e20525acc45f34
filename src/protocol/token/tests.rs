//! Tests of tokens: signed by another implementation, or put together by hand.

use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Pattern, load},
    limits::USER_BYTES_MAX,
};

const SECRET: &str = "the secret";
const OPERATOR_KEY: &[u8] = b"the operator's key";
const NOW: u64 = 1_700_000_000;

/// Where the keys of the tests lie.
const KEYS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/");

/// `{"sub":"42"}` signed with `ecdsa_p521.private.pem` under the id `es512`, by Node's cryptography.
const ES512_TOKEN: &str = "eyJhbGciOiJFUzUxMiIsImtpZCI6ImVzNTEyIiwidHlwIjoiSldUIn0.\
                           eyJzdWIiOiI0MiJ9.\
                           AUm_6ZqHh1C4LoVjpAmbeLrF9RjR7J4VWKeAFNs0X35dprzYTaCKXX4GpHmzNHSenhpgIWhltQWLjRAR5DKXncfg\
                           ACAdvdJFphf2A4VZtKNCw8KhBupNVPqdoN1RtcaOAA0fd3rjOjYENpMZqS7HXaQ7_7UiIyo7yf6rJwd-CpTv3RLf";

fn config() -> TokenConfig {
    TokenConfig { hmac_secret: Some(SECRET.into()), ..TokenConfig::default() }
}

/// A configuration with one public key.
fn config_with(setting: &str, file: &str) -> TokenConfig {
    let variable = format!("TIDEGATE_CLIENT_TOKEN_{}", setting.to_uppercase());
    let loaded = load(None, [(variable, format!("{KEYS}{file}"))].into_iter());
    loaded.expect("a key of the tests").config.client.token
}

fn verify_with(config: &TokenConfig, token: &str) -> Result<Identity, TokenError> {
    TokenVerifier::new(config, OPERATOR_KEY).verify(token, Some(NOW))
}

fn sign(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .expect("HMAC signs any claims")
}

/// Signs claims rightly and verifies them.
fn claimed(claims: &Value) -> Result<Identity, TokenError> {
    verify_with(&config(), &sign(Algorithm::HS256, SECRET, claims))
}

/// A token put together by hand, with a signature that was made for something else.
fn with_header(header: &Value, signature: &str) -> String {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(header), part(&json!({"sub": "42"})))
}

#[test]
fn all_three_hmac_algorithms_are_accepted() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let token = sign(algorithm, SECRET, &json!({"sub": "42"}));
        let identity = verify_with(&config(), &token).expect("a valid token");
        assert_eq!(identity, Identity { user: "42".to_owned(), ..Identity::default() });
    }
}

#[test]
fn forged_garbled_and_unsigned_tokens_are_invalid() {
    let good = sign(Algorithm::HS256, SECRET, &json!({"sub": "42"}));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let other = sign(Algorithm::HS256, SECRET, &json!({"sub": "43"}));
    let tokens = [
        sign(Algorithm::HS256, "another secret", &json!({"sub": "42"})),
        format!("{message}.{}", other.rsplit_once('.').expect("three parts").1),
        format!("{message}."),
        message.to_owned(),
        format!("{good}."),
        good.replace('.', ""),
        with_header(&json!({"alg": "none", "typ": "JWT"}), ""),
        with_header(&json!({"alg": "none"}), signature),
        with_header(&json!({"alg": "RS256"}), signature),
        with_header(&json!({"alg": "EdDSA"}), signature),
        with_header(&json!({}), signature),
        String::new(),
        "..".to_owned(),
    ];
    for token in tokens {
        assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid), "{token}");
    }
}

#[test]
fn without_a_secret_no_token_of_a_client_is_valid() {
    let config = TokenConfig { hmac_secret: None, ..config() };
    for secret in [SECRET, ""] {
        let token = sign(Algorithm::HS256, secret, &json!({"sub": "42"}));
        assert_eq!(verify_with(&config, &token), Err(TokenError::Invalid));
    }
}

#[test]
fn the_previous_secret_is_accepted_while_it_is_configured() {
    let token = sign(Algorithm::HS256, "the secret before", &json!({"sub": "42"}));
    assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid));
    let rotating = TokenConfig { hmac_secret_previous: Some("the secret before".into()), ..config() };
    assert_eq!(verify_with(&rotating, &token).map(|identity| identity.user), Ok("42".to_owned()));
    assert!(verify_with(&rotating, &sign(Algorithm::HS256, SECRET, &json!({}))).is_ok());
}

#[test]
fn times_are_held_against_the_given_clock() {
    let expires_at = |claims| claimed(&claims).map(|identity| identity.expires_at);
    assert_eq!(expires_at(json!({})), Ok(None));
    assert_eq!(expires_at(json!({"exp": NOW + 1})), Ok(Some(NOW + 1)));
    assert_eq!(expires_at(json!({"exp": (NOW + 1) as f64 + 0.5})), Ok(Some(NOW + 1)));
    for exp in [json!(NOW), json!(NOW - 1), json!(0), json!(-1)] {
        assert_eq!(expires_at(json!({"exp": exp})), Err(TokenError::Expired), "{exp}");
    }
    assert_eq!(expires_at(json!({"nbf": NOW, "exp": 1e300})), Ok(Some(u64::MAX)));
    assert_eq!(expires_at(json!({"nbf": NOW + 1})), Err(TokenError::Expired));
    assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": NOW + 9})), Ok(Some(NOW + 9)));
    assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": 0})), Ok(None));
    assert_eq!(expires_at(json!({"exp": NOW + 1, "expire_at": NOW})), Err(TokenError::GrantExpired));
    assert_eq!(expires_at(json!({"exp": "tomorrow"})), Err(TokenError::Invalid));
}

#[test]
fn an_expired_token_with_a_wrong_signature_is_invalid_not_expired() {
    let token = sign(Algorithm::HS256, "another secret", &json!({"exp": NOW - 1}));
    assert_eq!(verify_with(&config(), &token), Err(TokenError::Invalid));
}

#[test]
fn subscription_tokens_open_no_connection() {
    assert_eq!(claimed(&json!({"sub": "42", "channel": "news"})), Err(TokenError::Invalid));
}

#[test]
fn channels_come_from_subs_or_channels() {
    let channels = |claims| claimed(&claims).map(|identity| identity.channels);
    let plain = |name: &str| (name.to_owned(), Grant::default());
    assert_eq!(channels(json!({"channels": ["a", "b"]})), Ok(vec![plain("a"), plain("b")]));
    let grant = Grant { info: Some(Bytes::from_static(b"1")), ..Grant::default() };
    assert_eq!(channels(json!({"channels": ["a"], "subs": {"b": {"info": 1}}})), Ok(vec![("b".to_owned(), grant)]));
    assert_eq!(channels(json!({"subs": {"b": {"b64data": "*"}}})), Err(TokenError::Invalid));
    assert_eq!(channels(json!({"subs": {"b": {"expire_at": NOW}}})), Err(TokenError::Expired));
    assert_eq!(channels(json!({"channels": null})), Ok(vec![]));
    assert_eq!(channels(json!({"channels": [1]})), Err(TokenError::Invalid));
}

#[test]
fn info_is_json_without_line_feeds() {
    let info = |claims| claimed(&claims).map(|identity| identity.info);
    assert_eq!(info(json!({"info": {"name": "Al"}})), Ok(Some(Bytes::from_static(b"{\"name\":\"Al\"}"))));
    assert_eq!(info(json!({"b64info": STANDARD.encode("{\n\"a\": 1}")})), Ok(Some(Bytes::from_static(b"{\"a\": 1}"))));
    assert_eq!(info(json!({"b64info": STANDARD.encode("no JSON")})), Err(TokenError::Invalid));
    assert_eq!(info(json!({"b64info": "*"})), Err(TokenError::Invalid));
}

#[test]
fn users_must_be_strings_that_fit_a_personal_channel() {
    let user = |user: Value| claimed(&json!({"sub": user})).map(|identity| identity.user);
    assert_eq!(user(json!("u".repeat(USER_BYTES_MAX))), Ok("u".repeat(USER_BYTES_MAX)));
    assert_eq!(user(json!("u".repeat(USER_BYTES_MAX + 1))), Err(TokenError::Invalid));
    assert_eq!(user(json!(42)), Err(TokenError::Invalid));
    assert_eq!(user(json!(null)), Ok(String::new()));
}

#[test]
fn audience_and_issuer_count_if_they_are_configured() {
    assert!(claimed(&json!({"aud": "anybody", "iss": "anywhere"})).is_ok());
    let config = TokenConfig {
        audience: Some("tidegate".to_owned()),
        issuer: Some("https://id.example.com".to_owned()),
        ..config()
    };
    let verify = |claims: Value| verify_with(&config, &sign(Algorithm::HS256, SECRET, &claims)).map(|_| ());
    assert_eq!(verify(json!({"aud": "tidegate", "iss": "https://id.example.com"})), Ok(()));
    assert_eq!(verify(json!({"aud": ["x", "tidegate"], "iss": "https://id.example.com"})), Ok(()));
    for claims in [
        json!({"aud": "x", "iss": "https://id.example.com"}),
        json!({"aud": "tidegate", "iss": "x"}),
        json!({"aud": "tidegate"}),
        json!({"iss": "https://id.example.com"}),
        json!({}),
    ] {
        assert_eq!(verify(claims.clone()), Err(TokenError::Invalid), "{claims}");
    }
    let operator = mint_operator(OPERATOR_KEY, NOW + 1);
    assert!(verify_with(&config, &operator).is_ok_and(|identity| identity.is_operator));
}

#[test]
fn audience_and_issuer_may_be_expressions() {
    let config = TokenConfig {
        audience_regex: Pattern::new("^push-[a-z]$"),
        issuer_regex: Pattern::new("^https://[a-z]+\\.example\\.com$"),
        ..config()
    };
    let verify = |claims: Value| verify_with(&config, &sign(Algorithm::HS256, SECRET, &claims)).map(|_| ());
    assert_eq!(verify(json!({"aud": ["x", "push-a"], "iss": "https://id.example.com"})), Ok(()));
    for claims in [
        json!({"aud": "push-ab", "iss": "https://id.example.com"}),
        json!({"aud": "push-a", "iss": "https://id.example.com.evil.org"}),
        json!({"aud": {"a": "push-a"}, "iss": "https://id.example.com"}),
        json!({"iss": "https://id.example.com"}),
    ] {
        assert_eq!(verify(claims.clone()), Err(TokenError::Invalid), "{claims}");
    }
}

#[test]
fn only_the_operators_key_makes_an_operator() {
    let operator = verify_with(&config(), &mint_operator(OPERATOR_KEY, NOW + 60)).expect("a valid token");
    assert!(operator.is_operator);
    assert_eq!((operator.user.as_str(), operator.expires_at), ("", Some(NOW + 60)));
    assert_eq!(verify_with(&config(), &mint_operator(OPERATOR_KEY, NOW)), Err(TokenError::Expired));
    assert_eq!(verify_with(&config(), &mint_operator(b"another key", NOW + 60)), Err(TokenError::Invalid));
    let client = verify_with(&config(), &mint(SECRET.as_bytes(), &Claims::default())).expect("a valid token");
    assert!(!client.is_operator);
    let without_secret = TokenConfig { hmac_secret: None, ..config() };
    assert!(verify_with(&without_secret, &mint_operator(OPERATOR_KEY, NOW + 60)).is_ok());
}

fn private_key(file: &str) -> Vec<u8> {
    std::fs::read(format!("{KEYS}{file}")).expect("a file of the tests")
}

/// Each algorithm with a public key: its name, its setting, its key, and a signed `{"sub": "42"}`.
fn signed_by_private_keys() -> Vec<(&'static str, &'static str, &'static str, String)> {
    // Signing by RSA takes long without optimisation.
    static TOKENS: LazyLock<Vec<(&str, &str, &str, String)>> = LazyLock::new(sign_by_private_keys);
    TOKENS.clone()
}

fn sign_by_private_keys() -> Vec<(&'static str, &'static str, &'static str, String)> {
    let rsa = EncodingKey::from_rsa_pem(&private_key("rsa.private.pem")).expect("an RSA key");
    let ecdsa = EncodingKey::from_ec_pem(&private_key("ecdsa.private.pem")).expect("an ECDSA key");
    let ecdsa_p384 = EncodingKey::from_ec_pem(&private_key("ecdsa_p384.private.pem")).expect("an ECDSA key");
    let ed25519 = EncodingKey::from_ed_pem(&private_key("ed25519.private.pem")).expect("an Ed25519 key");
    let sign = |algorithm, id: &str, key| {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(algorithm) };
        jsonwebtoken::encode(&header, &json!({"sub": "42"}), key).expect("a token")
    };
    vec![
        ("rsa", "rsa_public_key", "rsa.pem", sign(Algorithm::RS256, "rsa", &rsa)),
        ("rsa", "rsa_public_key", "rsa.pem", sign(Algorithm::RS384, "rsa", &rsa)),
        ("rsa", "rsa_public_key", "rsa.pem", sign(Algorithm::RS512, "rsa", &rsa)),
        ("es256", "ecdsa_public_key", "ecdsa.pem", sign(Algorithm::ES256, "es256", &ecdsa)),
        ("es384", "ecdsa_public_key", "ecdsa_p384.pem", sign(Algorithm::ES384, "es384", &ecdsa_p384)),
        ("es512", "ecdsa_public_key", "ecdsa_p521.pem", ES512_TOKEN.to_owned()),
        ("ed25519", "ed25519_public_key", "ed25519.pem", sign(Algorithm::EdDSA, "ed25519", &ed25519)),
    ]
}

/// The published set of the tests' keys, changed by `change`.
fn key_set(change: impl FnOnce(&mut Vec<Value>)) -> Result<KeySet, KeySetError> {
    let mut document: Value = serde_json::from_slice(&private_key("jwks.json")).expect("JSON");
    change(document["keys"].as_array_mut().expect("a list"));
    KeySet::parse(document.to_string().as_bytes())
}

#[test]
fn a_configured_public_key_verifies_its_own_algorithms_and_no_others() {
    let tokens = signed_by_private_keys();
    for (_, setting, file, _) in &tokens {
        let verifier = TokenVerifier::new(&config_with(setting, file), OPERATOR_KEY);
        for (id, _, other_file, token) in &tokens {
            let verified = verifier.verify(token, Some(NOW)).map(|identity| identity.user);
            let expected = if other_file == file { Ok("42".to_owned()) } else { Err(TokenError::Invalid) };
            assert_eq!(verified, expected, "{id} with {file}");
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    for (_, setting, file, _) in signed_by_private_keys() {
        let config = TokenConfig { hmac_secret: Some(SECRET.into()), ..config_with(setting, file) };
        let pem = String::from_utf8(private_key(file)).expect("PEM");
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(base64).expect("base64");
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let token = jsonwebtoken::encode(
                    &Header::new(algorithm),
                    &json!({"sub": "42"}),
                    &EncodingKey::from_secret(secret),
                );
                assert_eq!(verify_with(&config, &token.expect("a token")), Err(TokenError::Invalid), "{file}");
            }
        }
    }
}

#[test]
fn a_published_key_verifies_the_tokens_that_name_it() {
    let mut verifier = TokenVerifier::new(&TokenConfig::default(), OPERATOR_KEY);
    verifier.set_key_set(Arc::new(key_set(|_| ()).expect("keys")), true);
    for (id, _, _, token) in signed_by_private_keys() {
        assert_eq!(verifier.verify(&token, Some(NOW)).map(|identity| identity.user), Ok("42".to_owned()), "{id}");
        let (message, signature) = token.rsplit_once('.').expect("three parts");
        let turned: String = signature.chars().rev().collect();
        assert_eq!(verifier.verify(&format!("{message}.{turned}"), Some(NOW)), Err(TokenError::Invalid), "{id}");
    }
}

#[test]
fn a_token_that_names_an_unknown_key_waits_for_it() {
    let tokens = signed_by_private_keys();
    let renamed = |keys: &mut Vec<Value>| keys.iter_mut().for_each(|key| key["kid"] = json!("another"));
    let mut verifier = TokenVerifier::new(&config(), OPERATOR_KEY);
    verifier.set_key_set(Arc::new(key_set(renamed).expect("keys")), true);
    for (id, _, _, token) in &tokens {
        assert_eq!(verifier.verify(token, Some(NOW)), Err(TokenError::KeyMissing), "{id}");
    }
    // What no published key could verify waits for none.
    let by_secret = sign(Algorithm::HS256, SECRET, &json!({"sub": "42"}));
    assert!(verifier.verify(&by_secret, Some(NOW)).is_ok());
    assert_eq!(verifier.verify(&sign(Algorithm::HS256, "another", &json!({})), Some(NOW)), Err(TokenError::Invalid));
    // The configured key goes on beside the published ones.
    let (_, setting, file, token) = &tokens[0];
    let mut verifier = TokenVerifier::new(&config_with(setting, file), OPERATOR_KEY);
    verifier.set_key_set(Arc::new(key_set(renamed).expect("keys")), true);
    assert!(verifier.verify(token, Some(NOW)).is_ok());
}

#[test]
fn a_published_key_counts_for_the_use_and_algorithm_that_it_names() {
    let rs256 = signed_by_private_keys().remove(0).3;
    let verify = |member: &str, value: Value| {
        let mut verifier = TokenVerifier::new(&TokenConfig::default(), OPERATOR_KEY);
        let keys = key_set(|keys| keys.iter_mut().for_each(|key| key[member] = value.clone()));
        verifier.set_key_set(Arc::new(keys.unwrap_or_default()), true);
        verifier.verify(&rs256, Some(NOW)).map(|identity| identity.user)
    };
    assert_eq!(verify("use", json!("sig")), Ok("42".to_owned()));
    assert_eq!(verify("use", json!("enc")), Err(TokenError::KeyMissing));
    assert_eq!(verify("alg", json!("RS256")), Ok("42".to_owned()));
    assert_eq!(verify("alg", json!("RS384")), Err(TokenError::KeyMissing));
    assert_eq!(verify("alg", json!("HS256")), Err(TokenError::KeyMissing));
    assert_eq!(verify("kty", json!("oct")), Err(TokenError::KeyMissing));
    assert_eq!(verify("n", json!("AQAB")), Err(TokenError::KeyMissing));
    assert_eq!(verify("unknown", json!([1])), Ok("42".to_owned()));
}

#[test]
fn a_set_without_a_usable_key_is_none() {
    assert_eq!(key_set(Vec::clear).map(|_| ()), Err(KeySetError::Unusable));
    assert_eq!(key_set(|keys| *keys = vec![json!(1), json!({})]).map(|_| ()), Err(KeySetError::Unusable));
    for text in ["", "{}", "[]", "{\"keys\": 1}", "<html>"] {
        assert_eq!(KeySet::parse(text.as_bytes()).map(|_| ()), Err(KeySetError::Malformed), "{text}");
    }
    // What cannot be read is left out, and the rest counts.
    let one_broken = key_set(|keys| keys[1]["x"] = json!("AA")).expect("four keys");
    assert_eq!(one_broken.len(), 6, "three algorithms of RSA, two curves, Ed25519");
}

#[test]
fn headers_with_unknown_demands_are_refused() {
    let good = sign(Algorithm::HS256, SECRET, &json!({"sub": "42"}));
    let signature = good.rsplit_once('.').expect("three parts").1;
    for header in [
        json!({"alg": "HS256", "crit": ["b64"], "b64": false}),
        json!({"alg": "hs256"}),
        json!({"alg": ["HS256"]}),
        json!(["HS256"]),
    ] {
        assert_eq!(verify_with(&config(), &with_header(&header, signature)), Err(TokenError::Invalid), "{header}");
    }
}

#[test]
fn the_user_may_come_from_another_claim() {
    let config = TokenConfig { user_id_claim: Some("uid".to_owned()), ..config() };
    let user =
        |claims: Value| verify_with(&config, &sign(Algorithm::HS256, SECRET, &claims)).map(|identity| identity.user);
    assert_eq!(user(json!({"sub": "1", "uid": "42"})), Ok("42".to_owned()));
    assert_eq!(user(json!({"sub": "1"})), Ok(String::new()));
    assert_eq!(user(json!({"sub": "1", "uid": 42})), Err(TokenError::Invalid));
    assert!(verify_with(&config, &mint_operator(OPERATOR_KEY, NOW + 1)).is_ok_and(|identity| identity.is_operator));
}

#[test]
fn subscription_tokens_say_all_that_a_subscription_comes_with() {
    let verifier = TokenVerifier::new(&config(), OPERATOR_KEY);
    let verify = |claims: Value| verifier.verify_subscription(&sign(Algorithm::HS256, SECRET, &claims), Some(NOW));
    let least = SubscriptionToken { channel: "$a:b".to_owned(), ..SubscriptionToken::default() };
    assert_eq!(verify(json!({"channel": "$a:b"})), Ok(least.clone()));
    assert_eq!(verify(json!({"channel": "$a:b", "client": ""})), Ok(least));
    let all = json!({
        "sub": "42", "channel": "$a:b", "client": "c", "exp": NOW + 1, "expire_at": NOW + 9, "info": {"a": 1},
        "b64data": STANDARD.encode("[\n2]"),
        "override": {"presence": {"value": true}, "force_recovery": {"value": false}, "join_leave": {}, "x": 1},
    });
    let overrides = Overrides {
        presence: Some(true),
        force_recovery: Some(false),
        join_leave: Some(false),
        ..Overrides::default()
    };
    let grant = Grant {
        expires_at: Some(NOW + 9),
        info: Some(Bytes::from_static(b"{\"a\":1}")),
        data: Some(Bytes::from_static(b"[2]")),
        overrides,
    };
    let expected =
        SubscriptionToken { user: "42".to_owned(), channel: "$a:b".to_owned(), client: Some("c".to_owned()), grant };
    assert_eq!(verify(all), Ok(expected));
    assert_eq!(verify(json!({"sub": "42"})), Err(TokenError::Invalid), "a connection token");
    assert_eq!(verify(json!({"channel": "a", "exp": NOW})), Err(TokenError::Expired));
    assert_eq!(verify(json!({"channel": "a", "exp": NOW + 1, "expire_at": NOW})), Err(TokenError::GrantExpired));
    assert_eq!(verify(json!({"channel": "a", "override": 1})), Err(TokenError::Invalid));
    let operator = mint(OPERATOR_KEY, &Claims { channel: Some("a"), ..Claims::default() });
    assert_eq!(verifier.verify_subscription(&operator, Some(NOW)), Err(TokenError::Invalid));
}

#[test]
fn meta_is_kept_as_it_is() {
    let meta = claimed(&json!({"meta": {"plan": "gold"}})).map(|identity| identity.meta);
    assert_eq!(meta, Ok(Some(Bytes::from_static(b"{\"plan\":\"gold\"}"))));
}

proptest! {
    /// Any change of any character of a token makes it worthless, and nothing makes the verifier stumble.
    #[test]
    fn no_changed_token_is_valid(position in 0_usize..100, character in "[A-Za-z0-9_.=-]", kind in 0_usize..7) {
        let (_, setting, file, token) = signed_by_private_keys().swap_remove(kind);
        let position = position % token.len();
        prop_assume!(token[position..=position] != character);
        let mut changed = token.clone();
        changed.replace_range(position..=position, &character);
        prop_assert_eq!(verify_with(&config_with(setting, file), &changed), Err(TokenError::Invalid));
    }

    #[test]
    fn texts_of_any_kind_are_no_tokens(text in "\\PC*", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        prop_assert_eq!(verify_with(&config(), &text), Err(TokenError::Invalid));
        prop_assert_eq!(verify_with(&config(), &parts.join(".")), Err(TokenError::Invalid));
    }

    #[test]
    fn claims_of_any_kind_are_read_without_a_stumble(
        name in "sub|exp|nbf|expire_at|aud|info|b64info|channels|subs|meta|channel|client|data|override",
        value in prop_oneof![
            Just(json!(null)), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from), "\\PC{0,20}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::from), Just(json!({"a": {"b": []}})),
        ],
    ) {
        let token = sign(Algorithm::HS256, SECRET, &json!({name: value}));
        let verifier = TokenVerifier::new(&config(), OPERATOR_KEY);
        let _ = verifier.verify(&token, Some(NOW));
        let _ = verifier.verify_subscription(&token, Some(NOW));
    }
}
