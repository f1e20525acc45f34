//! The `tidegate` program: parses the command line and calls [`tidegate::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::run()
}
