//! What `serve --demo` opens on top of a configuration.
//!
//! Owns the namespace of the demonstration. Its producer is the business of `server`.

use std::sync::Arc;

use super::{
    Config, Namespace,
    load::namespace_with_defaults,
    problem::{Errors, Mistake, Place, Problem},
};

/// The namespace of the demonstration.
pub const DEMO_NAMESPACE: &str = "demo";

impl Config {
    /// The configuration with the namespace `demo` open to anonymous clients: they may subscribe,
    /// publish, and read and recover a history of 100 publications, each kept for 5 minutes.
    ///
    /// # Errors
    /// If the clients' port is beyond loopback and nothing says that it may be without
    /// authentication, or if a namespace `demo` is configured already.
    pub fn with_demo(mut self) -> Result<Config, Errors> {
        let mut problems = Vec::new();
        let mut refuse = |key: &str, sentence: String| {
            let mistake = Mistake::Rule(sentence);
            problems.push(Problem { place: Place::Demo, key: key.to_owned(), mistake });
        };
        if !self.client.listen.ip().to_canonical().is_loopback() && !self.client.allow_public_without_authentication {
            refuse(
                "client.listen",
                format!(
                    "{} is beyond loopback while the demonstration lets anyone connect; to mean it, set \
                     client.allow_public_without_authentication = true",
                    self.client.listen
                ),
            );
        }
        let position =
            self.namespaces.by_name.binary_search_by(|namespace| namespace.name.as_str().cmp(DEMO_NAMESPACE));
        match position {
            Ok(_) => refuse(
                "channel.namespaces",
                format!("the demonstration needs the name {DEMO_NAMESPACE:?} for itself; rename yours"),
            ),
            Err(index) => self.namespaces.by_name.insert(index, Arc::new(demo_namespace())),
        }
        self.client.allow_anonymous = true;
        if problems.is_empty() { Ok(self) } else { Err(Errors::new(problems)) }
    }
}

fn demo_namespace() -> Namespace {
    Namespace {
        name: DEMO_NAMESPACE.to_owned(),
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        history_size: 100,
        history_ttl_ms: 300_000,
        force_recovery: true,
        ..namespace_with_defaults()
    }
}
