//! How a file opens, and what its comments may not leave behind.

use crate::source::Source;

/// Words that promise work instead of doing it.
const PROMISES: &[&str] = &["TODO", "FIXME", "XXX", "HACK"];

/// A file that does not say what it owns, and comments that put work off.
pub fn violations(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    let opening = source.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    if opening.is_none_or(|sentence| sentence.len() <= 10) {
        violations.push(format!("{}:1: a file opens with `//!` and a sentence on what it owns", source.path));
    }
    for (index, line) in source.text.lines().enumerate() {
        if let Some(promise) = PROMISES.iter().find(|promise| line.contains(**promise)) {
            violations.push(format!("{}:{}: `{promise}`: do it, or file an issue", source.path, index + 1));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert_eq!(violations(&Source::new("src/a.rs", "use std::fs;\n")).len(), 1);
        assert_eq!(violations(&Source::new("src/a.rs", "//! a\n")).len(), 1);
        assert!(violations(&Source::new("src/a.rs", "//! The noun that this file is about.\n")).is_empty());
    }

    #[test]
    fn a_promise_is_found() {
        let text = format!("//! The noun that this file is about.\n// {}: later\n", PROMISES[0]);
        assert_eq!(violations(&Source::new("src/a.rs", &text)), ["src/a.rs:2: `TODO`: do it, or file an issue"]);
    }
}
