//! Deltas between two payloads, in the format that SDKs call "fossil" (protocol.md section 10).
//!
//! Owns the patch's text and the search for what two payloads have in common. Leaves to others who
//! is sent a patch and against which payload (`fanout`), and how it is wrapped (`push`).
//!
//! Invariants:
//! - A patch that is given out is shorter than the payload that it makes.
//! - The work is linear in the sizes of the two payloads, whatever they hold: a publisher cannot
//!   choose bytes that hold up the shard.

/// Bytes of the old payload that are looked up at once. Shorter common parts are not found.
const BLOCK_BYTES: usize = 16;

/// Blocks of the old payload with the same hash that are tried; more would make repetitive payloads expensive.
const CANDIDATES_MAX: usize = 16;

/// In the chains of [`DeltaEncoder`]: there is no further block.
const END: u32 = u32::MAX;

/// The factor of the rolling hash: odd, with bits all over.
const FACTOR: u32 = 0x9e37_79b1;

/// Makes patches; keeps its tables from one to the next.
#[derive(Debug, Default)]
pub struct DeltaEncoder {
    /// By hash: the latest block of the old payload.
    first: Vec<u32>,
    /// By block: the next one with the same hash.
    next: Vec<u32>,
}

impl DeltaEncoder {
    /// Appends the patch that makes `target` of `source`. False, and nothing appended, if it were not shorter than
    /// `target` itself, or either is too long for 32-bit offsets.
    pub fn encode(&mut self, source: &[u8], target: &[u8], out: &mut Vec<u8>) -> bool {
        if u32::try_from(source.len().max(target.len())).is_err() {
            return false;
        }
        let start = out.len();
        write_number(out, target.len() as u32);
        out.push(b'\n');
        self.index(source);
        self.write_segments(source, target, out, start + target.len());
        write_number(out, checksum(target));
        out.push(b';');
        let is_shorter = out.len() - start < target.len();
        if !is_shorter {
            out.truncate(start);
        }
        is_shorter
    }

    /// Enters every whole block of the old payload, the first ones in front.
    fn index(&mut self, source: &[u8]) {
        let blocks = source.len() / BLOCK_BYTES;
        self.first.clear();
        self.first.resize((blocks * 2).next_power_of_two(), END);
        self.next.clear();
        self.next.resize(blocks, END);
        for (block, bytes) in source.chunks_exact(BLOCK_BYTES).enumerate().rev() {
            let slot = self.slot(hash(bytes));
            self.next[block] = std::mem::replace(&mut self.first[slot], block as u32);
        }
    }

    /// Copies where the old payload has what is needed, inserts between. Gives up once `out` is longer than `bytes_max`.
    fn write_segments(&self, source: &[u8], target: &[u8], out: &mut Vec<u8>, bytes_max: usize) {
        // The part of the target that is still to be inserted begins here.
        let mut pending = 0;
        let mut position = 0;
        let mut rolling = target.get(..BLOCK_BYTES).map(hash);
        while let Some(value) = rolling
            && out.len() <= bytes_max
        {
            if let Some(found) = self.longest_match(source, target, value, pending, position) {
                write_insert(out, &target[pending..found.target]);
                write_number(out, found.bytes as u32);
                out.push(b'@');
                write_number(out, found.source as u32);
                out.push(b',');
                position = found.target + found.bytes;
                pending = position;
                rolling = target.get(position..position + BLOCK_BYTES).map(hash);
            } else {
                rolling = target.get(position + BLOCK_BYTES).map(|entering| roll(value, target[position], *entering));
                position += 1;
            }
        }
        write_insert(out, &target[pending..]);
    }

    /// The longest common part around the block at `position`, not reaching before `pending`.
    fn longest_match(
        &self,
        source: &[u8],
        target: &[u8],
        value: u32,
        pending: usize,
        position: usize,
    ) -> Option<CommonPart> {
        let mut block = self.first[self.slot(value)];
        let mut longest: Option<CommonPart> = None;
        for _ in 0..CANDIDATES_MAX {
            if block == END {
                break;
            }
            let start = block as usize * BLOCK_BYTES;
            block = self.next[block as usize];
            let forward = common_prefix(&source[start..], &target[position..]);
            if forward < BLOCK_BYTES {
                continue;
            }
            let backward = common_suffix(&source[..start], &target[pending..position]);
            let bytes = forward + backward;
            if longest.as_ref().is_none_or(|longest| bytes > longest.bytes) {
                longest = Some(CommonPart { source: start - backward, target: position - backward, bytes });
            }
            if position + forward == target.len() {
                break;
            }
        }
        longest
    }

    fn slot(&self, value: u32) -> usize {
        // The product's high bits depend on all of the hash's; a shift by 32 would be one too many for a table of one.
        let bits = self.first.len().trailing_zeros();
        (u64::from(value.wrapping_mul(FACTOR)) << bits >> 32) as usize
    }
}

/// What both payloads have.
struct CommonPart {
    source: usize,
    target: usize,
    bytes: usize,
}

/// Sum of the bytes, each times a power of the factor: the last has the power 0.
fn hash(block: &[u8]) -> u32 {
    block.iter().fold(0, |hash: u32, byte| hash.wrapping_mul(FACTOR).wrapping_add(u32::from(*byte)))
}

/// The hash of the block one byte further on.
fn roll(hash: u32, leaving: u8, entering: u8) -> u32 {
    const LEAVING_FACTOR: u32 = FACTOR.wrapping_pow(BLOCK_BYTES as u32);
    hash.wrapping_mul(FACTOR)
        .wrapping_sub(u32::from(leaving).wrapping_mul(LEAVING_FACTOR))
        .wrapping_add(u32::from(entering))
}

fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

fn write_insert(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        write_number(out, bytes.len() as u32);
        out.push(b':');
        out.extend_from_slice(bytes);
    }
}

/// Appends a number in 64 digits, the most significant first.
fn write_number(out: &mut Vec<u8>, number: u32) {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

    let digits = (u32::BITS - number.leading_zeros()).div_ceil(6).max(1);
    out.extend((0..digits).rev().map(|digit| DIGITS[(number >> (digit * 6) & 63) as usize]));
}

/// The sum of the bytes as big-endian words, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let word = |chunk: &[u8]| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        u32::from_be_bytes(word)
    };
    bytes.chunks(4).fold(0, |sum: u32, chunk| sum.wrapping_add(word(chunk)))
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an SDK does with a patch, with every check that one of them makes.
    pub(crate) fn apply(source: &[u8], patch: &[u8]) -> Result<Vec<u8>, &'static str> {
        fn number(rest: &mut &[u8]) -> u32 {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'~'));
            let (number, length) = digits.fold((0, 0), |(number, length): (u32, _), byte| {
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'A'..=b'Z' => byte - b'A' + 10,
                    b'_' => 36,
                    b'a'..=b'z' => byte - b'a' + 37,
                    _ => 63,
                };
                (number << 6 | u32::from(digit), length + 1)
            });
            *rest = &rest[length..];
            number
        }
        fn mark(rest: &mut &[u8]) -> Option<u8> {
            let (mark, after) = rest.split_first()?;
            *rest = after;
            Some(*mark)
        }
        let mut rest = patch;
        let length = number(&mut rest) as usize;
        if mark(&mut rest) != Some(b'\n') {
            return Err("no line feed after the length");
        }
        let mut target = Vec::new();
        loop {
            let count = number(&mut rest);
            match mark(&mut rest) {
                Some(b'@') => {
                    let start = number(&mut rest) as usize;
                    if mark(&mut rest) != Some(b',') {
                        return Err("a copy without its comma");
                    }
                    target.extend_from_slice(source.get(start..start + count as usize).ok_or("a copy beyond the end")?);
                }
                Some(b':') => {
                    target.extend_from_slice(rest.get(..count as usize).ok_or("an insert beyond the end")?);
                    rest = &rest[count as usize..];
                }
                Some(b';') if target.len() != length => return Err("another length than announced"),
                Some(b';') if count != checksum(&target) => return Err("another checksum"),
                Some(b';') if rest.is_empty() => return Ok(target),
                _ => return Err("an unknown mark"),
            }
        }
    }

    fn patch(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let is_shorter = DeltaEncoder::default().encode(source, target, &mut out);
        let patch = out.strip_prefix(b"before").expect("what was there stays").to_vec();
        assert_eq!(is_shorter, !patch.is_empty());
        is_shorter.then_some(patch)
    }

    #[test]
    fn a_small_change_is_a_small_patch() {
        let source = br#"{"input": "I just want to say how much fun it is to be on this side.", "n": 0}"#;
        let target = br#"{"input": "I just want to say how much fun it is to be on this side.", "n": 1}"#;
        let patch = patch(source, target).unwrap();
        assert_eq!(patch, b"1E\n1C@0,2:1}1QfzI2;");
        assert_eq!(apply(source, &patch).unwrap(), target);
    }

    #[test]
    fn numbers_have_64_digits() {
        let written = |number| {
            let mut out = Vec::new();
            write_number(&mut out, number);
            String::from_utf8(out).unwrap()
        };
        let numbers = [0, 9, 10, 35, 36, 37, 62, 63, 64, 4095, u32::MAX];
        assert_eq!(
            numbers.map(written),
            ["0", "9", "A", "Z", "_", "a", "z", "~", "10", "~~", "3~~~~~"].map(str::to_owned)
        );
    }

    #[test]
    fn the_checksum_fills_the_last_word_up() {
        assert_eq!(checksum(&[1, 2, 3, 4, 5]), 0x0102_0304_u32.wrapping_add(0x0500_0000));
        assert_eq!(checksum(&[0xff; 8]), u32::MAX.wrapping_mul(2));
    }

    #[test]
    fn several_regions_are_found_wherever_they_moved() {
        let part = |letter: u8| -> Vec<u8> {
            (0..100).map(|index| letter.wrapping_add(index).wrapping_mul(index | 1)).collect()
        };
        let (one, two, three) = (part(b'a'), part(b'Q'), part(b'0'));
        let source = [&one[..], &two, &three].concat();
        let target = [&three[..], b"new", &one, b"newer", &two].concat();
        let patch = patch(&source, &target).unwrap();
        assert!(patch.len() < 60, "{} bytes", patch.len());
        assert_eq!(apply(&source, &patch).unwrap(), target);
    }

    #[test]
    fn what_does_not_pay_is_not_given_out() {
        assert_eq!(patch(b"", b"something else altogether"), None);
        assert_eq!(patch(b"short", b"short"), None);
        assert_eq!(patch(&[7; 1000], b""), None);
        let unlike: Vec<u8> = (0..=255).rev().collect();
        assert_eq!(patch(&(0..=255).collect::<Vec<u8>>(), &unlike), None);
    }

    #[test]
    fn a_payload_of_one_repeated_byte_is_no_trap() {
        let source = vec![b' '; 1 << 20];
        let mut target = source.clone();
        for at in (0..target.len()).step_by(1000) {
            target[at] = b'x';
        }
        let patch = patch(&source, &target).unwrap();
        assert_eq!(apply(&source, &patch).unwrap(), target);
    }

    /// A payload and another that was made of it by moves, cuts and inserts.
    fn relatives() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let bytes = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..400),
            proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b')], 0..400),
        ];
        let edits =
            proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6);
        (bytes, edits).prop_map(|(source, edits)| {
            let mut target = source.clone();
            for (left, right, byte) in edits {
                let (left, right) = (left.index(target.len() + 1), right.index(target.len() + 1));
                let moved: Vec<u8> = target.drain(left.min(right)..left.max(right)).collect();
                target.push(byte);
                if byte % 3 > 0 {
                    target.extend(moved);
                }
            }
            (source, target)
        })
    }

    proptest! {
        #[test]
        fn a_patch_makes_the_target((source, target) in relatives()) {
            if let Some(patch) = patch(&source, &target) {
                prop_assert!(patch.len() < target.len());
                prop_assert_eq!(apply(&source, &patch).unwrap(), target);
            }
        }

        #[test]
        fn an_encoder_that_was_used_before_is_as_good_as_new((source, target) in relatives(), (other, another) in relatives()) {
            let mut encoder = DeltaEncoder::default();
            encoder.encode(&other, &another, &mut Vec::new());
            let mut out = Vec::new();
            encoder.encode(&source, &target, &mut out);
            prop_assert_eq!((!out.is_empty()).then_some(out), patch(&source, &target));
        }
    }
}
