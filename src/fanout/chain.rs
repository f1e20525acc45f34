//! What is remembered of publications that are sent as patches to each other (protocol.md section 10).
//!
//! Owns, for each topic of deltas, the payload that its subscribers were given last and whether some of them were not,
//! and the making of patches. Who was given it is in each [`Subscription`](super::Subscription); what is written for
//! those who were not is the shard's business.
//!
//! Invariant: a subscriber that is marked to have the base has got the payload that its topic remembers, or waits for
//! nothing that could be dropped before it. Were it sent a patch to anything else, its SDK would fail by the checksum.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::protocol::DeltaEncoder;

/// Payloads up to this long leave their tables behind for the next patch: some 200 KiB.
const SOURCE_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Where a topic of deltas stands.
#[derive(Debug, Default)]
pub struct Chain {
    /// Payload of the last publication, to which the next patch is made.
    base: Option<Bytes>,
    /// Some subscriber may not have it.
    pub lacks_base: bool,
    /// While the topic has an open batch: the open batch with the same publications whole, if somebody needs them.
    pub wholes: Option<u32>,
}

/// The chains of a shard, by topic.
#[derive(Debug, Default)]
pub struct Chains {
    by_topic: BTreeMap<u32, Chain>,
    base_bytes: usize,
}

impl Chains {
    /// A topic of deltas begins.
    pub fn insert(&mut self, topic: u32) {
        self.by_topic.insert(topic, Chain::default());
    }

    /// A topic ends.
    pub fn remove(&mut self, topic: u32) {
        if let Some(chain) = self.by_topic.remove(&topic) {
            self.base_bytes -= chain.base_bytes();
        }
    }

    /// Where a topic of deltas stands.
    pub fn get_mut(&mut self, topic: u32) -> &mut Chain {
        self.by_topic.get_mut(&topic).expect("a topic of deltas has a chain")
    }

    /// A publication is given to the topic's subscribers: the payload before it.
    pub fn advance(&mut self, topic: u32, data: Bytes) -> Option<Bytes> {
        let chain = self.by_topic.get_mut(&topic).expect("a topic of deltas has a chain");
        self.base_bytes += data.len();
        self.base_bytes -= chain.base_bytes();
        chain.base.replace(data)
    }

    /// Whether a subscriber that was given `data` last has what the topic's next patch is made to. Where it is the only
    /// subscriber, that is so from now on.
    pub fn join(&mut self, topic: u32, data: &Bytes, is_only: bool) -> bool {
        if is_only {
            self.advance(topic, data.clone());
        }
        self.get_mut(topic).base.as_ref().is_some_and(|base| is_same(base, data))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.by_topic.len() * (size_of::<u32>() + size_of::<Chain>()) + self.base_bytes
    }
}

impl Chain {
    fn base_bytes(&self) -> usize {
        self.base.as_ref().map_or(0, Bytes::len)
    }
}

/// What a channel's topics share while a publication is given to them: those that stand at the same payload need the
/// same patch.
#[derive(Debug, Default)]
pub struct Patches {
    encoder: DeltaEncoder,
    /// From which payload to which the patch is.
    ends: Option<(Bytes, Bytes)>,
    /// The patch; empty if it would not be shorter.
    bytes: Vec<u8>,
    is_text: bool,
    /// A payload, and its copy.
    copied: Option<(Bytes, Bytes)>,
}

impl Patches {
    /// A copy of a payload that is a slice of something larger, all of which would live as long as the slice.
    pub fn copy(&mut self, data: &Bytes) -> Bytes {
        match &self.copied {
            Some((of, copy)) if is_same(of, data) => copy.clone(),
            _ => {
                let copy = Bytes::copy_from_slice(data);
                self.copied = Some((data.clone(), copy.clone()));
                copy
            }
        }
    }

    /// The patch that makes `target` of `source`, if there is one that is shorter than `target`, and is text where it has
    /// to be: a patch may cut characters in two.
    pub fn between(&mut self, source: &Bytes, target: &Bytes, must_be_text: bool) -> Option<&[u8]> {
        let is_made = self.ends.as_ref().is_some_and(|(from, to)| is_same(from, source) && is_same(to, target));
        if !is_made {
            self.bytes.clear();
            self.encoder.encode(source, target, &mut self.bytes);
            self.is_text = str::from_utf8(&self.bytes).is_ok();
            self.ends = Some((source.clone(), target.clone()));
        }
        (!self.bytes.is_empty() && (self.is_text || !must_be_text)).then_some(&self.bytes)
    }

    /// The publication is given to all: lets go of the payloads, and of the memory that few patches need.
    #[inline]
    pub fn forget(&mut self) {
        if let Some((source, _)) = self.ends.take()
            && source.len() > SOURCE_BYTES_KEPT_MAX
        {
            *self = Self::default();
        }
        self.copied = None;
    }
}

/// Whether they are the same bytes in the same place. Both are held, so neither place can have been used again.
fn is_same(left: &Bytes, right: &Bytes) -> bool {
    left.as_ptr() == right.as_ptr() && left.len() == right.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_recovered_the_last_payload_stands_with_the_others() {
        let mut chains = Chains::default();
        chains.insert(1);
        let (first, second) = (Bytes::from_static(b"first payload"), Bytes::from_static(b"second payload"));
        assert!(chains.join(1, &first, true), "where nobody else is, the topic stands where its subscriber does");
        assert_eq!(chains.advance(1, second.clone()), Some(first.clone()));
        assert!(!chains.join(1, &first, false));
        assert!(chains.join(1, &second, false));
        assert!(!chains.join(1, &Bytes::from(second.to_vec()), false), "an equal payload may be an older one's");
        let held = chains.bytes();
        chains.remove(1);
        assert_eq!((chains.bytes(), held > second.len()), (0, true));
        chains.remove(1);
    }

    #[test]
    fn a_patch_is_made_once_and_is_text_where_it_must_be() {
        let payload = |middle: &str| Bytes::from(format!("before it stands what stays, {middle} and behind it, too"));
        let (a, b, cut) = (payload("a"), payload("ä"), payload("ö"));
        let mut patches = Patches::default();
        let made = patches.between(&a, &b, true).expect("a short patch").to_vec();
        assert!(made.len() < 40 && str::from_utf8(&made).is_ok());
        assert_eq!(patches.between(&a, &b, false), Some(&made[..]));
        // "ä" and "ö" begin with the same byte, which is copied.
        assert!(patches.between(&b, &cut, false).is_some());
        assert_eq!(patches.between(&b, &cut, true), None);
        assert_eq!(patches.between(&b, &Bytes::from_static(b"short"), false), None);
        assert_eq!(patches.between(&a, &b, false), Some(&made[..]), "payloads are told apart");
        patches.forget();
        assert_eq!(patches.between(&a, &b, false), Some(&made[..]));
    }

    #[test]
    fn a_slice_is_copied_once_for_all_topics() {
        let slice = Bytes::from_static(b"the read buffer of a producer").slice(4..15);
        let mut patches = Patches::default();
        let copy = patches.copy(&slice);
        assert!(copy == slice && !is_same(&copy, &slice) && is_same(&patches.copy(&slice), &copy));
        assert!(!is_same(&patches.copy(&slice.slice(1..)), &copy));
    }
}
