//! What a topic's subscribers are sent of a channel's publications.

use super::{Filter, Form};

/// What a topic's subscribers are sent of a channel's publications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// Each, whole.
    #[default]
    Whole,
    /// Each, as a patch to the one before where that is shorter (protocol.md section 10).
    Deltas,
    /// Those whose tags pass, whole (protocol.md section 22).
    Filtered(Box<Filter>),
}

/// The form of a topic and the kind of its content, in the one byte that a topic's record has for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(u8);

/// Beside the bits of the form: the content is [`Content::Deltas`].
const DELTAS: u8 = 1 << 7;

/// The content is [`Content::Filtered`].
const FILTERED: u8 = 1 << 6;

const _: () = assert!(Form::BITS & (DELTAS | FILTERED) == 0);

impl Variant {
    /// The variant of these.
    pub fn new(form: Form, content: &Content) -> Self {
        let kind = match content {
            Content::Whole => 0,
            Content::Deltas => DELTAS,
            Content::Filtered(_) => FILTERED,
        };
        Self(form.bits() | kind)
    }

    /// How subscribers are written to.
    pub fn form(self) -> Form {
        Form::from_bits(self.0)
    }

    /// Whether the content is [`Content::Deltas`].
    pub fn has_deltas(self) -> bool {
        self.0 & DELTAS != 0
    }

    /// Whether the content is [`Content::Filtered`].
    pub fn is_filtered(self) -> bool {
        self.0 & FILTERED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fanout::Carrier,
        protocol::{Encoding, FilterNode, Shape},
    };

    #[test]
    fn a_variant_is_what_it_was_made_of() {
        for form in
            [Form::default(), Form::OTHER, Form::new(Encoding::Protobuf, Shape::Unidirectional, Carrier::Chunks)]
        {
            let node = FilterNode { key: "a".into(), cmp: "ex".into(), ..FilterNode::default() };
            let filtered = Content::Filtered(Box::new(Filter::new(&node).expect("a valid filter")));
            for (content, has_deltas, is_filtered) in
                [(Content::Whole, false, false), (Content::Deltas, true, false), (filtered, false, true)]
            {
                let variant = Variant::new(form, &content);
                assert_eq!(
                    (variant.form(), variant.has_deltas(), variant.is_filtered()),
                    (form, has_deltas, is_filtered)
                );
            }
        }
    }
}
