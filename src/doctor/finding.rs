//! One thing that was looked at, and what came of it.

use serde::{Serialize, Serializer};

use super::{demand::Demand, host::Host, recommendation::Setting};

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing to do.
    Ok,
    /// Less than the demand needs.
    TooLow,
    /// It works, but another value serves this server better.
    Advice,
    /// It could not be read.
    Unknown,
}

impl State {
    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::TooLow => "too low",
            Self::Advice => "advice",
            Self::Unknown => "unknown",
        }
    }
}

/// What mends a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// A sysctl of the table, with the value that the demand asks for.
    Sysctl(&'static Setting, String),
    /// Something to type.
    Command(String),
    /// Something to do that no command does.
    Change(String),
}

impl Remedy {
    /// As an operator reads it.
    pub fn text(&self) -> String {
        match self {
            Self::Sysctl(setting, value) => setting.command(value),
            Self::Command(text) | Self::Change(text) => text.clone(),
        }
    }
}

impl Serialize for Remedy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found, in words.
    pub found: String,
    /// How many connections it lets this server hold; none if it limits none, or if it is unknown.
    pub connections: Option<u64>,
    /// What mends it, if it needs mending.
    pub remedy: Option<Remedy>,
    /// The sysctl behind it with its present value, for a file that keeps what needs no mending.
    #[serde(skip)]
    pub present: Option<(&'static Setting, String)>,
}

impl Finding {
    /// Something that ends the number of connections.
    pub(super) fn ceiling(
        name: &'static str,
        found: String,
        connections: u64,
        demand: &Demand,
        remedy: impl FnOnce() -> Remedy,
    ) -> Self {
        let is_too_low = connections < demand.connections;
        Self {
            name,
            state: if is_too_low { State::TooLow } else { State::Ok },
            found,
            connections: Some(connections),
            remedy: is_too_low.then(remedy),
            present: None,
        }
    }

    /// Something without which the server does not start at all.
    pub(super) fn requirement(
        name: &'static str,
        found: String,
        is_met: bool,
        remedy: impl FnOnce() -> Remedy,
    ) -> Self {
        if is_met {
            return Self::fact(name, found);
        }
        Self { name, state: State::TooLow, found, connections: Some(0), remedy: Some(remedy()), present: None }
    }

    /// A setting that ends no number but slows or loses something.
    pub(super) fn setting(name: &'static str, found: String, state: State, remedy: Remedy) -> Self {
        Self { name, state, found, connections: None, remedy: (state != State::Ok).then_some(remedy), present: None }
    }

    /// Something worth knowing.
    pub(super) fn fact(name: &'static str, found: String) -> Self {
        Self { name, state: State::Ok, found, connections: None, remedy: None, present: None }
    }

    /// Something that could not be read, and why.
    pub(super) fn unknown(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, state: State::Unknown, found: why.into(), connections: None, remedy: None, present: None }
    }

    /// Remembers the present value of the sysctl that this finding is about.
    pub(super) fn about(mut self, setting: &'static Setting, host: &Host) -> Self {
        let words = host.text(&setting.path()).unwrap_or_default();
        self.present = Some((setting, words.split_whitespace().collect::<Vec<_>>().join(" ")));
        self
    }

    /// The sysctl behind it, with the value that it should have.
    pub(super) fn sysctl(&self) -> Option<(&'static Setting, &str)> {
        match (&self.remedy, &self.present) {
            (Some(Remedy::Sysctl(setting, value)), _) | (None, Some((setting, value))) => Some((setting, value)),
            _ => None,
        }
    }
}
