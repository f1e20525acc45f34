//! What is wrong with a configuration, and where, in words an operator can act on.
//!
//! Owns the wording and the order of messages. Finding mistakes is the business of `load` and
//! `rules`. Invariant: no message ever holds a secret's text, because messages end up in logs.

use std::{fmt, path::Path, sync::Arc};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file; `line` and `column` count from 1, in characters; line 0 is the file as a whole.
    File {
        /// The file's path, as the operator gave it.
        file: Arc<Path>,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// In the environment.
    Environment {
        /// The variable's name.
        variable: String,
    },
    /// On the command line: `serve --demo`.
    Demo,
    /// Nowhere: the embedded default.
    Default,
    /// In a new configuration together with what a running server keeps until it is started again.
    Running,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line: 0, .. } => write!(formatter, "{}", file.display()),
            Place::File { file, line, column } => write!(formatter, "{}:{line}:{column}", file.display()),
            Place::Environment { variable } => write!(formatter, "environment variable {variable}"),
            Place::Demo => write!(formatter, "--demo"),
            Place::Default => write!(formatter, "embedded defaults"),
            Place::Running => write!(formatter, "with what only a restart changes"),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// The file cannot be read; the system's words.
    Unreadable(String),
    /// The text is not TOML; the parser's words.
    Syntax(String),
    /// No key has this name.
    UnknownKey {
        /// The known key that resembles it most, if one does.
        nearest: Option<String>,
    },
    /// The value is not one that the key takes.
    Unexpected {
        /// What the key takes.
        expected: String,
        /// What was written.
        found: String,
    },
    /// The value contradicts another one; a sentence that says what to change.
    Rule(String),
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Unreadable(reason) => write!(formatter, "cannot be read: {reason}"),
            Mistake::Syntax(reason) => write!(formatter, "not valid TOML: {reason}"),
            Mistake::UnknownKey { nearest: Some(nearest) } => write!(formatter, "unknown; did you mean {nearest}?"),
            Mistake::UnknownKey { nearest: None } => {
                write!(formatter, "unknown; `tidegate config-reference` lists every key")
            }
            Mistake::Unexpected { expected, found } => write!(formatter, "expected {expected}, found {found}"),
            Mistake::Rule(sentence) => write!(formatter, "{sentence}"),
        }
    }
}

/// One mistake, with its place and its key. Ordered by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The key's full name; "" where no key is concerned.
    pub key: String,
    /// What is wrong.
    pub mistake: Mistake,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        write!(formatter, "{}", self.mistake)
    }
}

/// Every mistake of a configuration, ordered by place. Never empty. Displayed one to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// The mistakes, ordered; at least one.
    pub(super) fn new(mut problems: Vec<Problem>) -> Errors {
        assert!(!problems.is_empty(), "errors without a mistake would refuse a good configuration");
        problems.sort();
        problems.dedup();
        Errors(problems)
    }

    /// The mistakes, ordered by place.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(formatter)?;
            }
            write!(formatter, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}
