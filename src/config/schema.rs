//! The table of every key: its name, type, bounds, default and meaning.
//!
//! The one list of keys. Parsing, defaults, the environment's variables, the reference file,
//! "did you mean" and what a reload changes are all derived from it; a key that is added here exists everywhere.
//! Reading values is `kind`'s business; rules between keys are the business of `rules`.
//!
//! Invariants, proved by tests: each field of [`super::Config`] is set by a key; each default is
//! within its own bounds; no two keys share an environment variable.

use super::{
    Draft, KeyFamily, Namespace,
    kind::Kind::{
        self, AbsolutePath, Address, Boolean, Certificates, ClaimName, Compression, Cores, Count, DeltaTypes,
        Dictionaries, Duration, Errors, Format, HeaderNames, LogFilter, Logs, LongSize, NamespaceName, OptionalAddress,
        OptionalFile, OptionalPath, OptionalText, Origins, Prefixes, PublicKey, Recovery, Regex, Secret, Secrets, Size,
        SlowConsumer, StatusTransforms, TlsVersion, Url,
    },
};

/// A table of the file, with its keys.
pub(super) struct Section {
    /// Dotted, as between the brackets of the file.
    pub(super) name: &'static str,
    /// What it is about.
    pub(super) doc: &'static str,
    /// Its keys.
    pub(super) keys: Keys,
}

/// The keys of a section, by what they set.
pub(super) enum Keys {
    /// They set the server's own values.
    Server(&'static [Key<Draft>]),
    /// They set the options of channels without a namespace.
    WithoutNamespace,
    /// The section is a list of namespaces; each has a name and options.
    Namespaces,
}

/// One key: how it is written, read, documented.
pub(super) struct Key<T: 'static> {
    /// Without its section.
    pub(super) name: &'static str,
    /// Type, bounds, and the field that it sets.
    pub(super) kind: Kind<T>,
    /// As one would write it in an environment variable; none: unset.
    pub(super) default: Option<&'static str>,
    /// A value worth showing where the default shows nothing, written in the same way.
    pub(super) example: Option<&'static str>,
    /// What it does, in sentences.
    pub(super) doc: &'static str,
    /// When a new value of it begins to count.
    pub(super) effect: Effect,
}

/// When a new value of a key begins to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// When the server reads its configuration anew.
    OnReload,
    /// When the server is started again: sockets, threads, and what connections were told for as long as they last.
    AtStart,
}

impl Effect {
    /// For the reference file.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::OnReload => "changes on reload",
            Self::AtStart => "needs a restart",
        }
    }
}

const fn key<T>(name: &'static str, kind: Kind<T>, default: &'static str, doc: &'static str) -> Key<T> {
    Key { name, kind, default: Some(default), example: None, doc, effect: Effect::OnReload }
}

/// A key without a default.
const fn unset<T>(name: &'static str, kind: Kind<T>, example: &'static str, doc: &'static str) -> Key<T> {
    Key { name, kind, default: None, example: Some(example), doc, effect: Effect::OnReload }
}

/// A key whose default is not what an example should show.
const fn with_example<T>(mut key: Key<T>, example: &'static str) -> Key<T> {
    key.example = Some(example);
    key
}

/// A key whose new value counts from the next start on.
const fn at_start<T>(mut key: Key<T>) -> Key<T> {
    key.effect = Effect::AtStart;
    key
}

const SECOND: u32 = 1_000;
const MINUTE: u32 = 60 * SECOND;
const HOUR: u32 = 60 * MINUTE;
const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// What a question to the back end may take.
const HOOK_MS: std::ops::RangeInclusive<u32> = 10..=30 * SECOND;

/// Every section, in the order of the reference file.
pub(super) static SECTIONS: &[Section] = &[
    Section { name: "client", doc: "Where clients connect, and what one client may cost.", keys: Keys::Server(CLIENT) },
    Section {
        name: "client.limits",
        doc: "What clients may do and how often, and when memory ends: docs/limits.md has each limit with its answer \
              and its metric.",
        keys: Keys::Server(CLIENT_LIMITS),
    },
    Section {
        name: "client.token",
        doc: "Tokens: JSON Web Tokens that prove who a client's user is, and which channels it may enter.",
        keys: Keys::Server(CLIENT_TOKEN),
    },
    Section {
        name: "client.tls",
        doc: "TLS on the clients' port (wss://). It speaks TLS, and nothing else, once it has certificates; docs/tls.md \
              tells more.",
        keys: Keys::Server(CLIENT_TLS),
    },
    Section {
        name: "ingest",
        doc: "Where producers push: the Redis protocol, on TCP and on a Unix socket.",
        keys: Keys::Server(INGEST),
    },
    Section {
        name: "ingest.tls",
        doc: "TLS on the producers' TCP port. The Unix socket needs none.",
        keys: Keys::Server(INGEST_TLS),
    },
    Section { name: "admin", doc: "The operators' port: console, /metrics, /health.", keys: Keys::Server(ADMIN) },
    Section { name: "admin.tls", doc: "TLS on the operators' port (https://).", keys: Keys::Server(ADMIN_TLS) },
    Section {
        name: "api",
        doc: "The server API: what a back end asks over HTTP, at /api on the operators' port, or on a port of its own.",
        keys: Keys::Server(API),
    },
    Section { name: "api.tls", doc: "TLS on the server API's own port, api.listen.", keys: Keys::Server(API_TLS) },
    Section {
        name: "hooks",
        doc: "The application's back end, asked over HTTP about what clients do; docs/hooks.md has each question with \
              its answers. The endpoint of a question switches it on.",
        keys: Keys::Server(HOOKS),
    },
    Section { name: "shards", doc: "Threads and their memory.", keys: Keys::Server(SHARDS) },
    Section { name: "shutdown", doc: "How the server stops.", keys: Keys::Server(SHUTDOWN) },
    Section {
        name: "attributes",
        doc: "What the application's back end may keep with each connection, and change while it lasts \
              (update_attributes, TG.ATTRIBUTES).",
        keys: Keys::Server(ATTRIBUTES),
    },
    Section { name: "log", doc: "Logs, and the trail of what concerns security.", keys: Keys::Server(LOG) },
    Section {
        name: "tracing",
        doc: "Traces of some publications, from the producer to the last subscriber, told to a collector of \
              OpenTelemetry; docs/tracing.md has the spans. Its endpoint switches it on.",
        keys: Keys::Server(TRACING),
    },
    Section {
        name: "channel.without_namespace",
        doc: "What channels without a `:` in their name may do, a user's personal channel `#user` among them.",
        keys: Keys::WithoutNamespace,
    },
    Section {
        name: "channel.namespaces",
        doc: "What the channels of one namespace may do: those whose names begin with the namespace's and a `:`. \
              One such table for each namespace; a channel of any other namespace is unknown. Besides its name, \
              each takes every option of [channel.without_namespace]; none is inherited.",
        keys: Keys::Namespaces,
    },
];

static CLIENT: &[Key<Draft>] = &[
    at_start(key(
        "listen",
        Address(|draft| &mut draft.config.client.listen),
        "127.0.0.1:8000",
        "Address for clients, at /connection/websocket. Every shard listens on it; the kernel spreads connections.",
    )),
    key(
        "allow_anonymous",
        Boolean(|draft| &mut draft.config.client.allow_anonymous),
        "false",
        "Whether a client without a token may connect, as the user \"\". What it may do then, namespaces say.",
    ),
    key(
        "allow_public_without_authentication",
        Boolean(|draft| &mut draft.config.client.allow_public_without_authentication),
        "false",
        "Whether anonymous clients may connect to an address beyond loopback. Unless this is true, such a server \
         refuses to start.",
    ),
    key(
        "allowed_origins",
        Origins(|draft| &mut draft.config.client.allowed_origins),
        "[]",
        "Web pages that may connect, by their Origin: exact, like \"https://example.com\", with one * for a part, \
         like \"https://*.example.com\", or \"*\" for any. A page from the server's own host always may, and so \
         may programs that send no Origin.",
    ),
    key(
        "deny",
        Prefixes(|draft| &mut draft.config.client.deny),
        "[]",
        "Addresses that may not connect, single ones and prefixes: answered HTTP 403. `tidegate deny` adds more while \
         the server runs.",
    ),
    key(
        "proxy_protocol_from",
        Prefixes(|draft| &mut draft.config.client.proxy_protocol_from),
        "[]",
        "Balancers, by address, whose connections begin with a header of the PROXY protocol, version 2. The address in \
         it counts for the limits and is logged. From anybody else such a header is garbage.",
    ),
    key(
        "connections_max",
        Count(|draft| &mut draft.config.client.connections_max, 1..=16_000_000),
        "1000000",
        "Connections in the whole process; a client beyond it is answered HTTP 503. Requests to /emulation, which speak \
         for clients that are connected, then have a reserve of a 64th, from 16 to 4096.",
    ),
    key(
        "channels_max",
        Count(|draft| &mut draft.config.client.channels_max, 1..=65_535),
        "128",
        "Channels that one client may subscribe to; beyond it, error 106.",
    ),
    key(
        "message_size_max",
        Size(|draft| &mut draft.config.client.message_bytes_max, KIB..=16 * MIB),
        "64KiB",
        "Longest message from a client; a longer one closes its connection with 1009. Client libraries resubscribe \
         to all channels in one message: keep room for it.",
    ),
    key(
        "request_head_timeout",
        Duration(|draft| &mut draft.config.client.request_head_ms_max, 100..=MINUTE),
        "5s",
        "From accept to a complete HTTP request head.",
    ),
    key(
        "connect_timeout",
        Duration(|draft| &mut draft.config.client.connect_ms_max, 100..=10 * MINUTE),
        "10s",
        "From the upgrade to a valid connect command; later, the connection is closed with 3502.",
    ),
    at_start(key(
        "ping_interval",
        Duration(|draft| &mut draft.config.client.ping_ms, SECOND..=10 * MINUTE),
        "25s",
        "Between pings to a client. Whole seconds, because clients are told it in seconds.",
    )),
    key(
        "pong_timeout",
        Duration(|draft| &mut draft.config.client.pong_ms_max, 100..=5 * MINUTE),
        "8s",
        "For a client to answer a ping; later, its connection is closed with 3012. Shorter than ping_interval.",
    ),
    key(
        "pong_grace",
        Duration(|draft| &mut draft.config.client.pong_grace_ms, 0..=5 * MINUTE),
        "8s",
        "What a client on a bad network, by TCP's own measure, gets on top of pong_timeout.",
    ),
    key(
        "expired_grace",
        Duration(|draft| &mut draft.config.client.expired_grace_ms, 0..=HOUR),
        "25s",
        "From a token's expiry to the end of its connection (3005), for the client to bring a new one.",
    ),
    key(
        "personal_channel",
        Boolean(|draft| &mut draft.config.client.personal_channel),
        "true",
        "Whether an authenticated client is subscribed to its user's personal channel `#user` when it connects.",
    ),
    at_start(unset(
        "personal_channel_namespace",
        OptionalText(|draft| &mut draft.config.client.personal_channel_namespace),
        "news",
        "Namespace whose options personal channels have. They are called `namespace:#user` then, instead of `#user`.",
    )),
    key(
        "user_connections_max",
        Count(|draft| &mut draft.config.client.user_connections_max, 0..=1_000_000),
        "0",
        "Connections that one user may have at a time, on all shards together; a further one is closed with 3504. 0 \
         for any number. Costs some 12 bytes for each user and one message to another shard for each connect.",
    ),
    key(
        "insecure",
        Boolean(|draft| &mut draft.config.client.insecure),
        "false",
        "For development and tests: every client may connect without a token, as the user \"\", and may subscribe, \
         publish and read in every channel, and publish any bytes in Protobuf, whatever the channel's format. History \
         and presence must still be on where they are read.",
    ),
];

/// How often something may happen in a second.
const PER_SECOND: std::ops::RangeInclusive<u32> = 0..=1_000_000;

static CLIENT_LIMITS: &[Key<Draft>] = &[
    key(
        "address_connections_max",
        Count(|draft| &mut draft.config.client.limits.address_connections_max, 0..=16_000_000),
        "0",
        "Connections of one address, on all shards together; a further one is answered HTTP 429. 0 for any number: \
         many clients may share an address, behind a provider's NAT or a balancer without proxy_protocol_from. This \
         limit and the next cost 24 bytes for each connection, and some 90 for each address.",
    ),
    key(
        "network_connections_max",
        Count(|draft| &mut draft.config.client.limits.network_connections_max, 0..=16_000_000),
        "0",
        "The same for the addresses of one network: a /24, or a /64 of IPv6.",
    ),
    key(
        "address_accepts_per_second",
        Count(|draft| &mut draft.config.client.limits.address_accepts_per_second, PER_SECOND),
        "0",
        "Connections that one address, or one /64 of IPv6, may begin in a second, and twice as many at once; a further \
         one is answered HTTP 429. 0 for any number. Costs 1 MiB.",
    ),
    key(
        "handshakes_max",
        Count(|draft| &mut draft.config.client.limits.handshakes_max, 0..=16_000_000),
        "16384",
        "Connections of one shard that have yet to come to their connect reply. For a further one the oldest goes, if \
         it has had a second; otherwise the newest is answered HTTP 503. 0 for any number.",
    ),
    key(
        "commands_per_second",
        Count(|draft| &mut draft.config.client.limits.commands_per_second, PER_SECOND),
        "0",
        "Commands of one connection, and twice as many at once; further ones are answered error 111, and who goes on \
         is closed with 3013. 0 for any number. Client libraries subscribe to all their channels at once.",
    ),
    key(
        "user_commands_per_second",
        Count(|draft| &mut draft.config.client.limits.user_commands_per_second, PER_SECOND),
        "0",
        "The same for all connections of one user together. Costs 1 MiB.",
    ),
    key(
        "publications_per_second",
        Count(|draft| &mut draft.config.client.limits.publications_per_second, PER_SECOND),
        "0",
        "Publications of one connection, in the same way.",
    ),
    key(
        "received_size_per_second",
        Size(|draft| &mut draft.config.client.limits.received_bytes_per_second, 0..=1024 * MIB),
        "0B",
        "Bytes of one connection, and twice as many at once; what comes beyond waits in its socket, so that TCP slows \
         the client down. 0 for any number.",
    ),
    key(
        "memory_reserve",
        LongSize(|draft| &mut draft.config.client.limits.memory_reserve_bytes, 0..=1 << 40),
        "64MiB",
        "Memory that clients leave to the host, or to the server's cgroup if that ends sooner. With less left, new \
         clients are answered HTTP 503; with less than half of it, connections are closed: those with the most waiting \
         for them first, then those that have yet to connect, then those that came last. 0 for no such care.",
    ),
];

static CLIENT_TOKEN: &[Key<Draft>] = &[
    unset(
        "hmac_secret",
        Secret(|draft| &mut draft.config.client.token.hmac_secret),
        "at least 32 random bytes, as `openssl rand -hex 32` prints",
        "Secret that signs tokens (HS256, HS384, HS512). Without any key, every token is refused. A verification \
         takes 1.3 µs of a shard's time, as measured on one core with a token of 300 bytes.",
    ),
    unset(
        "hmac_secret_previous",
        Secret(|draft| &mut draft.config.client.token.hmac_secret_previous),
        "the secret before the present one",
        "Secret before the present one, still accepted while tokens rotate.",
    ),
    unset(
        "rsa_public_key",
        PublicKey(|draft| &mut draft.config.client.token.rsa_public_key, KeyFamily::Rsa),
        "/etc/tidegate/rsa.pem",
        "Public RSA key whose private half signs tokens (RS256, RS384, RS512): PEM, or the absolute path of a file \
         that holds it. A verification takes 19 µs (2048 bits) or 64 µs (4096 bits) of a shard's time.",
    ),
    unset(
        "ecdsa_public_key",
        PublicKey(|draft| &mut draft.config.client.token.ecdsa_public_key, KeyFamily::Ecdsa),
        "/etc/tidegate/ecdsa.pem",
        "The same for ECDSA: the curve P-256 means ES256, P-384 ES384, P-521 ES512. A verification takes \
         62, 248 or 412 µs of a shard's time.",
    ),
    unset(
        "ed25519_public_key",
        PublicKey(|draft| &mut draft.config.client.token.ed25519_public_key, KeyFamily::Ed25519),
        "/etc/tidegate/ed25519.pem",
        "The same for Ed25519 (EdDSA). A verification takes 44 µs of a shard's time.",
    ),
    unset(
        "jwks_public_endpoint",
        Url(|draft| &mut draft.config.client.token.jwks_public_endpoint),
        "https://accounts.example.com/.well-known/jwks.json",
        "Address where an identity provider publishes public keys as a JSON Web Key Set: RSA, EC and OKP (Ed25519), \
         found by the kid of a token. A token that names an unknown key makes the server fetch them anew, at most \
         every 2 s; its client waits meanwhile. While the address cannot be reached, the last keys count.",
    ),
    key(
        "jwks_refresh_interval",
        Duration(|draft| &mut draft.config.client.token.jwks_refresh_ms, 10 * SECOND..=24 * HOUR),
        "10m",
        "After how long they are fetched anew although every key is known: a key that is published no more is trusted \
         for so long.",
    ),
    unset(
        "audience",
        OptionalText(|draft| &mut draft.config.client.token.audience),
        "tidegate",
        "Audience (aud) that a token must name. Unset: any or none.",
    ),
    unset(
        "audience_regex",
        Regex(|draft| &mut draft.config.client.token.audience_regex),
        "^tidegate-[a-z]+$",
        "Regular expression that an audience of a token must match, instead of audience. Anchor it with ^ and $, or it \
         is found anywhere.",
    ),
    unset(
        "issuer",
        OptionalText(|draft| &mut draft.config.client.token.issuer),
        "https://accounts.example.com",
        "Issuer (iss) that a token must name. Unset: any or none.",
    ),
    unset(
        "issuer_regex",
        Regex(|draft| &mut draft.config.client.token.issuer_regex),
        "^https://[a-z]+\\.example\\.com$",
        "Regular expression that the issuer must match, instead of issuer.",
    ),
    unset(
        "user_id_claim",
        ClaimName(|draft| &mut draft.config.client.token.user_id_claim),
        "user_id",
        "Claim that names the user, a string, instead of sub.",
    ),
];

/// How certificates are written.
const CERTIFICATES_EXAMPLE: &str =
    "[{ certificate = \"/etc/tidegate/tls/fullchain.pem\", key = \"/etc/tidegate/tls/privkey.pem\" }]";

static CLIENT_TLS: &[Key<Draft>] = &[
    at_start(unset(
        "certificates",
        Certificates(|draft| &mut draft.config.client.tls.port.certificates),
        CERTIFICATES_EXAMPLE,
        "Certificates with their keys, in PEM, each with those that lead to its authority behind it. A client gets the \
         first that is for the name that it asks for, or else the first of all. The files are read anew when they \
         change; connections stay.",
    )),
    at_start(key(
        "minimum_version",
        TlsVersion(|draft| &mut draft.config.client.tls.port.version_min),
        "1.2",
        "Oldest version of TLS that is spoken: \"1.2\" or \"1.3\".",
    )),
    at_start(key(
        "handshakes_max",
        Count(|draft| &mut draft.config.client.tls.handshakes_max, 1..=1_000_000),
        "1024",
        "Handshakes that a shard has under way at a time, each with kilobytes of memory; further clients wait, within \
         request_head_timeout.",
    )),
    at_start(key(
        "handshakes_per_second_max",
        Count(|draft| &mut draft.config.client.tls.handshakes_per_second_max, 1..=1_000_000),
        "2000",
        "Handshakes that a shard begins in a second; further clients wait in the same way. A certificate \
         for ECDSA P-256 makes them several times cheaper than one for RSA.",
    )),
    at_start(key(
        "kernel",
        Boolean(|draft| &mut draft.config.client.tls.kernel),
        "false",
        "Let the kernel seal and open records after the handshake (kernel TLS), where it can: `modprobe tls`. An idle \
         connection then costs nothing for TLS in the server, and kilobytes in the kernel; docs/tls.md compares.",
    )),
];

static INGEST: &[Key<Draft>] = &[
    at_start(key(
        "listen",
        OptionalAddress(|draft| &mut draft.config.ingest.listen),
        "127.0.0.1:7400",
        "TCP address for producers; \"none\" for no TCP at all.",
    )),
    at_start(unset(
        "unix",
        OptionalPath(|draft| &mut draft.config.ingest.unix),
        "/run/tidegate/ingest.sock",
        "Absolute path of a Unix socket for producers; \"none\" for no socket.",
    )),
    at_start(unset(
        "password",
        Secret(|draft| &mut draft.config.ingest.password),
        "a long random password",
        "Password that producers must give (AUTH, HELLO ... AUTH). Unset: producers need none.",
    )),
    at_start(key(
        "allow_public_without_password",
        Boolean(|draft| &mut draft.config.ingest.allow_public_without_password),
        "false",
        "Whether producers beyond loopback may push without a password. Unless this is true, such a server refuses \
         to start.",
    )),
    at_start(key(
        "payload_size_max",
        Size(|draft| &mut draft.config.ingest.payload_bytes_max, 1..=16 * MIB),
        "1MiB",
        "Longest payload of a publication.",
    )),
    at_start(key(
        "connections_max",
        Count(|draft| &mut draft.config.ingest.connections_max, 1..=65_535),
        "1024",
        "Connections of producers, TCP and Unix together.",
    )),
    at_start(key(
        "idempotency_window",
        Duration(|draft| &mut draft.config.ingest.idempotency_ms, SECOND..=24 * HOUR),
        "5m",
        "For how long the idempotency key of a publication (TG.PUBLISH ... ID key) is remembered.",
    )),
    at_start(unset(
        "zstd_dictionaries",
        Dictionaries(|draft| &mut draft.config.ingest.zstd_dictionaries),
        "[\"/etc/tidegate/ticks.dictionary\"]",
        "Dictionaries by which producers may compress payloads (TG.PUBLISH ... ENCODING zstd): a list of absolute paths of \
         files that `zstd --train` made. A payload names its dictionary by number, so several may be in use while one \
         takes another's place.",
    )),
];

static INGEST_TLS: &[Key<Draft>] = &[
    at_start(unset(
        "certificates",
        Certificates(|draft| &mut draft.config.ingest.tls.port.certificates),
        CERTIFICATES_EXAMPLE,
        "As in [client.tls].",
    )),
    at_start(key(
        "minimum_version",
        TlsVersion(|draft| &mut draft.config.ingest.tls.port.version_min),
        "1.2",
        "As in [client.tls].",
    )),
    at_start(unset(
        "client_authority",
        AbsolutePath(|draft| &mut draft.config.ingest.tls.client_authority),
        "/etc/tidegate/tls/producers-ca.pem",
        "File with the certificates of authorities, in PEM: each producer must show a certificate of one of them. Unset: \
         producers need none.",
    )),
    key(
        "handshake_timeout",
        Duration(|draft| &mut draft.config.ingest.tls.handshake_ms_max, 100..=MINUTE),
        "5s",
        "Time for a producer's handshake, from accept on.",
    ),
    key(
        "handshakes_max",
        Count(|draft| &mut draft.config.ingest.tls.handshakes_max, 1..=65_535),
        "256",
        "Handshakes of producers under way at a time, each with kilobytes of memory. Producers beyond are turned away, \
         so that those who say nothing do not take all of ingest.connections_max.",
    ),
];

static ADMIN: &[Key<Draft>] = &[
    at_start(key(
        "listen",
        Address(|draft| &mut draft.config.admin.listen),
        "127.0.0.1:9000",
        "Address of the operators' port. Whoever reaches it may publish from the console.",
    )),
    key(
        "allow_public",
        Boolean(|draft| &mut draft.config.admin.allow_public),
        "false",
        "Whether the operators' port, which asks for no password, may listen beyond loopback. Unless this is true, \
         such a server refuses to start.",
    ),
    unset(
        "password",
        Secret(|draft| &mut draft.config.admin.password),
        "a long random password",
        "Password of commands to the running server (`tidegate drain`). Unset: they are taken from this host only, \
         from any of its users. The console, /metrics and /health need none.",
    ),
];

static ADMIN_TLS: &[Key<Draft>] = &[
    at_start(unset(
        "certificates",
        Certificates(|draft| &mut draft.config.admin.tls.certificates),
        CERTIFICATES_EXAMPLE,
        "As in [client.tls]. Commands such as `tidegate drain` speak TLS too then, and trust these certificates.",
    )),
    at_start(key(
        "minimum_version",
        TlsVersion(|draft| &mut draft.config.admin.tls.version_min),
        "1.2",
        "As in [client.tls].",
    )),
];

static API_TLS: &[Key<Draft>] = &[
    at_start(unset(
        "certificates",
        Certificates(|draft| &mut draft.config.api.tls.certificates),
        CERTIFICATES_EXAMPLE,
        "As in [client.tls].",
    )),
    at_start(key(
        "minimum_version",
        TlsVersion(|draft| &mut draft.config.api.tls.version_min),
        "1.2",
        "As in [client.tls].",
    )),
];

static API: &[Key<Draft>] = &[
    at_start(unset(
        "listen",
        OptionalAddress(|draft| &mut draft.config.api.listen),
        "10.0.0.1:9001",
        "A port for the server API alone, beside the operators': for back ends on other hosts, which so need not reach \
             the console, and whose connections take no operator's place.",
    )),
    key(
        "on_client_port",
        Boolean(|draft| &mut draft.config.api.on_client_port),
        "false",
        "Whether /api is on the clients' port as well, for back ends that know one address only. Whoever reaches that \
         port can then try keys.",
    ),
    unset(
        "keys",
        Secrets(|draft| &mut draft.config.api.keys),
        "at least 32 random bytes, as `openssl rand -hex 32` prints",
        "Keys, of which each request must show one: in X-API-Key, as \"Authorization: apikey KEY\", or as ?api_key=KEY. \
         Several, so that each back end has its own and keys can be changed one at a time. Without any, every request \
         is answered 401.",
    ),
    key(
        "insecure",
        Boolean(|draft| &mut draft.config.api.insecure),
        "false",
        "For development and tests: requests need no key. Requests that a browser sends for a web page are refused all \
         the same.",
    ),
    key(
        "error_mode",
        Errors(|draft| &mut draft.config.api.error_mode),
        "standard",
        "How a failure is told: \"standard\" answers 200 with the error in the body, \"transport\" the HTTP status that \
         suits it. A request chooses for itself by X-Centrifugo-Error-Mode.",
    ),
];

static HOOKS: &[Key<Draft>] = &[
    unset(
        "connect_endpoint",
        Url(|draft| &mut draft.config.hooks.connect.endpoint),
        "https://app.example.com/tidegate/connect",
        "Asked who a client is that connects without a token.",
    ),
    key(
        "connect_timeout",
        Duration(|draft| &mut draft.config.hooks.connect.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "refresh_endpoint",
        Url(|draft| &mut draft.config.hooks.refresh.endpoint),
        "https://app.example.com/tidegate/refresh",
        "Asked, when a connection's time is over, whether it goes on. Clients then need not refresh their tokens \
         themselves, and are not told when they expire.",
    ),
    key(
        "refresh_timeout",
        Duration(|draft| &mut draft.config.hooks.refresh.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "subscribe_endpoint",
        Url(|draft| &mut draft.config.hooks.subscribe.endpoint),
        "https://app.example.com/tidegate/subscribe",
        "Asked who may subscribe, in namespaces with subscribe_proxy_enabled.",
    ),
    key(
        "subscribe_timeout",
        Duration(|draft| &mut draft.config.hooks.subscribe.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "publish_endpoint",
        Url(|draft| &mut draft.config.hooks.publish.endpoint),
        "https://app.example.com/tidegate/publish",
        "Asked who may publish, and what, in namespaces with publish_proxy_enabled.",
    ),
    key(
        "publish_timeout",
        Duration(|draft| &mut draft.config.hooks.publish.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "rpc_endpoint",
        Url(|draft| &mut draft.config.hooks.rpc.endpoint),
        "https://app.example.com/tidegate/rpc",
        "Asked what clients' rpc commands ask for. Unset: they are answered error 108.",
    ),
    key(
        "rpc_timeout",
        Duration(|draft| &mut draft.config.hooks.rpc.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "sub_refresh_endpoint",
        Url(|draft| &mut draft.config.hooks.sub_refresh.endpoint),
        "https://app.example.com/tidegate/sub_refresh",
        "Asked, when a subscription's time is over, whether it goes on, in namespaces with \
         sub_refresh_proxy_enabled.",
    ),
    key(
        "sub_refresh_timeout",
        Duration(|draft| &mut draft.config.hooks.sub_refresh.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the client's command on, with all waiting for a turn.",
    ),
    unset(
        "disconnect_endpoint",
        Url(|draft| &mut draft.config.hooks.disconnect.endpoint),
        "https://app.example.com/tidegate/disconnect",
        "Told when a client has gone. Its answer does not matter, and what is not told the first time is not told again.",
    ),
    key(
        "disconnect_timeout",
        Duration(|draft| &mut draft.config.hooks.disconnect.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the sending on.",
    ),
    unset(
        "attributes_endpoint",
        Url(|draft| &mut draft.config.hooks.attributes.endpoint),
        "https://app.example.com/tidegate/attributes",
        "Told when update_attributes or TG.ATTRIBUTES has changed what is known of a connection, in the same way.",
    ),
    key(
        "attributes_timeout",
        Duration(|draft| &mut draft.config.hooks.attributes.ms_max, HOOK_MS),
        "1s",
        "For an answer, from the sending on.",
    ),
    key(
        "requests_max",
        Count(|draft| &mut draft.config.hooks.requests_max, 1..=4_096),
        "64",
        "Requests of one kind that are under way at a time; so many connections to the back end are kept.",
    ),
    key(
        "queue_max",
        Count(|draft| &mut draft.config.hooks.queue_max, 0..=1_000_000),
        "10000",
        "Requests of one kind that wait for their turn. A command for which there is no room is answered error 100, \
         which client libraries try again; a disconnect for which there is none is not told, and counted.",
    ),
    unset(
        "secret",
        Secret(|draft| &mut draft.config.hooks.secret),
        "a long random text",
        "Sent with every request, as Authorization: Bearer ..., so that the back end knows who asks.",
    ),
    at_start(key(
        "headers",
        HeaderNames(|draft| &mut draft.config.hooks.headers),
        "[]",
        "Header fields of a client's own request that the back end is shown, like \"Cookie\"; what a browser cannot \
             send as header fields, the headers of the connect command, stands in for those that are missing. They are \
             kept in memory for as long as the client is connected.",
    )),
    key(
        "include_connection_meta",
        Boolean(|draft| &mut draft.config.hooks.include_connection_meta),
        "false",
        "Whether the back end is shown the meta that it, or a token, gave a connection.",
    ),
    key(
        "binary_encoding",
        Boolean(|draft| &mut draft.config.hooks.binary_encoding),
        "false",
        "Whether payloads of Protobuf clients go and come in base64 (b64data), so that they may be any bytes. \
         Otherwise they must be JSON.",
    ),
    key(
        "status_to_code_transforms",
        StatusTransforms(|draft| &mut draft.config.hooks.status_transforms),
        "[]",
        "What HTTP statuses other than 200 mean to clients: an error for the command, or the connection's end \
         (docs/hooks.md has examples). A status that is not here is no answer.",
    ),
];

static SHARDS: &[Key<Draft>] = &[
    at_start(unset(
        "cores",
        Cores(|draft| &mut draft.config.shards.cores),
        "0-3",
        "Cores that get a shard each, pinned: a list of numbers, or ranges like \"0-3,8\". Unset: every core that \
             this process may run on, at most 64.",
    )),
    key(
        "outbox_size_max",
        Size(|draft| &mut draft.config.shards.outbox_bytes_max, 4 * KIB..=256 * MIB),
        "1MiB",
        "What may wait for one slow client of what it is sent unasked, before its namespace's slow_consumer acts. \
         Answers to what it asks for have room of their own.",
    ),
    key(
        "outboxes_size_max",
        LongSize(|draft| &mut draft.config.shards.outboxes_bytes_max, MIB as u64..=1 << 40),
        "256MiB",
        "What may wait for all slow clients of one shard; beyond it, the worst is closed first.",
    ),
    key(
        "history_size_max",
        LongSize(|draft| &mut draft.config.shards.history_bytes_max, MIB as u64..=1 << 40),
        "1GiB",
        "History of all channels whose home one shard is; beyond it, the publications that would expire first are \
         forgotten early.",
    ),
];

static SHUTDOWN: &[Key<Draft>] = &[
    key(
        "timeout",
        Duration(|draft| &mut draft.config.shutdown.ms_max, 0..=10 * MINUTE),
        "10s",
        "From SIGTERM or `tidegate drain` to exit, at most. systemd is told how long to wait; give another service \
         manager longer than this before it kills.",
    ),
    key(
        "unready_delay",
        Duration(|draft| &mut draft.config.shutdown.unready_ms, 0..=10 * MINUTE),
        "0s",
        "How long the server goes on serving, new clients too, while /health says 503 already, so that a load balancer \
         has stopped sending clients when they are told to go. Longer than the balancer takes to notice.",
    ),
    key(
        "spread",
        Duration(|draft| &mut draft.config.shutdown.spread_ms, 0..=10 * MINUTE),
        "5s",
        "Over how long clients are told, in waves, to reconnect elsewhere. With unready_delay within timeout.",
    ),
];

static ATTRIBUTES: &[Key<Draft>] = &[
    key(
        "size_max",
        Size(|draft| &mut draft.config.attributes.bytes_max, 2..=MIB),
        "4KiB",
        "Longest JSON text that a change may leave. It is memory of each connection that has one.",
    ),
    key(
        "keys_max",
        Count(|draft| &mut draft.config.attributes.keys_max, 1..=65_535),
        "64",
        "Members of objects in it, on all levels together.",
    ),
    key(
        "depth_max",
        Count(|draft| &mut draft.config.attributes.depth_max, 1..=64),
        "4",
        "Levels of objects and lists in it.",
    ),
];

static TRACING: &[Key<Draft>] = &[
    unset(
        "endpoint",
        Url(|draft| &mut draft.config.tracing.endpoint),
        "http://127.0.0.1:4318/v1/traces",
        "Address where a collector takes spans by OTLP over HTTP, in Protobuf.",
    ),
    key(
        "sample_one_in",
        Count(|draft| &mut draft.config.tracing.sample_one_in, 0..=1_000_000_000),
        "1000",
        "One publication in so many is traced, at random; 0: only those whose producers ask for it by a traceparent.",
    ),
    key(
        "traces_per_second_max",
        Count(|draft| &mut draft.config.tracing.traces_per_second_max, 1..=10_000),
        "100",
        "Traces that one thread begins in a second, those among them that producers ask for; in a burst twice as many. \
         Further publications are not traced.",
    ),
    key(
        "service_name",
        OptionalText(|draft| &mut draft.config.tracing.service_name),
        "tidegate",
        "What the server is called in traces (service.name).",
    ),
    unset(
        "headers",
        Secrets(|draft| &mut draft.config.tracing.headers),
        "[\"Authorization: Basic dXNlcjpwYXNz\"]",
        "Header fields that each request to the collector bears, as it wants them for authentication: a list of \
         \"Name: value\".",
    ),
    key(
        "include_channel",
        Boolean(|draft| &mut draft.config.tracing.include_channel),
        "false",
        "Whether spans say the whole name of a channel, which may be a user's, or its namespace alone.",
    ),
];

static LOG: &[Key<Draft>] = &[
    key(
        "level",
        LogFilter(|draft| &mut draft.config.log.level),
        "info",
        "off, error, warn, info, debug or trace; parts of the server may have their own, as in \
         \"info,tidegate::ingest=debug\" or \"info,audit=off\". Each connection's begin and end are told at debug.",
    ),
    at_start(key(
        "format",
        Logs(|draft| &mut draft.config.log.format),
        "auto",
        "text or json: lines on standard error. journald: systemd's journal, where each field can be searched. auto: \
         journald where standard error leads to the journal, else text.",
    )),
    at_start(unset(
        "audit_file",
        OptionalFile(|draft| &mut draft.config.log.audit_file),
        "/var/log/tidegate/audit.log",
        "File for the trail of what concerns security (failed tokens, refused origins, passwords and keys, changes of \
         the configuration), as a JSON object per line. Without it, the trail is in the log, as the target audit. A \
         file that is moved away is made anew.",
    )),
];

/// The key that only a namespace has, and that it must have.
pub(super) static NAMESPACE_NAME: Key<Namespace> = unset(
    "name",
    NamespaceName(|namespace| &mut namespace.name),
    "news",
    "Two characters or more of a-z, A-Z, 0-9, `-`, `_` and `.`; the channel news:eu is of the namespace news.",
);

/// The options of a namespace, and of channels without one. Names and meanings are Centrifugo's.
pub(super) static NAMESPACE_OPTIONS: &[Key<Namespace>] = &[
    with_example(
        key(
            "allow_subscribe_for_client",
            Boolean(|namespace| &mut namespace.allow_subscribe_for_client),
            "false",
            "Authenticated clients may subscribe.",
        ),
        "true",
    ),
    key(
        "allow_subscribe_for_anonymous",
        Boolean(|namespace| &mut namespace.allow_subscribe_for_anonymous),
        "false",
        "Together with the option above: anonymous clients may, too.",
    ),
    key(
        "allow_publish_for_client",
        Boolean(|namespace| &mut namespace.allow_publish_for_client),
        "false",
        "Authenticated clients may publish.",
    ),
    key(
        "allow_publish_for_subscriber",
        Boolean(|namespace| &mut namespace.allow_publish_for_subscriber),
        "false",
        "Authenticated clients may publish to a channel that they are subscribed to.",
    ),
    key(
        "allow_publish_for_anonymous",
        Boolean(|namespace| &mut namespace.allow_publish_for_anonymous),
        "false",
        "Together with one of the two options above: anonymous clients may, too.",
    ),
    key(
        "allow_history_for_client",
        Boolean(|namespace| &mut namespace.allow_history_for_client),
        "false",
        "Authenticated clients may read history.",
    ),
    key(
        "allow_history_for_subscriber",
        Boolean(|namespace| &mut namespace.allow_history_for_subscriber),
        "false",
        "Authenticated clients may read the history of a channel that they are subscribed to.",
    ),
    key(
        "allow_history_for_anonymous",
        Boolean(|namespace| &mut namespace.allow_history_for_anonymous),
        "false",
        "Together with one of the two options above: anonymous clients may, too.",
    ),
    key(
        "allow_presence_for_client",
        Boolean(|namespace| &mut namespace.allow_presence_for_client),
        "false",
        "Authenticated clients may ask who is subscribed.",
    ),
    key(
        "allow_presence_for_subscriber",
        Boolean(|namespace| &mut namespace.allow_presence_for_subscriber),
        "false",
        "Authenticated clients may ask who is subscribed to a channel that they are subscribed to themselves.",
    ),
    key(
        "allow_presence_for_anonymous",
        Boolean(|namespace| &mut namespace.allow_presence_for_anonymous),
        "false",
        "Together with one of the two options above: anonymous clients may, too.",
    ),
    key(
        "allow_user_limited_channels",
        Boolean(|namespace| &mut namespace.allow_user_limited_channels),
        "false",
        "The users that a channel's name lists behind a `#`, as in room#12,15, may subscribe to it without a token.",
    ),
    key(
        "subscribe_proxy_enabled",
        Boolean(|namespace| &mut namespace.subscribe_proxy_enabled),
        "false",
        "The back end is asked who may subscribe without a token. Needs hooks.subscribe_endpoint.",
    ),
    key(
        "publish_proxy_enabled",
        Boolean(|namespace| &mut namespace.publish_proxy_enabled),
        "false",
        "The back end is asked who may publish, and what; it decides alone. Needs hooks.publish_endpoint.",
    ),
    key(
        "sub_refresh_proxy_enabled",
        Boolean(|namespace| &mut namespace.sub_refresh_proxy_enabled),
        "false",
        "The back end is asked whether a subscription goes on whose time is over; its client need not bring a new \
         token. Needs hooks.sub_refresh_endpoint.",
    ),
    unset(
        "channel_regex",
        Regex(|namespace| &mut namespace.channel_regex),
        "^[a-z0-9-]+$",
        "Regular expression for channels' names, without the namespace and its `:`; where a name does not match, a \
         client is answered error 107.",
    ),
    key(
        "presence",
        Boolean(|namespace| &mut namespace.presence),
        "false",
        "The server knows who is subscribed, and clients that may can ask it. Costs memory for each subscription.",
    ),
    key(
        "join_leave",
        Boolean(|namespace| &mut namespace.join_leave),
        "false",
        "Subscribers that ask for it are told who subscribes and who leaves. Costs memory for each subscription, and \
         messages: in a channel of a thousand, each that comes is told to a thousand.",
    ),
    key(
        "force_push_join_leave",
        Boolean(|namespace| &mut namespace.force_push_join_leave),
        "false",
        "Every subscriber is told it, whether it asks for it or not. Needs join_leave.",
    ),
    with_example(
        key(
            "history_size",
            Count(|namespace| &mut namespace.history_size, 0..=1_000_000),
            "0",
            "Publications that each channel keeps; 0 for none.",
        ),
        "100",
    ),
    with_example(
        key(
            "history_ttl",
            Duration(|namespace| &mut namespace.history_ttl_ms, 0..=30 * 24 * HOUR),
            "0s",
            "For how long they are kept. Needed as soon as history_size is set.",
        ),
        "5m",
    ),
    with_example(
        key(
            "history_compression_size_min",
            Size(|namespace| &mut namespace.history_compression_bytes_min, 0..=MIB),
            "0",
            "As soon as the publications that a channel keeps uncompressed have so many bytes of payload together, all but \
             the newest are compressed as one block (zstd); 0 for never. The larger, the smaller they become, and the \
             more is decompressed for who recovers: docs/zstd.md says what it saves and costs.",
        ),
        "8KiB",
    ),
    key(
        "force_positioning",
        Boolean(|namespace| &mut namespace.force_positioning),
        "false",
        "Every subscription knows its position in the channel's stream. Needs history.",
    ),
    with_example(
        key(
            "force_recovery",
            Boolean(|namespace| &mut namespace.force_recovery),
            "false",
            "Every subscription is sent what it missed when its client comes back. Needs history.",
        ),
        "true",
    ),
    key(
        "allow_positioning",
        Boolean(|namespace| &mut namespace.allow_positioning),
        "false",
        "A subscription that asks for its position gets it. Needs history.",
    ),
    key(
        "allow_recovery",
        Boolean(|namespace| &mut namespace.allow_recovery),
        "false",
        "A subscription that asks for recovery gets it. Needs history.",
    ),
    key(
        "force_recovery_mode",
        Recovery(|namespace| &mut namespace.force_recovery_mode),
        "stream",
        "What recovery brings: \"stream\", all that was missed, in order; or \"cache\", the latest publication, which \
         stands for all before it (history_size = 1 is enough).",
    ),
    key(
        "auto_cache_recover",
        Boolean(|namespace| &mut namespace.auto_cache_recover),
        "false",
        "A subscription is given the latest publication at once, whether it asks to recover or not. Needs the mode \
         \"cache\".",
    ),
    key(
        "allow_tags_filter",
        Boolean(|namespace| &mut namespace.allow_tags_filter),
        "false",
        "A subscription may ask for those publications only whose tags pass a filter. A publication is tested once for \
         each different filter.",
    ),
    with_example(
        key(
            "allowed_delta_types",
            DeltaTypes(|namespace| &mut namespace.allowed_delta_types),
            "[]",
            "Deltas that a subscription may ask for: \"fossil\", the only kind there is, sends a patch to the \
             publication before where that is shorter.",
        ),
        "[\"fossil\"]",
    ),
    key(
        "delta_publish",
        Boolean(|namespace| &mut namespace.delta_publish),
        "false",
        "Every publication may be sent as a delta; otherwise those whose producers say so (`TG.PUBLISH` with `DELTA`).",
    ),
    key(
        "format",
        Format(|namespace| &mut namespace.format),
        "json",
        "What payloads are: \"json\" (anything else is refused to the producer) or \"binary\" (any bytes; a JSON \
         client that is sent what is not JSON is closed with 3506).",
    ),
    key(
        "slow_consumer",
        SlowConsumer(|namespace| &mut namespace.slow_consumer),
        "disconnect",
        "What happens to a client that cannot keep up: \"disconnect\" closes it with 3008, and its library comes \
         back and recovers; \"drop-oldest\" forgets the oldest waiting publications; \"latest\" keeps only the \
         latest of each channel; \"resync\" forgets what waits and lets the client recover from its own position \
         (needs recovery).",
    ),
    with_example(
        key(
            "compression",
            Compression(|namespace| &mut namespace.compression.mode),
            "off",
            "How publications are compressed for clients that offer permessage-deflate, as browsers do: \"single\" \
             compresses each by itself; \"shared\" lets each refer to those before it, which makes small ones several \
             times smaller, once for all subscribers. docs/compression.md says when which pays.",
        ),
        "shared",
    ),
    key(
        "compression_size_min",
        Size(|namespace| &mut namespace.compression.message_bytes_min, 0..=MIB),
        "64",
        "Messages that are shorter are not compressed.",
    ),
    key(
        "compression_window",
        Size(|namespace| &mut namespace.compression.window_bytes, KIB..=32 * KIB),
        "4KiB",
        "How much of what came before a message of \"shared\" may refer to. Each channel with such subscribers keeps so \
         much, on each shard and for each way of writing.",
    ),
    key(
        "compression_keyframe_interval",
        Duration(|namespace| &mut namespace.compression.keyframe_ms_max, SECOND..=HOUR),
        "30s",
        "For how long at most a new subscriber of \"shared\" waits for the message that refers to none before it, with \
         which it joins the others. It comes earlier where enough are waiting.",
    ),
];

/// A key with its full name, freed from what it sets: for names, documentation and suggestions.
pub(super) struct Known {
    /// Dotted, with its section.
    pub(super) path: String,
    /// Its environment variable.
    pub(super) variable: String,
}

/// Prefix of every environment variable of the server.
pub(super) const VARIABLE_PREFIX: &str = "TIDEGATE_";

/// The environment variable of a key or section.
pub(super) fn variable(path: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", path.replace('.', "_").to_ascii_uppercase())
}

impl Keys {
    /// The names of the section's keys.
    pub(super) fn names(&self) -> Vec<&'static str> {
        let options = NAMESPACE_OPTIONS.iter().map(|key| key.name);
        match self {
            Keys::Server(keys) => keys.iter().map(|key| key.name).collect(),
            Keys::WithoutNamespace => options.collect(),
            Keys::Namespaces => [NAMESPACE_NAME.name].into_iter().chain(options).collect(),
        }
    }
}

/// Every key that can be written outside of a list, and the list of namespaces as one key.
pub(super) fn known_keys() -> Vec<Known> {
    let known = |path: String| Known { variable: variable(&path), path };
    SECTIONS
        .iter()
        .flat_map(|section| match section.keys {
            Keys::Namespaces => vec![known(section.name.to_owned())],
            _ => section.keys.names().into_iter().map(|name| known(format!("{}.{name}", section.name))).collect(),
        })
        .collect()
}

/// The candidate that a mistyped word resembles most, if it resembles one at all.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below it, two words resemble each other by chance: "admin" and "ping" have 0.63.
    const SIMILARITY_MIN: f64 = 0.8;
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(left, _), (right, _)| left.total_cmp(right))
        .map(|(_, candidate)| candidate)
}
