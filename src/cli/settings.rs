//! The configuration as commands find it: the file they are given, and the environment.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{Failure, say};
use crate::config::{self, Config, Loaded};

/// Where a command finds its configuration.
#[derive(clap::Args)]
pub(super) struct Source {
    /// Configuration file (TOML); TIDEGATE_... variables override it. Without it: the embedded defaults
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Source {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match &self.config {
            Some(file) => file.display().to_string(),
            None => "the embedded defaults with the environment".to_owned(),
        }
    }

    /// Loads it; warnings are for the caller to tell.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        self.read().map_err(|mistakes| refused(&mistakes))
    }

    /// Loads it: a configuration, or every mistake.
    pub(super) fn read(&self) -> Result<Loaded, Vec<String>> {
        read(self.config.as_deref())
    }

    /// Loads it for a command that only looks something up in it, and tells warnings.
    pub(super) fn load_config(&self) -> Result<Config, Failure> {
        let Loaded { config, warnings } = self.load()?;
        warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        Ok(config)
    }
}

/// Reads the file and the environment: a configuration, or every mistake.
fn read(file: Option<&Path>) -> Result<Loaded, Vec<String>> {
    let mut environment = Vec::new();
    for (name, value) in env::vars_os() {
        // Names that are not Unicode are not ours.
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if name.starts_with("TIDEGATE_") => {
                return Err(vec![format!("environment variable {name}: expected UTF-8, found other bytes")]);
            }
            Err(_) => {}
        }
    }
    config::load(file, environment.into_iter()).map_err(|errors| sentences(&errors))
}

/// Each mistake, in words.
pub(super) fn sentences(errors: &config::Errors) -> Vec<String> {
    errors.problems().iter().map(ToString::to_string).collect()
}

/// What is told when a configuration cannot be used.
pub(super) fn refused(mistakes: &[String]) -> Failure {
    match mistakes {
        [mistake] => Failure::Usage(mistake.clone()),
        mistakes => {
            Failure::Usage(format!("the configuration has {} mistakes:\n{}", mistakes.len(), mistakes.join("\n")))
        }
    }
}
