//! The types of values that keys take: how each is read, bounded, described and written.
//!
//! Owns the step from a raw value to a typed field, and the wording of "expected". Which key has
//! which type is the schema's business. A value that is refused leaves its field as it was.

use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use axum::http::Uri;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::{
    CertificateFiles, CompressionMode, DeltaType, Dictionary, ErrorMode, KeyFamily, LogFormat, Pattern, PayloadFormat,
    PublicKey, RecoveryMode, Secret, SlowConsumerPolicy, StatusTransform, TlsVersion,
    cores::parse_cores,
    problem::Mistake,
    raw::{Value, read_list},
    units::{format_duration_ms, format_size_bytes, parse_duration_ms, parse_size_bytes},
};
use crate::network::Prefix;

/// The field that a key sets.
pub(super) type Field<T, V> = fn(&mut T) -> &mut V;

/// The type of a key's value, its bounds, and the field that it sets.
pub(super) enum Kind<T: 'static> {
    /// true or false.
    Boolean(Field<T, bool>),
    /// A whole number within bounds.
    Count(Field<T, u32>, RangeInclusive<u32>),
    /// Milliseconds within bounds, written with a unit.
    Duration(Field<T, u32>, RangeInclusive<u32>),
    /// Bytes within bounds, written with a unit or without.
    Size(Field<T, u32>, RangeInclusive<u32>),
    /// The same, beyond 32 bits.
    LongSize(Field<T, u64>, RangeInclusive<u64>),
    /// IP address and port.
    Address(Field<T, SocketAddr>),
    /// IP address and port, or "none".
    OptionalAddress(Field<T, Option<SocketAddr>>),
    /// Absolute path of a Unix socket, or "none".
    OptionalPath(Field<T, Option<PathBuf>>),
    /// Absolute path of a file, or "none".
    OptionalFile(Field<T, Option<PathBuf>>),
    /// A text that is not empty.
    OptionalText(Field<T, Option<String>>),
    /// A text that is not empty, and that no message shows.
    Secret(Field<T, Option<Secret>>),
    /// A list of such texts.
    Secrets(Field<T, Vec<Secret>>),
    /// A public key in PEM, or the path of a file that holds it.
    PublicKey(Field<T, Option<PublicKey>>, KeyFamily),
    /// Dictionaries of zstd, by their paths.
    Dictionaries(Field<T, Vec<Dictionary>>),
    /// An address on the web.
    Url(Field<T, Option<String>>),
    /// The name of a claim in a token.
    ClaimName(Field<T, Option<String>>),
    /// Where logs go, and in which form.
    Logs(Field<T, LogFormat>),
    /// Levels of logs, as `EnvFilter` reads them.
    LogFilter(Field<T, String>),
    /// Patterns of `Origin`.
    Origins(Field<T, Vec<String>>),
    /// Addresses, and prefixes of addresses.
    Prefixes(Field<T, Vec<Prefix>>),
    /// Names of header fields.
    HeaderNames(Field<T, Vec<String>>),
    /// What HTTP statuses of the back end mean.
    StatusTransforms(Field<T, Vec<StatusTransform>>),
    /// Numbers of cores.
    Cores(Field<T, Vec<u32>>),
    /// The name of a namespace.
    NamespaceName(Field<T, String>),
    /// Deltas that subscriptions may ask for.
    DeltaTypes(Field<T, Vec<DeltaType>>),
    /// What payloads are.
    Format(Field<T, PayloadFormat>),
    /// What happens to slow consumers.
    SlowConsumer(Field<T, SlowConsumerPolicy>),
    /// How publications are compressed.
    Compression(Field<T, CompressionMode>),
    /// What recovery brings.
    Recovery(Field<T, RecoveryMode>),
    /// How the server API says that something failed.
    Errors(Field<T, ErrorMode>),
    /// A regular expression.
    Regex(Field<T, Option<Pattern>>),
    /// Certificates with their keys.
    Certificates(Field<T, Vec<CertificateFiles>>),
    /// A version of TLS.
    TlsVersion(Field<T, TlsVersion>),
    /// Absolute path of a file.
    AbsolutePath(Field<T, Option<PathBuf>>),
}

/// The word that stands for "not at all" where a default must be switched off.
const NONE: &str = "none";

/// Longest path of a Unix socket, in bytes: `sun_path` has 108, one of them for the final zero (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;

/// A value chosen from words.
trait Word: Copy + 'static {
    /// Each value with the word that chooses it.
    const WORDS: &'static [(&'static str, Self)];
}

impl Word for PayloadFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("json", PayloadFormat::Json), ("binary", PayloadFormat::Binary)];
}

impl Word for DeltaType {
    const WORDS: &'static [(&'static str, Self)] = &[("fossil", DeltaType::Fossil)];
}

impl Word for SlowConsumerPolicy {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disconnect", SlowConsumerPolicy::Disconnect),
        ("drop-oldest", SlowConsumerPolicy::DropOldest),
        ("latest", SlowConsumerPolicy::Latest),
        ("resync", SlowConsumerPolicy::Resync),
    ];
}

impl Word for CompressionMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", CompressionMode::Off), ("single", CompressionMode::Single), ("shared", CompressionMode::Shared)];
}

impl Word for ErrorMode {
    const WORDS: &'static [(&'static str, Self)] =
        &[("standard", ErrorMode::Standard), ("transport", ErrorMode::Transport)];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", LogFormat::Auto),
        ("text", LogFormat::Text),
        ("json", LogFormat::Json),
        ("journald", LogFormat::Journald),
    ];
}

impl Word for TlsVersion {
    const WORDS: &'static [(&'static str, Self)] = &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
}

impl Word for RecoveryMode {
    const WORDS: &'static [(&'static str, Self)] = &[("stream", RecoveryMode::Stream), ("cache", RecoveryMode::Cache)];
}

impl<T> Kind<T> {
    /// Sets the field from what was written, or says what was expected instead.
    pub(super) fn set(&self, target: &mut T, value: &Value) -> Result<(), Mistake> {
        self.try_set(target, value).ok_or_else(|| Mistake::Unexpected {
            expected: self.expected(),
            found: match (self, value) {
                (Kind::Secret(_) | Kind::Secrets(_), _) => value.describe_type().to_owned(),
                (Kind::PublicKey(_, family), Value::Text(text)) => {
                    PublicKey::read(text, *family).err().unwrap_or_else(|| value.describe())
                }
                (Kind::Dictionaries(_), _) => {
                    dictionaries_of(value).unwrap_or_else(|| Err(value.describe())).err().unwrap_or_default()
                }
                (_, Value::List(items)) => match self.first_refused(items) {
                    Some(item) => format!("{} in the list", item.describe()),
                    None => value.describe(),
                },
                _ => value.describe(),
            },
        })
    }

    /// Sets the field to what it is without a default.
    pub(super) fn clear(&self, target: &mut T) {
        match self {
            Kind::OptionalAddress(field) => *field(target) = None,
            Kind::OptionalPath(field) | Kind::OptionalFile(field) => *field(target) = None,
            Kind::OptionalText(field) => *field(target) = None,
            Kind::Secret(field) => *field(target) = None,
            Kind::Secrets(field) => field(target).clear(),
            Kind::Dictionaries(field) => field(target).clear(),
            Kind::PublicKey(field, _) => *field(target) = None,
            Kind::ClaimName(field) | Kind::Url(field) => *field(target) = None,
            Kind::Origins(field) | Kind::HeaderNames(field) => field(target).clear(),
            Kind::StatusTransforms(field) => field(target).clear(),
            Kind::Prefixes(field) => field(target).clear(),
            Kind::Cores(field) => field(target).clear(),
            Kind::NamespaceName(field) => field(target).clear(),
            Kind::Regex(field) => *field(target) = None,
            Kind::Certificates(field) => field(target).clear(),
            Kind::AbsolutePath(field) => *field(target) = None,
            _ => unreachable!("a key of this type has a default; the schema's tests prove it"),
        }
    }

    /// Sets the field to its value in another target. Whether it was another one.
    pub(super) fn assign(&self, target: &mut T, source: &mut T) -> bool {
        match self {
            Kind::Boolean(field) => assign(field, target, source),
            Kind::Count(field, _) | Kind::Duration(field, _) | Kind::Size(field, _) => assign(field, target, source),
            Kind::LongSize(field, _) => assign(field, target, source),
            Kind::Address(field) => assign(field, target, source),
            Kind::OptionalAddress(field) => assign(field, target, source),
            Kind::OptionalPath(field) | Kind::OptionalFile(field) => assign(field, target, source),
            Kind::OptionalText(field) | Kind::ClaimName(field) | Kind::Url(field) => assign(field, target, source),
            Kind::Secret(field) => assign(field, target, source),
            Kind::Secrets(field) => assign(field, target, source),
            Kind::PublicKey(field, _) => assign(field, target, source),
            Kind::LogFilter(field) | Kind::NamespaceName(field) => assign(field, target, source),
            Kind::Origins(field) | Kind::HeaderNames(field) => assign(field, target, source),
            Kind::Cores(field) => assign(field, target, source),
            Kind::DeltaTypes(field) => assign(field, target, source),
            Kind::Format(field) => assign(field, target, source),
            Kind::SlowConsumer(field) => assign(field, target, source),
            Kind::Compression(field) => assign(field, target, source),
            Kind::Recovery(field) => assign(field, target, source),
            Kind::Errors(field) => assign(field, target, source),
            Kind::Logs(field) => assign(field, target, source),
            Kind::StatusTransforms(field) => assign(field, target, source),
            Kind::Dictionaries(field) => assign(field, target, source),
            Kind::Prefixes(field) => assign(field, target, source),
            Kind::Certificates(field) => assign(field, target, source),
            Kind::TlsVersion(field) => assign(field, target, source),
            Kind::AbsolutePath(field) => assign(field, target, source),
            Kind::Regex(field) => assign(field, target, source),
        }
    }

    /// Reads what the environment says, where every value is a text, as if it had been written in the file.
    pub(super) fn value_of_text(&self, variable: &str, text: &str) -> Value {
        let text = text.trim();
        let as_written = || Value::Text(text.to_owned());
        match self {
            Kind::Boolean(_) => text.parse().map_or_else(|_| as_written(), Value::Boolean),
            Kind::Count(..) | Kind::Size(..) | Kind::LongSize(..) => {
                text.parse().map_or_else(|_| as_written(), Value::Integer)
            }
            Kind::Origins(_)
            | Kind::HeaderNames(_)
            | Kind::StatusTransforms(_)
            | Kind::Prefixes(_)
            | Kind::Cores(_)
            | Kind::DeltaTypes(_)
            | Kind::Secrets(_)
            | Kind::Dictionaries(_)
            | Kind::Certificates(_)
                if text.starts_with('[') =>
            {
                read_list(variable, text).map_or_else(|_| as_written(), |raw| raw.value)
            }
            _ => as_written(),
        }
    }

    /// Writes a value, given as one would in an environment variable, as the file takes it.
    pub(super) fn toml_of_text(&self, text: &str) -> String {
        match self {
            Kind::Boolean(_) | Kind::Count(..) => text.to_owned(),
            Kind::Origins(_)
            | Kind::HeaderNames(_)
            | Kind::StatusTransforms(_)
            | Kind::Prefixes(_)
            | Kind::DeltaTypes(_)
            | Kind::Secrets(_)
            | Kind::Dictionaries(_)
            | Kind::Certificates(_)
                if text.starts_with('[') =>
            {
                text.to_owned()
            }
            Kind::Origins(_) | Kind::HeaderNames(_) | Kind::Prefixes(_) => {
                let quoted: Vec<String> = text.split(',').map(|item| format!("{:?}", item.trim())).collect();
                format!("[{}]", quoted.join(", "))
            }
            _ => format!("{text:?}"),
        }
    }

    /// Bounds, as a sentence of the reference file; "" where the key's own sentences say all.
    pub(super) fn bounds(&self) -> String {
        match self {
            Kind::Count(..) | Kind::Duration(..) | Kind::Size(..) | Kind::LongSize(..) => {
                let (low, high) = self.low_and_high();
                format!("From {low} to {high}.")
            }
            _ => String::new(),
        }
    }

    fn try_set(&self, target: &mut T, value: &Value) -> Option<()> {
        match (self, value) {
            (Kind::Boolean(field), Value::Boolean(value)) => *field(target) = *value,
            (Kind::Count(field, bounds), Value::Integer(value)) => {
                *field(target) = u32::try_from(*value).ok().filter(|value| bounds.contains(value))?;
            }
            (Kind::Duration(field, bounds), Value::Text(text)) => {
                let duration_ms = u32::try_from(parse_duration_ms(text)?).ok()?;
                *field(target) = Some(duration_ms).filter(|value| bounds.contains(value))?;
            }
            (Kind::Size(field, bounds), value) => {
                let size_bytes = u32::try_from(size_bytes_of(value)?).ok()?;
                *field(target) = Some(size_bytes).filter(|value| bounds.contains(value))?;
            }
            (Kind::LongSize(field, bounds), value) => {
                *field(target) = size_bytes_of(value).filter(|value| bounds.contains(value))?;
            }
            (Kind::Address(field), Value::Text(text)) => *field(target) = text.parse().ok()?,
            (Kind::OptionalAddress(field), Value::Text(text)) => {
                *field(target) = if text == NONE { None } else { Some(text.parse().ok()?) };
            }
            (Kind::OptionalPath(field), Value::Text(text)) => *field(target) = unix_path_of(text)?,
            (Kind::OptionalFile(field), Value::Text(text)) => *field(target) = file_of(text)?,
            (Kind::OptionalText(field), Value::Text(text)) if !text.is_empty() => {
                *field(target) = Some(text.clone());
            }
            (Kind::Secret(field), Value::Text(text)) if !text.is_empty() => {
                *field(target) = Some(text.as_str().into());
            }
            (Kind::Secrets(field), value) => *field(target) = secrets_of(value)?,
            (Kind::PublicKey(field, family), Value::Text(text)) => {
                *field(target) = Some(PublicKey::read(text, *family).ok()?);
            }
            (Kind::Dictionaries(field), value) => *field(target) = dictionaries_of(value)?.ok()?,
            (Kind::Url(field), Value::Text(text)) if is_url(text) => *field(target) = Some(text.clone()),
            (Kind::ClaimName(field), Value::Text(text)) if is_claim_name(text) => *field(target) = Some(text.clone()),
            (Kind::LogFilter(field), Value::Text(text)) if is_log_filter(text) => *field(target) = text.clone(),
            (Kind::Origins(field), value) => *field(target) = valid_texts_of(value, is_origin_pattern)?,
            (Kind::HeaderNames(field), value) => *field(target) = valid_texts_of(value, is_header_name)?,
            (Kind::StatusTransforms(field), value) => *field(target) = StatusTransform::read_all(value)?,
            (Kind::Prefixes(field), value) => {
                *field(target) = texts_of(value)?.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
            }
            (Kind::Cores(field), value) => *field(target) = cores_of(value)?,
            (Kind::NamespaceName(field), Value::Text(text)) if is_namespace_name(text) => {
                *field(target) = text.clone();
            }
            (Kind::DeltaTypes(field), value) => {
                *field(target) = texts_of(value)?.iter().map(|text| word_of(text)).collect::<Option<_>>()?;
            }
            (Kind::Format(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::SlowConsumer(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::Compression(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::Recovery(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::Errors(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::Logs(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::Regex(field), Value::Text(text)) if !text.is_empty() => {
                *field(target) = Some(Pattern::new(text)?);
            }
            (Kind::Certificates(field), value) => *field(target) = certificates_of(value)?,
            (Kind::TlsVersion(field), Value::Text(text)) => *field(target) = word_of(text)?,
            (Kind::AbsolutePath(field), Value::Text(text)) => *field(target) = Some(absolute_path_of(text)?),
            _ => return None,
        }
        Some(())
    }

    fn expected(&self) -> String {
        let (low, high) = self.low_and_high();
        match self {
            Kind::Boolean(_) => "true or false".to_owned(),
            Kind::Count(..) => format!("a whole number from {low} to {high}"),
            Kind::Duration(..) => format!("a duration from {low} to {high} with its unit, like \"25s\" or \"500ms\""),
            Kind::Size(..) | Kind::LongSize(..) => {
                format!("a size from {low} to {high}, in bytes or with a unit, like \"64KiB\" or \"1MiB\"")
            }
            Kind::Address(_) => "an IP address and a port, like \"127.0.0.1:8000\" or \"[::1]:8000\"".to_owned(),
            Kind::OptionalAddress(_) => {
                format!("an IP address and a port, like \"127.0.0.1:7400\" or \"[::1]:7400\", or \"{NONE}\"")
            }
            Kind::OptionalPath(_) => {
                format!("an absolute path of at most {UNIX_PATH_BYTES_MAX} bytes, or \"{NONE}\"")
            }
            Kind::OptionalFile(_) => format!("the absolute path of a file, or \"{NONE}\""),
            Kind::OptionalText(_) | Kind::Secret(_) => "a string that is not empty".to_owned(),
            Kind::Secrets(_) => "a list of strings that are not empty".to_owned(),
            Kind::PublicKey(_, family) => format!(
                "{} in PEM (-----BEGIN PUBLIC KEY-----), or the absolute path of a file that holds one",
                match family {
                    KeyFamily::Rsa => "a public RSA key of 2048 to 8192 bits",
                    KeyFamily::Ecdsa => "a public ECDSA key on the curve P-256, P-384 or P-521",
                    KeyFamily::Ed25519 => "a public Ed25519 key",
                }
            ),
            Kind::Dictionaries(_) => "a list of absolute paths of dictionaries that `zstd --train` made".to_owned(),
            Kind::Url(_) => "an address like \"https://example.com/path\"".to_owned(),
            Kind::ClaimName(_) => "the name of a claim, of a-z, A-Z, 0-9 and \"_\"".to_owned(),
            Kind::LogFilter(_) => "off, error, warn, info, debug or trace, or a list like \
                                   \"info,tidegate::ingest=debug\""
                .to_owned(),
            Kind::Origins(_) => "a list of origins like \"https://example.com\" or \"https://*.example.com\" \
                                 (a scheme, no path, at most one *), or \"*\""
                .to_owned(),
            Kind::HeaderNames(_) => "a list of names of header fields, like [\"Cookie\", \"X-Real-IP\"]".to_owned(),
            Kind::StatusTransforms(_) => {
                "a list of tables like { status_code = 404, to_error = { code = 404, message = \
                                          \"not found\", temporary = false } } or { status_code = 403, to_disconnect = \
                                          { code = 4501, reason = \"banned\" } }, each status once"
                    .to_owned()
            }
            Kind::Prefixes(_) => {
                "a list of addresses and prefixes like [\"192.0.2.7\", \"10.0.0.0/8\", \"2001:db8::/32\"], \
                                  with no bits behind a prefix's length"
                    .to_owned()
            }
            Kind::Cores(_) => "a list of cores like [0, 1], or ranges like \"0-3,8\"".to_owned(),
            Kind::NamespaceName(_) => {
                "a name of two characters or more, of a-z, A-Z, 0-9, \"-\", \"_\" and \".\"".to_owned()
            }
            Kind::DeltaTypes(_) => "a list that may hold \"fossil\"".to_owned(),
            Kind::Format(_) => one_of::<PayloadFormat>(),
            Kind::SlowConsumer(_) => one_of::<SlowConsumerPolicy>(),
            Kind::Compression(_) => one_of::<CompressionMode>(),
            Kind::Recovery(_) => one_of::<RecoveryMode>(),
            Kind::Errors(_) => one_of::<ErrorMode>(),
            Kind::Logs(_) => one_of::<LogFormat>(),
            Kind::Regex(_) => "a regular expression, like \"^[a-z]+$\"".to_owned(),
            Kind::Certificates(_) => "a list of tables with the absolute paths of two files in PEM, like \
                                      [{ certificate = \"/etc/tidegate/tls/fullchain.pem\", \
                                      key = \"/etc/tidegate/tls/privkey.pem\" }]"
                .to_owned(),
            Kind::TlsVersion(_) => one_of::<TlsVersion>(),
            Kind::AbsolutePath(_) => "the absolute path of a file".to_owned(),
        }
    }

    /// The bounds as an operator would write them; "" where there are none.
    fn low_and_high(&self) -> (String, String) {
        match self {
            Kind::Count(_, bounds) => (bounds.start().to_string(), bounds.end().to_string()),
            Kind::Duration(_, bounds) => {
                (format_duration_ms((*bounds.start()).into()), format_duration_ms((*bounds.end()).into()))
            }
            Kind::Size(_, bounds) => {
                (format_size_bytes((*bounds.start()).into()), format_size_bytes((*bounds.end()).into()))
            }
            Kind::LongSize(_, bounds) => (format_size_bytes(*bounds.start()), format_size_bytes(*bounds.end())),
            _ => (String::new(), String::new()),
        }
    }

    /// The first item of a list that the key does not take, for the message.
    fn first_refused<'a>(&self, items: &'a [super::raw::Raw]) -> Option<&'a Value> {
        let is_taken: fn(&Value) -> bool = match self {
            Kind::Origins(_) => |item| matches!(item, Value::Text(text) if is_origin_pattern(text)),
            Kind::HeaderNames(_) => |item| matches!(item, Value::Text(text) if is_header_name(text)),
            Kind::StatusTransforms(_) => |item| StatusTransform::read(item).is_some(),
            Kind::Prefixes(_) => |item| matches!(item, Value::Text(text) if text.parse::<Prefix>().is_ok()),
            Kind::Cores(_) => |item| core_of(item).is_some(),
            Kind::DeltaTypes(_) => |item| matches!(item, Value::Text(text) if word_of::<DeltaType>(text).is_some()),
            _ => return None,
        };
        items.iter().map(|item| &item.value).find(|item| !is_taken(item))
    }
}

fn assign<T, V: Clone + PartialEq>(field: &Field<T, V>, target: &mut T, source: &mut T) -> bool {
    let value = field(source).clone();
    let differs = *field(target) != value;
    *field(target) = value;
    differs
}

fn size_bytes_of(value: &Value) -> Option<u64> {
    match value {
        Value::Integer(value) => u64::try_from(*value).ok(),
        Value::Text(text) => parse_size_bytes(text),
        _ => None,
    }
}

fn unix_path_of(text: &str) -> Option<Option<PathBuf>> {
    if text == NONE {
        return Some(None);
    }
    let is_usable = Path::new(text).is_absolute() && text.len() <= UNIX_PATH_BYTES_MAX && !text.contains('\0');
    is_usable.then(|| Some(PathBuf::from(text)))
}

fn file_of(text: &str) -> Option<Option<PathBuf>> {
    if text == NONE {
        return Some(None);
    }
    let is_usable = Path::new(text).is_absolute() && !text.ends_with('/') && !text.contains('\0');
    is_usable.then(|| Some(PathBuf::from(text)))
}

fn absolute_path_of(text: &str) -> Option<PathBuf> {
    (Path::new(text).is_absolute() && !text.contains('\0')).then(|| PathBuf::from(text))
}

/// Tables that have these two keys and no other.
fn certificates_of(value: &Value) -> Option<Vec<CertificateFiles>> {
    let Value::List(items) = value else { return None };
    let pair = |item: &super::raw::Raw| {
        let Value::Table(entries) = &item.value else { return None };
        let path_of = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name)?;
            if let Value::Text(text) = &entry.raw.value { absolute_path_of(text) } else { None }
        };
        let files = CertificateFiles { certificate: path_of("certificate")?, key: path_of("key")? };
        (entries.len() == 2).then_some(files)
    };
    items.iter().map(pair).collect()
}

/// The texts of a list, or of one text with commas.
fn texts_of(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Text(text) => Some(text.split(',').map(|part| part.trim().to_owned()).collect()),
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) => Some(text.clone()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// The same, if each is valid.
fn valid_texts_of(value: &Value, is_valid: fn(&str) -> bool) -> Option<Vec<String>> {
    texts_of(value).filter(|texts| texts.iter().all(|text| is_valid(text)))
}

/// The dictionaries in the files of a list, or what was found instead of the first that is none.
fn dictionaries_of(value: &Value) -> Option<Result<Vec<Dictionary>, String>> {
    texts_of(value).map(|paths| paths.iter().map(|path| Dictionary::read(path)).collect())
}

/// A list, or, as the environment may say it, one secret alone or several between commas.
fn secrets_of(value: &Value) -> Option<Vec<Secret>> {
    let secrets: Vec<&str> = match value {
        Value::Text(text) => text.split(',').map(str::trim).collect(),
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let are_some = secrets.iter().all(|secret| !secret.is_empty());
    are_some.then(|| secrets.into_iter().map(Secret::from).collect())
}

/// Whether a text is an origin (RFC 6454 section 6.1), perhaps with one `*` in its host or port, or "*", or
/// the "null" that pages without an origin send.
fn is_origin_pattern(text: &str) -> bool {
    if text == "*" || text == "null" {
        return true;
    }
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let is_scheme = !scheme.is_empty()
        && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
    let is_host = !host.is_empty()
        && host.matches('*').count() <= 1
        && host.chars().all(|character| character.is_ascii_alphanumeric() || "-._~:[]*".contains(character));
    is_scheme && is_host
}

fn core_of(value: &Value) -> Option<u32> {
    match value {
        Value::Integer(core) => u32::try_from(*core).ok(),
        _ => None,
    }
}

fn cores_of(value: &Value) -> Option<Vec<u32>> {
    match value {
        Value::List(items) => items.iter().map(|item| core_of(&item.value)).collect(),
        Value::Text(text) => parse_cores(text),
        _ => None,
    }
}

/// Whether a text is a list of levels. A bare word that is no level would be taken by `EnvFilter`
/// for a module whose every message is wanted, so that `level = "inof"` would log nothing else.
fn is_log_filter(text: &str) -> bool {
    // An empty part parses as a level, too.
    let has_levels =
        text.split(',').all(|part| !part.is_empty() && (part.contains('=') || part.parse::<LevelFilter>().is_ok()));
    has_levels && EnvFilter::builder().parse(text).is_ok()
}

/// Protocol.md section 12: `^[-a-zA-Z0-9_.]{2,}$`.
fn is_namespace_name(text: &str) -> bool {
    text.len() >= 2 && text.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character))
}

/// A token of RFC 9110 section 5.6.2.
fn is_header_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// An absolute address of HTTP, with or without TLS.
fn is_url(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
    })
}

/// A member's name in the claims, as user ids of other systems are called.
fn is_claim_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

fn word_of<W: Word>(text: &str) -> Option<W> {
    W::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
}

fn one_of<W: Word>() -> String {
    let words: Vec<String> = W::WORDS.iter().map(|(word, _)| format!("{word:?}")).collect();
    format!("one of {}", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_told_from_what_looks_like_them() {
        for good in ["*", "null", "https://example.com", "https://*.example.com", "http://[::1]:3000", "http://a:*"] {
            assert!(is_origin_pattern(good), "{good}");
        }
        for bad in ["", "example.com", "https://", "https://example.com/", "https://*.*.com", "://x", "https://a b"] {
            assert!(!is_origin_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn names_of_header_fields_are_tokens() {
        assert!(["Cookie", "X-Real-IP", "x_1"].iter().all(|good| is_header_name(good)));
        assert!(!["", "X Real", "Cookie:", "Höhe", "a\nb"].iter().any(|bad| is_header_name(bad)));
    }

    #[test]
    fn levels_of_logs_are_told_from_misspelt_ones() {
        for good in ["info", "off", "INFO", "info,tidegate::ingest=debug"] {
            assert!(is_log_filter(good), "{good}");
        }
        for bad in ["", "inof", "info,ingest", "tidegate=loud", "info,,warn", "warn, tidegate=trace"] {
            assert!(!is_log_filter(bad), "{bad}");
        }
    }

    #[test]
    fn names_of_namespaces_are_those_of_the_protocol() {
        for good in ["ab", "news", "a-b_c.D9"] {
            assert!(is_namespace_name(good), "{good}");
        }
        for bad in ["", "a", "a:b", "a b", "né", "$a"] {
            assert!(!is_namespace_name(bad), "{bad}");
        }
    }

    #[test]
    fn paths_of_sockets_are_absolute_and_short() {
        assert_eq!(unix_path_of("/run/a.sock"), Some(Some(PathBuf::from("/run/a.sock"))));
        assert_eq!(unix_path_of("none"), Some(None));
        assert_eq!(unix_path_of("run/a.sock"), None);
        assert_eq!(unix_path_of(""), None);
        assert_eq!(unix_path_of(&format!("/{}", "a".repeat(UNIX_PATH_BYTES_MAX))), None);
    }
}
