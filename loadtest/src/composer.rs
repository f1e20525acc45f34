//! What is published: payloads with a stamp in them.

use serde::{Deserialize, Serialize};

use crate::{
    payload::{PayloadKind, Place},
    stamp::Stamp,
};

/// Makes payloads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Composer {
    /// Dots around the stamp.
    Filler {
        /// Bytes of each payload.
        bytes: usize,
    },
    /// What an application would publish.
    Realistic {
        /// Of what kind.
        kind: PayloadKind,
        /// Chooses what is random.
        seed: u64,
    },
}

impl Composer {
    /// Writes the payload that carries this stamp; says where in it the stamp is.
    pub fn compose(self, stamp: Stamp, payload: &mut Vec<u8>) -> usize {
        match self {
            Composer::Filler { bytes } => stamp.payload(bytes, payload),
            Composer::Realistic { kind, seed } => {
                let place = Place { seed, stream: stamp.stream.code(), sequence: stamp.sequence };
                kind.write(place, &stamp.to_bytes(), payload)
            }
        }
    }
}

/// Judges whether what was received is what was published: makes it again.
#[derive(Debug)]
pub struct Judge {
    composer: Composer,
    /// Of the payload that was made last: subscribers of one channel receive the same one after the other.
    stamp: Option<Stamp>,
    stamp_place: usize,
    payload: Vec<u8>,
}

impl Judge {
    /// Of what this composer makes.
    pub fn new(composer: Composer) -> Judge {
        Judge { composer, stamp: None, stamp_place: 0, payload: Vec::new() }
    }

    /// Whether the payload with this stamp, which is at this place of the message, is as it was published.
    pub fn is_intact(&mut self, message: &[u8], place: usize, stamp: Stamp) -> bool {
        if self.stamp != Some(stamp) {
            self.stamp_place = self.composer.compose(stamp, &mut self.payload);
            self.stamp = Some(stamp);
        }
        let payload = place.checked_sub(self.stamp_place).and_then(|begin| message.get(begin..));
        payload.is_some_and(|payload| payload.starts_with(&self.payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Stream;

    #[test]
    fn what_was_changed_on_the_way_is_seen() {
        for composer in [Composer::Filler { bytes: 100 }, Composer::Realistic { kind: PayloadKind::Ticks, seed: 3 }] {
            let stamp = Stamp { stream: Stream::Channel(2), sequence: 7, intended_ns: 123 };
            let mut payload = Vec::new();
            let place = composer.compose(stamp, &mut payload);
            let message = [b"{\"data\":", &payload[..], b"}"].concat();
            let mut judge = Judge::new(composer);
            assert!(judge.is_intact(&message, 8 + place, stamp) && judge.is_intact(&message, 8 + place, stamp));
            for changed in 8..8 + payload.len() {
                let mut wrong = message.clone();
                wrong[changed] ^= 1;
                assert!(!judge.is_intact(&wrong, 8 + place, stamp), "at {changed}");
            }
            let next = Stamp { sequence: 8, ..stamp };
            assert!(!judge.is_intact(&message, 8 + place, next) && !judge.is_intact(&message, 0, stamp));
            assert!(!judge.is_intact(&message[..message.len() - 2], 8 + place, stamp));
        }
    }
}
