//! The regular expression that a namespace demands of its channels' names.

use std::{fmt, sync::Arc};

use regex_lite::Regex;

/// A compiled expression that is compared by its text. Cheap to clone.
#[derive(Clone)]
pub struct ChannelRegex(Arc<Regex>);

impl ChannelRegex {
    /// The expression of this text; none: it is none.
    pub fn new(text: &str) -> Option<Self> {
        Regex::new(text).ok().map(|regex| Self(Arc::new(regex)))
    }

    /// Whether the expression is found in `name`, the part of a channel's name after its namespace.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl fmt::Debug for ChannelRegex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0.as_str())
    }
}

impl PartialEq for ChannelRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for ChannelRegex {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_found_unless_it_is_anchored() {
        let regex = ChannelRegex::new("^[a-z]+$").unwrap();
        assert!(regex.matches("abc") && !regex.matches("abc1") && !regex.matches(""));
        assert!(ChannelRegex::new("b").unwrap().matches("abc"));
        assert_eq!(regex, ChannelRegex::new("^[a-z]+$").unwrap());
        assert!(ChannelRegex::new("(").is_none());
    }
}
