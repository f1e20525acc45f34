//! What clients' programs call themselves: a name and a version for every connection, as its connect command says them.
//!
//! Owns each pair once per shard, however many clients say it; a connection's slot has two bytes, which say which pair it
//! is.
//!
//! Invariant: a pair is counted once for each connection that has it, and goes with the last; otherwise clients that
//! come with ever new names would take memory for good.

use std::{collections::HashMap, rc::Rc};

use slab::Slab;

use crate::limits::PROGRAM_TEXT_BYTES_MAX;

/// Pairs that are told apart at a time; the programs of further clients stay unknown.
const PAIRS_MAX: usize = u16::MAX as usize;

/// What the connection of a client remembers that has not said what it is; of others a pair's place and one.
const UNKNOWN: u16 = 0;

/// The programs of a shard's clients.
#[derive(Default)]
pub struct Programs {
    pairs: Slab<Pair>,
    places: HashMap<Text, usize>,
}

/// A name and a version, and how many connections have them.
struct Pair {
    text: Text,
    connections: u32,
}

/// The bytes of the name, then both as one text.
type Text = (usize, Rc<str>);

impl Programs {
    /// A client says what it is: what its connection is to remember. What is too long is cut.
    pub fn add(&mut self, name: &str, version: &str) -> u16 {
        if name.is_empty() && version.is_empty() {
            return UNKNOWN;
        }
        let (name, version) = (cut(name), cut(version));
        let text: Text = (name.len(), format!("{name}{version}").into());
        let place = match self.places.get(&text) {
            Some(place) => *place,
            None if self.pairs.len() == PAIRS_MAX => return UNKNOWN,
            None => {
                let place = self.pairs.insert(Pair { text: text.clone(), connections: 0 });
                self.places.insert(text, place);
                place
            }
        };
        self.pairs[place].connections += 1;
        u16::try_from(place + 1).expect("there are PAIRS_MAX at most")
    }

    /// Name and version of a client's program; "" if it has not said them.
    pub fn get(&self, program: u16) -> (&str, &str) {
        match place(program).and_then(|place| self.pairs.get(place)) {
            Some(Pair { text: (name_bytes, text), .. }) => text.split_at(*name_bytes),
            None => ("", ""),
        }
    }

    /// A connection goes that was given this by [`Self::add`].
    pub fn remove(&mut self, program: u16) {
        let Some(place) = place(program) else { return };
        let pair = &mut self.pairs[place];
        pair.connections -= 1;
        if pair.connections == 0 {
            let pair = self.pairs.remove(place);
            self.places.remove(&pair.text);
        }
    }

    /// Bytes held, but for the texts, of which there are few.
    pub fn bytes(&self) -> usize {
        self.pairs.capacity() * size_of::<Pair>() + self.places.capacity() * size_of::<(Text, usize)>()
    }
}

/// Where a pair is.
fn place(program: u16) -> Option<usize> {
    usize::from(program).checked_sub(1)
}

/// As many whole characters as are kept.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(PROGRAM_TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clients_of_one_sdk_share_what_is_known_of_it() {
        let mut programs = Programs::default();
        let js = programs.add("js", "5.8.0");
        assert!((0..10_000).all(|_| programs.add("js", "5.8.0") == js));
        assert_eq!((programs.get(js), programs.get(UNKNOWN)), (("js", "5.8.0"), ("", "")));
        assert_eq!(programs.pairs.len(), 1);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let mut programs = Programs::default();
        let long = programs.add(&"é".repeat(100), &"v".repeat(1000));
        let (name, version) = programs.get(long);
        assert_eq!((name.len(), version.len()), (PROGRAM_TEXT_BYTES_MAX, PROGRAM_TEXT_BYTES_MAX));
        let (first, second) = (programs.add("a", "bc"), programs.add("ab", "c"));
        assert_eq!((programs.get(first), programs.get(second)), (("a", "bc"), ("ab", "c")));
    }

    #[test]
    fn programs_beyond_the_limit_stay_unknown_and_floods_leave_nothing() {
        let mut programs = Programs::default();
        let all: Vec<u16> = (0..=PAIRS_MAX).map(|number| programs.add(&number.to_string(), "")).collect();
        let names = [PAIRS_MAX - 1, PAIRS_MAX].map(|number| programs.get(all[number]).0);
        assert_eq!(names, ["65534", ""]);
        all.into_iter().for_each(|program| programs.remove(program));
        assert!(programs.pairs.is_empty() && programs.places.is_empty());
    }

    proptest! {
        #[test]
        fn programs_agree_with_a_naive_map(changes in prop::collection::vec((0..8_usize, "[ab]{0,2}", "[ab]{0,2}", any::<bool>()), 0..200)) {
            let mut programs = Programs::default();
            let mut connections = [UNKNOWN; 8];
            let mut model = BTreeMap::new();
            for (index, name, version, goes) in changes {
                programs.remove(std::mem::replace(&mut connections[index], UNKNOWN));
                model.remove(&index);
                if !goes {
                    connections[index] = programs.add(&name, &version);
                    model.insert(index, (name, version));
                }
                for (index, program) in connections.into_iter().enumerate() {
                    let expected = model.get(&index).map_or(("", ""), |(name, version)| (name.as_str(), version.as_str()));
                    prop_assert_eq!(programs.get(program), expected);
                }
                let mut pairs: Vec<_> = model.values().filter(|pair| **pair != (String::new(), String::new())).collect();
                pairs.sort();
                pairs.dedup();
                prop_assert_eq!(programs.pairs.len(), pairs.len());
            }
        }
    }
}
