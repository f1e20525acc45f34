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
        load(self.config.as_deref())
    }

    /// Loads it for a command that only looks something up in it, and tells warnings.
    pub(super) fn load_config(&self) -> Result<Config, Failure> {
        let Loaded { config, warnings } = self.load()?;
        warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        Ok(config)
    }
}

fn load(file: Option<&Path>) -> Result<Loaded, Failure> {
    let mut environment = Vec::new();
    for (name, value) in env::vars_os() {
        // Names that are not Unicode are not ours.
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if name.starts_with("TIDEGATE_") => {
                return Err(Failure::Usage(format!("environment variable {name}: expected UTF-8, found other bytes")));
            }
            Err(_) => {}
        }
    }
    config::load(file, environment.into_iter()).map_err(|errors| refused(&errors))
}

/// What is told when a configuration cannot be used.
pub(super) fn refused(errors: &config::Errors) -> Failure {
    match errors.problems() {
        [problem] => Failure::Usage(problem.to_string()),
        problems => Failure::Usage(format!("the configuration has {} mistakes:\n{errors}", problems.len())),
    }
}
