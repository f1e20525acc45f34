//! Regular expressions that operators demand of texts: of channels' names, of tokens' audiences and issuers.

use std::{fmt, sync::Arc};

use regex_lite::Regex;

/// A compiled expression that is compared by its text. Cheap to clone.
#[derive(Clone)]
pub struct Pattern(Arc<Regex>);

impl Pattern {
    /// The expression of this text; none: it is none.
    pub fn new(text: &str) -> Option<Self> {
        Regex::new(text).ok().map(|regex| Self(Arc::new(regex)))
    }

    /// Whether the expression is meant for whole texts.
    pub(super) fn is_anchored(&self) -> bool {
        let text = self.0.as_str();
        text.starts_with('^') && text.ends_with('$')
    }

    /// Whether the expression is found in a text, anywhere unless it is anchored.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_found_unless_it_is_anchored() {
        let regex = Pattern::new("^[a-z]+$").unwrap();
        assert!(regex.matches("abc") && !regex.matches("abc1") && !regex.matches(""));
        assert!(Pattern::new("b").unwrap().matches("abc"));
        assert_eq!(regex, Pattern::new("^[a-z]+$").unwrap());
        assert!(Pattern::new("(").is_none());
    }
}
