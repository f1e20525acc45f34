//! What another configuration changes in a server that runs.
//!
//! Owns the comparison of two configurations, key by key as the schema lists them, and the one that counts afterwards.
//! How a thread takes it over is the thread's business; here is only what may be taken over at all.
//!
//! Invariant: what comes out has been checked as a whole, like every [`Config`]. A new value may be right in its file,
//! where an address is new too, and wrong for a server that goes on listening on the old one.

use super::{
    Config, Namespace,
    load::{Draft, Findings, join},
    problem::{Errors, Place, Problem},
    rules,
    schema::{Effect, Key, Keys, NAMESPACE_OPTIONS, SECTIONS},
};

/// What a reload comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What counts from now on.
    pub running: Config,
    /// The same as it was written: what the next reload is compared with.
    pub written: Config,
    /// Full names of the keys that have other values now.
    pub changed: Vec<String>,
    /// Full names of those that would have, were the server started anew.
    pub needs_restart: Vec<String>,
}

/// What `new` changes in a server that runs under `running`, for which `written` was written: in the one, ports that were
/// asked for as 0 have numbers.
///
/// # Errors
/// When the new values contradict those that only a restart changes.
pub fn change(running: &Config, written: &Config, new: Config) -> Result<Change, Errors> {
    let (mut new, mut before, mut running) = (Draft::of(&new), Draft::of(written), Draft::of(running));
    let mut differences = Differences::default();
    let mut kept = new.clone();
    for section in SECTIONS {
        match section.keys {
            Keys::Server(keys) => {
                for key in keys {
                    differences.compare(key, section.name, &mut before, &mut new);
                    if key.effect == Effect::AtStart {
                        key.kind.assign(&mut new, &mut before);
                        key.kind.assign(&mut kept, &mut running);
                    }
                }
            }
            Keys::WithoutNamespace => {
                let (before, new) = (&mut before.without_namespace, &mut new.without_namespace);
                differences.compare_options(section.name, before, new);
            }
            Keys::Namespaces => differences.compare_namespaces(&before.namespaces, &new.namespaces),
        }
    }
    let Differences { changed, needs_restart } = differences;
    if !needs_restart.is_empty() {
        check(&kept)?;
    }
    Ok(Change { running: kept.into_config(), written: new.into_config(), changed, needs_restart })
}

fn check(kept: &Draft) -> Result<(), Errors> {
    let mut findings = Findings::default();
    rules::check(kept, &mut findings, &kept.config.shards.cores);
    if findings.errors.is_empty() {
        return Ok(());
    }
    let problems = findings.errors.into_iter().map(|problem| Problem { place: Place::Running, ..problem });
    Err(Errors::new(problems.collect()))
}

#[derive(Default)]
struct Differences {
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

impl Differences {
    fn compare<T: Clone>(&mut self, key: &Key<T>, section: &str, before: &mut T, new: &mut T) {
        if key.kind.assign(&mut before.clone(), new) {
            let list = match key.effect {
                Effect::OnReload => &mut self.changed,
                Effect::AtStart => &mut self.needs_restart,
            };
            list.push(join(section, key.name));
        }
    }

    fn compare_options(&mut self, label: &str, before: &mut Namespace, new: &mut Namespace) {
        for key in NAMESPACE_OPTIONS {
            self.compare(key, label, before, new);
        }
    }

    fn compare_namespaces(&mut self, before: &[(String, Namespace)], new: &[(String, Namespace)]) {
        let named = |list: &[(String, Namespace)], name: &str| {
            list.iter().find(|(_, namespace)| namespace.name == name).map(|(_, namespace)| namespace.clone())
        };
        for (label, namespace) in before {
            match named(new, &namespace.name) {
                Some(mut new) => self.compare_options(label, &mut namespace.clone(), &mut new),
                None => self.changed.push(format!("{label} (removed)")),
            }
        }
        let added = new.iter().filter(|(_, namespace)| named(before, &namespace.name).is_none());
        self.changed.extend(added.map(|(label, _)| format!("{label} (added)")));
    }
}
