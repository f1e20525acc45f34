//! What clients' programs call themselves: a name and a version for every connection, as its connect command says them.
//!
//! Owns each pair once per shard, however many clients say it, and two bytes for each slot of the slab. Nothing of it is
//! in the slot: nobody looks at it while messages travel.
//!
//! Invariant: a pair is counted once for each connection that has it, and goes with the last; otherwise clients that
//! come with ever new names would take memory for good.

use std::{collections::HashMap, rc::Rc};

use slab::Slab;

use crate::limits::PROGRAM_TEXT_BYTES_MAX;

/// Pairs that are told apart at a time; the programs of further clients stay unknown.
const PAIRS_MAX: usize = u16::MAX as usize;

/// The programs of a shard's clients.
#[derive(Default)]
pub struct Programs {
    /// By slab index: the pair's place and one; 0: not known.
    by_connection: Vec<u16>,
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
    /// A client says what it is. What is too long is cut.
    pub fn set(&mut self, index: u32, name: &str, version: &str) {
        self.forget(index);
        if name.is_empty() && version.is_empty() {
            return;
        }
        let (name, version) = (cut(name), cut(version));
        let text: Text = (name.len(), format!("{name}{version}").into());
        let place = match self.places.get(&text) {
            Some(place) => *place,
            None if self.pairs.len() == PAIRS_MAX => return,
            None => {
                let place = self.pairs.insert(Pair { text: text.clone(), connections: 0 });
                self.places.insert(text, place);
                place
            }
        };
        self.pairs[place].connections += 1;
        let index = index as usize;
        if index >= self.by_connection.len() {
            let further = index + 1 - self.by_connection.len();
            if index >= self.by_connection.capacity() {
                self.by_connection.reserve_exact(further + self.by_connection.len() / 4);
            }
            self.by_connection.resize(index + 1, 0);
        }
        self.by_connection[index] = u16::try_from(place + 1).expect("there are PAIRS_MAX at most");
    }

    /// Name and version of a client's program; "" if it has not said them.
    pub fn get(&self, index: u32) -> (&str, &str) {
        match self.place(index) {
            Some(place) => {
                let (name_bytes, text) = &self.pairs[place].text;
                text.split_at(*name_bytes)
            }
            None => ("", ""),
        }
    }

    /// The connection goes, or says something else.
    pub fn forget(&mut self, index: u32) {
        let Some(place) = self.place(index) else { return };
        self.by_connection[index as usize] = 0;
        let pair = &mut self.pairs[place];
        pair.connections -= 1;
        if pair.connections == 0 {
            let pair = self.pairs.remove(place);
            self.places.remove(&pair.text);
        }
    }

    /// Bytes held, but for the texts, of which there are few.
    pub fn bytes(&self) -> usize {
        self.by_connection.capacity() * size_of::<u16>()
            + self.pairs.capacity() * size_of::<Pair>()
            + self.places.capacity() * size_of::<(Text, usize)>()
    }

    fn place(&self, index: u32) -> Option<usize> {
        let place = *self.by_connection.get(index as usize)?;
        usize::from(place).checked_sub(1)
    }
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
    fn a_million_clients_of_one_sdk_cost_two_bytes_each() {
        const CLIENTS: u32 = 1_000_000;
        let mut programs = Programs::default();
        (0..CLIENTS).for_each(|index| programs.set(index, "js", "5.8.0"));
        assert_eq!((programs.get(7), programs.get(CLIENTS)), (("js", "5.8.0"), ("", "")));
        assert_eq!(programs.pairs.len(), 1);
        let bytes = programs.bytes() as f64 / f64::from(CLIENTS);
        assert!(bytes <= 2.6, "{bytes} bytes for each");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let mut programs = Programs::default();
        programs.set(0, &"é".repeat(100), &"v".repeat(1000));
        let (name, version) = programs.get(0);
        assert_eq!((name.len(), version.len()), (PROGRAM_TEXT_BYTES_MAX, PROGRAM_TEXT_BYTES_MAX));
        programs.set(0, "a", "bc");
        programs.set(1, "ab", "c");
        assert_eq!((programs.get(0), programs.get(1)), (("a", "bc"), ("ab", "c")));
    }

    #[test]
    fn programs_beyond_the_limit_stay_unknown_and_floods_leave_nothing() {
        let mut programs = Programs::default();
        for index in 0..=PAIRS_MAX as u32 {
            programs.set(index, &index.to_string(), "");
        }
        let last = PAIRS_MAX as u32;
        assert_eq!((programs.get(last - 1).0, programs.get(last).0), ("65534", ""));
        (0..=last).for_each(|index| programs.forget(index));
        assert!(programs.pairs.is_empty() && programs.places.is_empty());
    }

    proptest! {
        #[test]
        fn programs_agree_with_a_naive_map(changes in prop::collection::vec((0..8_u32, "[ab]{0,2}", "[ab]{0,2}", any::<bool>()), 0..200)) {
            let mut programs = Programs::default();
            let mut model = BTreeMap::new();
            for (index, name, version, goes) in changes {
                if goes {
                    programs.forget(index);
                    model.remove(&index);
                } else {
                    programs.set(index, &name, &version);
                    model.insert(index, (name, version));
                }
                for index in 0..9 {
                    let expected = model.get(&index).map_or(("", ""), |(name, version)| (name.as_str(), version.as_str()));
                    prop_assert_eq!(programs.get(index), expected);
                }
                let mut pairs: Vec<_> = model.values().filter(|pair| **pair != (String::new(), String::new())).collect();
                pairs.sort();
                pairs.dedup();
                prop_assert_eq!(programs.pairs.len(), pairs.len());
            }
        }
    }
}
