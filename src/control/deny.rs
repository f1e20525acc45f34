//! The deny list: what the configuration denies, and what operators have added while the server runs.
//!
//! Owns the list and its bound. Shards are given each change as one set that never changes; what was added is forgotten
//! with the process, so that the file stays the one place that lasts.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;
use tokio::sync::oneshot;

use crate::{
    http::query,
    limits::DENIED_PREFIXES_MAX,
    network::{Prefix, PrefixSet},
};

/// What an operator wants of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenyRequest {
    /// Prefixes that may not connect from now on.
    pub add: Vec<String>,
    /// Prefixes, of those that were added, that may connect again.
    pub remove: Vec<String>,
}

/// A request, and who waits for what becomes of it.
pub struct DenyCommand {
    /// What is wanted.
    pub request: DenyRequest,
    /// Is told the list, or why it is as it was.
    pub asker: oneshot::Sender<Result<DenyReport, String>>,
}

impl DenyRequest {
    /// As the query of a request says it: `add` and `remove`, each a list with commas.
    pub fn of_query(text: &str) -> Self {
        let list = |name| {
            let list = query::parameter(text, name).unwrap_or_default();
            list.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        Self { add: list("add"), remove: list("remove") }
    }

    /// Whether it is a question only.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// The list, as operators are shown it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DenyReport {
    /// Of the configuration.
    pub configured: Vec<String>,
    /// Added since the start.
    pub added: Vec<String>,
}

/// The list.
#[derive(Debug, Default)]
pub struct DenyList {
    configured: BTreeSet<Prefix>,
    added: BTreeSet<Prefix>,
}

impl DenyList {
    /// What the configuration denies.
    pub fn new(configured: &[Prefix]) -> Self {
        Self { configured: configured.iter().copied().collect(), added: BTreeSet::new() }
    }

    /// The configuration denies these from now on. Whether that is a change.
    pub fn configure(&mut self, configured: &[Prefix]) -> bool {
        let configured = configured.iter().copied().collect();
        let is_new = self.configured != configured;
        self.configured = configured;
        is_new
    }

    /// Carries out a request, all of it or nothing.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn change(&mut self, request: &DenyRequest) -> Result<(), String> {
        let read = |texts: &[String]| -> Result<Vec<Prefix>, String> {
            texts.iter().map(|text| text.parse::<Prefix>().map_err(|error| error.to_string())).collect()
        };
        let (add, remove) = (read(&request.add)?, read(&request.remove)?);
        let mut added = self.added.clone();
        for prefix in remove {
            if !added.remove(&prefix) {
                return Err(match self.configured.contains(&prefix) {
                    true => format!("{prefix} is in client.deny: take it out of the configuration"),
                    false => format!("{prefix} is not on the list; `tidegate deny list` shows it"),
                });
            }
        }
        added.extend(add);
        if added.len() > DENIED_PREFIXES_MAX {
            return Err(format!("the list would have {} prefixes, more than {DENIED_PREFIXES_MAX}", added.len()));
        }
        self.added = added;
        Ok(())
    }

    /// All that is denied, for the shards.
    pub fn prefixes(&self) -> Arc<PrefixSet> {
        Arc::new(self.configured.union(&self.added).copied().collect())
    }

    /// For operators.
    pub fn report(&self) -> DenyReport {
        let texts = |prefixes: &BTreeSet<Prefix>| prefixes.iter().map(Prefix::to_string).collect();
        DenyReport { configured: texts(&self.configured), added: texts(&self.added) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(add: &[&str], remove: &[&str]) -> DenyRequest {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        DenyRequest { add: texts(add), remove: texts(remove) }
    }

    #[test]
    fn a_query_says_what_is_wanted() {
        assert!(DenyRequest::of_query("").is_empty());
        let wanted = DenyRequest::of_query("add=10.0.0.0/8,2001:db8::1&remove=192.0.2.1");
        assert_eq!(wanted, request(&["10.0.0.0/8", "2001:db8::1"], &["192.0.2.1"]));
    }

    #[test]
    fn prefixes_come_and_go_and_the_configurations_stay() {
        let mut list = DenyList::new(&["192.0.2.0/24".parse().unwrap()]);
        let is_denied = |list: &DenyList, address: &str| list.prefixes().contains(address.parse().unwrap());
        list.change(&request(&["10.0.0.0/8", "2001:db8::1"], &[])).unwrap();
        assert!(["192.0.2.1", "10.1.2.3", "2001:db8::1"].iter().all(|address| is_denied(&list, address)));
        assert_eq!(list.report().added, ["10.0.0.0/8", "2001:db8::1"]);
        list.change(&request(&[], &["10.0.0.0/8"])).unwrap();
        assert!(!is_denied(&list, "10.1.2.3") && is_denied(&list, "192.0.2.1"));
    }

    #[test]
    fn what_cannot_be_done_changes_nothing_and_says_why() {
        let mut list = DenyList::new(&["192.0.2.0/24".parse().unwrap()]);
        for (request, message) in [
            (request(&["10.0.0.1", "10.0.0.1/8"], &[]), "has bits behind its length; write 10.0.0.0/8"),
            (request(&["10.0.0.1", "everybody"], &[]), "is no address and no prefix"),
            (request(&["10.0.0.1"], &["192.0.2.0/24"]), "take it out of the configuration"),
            (request(&["10.0.0.1"], &["10.0.0.2"]), "is not on the list"),
        ] {
            let error = list.change(&request).unwrap_err();
            assert!(error.contains(message), "{error}");
            assert!(list.report().added.is_empty());
        }
        let many: Vec<String> =
            (0..=DENIED_PREFIXES_MAX).map(|number| format!("10.{}.{}.1", number / 256, number % 256)).collect();
        assert!(list.change(&DenyRequest { add: many, remove: Vec::new() }).is_err());
    }
}
