//! Session ids: the secrets by which requests to `/emulation` find the connection that they speak for.
//!
//! Nobody keeps them. A session id is the connection's id, encrypted and authenticated under a key of
//! the process, so any shard that receives a request finds the shard, the slot and the generation in
//! it (protocol.md section 17).
//!
//! Invariant: only ids that [`SessionIds::of`] made are read. The tag has 128 bits, so nobody guesses one;
//! were they guessed, anybody could speak for any client.

use std::hash::Hasher;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

use crate::mesh::ConnectionId;

/// Bytes of a connection id: shard, index, generation.
const ID_BYTES: usize = 10;

/// Bytes of the tag that authenticates it.
const TAG_BYTES: usize = 16;

/// Makes and reads session ids.
pub struct SessionIds {
    tag_key: [u8; 16],
    mask_key: [u8; 16],
    node: String,
}

impl SessionIds {
    /// Session ids of the process that has this secret key.
    pub fn new(key: [u8; 16]) -> Self {
        let derive = |purpose: &[u8]| hash(&key, purpose);
        let node = derive(b"node").map(|byte| format!("{byte:02x}")).concat();
        Self { tag_key: derive(b"session tag"), mask_key: derive(b"session mask"), node }
    }

    /// What clients know the process by.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The session id of a connection.
    pub fn of(&self, connection: ConnectionId) -> String {
        let mut id = [0; ID_BYTES];
        id[..2].copy_from_slice(&connection.shard.to_be_bytes());
        id[2..6].copy_from_slice(&connection.index.to_be_bytes());
        id[6..].copy_from_slice(&connection.generation.to_be_bytes());
        let tag = hash(&self.tag_key, &id);
        self.mask(&mut id, &tag);
        URL_SAFE_NO_PAD.encode([&tag[..], &id].concat())
    }

    /// The connection of a session id; none if this process has not made it. The connection may be gone.
    pub fn read(&self, session: &str) -> Option<ConnectionId> {
        let mut bytes = [0; TAG_BYTES + ID_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(session, &mut bytes).ok()?;
        if length != bytes.len() {
            return None;
        }
        let (tag, rest) = bytes.split_first_chunk::<TAG_BYTES>()?;
        let mut id: [u8; ID_BYTES] = rest.try_into().ok()?;
        self.mask(&mut id, tag);
        if !bool::from(hash(&self.tag_key, &id).ct_eq(tag)) {
            return None;
        }
        let [s0, s1, i0, i1, i2, i3, g0, g1, g2, g3] = id;
        Some(ConnectionId {
            shard: u16::from_be_bytes([s0, s1]),
            index: u32::from_be_bytes([i0, i1, i2, i3]),
            generation: u32::from_be_bytes([g0, g1, g2, g3]),
        })
    }

    /// Hides an id, or shows it again: clients need not know how many connections there were.
    fn mask(&self, id: &mut [u8; ID_BYTES], tag: &[u8; TAG_BYTES]) {
        for (byte, mask) in id.iter_mut().zip(hash(&self.mask_key, tag)) {
            *byte ^= mask;
        }
    }
}

fn hash(key: &[u8; 16], bytes: &[u8]) -> [u8; 16] {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(bytes);
    hasher.finish128().as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_this_process_has_made_is_read() {
        let ids = SessionIds::new([7; 16]);
        let id = ids.of(ConnectionId { shard: 1, index: 2, generation: 3 });
        assert_eq!(id.len(), 35);
        for position in 0..id.len() {
            let mut changed = id.clone().into_bytes();
            // The last letter's low bits belong to no byte; a decoder that takes no others sees to them.
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            assert_eq!(ids.read(str::from_utf8(&changed).unwrap()), None, "letter {position}");
        }
        for other in ["", "x", &id[1..], &format!("{id}A"), &format!("{id}AA"), "ü"] {
            assert_eq!(ids.read(other), None, "{other:?}");
        }
        let other = SessionIds::new([8; 16]);
        assert_eq!(other.read(&id), None);
        assert_ne!(other.node(), ids.node());
    }

    proptest! {
        #[test]
        fn an_id_leads_to_its_connection(shard: u16, index: u32, generation: u32, garbage in "[-_a-zA-Z0-9]{0,40}") {
            let ids = SessionIds::new([7; 16]);
            let connection = ConnectionId { shard, index, generation };
            prop_assert_eq!(ids.read(&ids.of(connection)), Some(connection));
            prop_assert_eq!(ids.read(&garbage), None);
        }
    }
}
