//! The configuration: what an operator may choose, validated once into typed values.
//!
//! Owns the values and their meaning. The one table of keys, with types, bounds and defaults, is
//! `schema`; reading the file and the environment is the business of `load`, rules between keys
//! that of `rules`, the commented reference file that of `reference`.
//!
//! Invariant: a [`Config`] that exists has been validated; no other module checks a value again.

mod change;
mod cores;
mod demo;
mod dictionary;
mod hooks;
mod kind;
mod limits;
mod load;
mod pattern;
mod problem;
mod public_key;
mod raw;
mod reference;
mod rules;
mod schema;
mod secret;
mod status;
mod tls;
mod traces;
mod units;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

pub use change::{Change, change};
pub use cores::parse_cores;
pub use demo::DEMO_NAMESPACE;
pub use dictionary::Dictionary;
pub use hooks::{Hook, HookConfig, HooksConfig};
pub use limits::LimitsConfig;
use load::Draft;
pub use load::{Loaded, load};
pub use pattern::Pattern;
pub use problem::{Errors, Mistake, Place, Problem};
pub use public_key::{KeyFamily, PublicKey};
pub use reference::reference;
pub use secret::Secret;
pub use status::{HookRefusal, StatusTransform};
pub use tls::{CertificateFiles, ClientTlsConfig, IngestTlsConfig, TlsConfig, TlsVersion};
pub use traces::TracingConfig;
pub use units::{format_duration_ms, parse_duration_ms};

use crate::{
    limits::{API_CONNECTIONS_MAX, API_CONNECTIONS_WAITING_MAX, CHANNEL_BYTES_MAX},
    network::Prefix,
};

/// Everything that an operator chose. Shared by all threads, never changed: a reload makes another one ([`change`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The clients' port.
    pub client: ClientConfig,
    /// The producers' port.
    pub ingest: IngestConfig,
    /// The operators' port.
    pub admin: AdminConfig,
    /// The server API.
    pub api: ApiConfig,
    /// The application's back end.
    pub hooks: HooksConfig,
    /// The shards.
    pub shards: ShardsConfig,
    /// How the server stops.
    pub shutdown: ShutdownConfig,
    /// What the application's back end may keep with each connection.
    pub attributes: AttributesConfig,
    /// What each channel may do, by namespace.
    pub namespaces: Namespaces,
    /// Logs.
    pub log: LogConfig,
    /// Traces.
    pub tracing: TracingConfig,
}

impl Default for Config {
    /// The embedded defaults, on the cores that this process may run on.
    fn default() -> Config {
        match load(None, std::iter::empty()) {
            Ok(loaded) => loaded.config,
            Err(errors) => panic!("the embedded defaults break the rules of the configuration:\n{errors}"),
        }
    }
}

impl Config {
    /// Whether some channels' publications are compressed; otherwise no compression is agreed on with clients.
    pub fn compresses(&self) -> bool {
        let namespaces = self.namespaces.without.iter().chain(&self.namespaces.by_name);
        namespaces.into_iter().any(|namespace| namespace.compression.mode != CompressionMode::Off)
    }

    /// Whether the server asks anybody over HTTP, or tells anything.
    pub fn asks_others(&self) -> bool {
        self.client.token.jwks_public_endpoint.is_some() || self.hooks.is_any_asked() || self.tracing.is_on()
    }

    /// Whether some client could connect at all: with a token, or without.
    pub fn lets_clients_connect(&self) -> bool {
        let client = &self.client;
        client.allow_anonymous || client.insecure || client.token.has_key() || self.hooks.is_asked(Hook::Connect)
    }
}

/// `[client]`: where clients connect, and what one client may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Address that shards listen on. Default 127.0.0.1:8000.
    pub listen: SocketAddr,
    /// Whether a client without a token may connect, as the user "". Default false.
    pub allow_anonymous: bool,
    /// Whether a listener beyond loopback may go without authentication. Default false: such a server refuses to start.
    pub allow_public_without_authentication: bool,
    /// What tokens must be.
    pub token: TokenConfig,
    /// Values of `Origin` that may connect: exact, or with one `*` for a part; "*" for any.
    /// Requests without `Origin` (not from browsers) pass always; the request's own `Host` passes always.
    pub allowed_origins: Vec<String>,
    /// Addresses that may not connect. Default none.
    pub deny: Vec<Prefix>,
    /// Balancers whose connections begin with a header of the PROXY protocol, version 2. Default none.
    pub proxy_protocol_from: Vec<Prefix>,
    /// What clients may do, and how often.
    pub limits: LimitsConfig,
    /// Connections in the whole process; more get HTTP 503. Default 1,000,000.
    pub connections_max: u32,
    /// Channels one client may subscribe to (error 106 beyond). Default 128.
    pub channels_max: u32,
    /// Longest message from a client, in bytes (close code 1009 beyond). Default 65,536.
    pub message_bytes_max: u32,
    /// Milliseconds from accept to a complete request head. Default 5,000.
    pub request_head_ms_max: u32,
    /// Milliseconds from the upgrade to a valid connect command (close code 3502 beyond). Default 10,000.
    pub connect_ms_max: u32,
    /// Milliseconds between pings. Default 25,000. A multiple of 1,000.
    pub ping_ms: u32,
    /// Milliseconds a client has to answer a ping (close code 3012 beyond). Default 8,000; less than `ping_ms`.
    pub pong_ms_max: u32,
    /// Milliseconds that a client on a bad network (by TCP's own measure) gets on top. Default 8,000.
    pub pong_grace_ms: u32,
    /// Milliseconds between a token's expiry and its connection's end (close code 3005). Default 25,000.
    pub expired_grace_ms: u32,
    /// Whether an authenticated client is subscribed to its personal channel `#user` at connect. Default true.
    pub personal_channel: bool,
    /// The namespace of personal channels, which then are `namespace:#user`; none: they have none. Default none.
    pub personal_channel_namespace: Option<String>,
    /// Connections that one user may have in the whole process (close code 3504 beyond); 0: any number. Default 0.
    pub user_connections_max: u32,
    /// Whether every client may connect, subscribe, publish and read, without a token. Default false.
    pub insecure: bool,
    /// Certificates, if the port speaks TLS.
    pub tls: ClientTlsConfig,
}

impl ClientConfig {
    /// The name of a user's personal channel (protocol.md section 11).
    pub fn personal_channel_of(&self, user: &str) -> String {
        match &self.personal_channel_namespace {
            None => format!("#{user}"),
            Some(namespace) => format!("{namespace}:#{user}"),
        }
    }

    /// Whether a channel is one of the personal ones, by its name.
    pub fn is_personal_channel(&self, channel: &str) -> bool {
        let user = match &self.personal_channel_namespace {
            None => Some(channel),
            Some(namespace) => channel.strip_prefix(namespace.as_str()).and_then(|rest| rest.strip_prefix(':')),
        };
        user.is_some_and(|user| user.starts_with('#'))
    }

    /// The user of a personal channel, by its name.
    pub fn user_of_personal_channel<'a>(&self, channel: &'a str) -> &'a str {
        &channel[self.personal_channel_prefix_bytes()..]
    }

    /// Longest user id, in bytes: its personal channel is a channel.
    pub fn user_bytes_max(&self) -> usize {
        CHANNEL_BYTES_MAX - self.personal_channel_prefix_bytes()
    }

    fn personal_channel_prefix_bytes(&self) -> usize {
        self.personal_channel_namespace.as_ref().map_or(1, |namespace| namespace.len() + 2)
    }
}

/// `[client.token]`: what proves who a client's user is, and which channels it may enter (protocol.md section 16).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenConfig {
    /// HMAC secret (HS256, HS384, HS512).
    pub hmac_secret: Option<Secret>,
    /// The HMAC secret before the present one, still accepted while tokens rotate.
    pub hmac_secret_previous: Option<Secret>,
    /// RSA key (RS256, RS384, RS512).
    pub rsa_public_key: Option<PublicKey>,
    /// ECDSA key; its curve says which of ES256, ES384 and ES512.
    pub ecdsa_public_key: Option<PublicKey>,
    /// Ed25519 key (EdDSA).
    pub ed25519_public_key: Option<PublicKey>,
    /// Where public keys are published as a JSON Web Key Set (RFC 7517).
    pub jwks_public_endpoint: Option<String>,
    /// Milliseconds after which they are fetched anew. Default 600,000.
    pub jwks_refresh_ms: u32,
    /// Audience that a token must name, if set.
    pub audience: Option<String>,
    /// What the audience must match, if set.
    pub audience_regex: Option<Pattern>,
    /// Issuer that a token must name, if set.
    pub issuer: Option<String>,
    /// What the issuer must match, if set.
    pub issuer_regex: Option<Pattern>,
    /// The claim that names the user instead of `sub`.
    pub user_id_claim: Option<String>,
}

impl TokenConfig {
    /// Whether some token can be valid.
    pub fn has_key(&self) -> bool {
        self.hmac_secret.is_some()
            || self.rsa_public_key.is_some()
            || self.ecdsa_public_key.is_some()
            || self.ed25519_public_key.is_some()
            || self.jwks_public_endpoint.is_some()
    }
}

/// `[ingest]`: where producers push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// TCP address. Default 127.0.0.1:7400; none: no TCP listener.
    pub listen: Option<SocketAddr>,
    /// Path of the Unix socket. Default none, except `serve --demo`'s and packages' settings.
    pub unix: Option<PathBuf>,
    /// Password that producers must give (`AUTH`, `HELLO ... AUTH`); none: no authentication.
    pub password: Option<Secret>,
    /// Whether a listener beyond loopback may go without a password. Default false.
    pub allow_public_without_password: bool,
    /// Longest payload, in bytes. Default 1 MiB.
    pub payload_bytes_max: u32,
    /// Producers' connections. Default 1,024.
    pub connections_max: u32,
    /// Milliseconds for which an idempotency key is remembered. Default 300,000.
    pub idempotency_ms: u32,
    /// Dictionaries that compressed payloads may name. Default none.
    pub zstd_dictionaries: Vec<Dictionary>,
    /// Certificates, if the TCP port speaks TLS.
    pub tls: IngestTlsConfig,
}

/// `[admin]`: the console, `/metrics`, `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address. Default 127.0.0.1:9000.
    pub listen: SocketAddr,
    /// Whether it may listen beyond loopback. Default false.
    pub allow_public: bool,
    /// Password of commands to a running server; none: they are taken from this host only. Default none.
    pub password: Option<Secret>,
    /// TLS; without certificates it speaks none. Default none.
    pub tls: TlsConfig,
}

/// `[api]`: the server API (protocol.md section 19).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiConfig {
    /// Address of a port for it alone; none: it has none.
    pub listen: Option<SocketAddr>,
    /// Whether it is on the clients' port too. Default false.
    pub on_client_port: bool,
    /// Keys, of which a request must show one. Without any, every request is refused, unless `insecure`.
    pub keys: Vec<Secret>,
    /// Whether requests need no key. Default false.
    pub insecure: bool,
    /// How failures are told, unless a request says it. Default: in the body of a 200.
    pub error_mode: ErrorMode,
    /// TLS on the port of its own; without certificates it speaks none. Default none.
    pub tls: TlsConfig,
}

impl ApiConfig {
    /// Connections that it may have beside the operators'.
    pub fn connections_max(&self) -> usize {
        let own_port = self.listen.map_or(0, |_| API_CONNECTIONS_MAX);
        let client_port = if self.on_client_port { API_CONNECTIONS_MAX + API_CONNECTIONS_WAITING_MAX } else { 0 };
        own_port + client_port
    }
}

/// `error_mode` of the server API.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ErrorMode {
    /// HTTP 200, the error in the body.
    #[default]
    Standard,
    /// The HTTP status that suits the error best.
    Transport,
}

/// `[shards]`: threads and their memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardsConfig {
    /// Cores that get a shard each, pinned. Default: every core this process may run on.
    pub cores: Vec<u32>,
    /// Bytes that may wait for one slow client before its namespace's policy acts. Default 1 MiB.
    pub outbox_bytes_max: u32,
    /// Bytes that may wait for all slow clients of one shard; beyond, the worst is closed first. Default 256 MiB.
    pub outboxes_bytes_max: u64,
    /// Bytes of history that one shard keeps; beyond, what would expire first goes. Default 1 GiB.
    pub history_bytes_max: u64,
}

/// `[shutdown]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// Milliseconds from SIGTERM to exit. Default 10,000.
    pub ms_max: u32,
    /// Milliseconds for which the server says that it is about to stop and serves still. Default 0.
    pub unready_ms: u32,
    /// Milliseconds over which clients are told to reconnect. Default 5,000; with `unready_ms` at most `ms_max`.
    pub spread_ms: u32,
}

/// `[attributes]`: what the application's back end may keep with each connection, by changes. What tokens bring is
/// bounded by [`ClientConfig::message_bytes_max`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesConfig {
    /// Longest JSON text, in bytes. Default 4 KiB.
    pub bytes_max: u32,
    /// Members of objects, on all levels together. Default 64.
    pub keys_max: u32,
    /// Levels of objects and lists. Default 4.
    pub depth_max: u32,
}

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Filter, as in `tracing_subscriber::EnvFilter`. Default "info".
    pub level: String,
    /// Where lines go, and in which form. Default: to the journal where standard error leads there, else text.
    pub format: LogFormat,
    /// The file that takes the audit trail, as JSON; none: it goes with the other lines.
    pub audit_file: Option<PathBuf>,
}

/// `format` of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// [`LogFormat::Journald`] where standard error leads to systemd's journal, else [`LogFormat::Text`].
    #[default]
    Auto,
    /// Lines of text on standard error.
    Text,
    /// A JSON object per line on standard error.
    Json,
    /// systemd's journal, by its native protocol.
    Journald,
}

/// The rules of channels: those without a namespace, and each namespace by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Channels without a `:`; none: such channels are unknown (error 102). A loaded configuration
    /// has always some, if only with every permission off, because personal channels are of them.
    pub without: Option<Arc<Namespace>>,
    /// By name, sorted.
    pub by_name: Vec<Arc<Namespace>>,
}

impl Namespaces {
    /// The rules of a channel: the part before its first `:` names them (protocol.md section 12).
    pub fn of_channel(&self, channel: &str) -> Option<&Arc<Namespace>> {
        // A personal channel: what follows is a user id, in which `:` has no meaning.
        if channel.starts_with('#') {
            return self.without.as_ref();
        }
        let name = channel.strip_prefix('$').unwrap_or(channel);
        match name.split_once(':') {
            None => self.without.as_ref(),
            Some((name, _)) => {
                let index = self.by_name.binary_search_by(|namespace| namespace.name.as_str().cmp(name)).ok()?;
                Some(&self.by_name[index])
            }
        }
    }
}

/// What the channels of one namespace may do. Option names and meanings are Centrifugo's (protocol.md section 12).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespace {
    /// The part before `:`; "" for channels without one.
    pub name: String,
    /// Authenticated clients may subscribe.
    pub allow_subscribe_for_client: bool,
    /// ... and anonymous ones too.
    pub allow_subscribe_for_anonymous: bool,
    /// Authenticated clients may publish.
    pub allow_publish_for_client: bool,
    /// ... those that are subscribed may publish.
    pub allow_publish_for_subscriber: bool,
    /// ... and anonymous ones too.
    pub allow_publish_for_anonymous: bool,
    /// Authenticated clients may read history.
    pub allow_history_for_client: bool,
    /// ... those that are subscribed may.
    pub allow_history_for_subscriber: bool,
    /// ... and anonymous ones too.
    pub allow_history_for_anonymous: bool,
    /// Authenticated clients may ask who is subscribed.
    pub allow_presence_for_client: bool,
    /// ... those that are subscribed may.
    pub allow_presence_for_subscriber: bool,
    /// ... and anonymous ones too.
    pub allow_presence_for_anonymous: bool,
    /// The users that a channel's name lists behind `#` may subscribe without a token; nobody else may.
    pub allow_user_limited_channels: bool,
    /// The back end is asked who may subscribe without a token.
    pub subscribe_proxy_enabled: bool,
    /// The back end is asked who may publish, and what.
    pub publish_proxy_enabled: bool,
    /// The back end is asked whether a subscription goes on whose time is over.
    pub sub_refresh_proxy_enabled: bool,
    /// What the part of a channel's name after the namespace must match; none: anything.
    pub channel_regex: Option<Pattern>,
    /// Who is subscribed is known and can be asked.
    pub presence: bool,
    /// Subscribers that ask for it hear who comes and goes.
    pub join_leave: bool,
    /// Every subscriber hears it.
    pub force_push_join_leave: bool,
    /// Publications kept; 0: none.
    pub history_size: u32,
    /// Milliseconds for which they are kept.
    pub history_ttl_ms: u32,
    /// Payload bytes from which on all of them but the newest are compressed; 0: never.
    pub history_compression_bytes_min: u32,
    /// Every subscription knows its position.
    pub force_positioning: bool,
    /// Every subscription can recover.
    pub force_recovery: bool,
    /// A subscription that asks for its position gets it.
    pub allow_positioning: bool,
    /// A subscription that asks for recovery gets it.
    pub allow_recovery: bool,
    /// What recovery brings.
    pub force_recovery_mode: RecoveryMode,
    /// A subscription gets the latest publication although it does not ask to recover.
    pub auto_cache_recover: bool,
    /// Subscriptions may ask for those publications only whose tags pass a filter.
    pub allow_tags_filter: bool,
    /// Deltas that subscriptions may ask for.
    pub allowed_delta_types: Vec<DeltaType>,
    /// Every publication may be sent as a delta, also where its producer does not say so.
    pub delta_publish: bool,
    /// What payloads are.
    pub format: PayloadFormat,
    /// What happens to a subscriber that cannot keep up.
    pub slow_consumer: SlowConsumerPolicy,
    /// How publications are compressed.
    pub compression: CompressionConfig,
}

/// The options of a namespace that begin with `compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressionConfig {
    /// How publications are compressed. Default: not at all.
    pub mode: CompressionMode,
    /// Bytes of the shortest message that is compressed. Default 64.
    pub message_bytes_min: u32,
    /// Bytes of earlier messages that a message may refer to. Default 4 KiB.
    pub window_bytes: u32,
    /// Milliseconds that a subscriber waits at most for a message that refers to none. Default 30,000.
    pub keyframe_ms_max: u32,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { mode: CompressionMode::Off, message_bytes_min: 64, window_bytes: 4096, keyframe_ms_max: 30_000 }
    }
}

/// `compression` of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompressionMode {
    /// Nothing is compressed.
    #[default]
    Off,
    /// Each message by itself.
    Single,
    /// Each message may refer to the channel's messages before it.
    Shared,
}

impl Namespace {
    /// Whether home shards know the subscribers of its channels by name.
    pub fn knows_members(&self) -> bool {
        self.presence || self.join_leave
    }
}

/// `force_recovery_mode` of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Everything that was missed.
    #[default]
    Stream,
    /// The latest publication, which stands for all before it.
    Cache,
}

/// One of `allowed_delta_types` of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeltaType {
    /// Patches in the format of the version control system Fossil (protocol.md section 10).
    Fossil,
}

/// `format` of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadFormat {
    /// Payloads are JSON texts; anything else is refused to the producer.
    #[default]
    Json,
    /// Payloads are bytes. A JSON client that is sent one that is not JSON is closed with 3506.
    Binary,
}

/// `slow_consumer` of a namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SlowConsumerPolicy {
    /// Close the connection with 3008; the SDK comes back and recovers.
    #[default]
    Disconnect,
    /// Forget the oldest waiting publications.
    DropOldest,
    /// Keep only the latest publication of each channel.
    Latest,
    /// Forget what waits in the channel and push unsubscribe 2500; the SDK resubscribes and recovers from its own offset.
    Resync,
}

impl SlowConsumerPolicy {
    /// Whether a subscriber that cannot keep up stays, and misses publications.
    pub fn drops(self) -> bool {
        matches!(self, Self::DropOldest | Self::Latest)
    }
}
