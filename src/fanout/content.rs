//! What a topic's subscribers are sent of a channel's publications.

use super::Form;

/// What a topic's subscribers are sent of a channel's publications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Content {
    /// Each, whole.
    #[default]
    Whole,
    /// Each, as a patch to the one before where that is shorter (protocol.md section 10).
    Deltas,
}

/// The form of a topic and the kind of its content, in the one byte that a topic's record has for both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant(u8);

/// Beside the bits of the form: the content is [`Content::Deltas`].
const DELTAS: u8 = 1 << 7;

const _: () = assert!(Form::BITS & DELTAS == 0);

impl Variant {
    /// The variant of these.
    pub fn new(form: Form, content: &Content) -> Self {
        let kind = match content {
            Content::Whole => 0,
            Content::Deltas => DELTAS,
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fanout::Carrier,
        protocol::{Encoding, Shape},
    };

    #[test]
    fn a_variant_is_what_it_was_made_of() {
        for form in
            [Form::default(), Form::OTHER, Form::new(Encoding::Protobuf, Shape::Unidirectional, Carrier::Chunks)]
        {
            for (content, has_deltas) in [(Content::Whole, false), (Content::Deltas, true)] {
                let variant = Variant::new(form, &content);
                assert_eq!((variant.form(), variant.has_deltas()), (form, has_deltas));
            }
        }
    }
}
