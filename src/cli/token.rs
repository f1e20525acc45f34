//! `tidegate token`: a connection or subscription token for trying things out.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::{Failure, print, settings::Source};
use crate::{
    config::{TokenConfig, parse_duration_ms},
    limits::{CHANNEL_BYTES_MAX, USER_BYTES_MAX},
    protocol::{Claims, mint},
};

/// Mint a connection or subscription token (JSON Web Token, HS256) for trying things out
///
/// Signed with client.token.hmac_secret of the configuration, and with its audience and issuer if
/// it names them. In production it is your application that signs tokens.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  tidegate token --user 42 --config tidegate.toml
  tidegate token --user 42 --channel news:eu --info '{\"name\":\"Ada\"}' --expires 5m --secret S
  tidegate token --user 42 --subscribe '$secret:plans' --config tidegate.toml
  tidegate tail news:eu --token \"$(tidegate token --user 42)\"")]
pub(super) struct Arguments {
    /// User that the token proves (claim sub)
    #[arg(long, value_parser = parse_user)]
    user: String,

    /// For how long it is good, such as 5m, 1h or 30d; "never" for ever
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_expires)]
    expires: Expires,

    /// Channel that the client is subscribed to when it connects; may be given more than once
    #[arg(long = "channel", value_name = "CHANNEL", value_parser = parse_channel)]
    channels: Vec<String>,

    /// Make it a subscription token: it opens this one channel to the user
    #[arg(long, value_name = "CHANNEL", value_parser = parse_channel, conflicts_with = "channels")]
    subscribe: Option<String>,

    /// The one client, by its id, that may use the subscription token
    #[arg(long, value_name = "ID", requires = "subscribe")]
    client: Option<String>,

    /// What others see of the client (claim info), any JSON
    #[arg(long, value_name = "JSON", value_parser = parse_info)]
    info: Option<Box<RawValue>>,

    #[command(flatten)]
    source: Source,

    /// Secret to sign with, instead of the configuration's. Other users of this host can see it while the command runs
    #[arg(long, conflicts_with = "config")]
    secret: Option<String>,
}

/// When a token expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expires {
    After(Duration),
    Never,
}

impl Expires {
    /// When that is, in seconds since 1970.
    fn at(self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self {
            Expires::After(time) => Some(now.saturating_add(time).as_secs()),
            Expires::Never => None,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { user, expires, channels, subscribe, client, info, source, secret } = arguments;
    let config = match secret {
        Some(secret) => TokenConfig { hmac_secret: Some(secret.into()), ..TokenConfig::default() },
        None => source.load_config()?.client.token,
    };
    let claims = Claims {
        exp: expires.at(),
        channels: &channels,
        channel: subscribe.as_deref(),
        client: client.as_deref(),
        info: info.as_deref(),
        ..claims_of_user(&user, &config)
    };
    print(&format!("{}\n", mint(secret_of(&config)?.as_bytes(), &claims)))
}

/// A token that proves a user to the server of this configuration for the next hour.
pub(super) fn mint_for_user(user: &str, config: &TokenConfig) -> Result<String, Failure> {
    let expires = Expires::After(Duration::from_secs(3600)).at();
    let claims = Claims { exp: expires, ..claims_of_user(user, config) };
    Ok(mint(secret_of(config)?.as_bytes(), &claims))
}

/// The claims by which the server of this configuration knows a user.
fn claims_of_user<'a>(user: &'a str, config: &'a TokenConfig) -> Claims<'a> {
    Claims {
        sub: user,
        aud: config.audience.as_deref(),
        iss: config.issuer.as_deref(),
        others: config.user_id_claim.iter().map(|claim| (claim.as_str(), user)).collect(),
        ..Claims::default()
    }
}

/// Reads a user id from the command line.
pub(super) fn parse_user(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a user id is not empty; without a token a client is anonymous".to_owned()),
        length if length > USER_BYTES_MAX => Err(format!("a user id has at most {USER_BYTES_MAX} bytes, not {length}")),
        _ => Ok(text.to_owned()),
    }
}

/// Reads a channel's name from the command line.
pub(super) fn parse_channel(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a channel's name is not empty".to_owned()),
        length if length > CHANNEL_BYTES_MAX => {
            Err(format!("a channel's name has at most {CHANNEL_BYTES_MAX} bytes, not {length}"))
        }
        _ if !text.is_ascii() => Err("a channel's name is ASCII".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

fn secret_of(config: &TokenConfig) -> Result<&str, Failure> {
    config.hmac_secret.as_deref().ok_or_else(|| {
        Failure::Usage(
            "there is no secret to sign with: set client.token.hmac_secret in the file given by --config, or the \
             variable TIDEGATE_CLIENT_TOKEN_HMAC_SECRET"
                .to_owned(),
        )
    })
}

fn parse_expires(text: &str) -> Result<Expires, String> {
    if text == "never" {
        return Ok(Expires::Never);
    }
    parse_duration_ms(text)
        .map(|duration_ms| Expires::After(Duration::from_millis(duration_ms)))
        .ok_or_else(|| "expected a duration with its unit, like 5m, 1h or 30d, or \"never\"".to_owned())
}

fn parse_info(text: &str) -> Result<Box<RawValue>, String> {
    serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))
}
