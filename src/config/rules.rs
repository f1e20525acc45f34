//! What keys demand of each other.
//!
//! Owns every rule that needs more than one value, or that knows the host. Each rule says what
//! to change. A rule that concerns a value that was refused already keeps silent.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::http::{HeaderName, HeaderValue, Uri};

use super::{
    Dictionary, Hook, HookConfig, HooksConfig, Namespace, Pattern, RecoveryMode, SlowConsumerPolicy, TracingConfig,
    cores::format_cores,
    load::{Draft, Findings},
    problem::{Mistake, Place, Problem},
    units::{format_duration_ms, format_size_bytes},
};
use crate::limits::{CHANNEL_BYTES_MAX, DICTIONARIES_MAX, SHARDS_MAX};

/// Shortest secret that HS256 should be used with, in bytes (RFC 7518 section 3.2).
const HMAC_SECRET_BYTES_MIN: usize = 32;

/// What client libraries wait for the answer to a command, in milliseconds (protocol.md section 21).
const COMMAND_MS_MAX: u32 = 5_000;

/// Header fields of a request that say something of the connection or of the body, and nothing of the client.
const HEADERS_RESERVED: &[&str] = &[
    "Connection",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "Expect",
    "Host",
    "Keep-Alive",
    "Sec-WebSocket-Key",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
];

/// Checks every rule and records what is broken.
pub(super) fn check(draft: &Draft, findings: &mut Findings, cores_available: &[u32]) {
    let mut rules = Rules { findings };
    rules.check_heartbeats(draft);
    rules.check_tokens(draft);
    rules.check_listeners(draft);
    rules.check_api(draft);
    rules.check_sizes(draft);
    rules.check_dictionaries(draft);
    rules.check_cores(&draft.config.shards.cores, cores_available);
    rules.check_shutdown(draft);
    rules.check_hooks(draft);
    rules.check_tracing(&draft.config.tracing);
    let without = ("channel.without_namespace", &draft.without_namespace);
    let by_name = draft.namespaces.iter().map(|(label, namespace)| (label.as_str(), namespace));
    let namespaces: Vec<(&str, &Namespace)> = [without].into_iter().chain(by_name).collect();
    for (label, namespace) in &namespaces {
        rules.check_namespace(label, namespace);
    }
    rules.check_hooked_namespaces(&draft.config.hooks, &namespaces);
    rules.check_names(&draft.namespaces);
    rules.check_personal_channels(draft);
}

struct Rules<'f> {
    findings: &'f mut Findings,
}

impl Rules<'_> {
    fn check_heartbeats(&mut self, draft: &Draft) {
        let client = &draft.config.client;
        self.require(&["client.ping_interval"], client.ping_ms.is_multiple_of(1_000), || {
            format!("must be whole seconds, not {}: clients are told it in seconds", duration(client.ping_ms))
        });
        self.require(&["client.pong_timeout", "client.ping_interval"], client.pong_ms_max < client.ping_ms, || {
            format!(
                "{} must be shorter than client.ping_interval ({}), so that a pong belongs to one ping",
                duration(client.pong_ms_max),
                duration(client.ping_ms)
            )
        });
    }

    fn check_tokens(&mut self, draft: &Draft) {
        let token = &draft.config.client.token;
        let (secret, previous) = ("client.token.hmac_secret", "client.token.hmac_secret_previous");
        self.require(&[previous, secret], token.hmac_secret_previous.is_none() || token.hmac_secret.is_some(), || {
            format!("is set, but {secret} is not; set the present secret there")
        });
        let is_safe = token.jwks_public_endpoint.as_deref().is_none_or(is_private);
        self.advise(&["client.token.jwks_public_endpoint"], is_safe, || {
            "is without TLS: whoever is on the way to it may make up keys, and with them any user; use https".to_owned()
        });
        for (regex_key, regex, key, text) in [
            ("client.token.audience_regex", &token.audience_regex, "client.token.audience", &token.audience),
            ("client.token.issuer_regex", &token.issuer_regex, "client.token.issuer", &token.issuer),
        ] {
            self.require(&[regex_key, key], regex.is_none() || text.is_none(), || {
                format!("is set, and so is {key}; keep one of the two")
            });
            self.advise(&[regex_key], regex.as_ref().is_none_or(Pattern::is_anchored), || {
                "is not anchored: it matches every text that contains it; write ^...$".to_owned()
            });
        }
        for (key, text) in [(secret, &token.hmac_secret), (previous, &token.hmac_secret_previous)] {
            let is_long = text.as_ref().is_none_or(|text| text.len() >= HMAC_SECRET_BYTES_MIN);
            self.advise(&[key], is_long, || {
                format!(
                    "is shorter than {HMAC_SECRET_BYTES_MIN} bytes and may be guessed (RFC 7518 section 3.2); \
                     `openssl rand -hex 32` prints a good one"
                )
            });
        }
    }

    fn check_hooks(&mut self, draft: &Draft) {
        let (client, hooks) = (&draft.config.client, &draft.config.hooks);
        let is_confidential = hooks.secret.is_some() || !hooks.headers.is_empty();
        for hook in Hook::ALL {
            let (endpoint_key, timeout_key) =
                (format!("hooks.{}_endpoint", hook.label()), format!("hooks.{}_timeout", hook.label()));
            let HookConfig { endpoint, ms_max } = hooks.of(hook);
            let is_safe = !is_confidential || endpoint.as_deref().is_none_or(is_private);
            self.advise(&[&endpoint_key], is_safe, || {
                "is without TLS: whoever is on the way to it reads hooks.secret and hooks.headers; use https".to_owned()
            });
            let is_awaited = matches!(hook, Hook::Connect | Hook::Subscribe | Hook::Publish | Hook::Rpc);
            self.advise(&[&timeout_key], !is_awaited || *ms_max <= COMMAND_MS_MAX, || {
                format!(
                    "{} is more than the {} that client libraries wait for an answer",
                    duration(*ms_max),
                    duration(COMMAND_MS_MAX)
                )
            });
        }
        let connect_keys = ["hooks.connect_timeout", "client.connect_timeout"];
        let is_in_time = hooks.connect.endpoint.is_none() || hooks.connect.ms_max < client.connect_ms_max;
        self.require(&connect_keys, is_in_time, || {
            format!(
                "{} must be shorter than client.connect_timeout ({}), or clients are closed while the back end is asked",
                duration(hooks.connect.ms_max),
                duration(client.connect_ms_max)
            )
        });
        let is_sendable =
            hooks.secret.as_ref().is_none_or(|secret| !secret.bytes().any(|byte| byte.is_ascii_control()));
        self.require(&["hooks.secret"], is_sendable, || {
            "has a line feed or another control character, which no header field can carry".to_owned()
        });
        let reserved =
            hooks.headers.iter().find(|name| HEADERS_RESERVED.iter().any(|one| name.eq_ignore_ascii_case(one)));
        self.require(&["hooks.headers"], reserved.is_none(), || {
            format!(
                "{} belongs to a connection or a body, not to a client; strike it",
                reserved.map_or("", |name| name)
            )
        });
        self.require(
            &["hooks.headers", "hooks.secret"],
            hooks.secret.is_none() || hooks.header("Authorization").is_none(),
            || "has Authorization, in which hooks.secret is sent; keep one of the two".to_owned(),
        );
    }

    fn check_tracing(&mut self, tracing: &TracingConfig) {
        let endpoint = tracing.endpoint.as_deref();
        let has_path = endpoint.and_then(|endpoint| endpoint.parse::<Uri>().ok()).is_none_or(|uri| uri.path() != "/");
        self.advise(&["tracing.endpoint"], has_path, || "has no path; collectors take traces at /v1/traces".to_owned());
        let is_safe = tracing.headers.is_empty() || endpoint.is_none_or(is_private);
        self.advise(&["tracing.endpoint"], is_safe, || {
            "is without TLS: whoever is on the way to it reads tracing.headers; use https".to_owned()
        });
        let is_field =
            |(name, value): &(&str, &str)| HeaderName::try_from(*name).is_ok() && HeaderValue::try_from(*value).is_ok();
        let are_fields = tracing.header_fields().is_some_and(|fields| fields.iter().all(is_field));
        self.require(&["tracing.headers"], are_fields, || {
            "has what is no header field; write each as \"Name: value\"".to_owned()
        });
    }

    /// An option of a namespace needs an endpoint, and an endpoint a namespace.
    fn check_hooked_namespaces(&mut self, hooks: &HooksConfig, namespaces: &[(&str, &Namespace)]) {
        for hook in [Hook::Subscribe, Hook::Publish, Hook::SubRefresh] {
            let is_on = |namespace: &Namespace| match hook {
                Hook::Subscribe => namespace.subscribe_proxy_enabled,
                Hook::Publish => namespace.publish_proxy_enabled,
                _ => namespace.sub_refresh_proxy_enabled,
            };
            let endpoint_key = format!("hooks.{}_endpoint", hook.label());
            let option = format!("{}_proxy_enabled", hook.label());
            for (label, namespace) in namespaces {
                let key = format!("{label}.{option}");
                self.require(&[&key, &endpoint_key], !is_on(namespace) || hooks.is_asked(hook), || {
                    format!("needs a back end to ask: set {endpoint_key}")
                });
            }
            let is_used = namespaces.iter().any(|(_, namespace)| is_on(namespace));
            self.advise(&[&endpoint_key], !hooks.is_asked(hook) || is_used, || {
                format!("is never asked: set {option} = true for the channels that are meant")
            });
        }
    }

    fn check_listeners(&mut self, draft: &Draft) {
        let config = &draft.config;
        let (client, ingest, admin) = (&config.client, &config.ingest, &config.admin);
        for (key, lets_anyone_in) in
            [("client.allow_anonymous", client.allow_anonymous), ("client.insecure", client.insecure)]
        {
            self.require(
                &["client.listen", key],
                is_loopback(client.listen) || !lets_anyone_in || client.allow_public_without_authentication,
                || {
                    format!(
                        "{} is beyond loopback while {key} lets anyone connect; to mean it, set \
                         client.allow_public_without_authentication = true",
                        client.listen
                    )
                },
            );
        }
        self.require(
            &["ingest.listen", "ingest.password"],
            ingest.listen.is_none_or(is_loopback) || ingest.password.is_some() || ingest.allow_public_without_password,
            || {
                format!(
                    "{} is beyond loopback and producers need no password; set ingest.password, or, to mean it, \
                     ingest.allow_public_without_password = true",
                    ingest.listen.map(|listen| listen.to_string()).unwrap_or_default()
                )
            },
        );
        self.require(&["admin.listen"], is_loopback(admin.listen) || admin.allow_public, || {
            format!(
                "{} is beyond loopback, where anyone may publish from the console; to mean it, set \
                 admin.allow_public = true",
                admin.listen
            )
        });

        let listeners = [
            ("client.listen", Some(client.listen)),
            ("ingest.listen", ingest.listen),
            ("admin.listen", Some(admin.listen)),
            ("api.listen", config.api.listen),
        ];
        for (index, (key, listen)) in listeners.into_iter().enumerate() {
            for (other_key, other_listen) in listeners.into_iter().take(index) {
                let collides = matches!((listen, other_listen), (Some(left), Some(right)) if overlaps(left, right));
                self.require(&[key, other_key], !collides, || {
                    format!("is taken by {other_key} already; give each listener a port of its own")
                });
            }
        }
    }

    fn check_api(&mut self, draft: &Draft) {
        let (client, config) = (&draft.config.client, &draft.config);
        self.require(
            &["api.listen", "api.insecure"],
            config.api.listen.is_none_or(is_loopback) || !config.api.insecure,
            || {
                format!(
                    "{} is beyond loopback while api.insecure lets anyone ask; set api.keys, and api.insecure = false",
                    config.api.listen.map(|listen| listen.to_string()).unwrap_or_default()
                )
            },
        );

        self.require(
            &["api.on_client_port", "client.tls.certificates"],
            !config.api.on_client_port || !client.tls.port.is_on(),
            || "cannot be had while clients speak TLS; give the server API a port of its own: api.listen".to_owned(),
        );
        self.require(
            &["api.tls.certificates", "api.listen"],
            !config.api.tls.is_on() || config.api.listen.is_some(),
            || "is set, but the server API has no port of its own; set api.listen, or [admin.tls] for the operators' port".to_owned(),
        );
        self.require(
            &["ingest.tls.client_authority", "ingest.tls.certificates"],
            config.ingest.tls.client_authority.is_none() || config.ingest.tls.port.is_on(),
            || "is set, but ingest.tls.certificates is not; set them, so that the port speaks TLS".to_owned(),
        );
        self.require(
            &["api.on_client_port", "api.insecure"],
            is_loopback(client.listen) || !config.api.on_client_port || !config.api.insecure,
            || {
                format!(
                    "clients come to {}, beyond loopback, where api.insecure would let anyone ask; set api.keys, and \
                     api.insecure = false",
                    client.listen
                )
            },
        );
    }

    fn check_sizes(&mut self, draft: &Draft) {
        let (shards, ingest) = (&draft.config.shards, &draft.config.ingest);
        self.require(
            &["shards.outbox_size_max", "ingest.payload_size_max"],
            shards.outbox_bytes_max >= ingest.payload_bytes_max,
            || {
                format!(
                    "{} is less than ingest.payload_size_max ({}): one publication would make every subscriber slow",
                    size(shards.outbox_bytes_max.into()),
                    size(ingest.payload_bytes_max.into())
                )
            },
        );
        self.require(
            &["shards.outboxes_size_max", "shards.outbox_size_max"],
            shards.outboxes_bytes_max >= shards.outbox_bytes_max.into(),
            || {
                format!(
                    "{} is less than shards.outbox_size_max ({}), what one client may use of it",
                    size(shards.outboxes_bytes_max),
                    size(shards.outbox_bytes_max.into())
                )
            },
        );
    }

    fn check_dictionaries(&mut self, draft: &Draft) {
        let key = &["ingest.zstd_dictionaries"];
        let dictionaries = &draft.config.ingest.zstd_dictionaries;
        self.require(key, dictionaries.len() <= DICTIONARIES_MAX, || {
            format!("has {} dictionaries; a server has at most {DICTIONARIES_MAX}", dictionaries.len())
        });
        let ids = dictionaries.iter().map(Dictionary::id);
        let twice = ids.enumerate().find(|(index, id)| dictionaries[..*index].iter().any(|other| other.id() == *id));
        self.require(key, twice.is_none(), || {
            format!(
                "has two dictionaries of the number {}, by which payloads name them; train one anew with another, as in \
                 `zstd --train --dictID=...`",
                twice.map_or(0, |(_, id)| id.get())
            )
        });
    }

    fn check_cores(&mut self, cores: &[u32], cores_available: &[u32]) {
        let key = &["shards.cores"];
        self.require(key, !cores.is_empty(), || "is empty; name at least one core, or leave the key out".to_owned());
        self.require(key, cores.len() <= SHARDS_MAX, || {
            format!("has {} cores; a server has at most {SHARDS_MAX} shards", cores.len())
        });
        let foreign: Vec<u32> = cores.iter().copied().filter(|core| !cores_available.contains(core)).collect();
        self.require(key, foreign.is_empty(), || {
            format!(
                "this process may run on the cores {}, not on {}",
                format_cores(cores_available),
                format_cores(&foreign)
            )
        });
        let twice = cores.iter().enumerate().find(|(index, core)| cores[..*index].contains(core));
        self.require(key, twice.is_none(), || {
            format!("names core {} twice; a core has one shard", twice.map_or(0, |(_, core)| *core))
        });
    }

    fn check_shutdown(&mut self, draft: &Draft) {
        let shutdown = &draft.config.shutdown;
        let needed_ms = shutdown.unready_ms.saturating_add(shutdown.spread_ms);
        let keys = ["shutdown.spread", "shutdown.unready_delay", "shutdown.timeout"];
        self.require(&keys, needed_ms <= shutdown.ms_max, || {
            let sum = match shutdown.unready_ms {
                0 => duration(shutdown.spread_ms),
                unready_ms => {
                    format!("{} after shutdown.unready_delay ({})", duration(shutdown.spread_ms), duration(unready_ms))
                }
            };
            format!("{sum} must be within shutdown.timeout ({})", duration(shutdown.ms_max))
        });
    }

    fn check_namespace(&mut self, label: &str, namespace: &Namespace) {
        let key = |name: &str| format!("{label}.{name}");
        let (size_key, ttl_key) = (key("history_size"), key("history_ttl"));
        let has_size = namespace.history_size > 0;
        let has_ttl = namespace.history_ttl_ms > 0;
        self.require(&[&size_key, &ttl_key], !has_size || has_ttl, || {
            "needs history_ttl: set how long publications are kept, as in history_ttl = \"5m\"".to_owned()
        });
        self.require(&[&ttl_key, &size_key], !has_ttl || has_size, || {
            "needs history_size: set how many publications are kept, as in history_size = 100".to_owned()
        });
        for (name, is_on) in [
            ("force_positioning", namespace.force_positioning),
            ("force_recovery", namespace.force_recovery),
            ("allow_positioning", namespace.allow_positioning),
            ("allow_recovery", namespace.allow_recovery),
        ] {
            // Half a history is reported above.
            self.require(&[&key(name), &size_key, &ttl_key], !is_on || has_size || has_ttl, || {
                "needs history: set history_size and history_ttl".to_owned()
            });
        }
        self.advise(
            &[&key("history_compression_size_min"), &size_key],
            namespace.history_compression_bytes_min == 0 || namespace.history_size > 1,
            || "has no effect without a history of several publications: set history_size and history_ttl".to_owned(),
        );
        let has_recovery = namespace.force_recovery || namespace.allow_recovery;
        self.require(
            &[&key("slow_consumer"), &key("force_recovery"), &key("allow_recovery")],
            namespace.slow_consumer != SlowConsumerPolicy::Resync || has_recovery,
            || {
                "\"resync\" needs recovery, or clients lose what was forgotten: set force_recovery or allow_recovery"
                    .to_owned()
            },
        );
        self.check_recovery_mode(label, namespace, has_recovery);
        self.check_presence(label, namespace);
        self.advise(
            &[&key("delta_publish"), &key("allowed_delta_types")],
            !namespace.delta_publish || !namespace.allowed_delta_types.is_empty(),
            || "has no effect without allowed_delta_types = [\"fossil\"]".to_owned(),
        );
        self.advise_anonymous(
            &key("allow_subscribe_for_anonymous"),
            namespace.allow_subscribe_for_anonymous,
            namespace.allow_subscribe_for_client,
            "allow_subscribe_for_client",
        );
        self.advise_anonymous(
            &key("allow_publish_for_anonymous"),
            namespace.allow_publish_for_anonymous,
            namespace.allow_publish_for_client || namespace.allow_publish_for_subscriber,
            "allow_publish_for_client or allow_publish_for_subscriber",
        );
        self.advise_anonymous(
            &key("allow_history_for_anonymous"),
            namespace.allow_history_for_anonymous,
            namespace.allow_history_for_client || namespace.allow_history_for_subscriber,
            "allow_history_for_client or allow_history_for_subscriber",
        );
    }

    fn check_recovery_mode(&mut self, label: &str, namespace: &Namespace, has_recovery: bool) {
        let key = |name: &str| format!("{label}.{name}");
        let is_cache = namespace.force_recovery_mode == RecoveryMode::Cache;
        self.require(
            &[&key("force_recovery_mode"), &key("force_recovery"), &key("allow_recovery")],
            !is_cache || has_recovery,
            || "\"cache\" needs recovery: set force_recovery or allow_recovery".to_owned(),
        );
        self.require(
            &[&key("auto_cache_recover"), &key("force_recovery_mode")],
            !namespace.auto_cache_recover || is_cache,
            || "needs force_recovery_mode = \"cache\"".to_owned(),
        );
    }

    fn check_presence(&mut self, label: &str, namespace: &Namespace) {
        let key = |name: &str| format!("{label}.{name}");
        self.require(
            &[&key("force_push_join_leave"), &key("join_leave")],
            !namespace.force_push_join_leave || namespace.join_leave,
            || "needs join_leave = true".to_owned(),
        );
        let is_readable = namespace.allow_presence_for_client || namespace.allow_presence_for_subscriber;
        self.advise(&[&key("allow_presence_for_client"), &key("presence")], !is_readable || namespace.presence, || {
            "has no effect without presence = true".to_owned()
        });
        self.advise_anonymous(
            &key("allow_presence_for_anonymous"),
            namespace.allow_presence_for_anonymous,
            is_readable,
            "allow_presence_for_client or allow_presence_for_subscriber",
        );
    }

    fn advise_anonymous(&mut self, key: &str, is_on: bool, has_base: bool, base: &str) {
        self.advise(&[key], !is_on || has_base, || format!("has no effect without {base}"));
    }

    fn check_names(&mut self, namespaces: &[(String, Namespace)]) {
        let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
        for (label, namespace) in namespaces {
            if namespace.name.is_empty() {
                continue;
            }
            let is_first = seen.insert(&namespace.name, ()).is_none();
            self.require(&[&format!("{label}.name")], is_first, || {
                format!("a namespace {:?} exists already; merge the two tables or rename one", namespace.name)
            });
        }
    }

    fn check_personal_channels(&mut self, draft: &Draft) {
        let client = &draft.config.client;
        let Some(name) = &client.personal_channel_namespace else { return };
        let key = "client.personal_channel_namespace";
        self.require(&[key], draft.namespaces.iter().any(|(_, namespace)| namespace.name == *name), || {
            format!("there is no namespace {name:?}; write [[channel.namespaces]] with this name")
        });
        self.require(&[key], name.len() <= CHANNEL_BYTES_MAX / 2, || {
            format!("is {} bytes long, which leaves too little of a channel's name for users", name.len())
        });
        self.advise(&[key, "client.personal_channel"], client.personal_channel, || {
            "has no effect while client.personal_channel is false".to_owned()
        });
    }

    /// Records a mistake at the first of these keys that was written, unless the rule holds.
    fn require(&mut self, keys: &[&str], holds: bool, sentence: impl FnOnce() -> String) {
        if let Some(problem) = self.problem(keys, holds, sentence) {
            self.findings.errors.push(problem);
        }
    }

    /// The same for what is usable, but suspicious.
    fn advise(&mut self, keys: &[&str], holds: bool, sentence: impl FnOnce() -> String) {
        if let Some(problem) = self.problem(keys, holds, sentence) {
            self.findings.warnings.push(problem);
        }
    }

    /// The key of the problem is the first; its place, that of the first key that was written at all.
    fn problem(&self, keys: &[&str], holds: bool, sentence: impl FnOnce() -> String) -> Option<Problem> {
        if holds || keys.iter().any(|key| self.findings.refused.contains(*key)) {
            return None;
        }
        let place = keys.iter().find_map(|key| self.findings.places.get(*key)).cloned().unwrap_or(Place::Default);
        Some(Problem { place, key: keys[0].to_owned(), mistake: Mistake::Rule(sentence()) })
    }
}

/// Whether nobody on the way can read along, or change what is said.
fn is_private(endpoint: &str) -> bool {
    let is_on_this_host = ["http://127.", "http://[::1]", "http://localhost"];
    !endpoint.starts_with("http://") || is_on_this_host.iter().any(|host| endpoint.starts_with(host))
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

/// Whether two listeners cannot both have their address. Port 0 means any free one.
fn overlaps(left: SocketAddr, right: SocketAddr) -> bool {
    let (left_ip, right_ip) = (left.ip().to_canonical(), right.ip().to_canonical());
    let same_ip = left_ip == right_ip || left_ip.is_unspecified() || right_ip.is_unspecified();
    left.port() != 0 && left.port() == right.port() && same_ip
}

fn duration(duration_ms: u32) -> String {
    format_duration_ms(duration_ms.into())
}

fn size(size_bytes: u64) -> String {
    format_size_bytes(size_bytes)
}
