//! `tidegate config-reference`: every key, as a commented file to start from.

use super::{Failure, print};
use crate::config;

/// What the command does, for the list of commands.
pub(super) const ABOUT: &str = "Print a complete, commented configuration file that says the defaults";

/// How it is used.
pub(super) const EXAMPLES: &str = "\
Examples:
  tidegate config-reference > tidegate.toml
  tidegate config-reference | less";

pub(super) fn run() -> Result<(), Failure> {
    print(&config::reference())
}
