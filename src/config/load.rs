//! From the file and the environment to one validated [`Config`].
//!
//! Owns the order (defaults, then the file, then the environment), the places of values, and the
//! finding of unknown keys. What a key takes is the schema's business, what keys demand of each
//! other that of `rules`.
//!
//! Invariants: a [`Config`] leaves only without a mistake; every mistake is reported, not the
//! first only; a value that was refused causes no second message.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use super::{
    AdminConfig, ApiConfig, AttributesConfig, ClientConfig, ClientTlsConfig, Config, HooksConfig, IngestConfig,
    IngestTlsConfig, LimitsConfig, LogConfig, Namespace, Namespaces, ShardsConfig, ShutdownConfig, TlsConfig,
    TokenConfig, TracingConfig,
    cores::cores_available,
    problem::{Errors, Mistake, Place, Problem},
    raw::{Entry, Raw, Value, read_document, read_list},
    rules,
    schema::{self, Key, Keys, NAMESPACE_NAME, NAMESPACE_OPTIONS, SECTIONS, VARIABLE_PREFIX, known_keys, nearest},
};
use crate::limits::SHARDS_MAX;

/// A configuration that may be used, and what its operator should know about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Unknown keys and questionable values, ordered by place.
    pub warnings: Vec<Problem>,
}

impl Loaded {
    /// The warnings as errors, if there are any: for those who want nothing questionable.
    pub fn warnings_as_errors(&self) -> Option<Errors> {
        (!self.warnings.is_empty()).then(|| Errors::new(self.warnings.clone()))
    }
}

/// Reads the file, if there is one, and lets the environment override it.
///
/// Of the environment only variables that begin with `TIDEGATE_` are looked at; an empty one counts
/// as not set. Relative to nothing but its arguments and the cores that this process may run on.
///
/// # Errors
/// Every mistake in the file and in the environment, with its place, what was expected and what was found.
pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Loaded, Errors> {
    let text = match file.map(|file| std::fs::read_to_string(file).map(|text| (file, text))) {
        None => None,
        Some(Ok(file_and_text)) => Some(file_and_text),
        Some(Err(error)) => {
            let file = Arc::from(file.unwrap_or(Path::new("")));
            return Err(Errors::new(vec![Problem {
                place: Place::File { file, line: 0, column: 0 },
                key: String::new(),
                mistake: Mistake::Unreadable(error.to_string()),
            }]));
        }
    };
    let file = text.as_ref().map(|(file, text)| (*file, text.as_str()));
    load_text(file, environment, &cores_available())
}

/// The same, with the file's text and the usable cores given.
pub(super) fn load_text(
    file: Option<(&Path, &str)>,
    environment: impl Iterator<Item = (String, String)>,
    cores_available: &[u32],
) -> Result<Loaded, Errors> {
    let mut loader = Loader::new();
    if let Some((file, text)) = file {
        loader.apply_file(file, text)?;
    }
    loader.apply_environment(environment);
    loader.finish(cores_available)
}

/// Values on their way to a [`Config`].
#[derive(Clone)]
pub(super) struct Draft {
    /// The server's values; its namespaces are empty until the end.
    pub(super) config: Config,
    /// The options of channels without a namespace.
    pub(super) without_namespace: Namespace,
    /// The namespaces as they were written, with how messages call them.
    pub(super) namespaces: Vec<(String, Namespace)>,
}

impl Draft {
    /// The embedded defaults, as the schema says them. Cores are empty: they depend on the process.
    pub(super) fn with_defaults() -> Draft {
        let mut draft = Draft::blank();
        draft.set_defaults();
        draft
    }

    /// The values of a configuration, as keys see them.
    pub(super) fn of(config: &Config) -> Draft {
        let Namespaces { without, by_name } = &config.namespaces;
        let label = |namespace: &Namespace| format!("channel.namespaces[{}]", namespace.name);
        Draft {
            config: Config { namespaces: Namespaces::default(), ..config.clone() },
            without_namespace: without.as_deref().cloned().unwrap_or_default(),
            namespaces: by_name.iter().map(|namespace| (label(namespace), Namespace::clone(namespace))).collect(),
        }
    }

    /// The configuration of these values.
    pub(super) fn into_config(self) -> Config {
        let Draft { config, without_namespace, namespaces } = self;
        let mut by_name: Vec<Arc<Namespace>> =
            namespaces.into_iter().map(|(_, namespace)| Arc::new(namespace)).collect();
        by_name.sort_by(|left, right| left.name.cmp(&right.name));
        Config { namespaces: Namespaces { without: Some(Arc::new(without_namespace)), by_name }, ..config }
    }

    /// Sets every key to its default, whatever it was.
    pub(super) fn set_defaults(&mut self) {
        for section in SECTIONS {
            match section.keys {
                Keys::Server(keys) => keys.iter().for_each(|key| key.set_default(self)),
                Keys::WithoutNamespace => {
                    NAMESPACE_OPTIONS.iter().for_each(|key| key.set_default(&mut self.without_namespace));
                }
                Keys::Namespaces => self.namespaces.clear(),
            }
        }
    }

    /// Something for the defaults to be written over: every field is set by a key, as a test proves.
    fn blank() -> Draft {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = Config {
            client: ClientConfig {
                listen,
                allow_anonymous: false,
                allow_public_without_authentication: false,
                token: TokenConfig::default(),
                allowed_origins: Vec::new(),
                deny: Vec::new(),
                proxy_protocol_from: Vec::new(),
                limits: LimitsConfig::default(),
                connections_max: 0,
                channels_max: 0,
                message_bytes_max: 0,
                request_head_ms_max: 0,
                connect_ms_max: 0,
                ping_ms: 0,
                pong_ms_max: 0,
                pong_grace_ms: 0,
                expired_grace_ms: 0,
                personal_channel: false,
                personal_channel_namespace: None,
                user_connections_max: 0,
                insecure: false,
                tls: ClientTlsConfig::default(),
            },
            ingest: IngestConfig {
                listen: None,
                unix: None,
                password: None,
                allow_public_without_password: false,
                payload_bytes_max: 0,
                connections_max: 0,
                idempotency_ms: 0,
                zstd_dictionaries: Vec::new(),
                tls: IngestTlsConfig::default(),
            },
            admin: AdminConfig { listen, allow_public: false, password: None, tls: TlsConfig::default() },
            api: ApiConfig::default(),
            hooks: HooksConfig::default(),
            shards: ShardsConfig {
                cores: Vec::new(),
                outbox_bytes_max: 0,
                outboxes_bytes_max: 0,
                history_bytes_max: 0,
            },
            shutdown: ShutdownConfig { ms_max: 0, unready_ms: 0, spread_ms: 0 },
            attributes: AttributesConfig { bytes_max: 0, keys_max: 0, depth_max: 0 },
            namespaces: Namespaces::default(),
            log: LogConfig::default(),
            tracing: TracingConfig::default(),
        };
        Draft { config, without_namespace: Namespace::default(), namespaces: Vec::new() }
    }
}

/// A namespace of which nothing was written.
pub(super) fn namespace_with_defaults() -> Namespace {
    let mut namespace = Namespace::default();
    NAMESPACE_OPTIONS.iter().for_each(|key| key.set_default(&mut namespace));
    namespace
}

impl<T> Key<T> {
    fn set_default(&self, target: &mut T) {
        match self.default {
            None => self.kind.clear(target),
            Some(default) => {
                let value = self.kind.value_of_text("", default);
                let outcome = self.kind.set(target, &value);
                assert_eq!(outcome, Ok(()), "the schema's default of {} is outside its own bounds", self.name);
            }
        }
    }
}

/// What is known about written values, apart from the values.
#[derive(Default)]
pub(super) struct Findings {
    /// Where each key was written last, by its full name.
    pub(super) places: BTreeMap<String, Place>,
    /// Keys whose value was refused: rules leave them alone.
    pub(super) refused: BTreeSet<String>,
    /// Mistakes.
    pub(super) errors: Vec<Problem>,
    /// What is suspicious, but usable.
    pub(super) warnings: Vec<Problem>,
}

impl Findings {
    fn refuse(&mut self, place: Place, key: &str, mistake: Mistake) {
        self.refused.insert(key.to_owned());
        self.errors.push(Problem { place, key: key.to_owned(), mistake });
    }

    fn unknown(&mut self, place: Place, key: String, nearest: Option<String>) {
        self.warnings.push(Problem { place, key, mistake: Mistake::UnknownKey { nearest } });
    }

    /// Sets one key's field, or records why not.
    fn set<T>(&mut self, key: &Key<T>, target: &mut T, path: &str, place: &Place, value: &Value) {
        self.refused.remove(path);
        self.places.insert(path.to_owned(), place.clone());
        if let Err(mistake) = key.kind.set(target, value) {
            self.refuse(place.clone(), path, mistake);
        }
    }
}

struct Loader {
    draft: Draft,
    findings: Findings,
}

impl Loader {
    fn new() -> Loader {
        Loader { draft: Draft::with_defaults(), findings: Findings::default() }
    }

    /// Applies a file. A text that is not TOML ends the matter: what its rest would mean is a guess.
    fn apply_file(&mut self, file: &Path, text: &str) -> Result<(), Errors> {
        let (entries, syntax_problems) = read_document(file, text);
        if !syntax_problems.is_empty() {
            return Err(Errors::new(syntax_problems));
        }
        self.apply_tables("", &entries);
        Ok(())
    }

    /// Applies the entries of a table that is no section itself, or holds sections beside its keys.
    fn apply_tables(&mut self, prefix: &str, entries: &[Entry]) {
        for entry in entries {
            let path = join(prefix, &entry.name);
            if let Some(section) = SECTIONS.iter().find(|section| section.name == path) {
                self.apply_section(&section.keys, &path, &entry.raw);
            } else if SECTIONS.iter().any(|section| is_within(section.name, &path)) {
                match &entry.raw.value {
                    Value::Table(entries) => self.apply_tables(&path, entries),
                    value => self.expected_table(&path, &entry.raw.place, value),
                }
            } else {
                let nearest = nearest_path(&path);
                self.findings.unknown(entry.place.clone(), path, nearest);
            }
        }
    }

    fn apply_section(&mut self, keys: &Keys, path: &str, raw: &Raw) {
        match (keys, &raw.value) {
            (Keys::Server(keys), Value::Table(entries)) => {
                let (own, inner): (Vec<&Entry>, Vec<&Entry>) =
                    entries.iter().partition(|entry| keys.iter().any(|key| key.name == entry.name));
                for entry in own {
                    for key in keys.iter().filter(|key| key.name == entry.name) {
                        let path = join(path, key.name);
                        self.findings.set(key, &mut self.draft, &path, &entry.raw.place, &entry.raw.value);
                    }
                }
                let inner: Vec<Entry> = inner.into_iter().cloned().collect();
                self.apply_tables(path, &inner);
            }
            (Keys::WithoutNamespace, Value::Table(entries)) => {
                let namespace = &mut self.draft.without_namespace;
                apply_options(&mut self.findings, NAMESPACE_OPTIONS.iter(), namespace, path, entries);
            }
            (Keys::Namespaces, Value::List(items)) => self.apply_namespaces(path, items),
            (Keys::Namespaces, value) => self.findings.refuse(
                raw.place.clone(),
                path,
                Mistake::Unexpected {
                    expected: format!("a list of tables, each headed [[{path}]]"),
                    found: value.describe(),
                },
            ),
            (_, value) => self.expected_table(path, &raw.place, value),
        }
    }

    /// Replaces the namespaces by those of a list.
    fn apply_namespaces(&mut self, path: &str, items: &[Raw]) {
        self.draft.namespaces.clear();
        self.findings.refused.remove(path);
        self.findings.places.retain(|key, _| !key.starts_with(path));
        for (index, item) in items.iter().enumerate() {
            let Value::Table(entries) = &item.value else {
                let mistake = Mistake::Unexpected {
                    expected: "a table with the name and the options of a namespace".to_owned(),
                    found: item.value.describe(),
                };
                self.findings.refuse(item.place.clone(), path, mistake);
                continue;
            };
            let mut namespace = namespace_with_defaults();
            let name = entries.iter().find(|entry| entry.name == NAMESPACE_NAME.name);
            let mut label = format!("{path}[{index}]");
            if let Some(Value::Text(name)) = name.map(|entry| &entry.raw.value) {
                let label_by_name = format!("{path}[{name}]");
                // A second namespace of the same name keeps its index: places are found by label.
                if !self.findings.places.contains_key(&label_by_name) {
                    label = label_by_name;
                }
            }
            if name.is_none() {
                let mistake = Mistake::Rule("has no name; add name = \"...\"".to_owned());
                self.findings.refuse(item.place.clone(), &label, mistake);
            }
            self.findings.places.insert(label.clone(), item.place.clone());
            let keys = [&NAMESPACE_NAME].into_iter().chain(NAMESPACE_OPTIONS);
            apply_options(&mut self.findings, keys, &mut namespace, &label, entries);
            self.draft.namespaces.push((label, namespace));
        }
    }

    fn expected_table(&mut self, path: &str, place: &Place, value: &Value) {
        let mistake = Mistake::Unexpected { expected: format!("a table, [{path}]"), found: value.describe() };
        self.findings.refuse(place.clone(), path, mistake);
    }

    fn apply_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        let variables: BTreeMap<String, String> = environment
            .filter(|(variable, text)| variable.starts_with(VARIABLE_PREFIX) && !text.trim().is_empty())
            .collect();
        for (variable, text) in &variables {
            let place = Place::Environment { variable: variable.clone() };
            if !self.apply_variable(variable, &place, text) {
                let nearest = nearest_variable(variable);
                self.findings.unknown(place, String::new(), nearest);
            }
        }
    }

    /// Applies one variable; false if no key is called so.
    fn apply_variable(&mut self, variable: &str, place: &Place, text: &str) -> bool {
        let Loader { draft, findings } = self;
        for section in SECTIONS {
            match section.keys {
                Keys::Server(keys) => {
                    for key in keys {
                        let path = join(section.name, key.name);
                        if schema::variable(&path) == variable {
                            findings.set(key, draft, &path, place, &key.kind.value_of_text(variable, text));
                            return true;
                        }
                    }
                }
                Keys::WithoutNamespace => {
                    for key in NAMESPACE_OPTIONS {
                        let path = join(section.name, key.name);
                        if schema::variable(&path) == variable {
                            let value = key.kind.value_of_text(variable, text);
                            findings.set(key, &mut draft.without_namespace, &path, place, &value);
                            return true;
                        }
                    }
                }
                Keys::Namespaces if schema::variable(section.name) == variable => {
                    match read_list(variable, text) {
                        Ok(raw) => self.apply_section(&section.keys, section.name, &raw),
                        Err(reason) => findings.refuse(
                            place.clone(),
                            section.name,
                            Mistake::Unexpected {
                                expected: "a list in JSON or TOML, like [{name = \"news\"}]".to_owned(),
                                found: format!("a text that is neither ({reason})"),
                            },
                        ),
                    }
                    return true;
                }
                Keys::Namespaces => {}
            }
        }
        false
    }

    fn finish(mut self, cores_available: &[u32]) -> Result<Loaded, Errors> {
        if self.draft.config.shards.cores.is_empty() && !self.findings.places.contains_key("shards.cores") {
            self.draft.config.shards.cores = cores_available.iter().copied().take(SHARDS_MAX).collect();
        }
        rules::check(&self.draft, &mut self.findings, cores_available);
        if !self.findings.errors.is_empty() {
            let Findings { mut errors, warnings, .. } = self.findings;
            // An unknown key may be the reason of an error elsewhere: whoever mends one should see the other.
            errors.extend(warnings);
            return Err(Errors::new(errors));
        }
        self.findings.warnings.sort();
        Ok(Loaded { config: self.draft.into_config(), warnings: self.findings.warnings })
    }
}

/// Sets the options of one namespace from a table.
fn apply_options<'k>(
    findings: &mut Findings,
    keys: impl Iterator<Item = &'k Key<Namespace>> + Clone,
    namespace: &mut Namespace,
    label: &str,
    entries: &[Entry],
) {
    for entry in entries {
        let path = join(label, &entry.name);
        match keys.clone().find(|key| key.name == entry.name) {
            Some(key) => findings.set(key, namespace, &path, &entry.raw.place, &entry.raw.value),
            None => {
                let nearest = nearest(&entry.name, keys.clone().map(|key| key.name)).map(str::to_owned);
                findings.unknown(entry.place.clone(), path, nearest);
            }
        }
    }
}

/// The known key or section that an unknown path resembles most: one of the same name in another
/// table, or else one of a similar name in its own table, or else in another.
fn nearest_path(path: &str) -> Option<String> {
    let known = known_keys();
    let paths = || known.iter().map(|known| known.path.as_str()).chain(SECTIONS.iter().map(|section| section.name));
    let (table, name) = path.rsplit_once('.').unwrap_or(("", path));
    let namesake = |name: &str| {
        let mut namesakes = paths().filter(|path| last_name(path) == name);
        // Of several, the one whose table resembles the unknown one's most; without a table, the first.
        let resembles = if table.is_empty() { None } else { nearest(path, namesakes.clone()) };
        resembles.or_else(|| namesakes.next())
    };
    if let Some(namesake) = namesake(name) {
        return Some(namesake.to_owned());
    }
    let siblings: BTreeSet<&str> = paths()
        .filter_map(|known| if table.is_empty() { Some(known) } else { known.strip_prefix(table)?.strip_prefix('.') })
        .map(|below| below.split('.').next().unwrap_or(below))
        .collect();
    match nearest(name, siblings) {
        Some(sibling) => Some(join(table, sibling)),
        None => namesake(nearest(name, paths().map(last_name))?).map(str::to_owned),
    }
}

/// The known variable that an unknown one resembles most. The prefix is common to all and says nothing.
fn nearest_variable(variable: &str) -> Option<String> {
    let known = known_keys();
    let without_prefix = |variable: &str| variable.strip_prefix(VARIABLE_PREFIX).unwrap_or(variable).to_owned();
    let candidates: Vec<String> = known.iter().map(|known| without_prefix(&known.variable)).collect();
    let nearest = nearest(&without_prefix(variable), candidates.iter().map(String::as_str))?;
    Some(format!("{VARIABLE_PREFIX}{nearest}"))
}

fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn is_within(path: &str, table: &str) -> bool {
    path.strip_prefix(table).is_some_and(|below| below.starts_with('.'))
}
