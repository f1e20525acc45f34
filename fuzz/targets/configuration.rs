//! A configuration: a file of any text, and after a line of `%` lines `NAME=VALUE` as the environment.
//!
//! Checked: it is refused with messages, or gives a configuration that changes nothing in a server that runs under it and
//! that is loaded alike again.

#![no_main]

use std::{fs, path::PathBuf, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use tidegate::config::{change, load};

/// In memory, one for each process.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| PathBuf::from(format!("/dev/shm/tidegate-fuzz-{}.toml", std::process::id())));

fuzz_target!(|input: &str| {
    // The file of a key may be any, and some devices never end.
    if input.contains("/dev") || input.contains("/proc") {
        return;
    }
    let (file, environment) = input.split_once("\n%\n").unwrap_or((input, ""));
    fs::write(&*FILE, file).expect("memory takes a file");
    let variables = || environment.lines().filter_map(|line| line.split_once('='));
    let variables = || variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
    match load(Some(&FILE), variables()) {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
            let config = loaded.config;
            let nothing = change(&config, &config, config.clone()).expect("it was checked");
            assert!(nothing.changed.is_empty() && nothing.needs_restart.is_empty());
            assert_eq!(nothing.running, config);
            assert_eq!(load(Some(&FILE), variables()).expect("it was loaded before").config, config);
        }
        Err(errors) => assert!(!errors.to_string().is_empty() && !errors.problems().is_empty()),
    }
});
