//! Payloads that producers have compressed with zstd (RFC 8878).
//!
//! Owns what such a payload must be, one whole frame; the choice of its dictionary; and the bound on what it becomes.
//! What it must be afterwards is said where all payloads are checked.
//!
//! Invariant: no more than the bound is ever written. A frame that says that it is longer is refused unread; one that does
//! not say it, or says less than the truth, ends where its room does. A bomb costs its bound, no more. Nor does a long window
//! cost anything: all that a frame refers back to lies in the room for the whole.

use std::num::NonZeroU32;

use bytes::Bytes;
use thiserror::Error;
use zstd::zstd_safe::{
    DCtx, DDict, find_frame_compressed_size, get_dict_id_from_frame, get_error_name, get_frame_content_size,
};

use crate::config::Dictionary;

/// What every frame begins with (RFC 8878 section 3.1.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a payload cannot be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecompressionFault {
    /// It is no frame of zstd.
    #[error("is not compressed with zstd: it does not begin with the bytes 28 b5 2f fd")]
    NotZstd,
    /// It is none, or not all of one; what zstd says of it.
    #[error("is not one whole zstd frame: {0}")]
    Damaged(&'static str),
    /// Something follows its frame: so many bytes.
    #[error("has {0} bytes behind its zstd frame; compress the whole payload as one frame")]
    Trailing(usize),
    /// Its dictionary is not one of those that are configured.
    #[error(
        "is compressed by dictionary {0}, which this server does not have: add its file to ingest.zstd_dictionaries"
    )]
    UnknownDictionary(NonZeroU32),
    /// It says that it is too long.
    #[error("of {bytes} bytes, decompressed, is too long: ingest.payload_size_max allows {bytes_max}")]
    TooLong {
        /// What it says.
        bytes: u64,
        /// What it may be.
        bytes_max: usize,
    },
    /// It does not say how long it is, and is too long.
    #[error("has more than {0} bytes, decompressed, which is too long: ingest.payload_size_max allows no more")]
    MuchTooLong(usize),
}

/// Decompresses one payload after the other.
pub struct Decompressor {
    /// Some 100 KB, from the first compressed payload on.
    context: Option<DCtx<'static>>,
    dictionaries: Vec<(NonZeroU32, DDict<'static>)>,
}

impl Decompressor {
    /// With these dictionaries, and no other.
    pub fn new(dictionaries: &[Dictionary]) -> Self {
        let prepared = |dictionary: &Dictionary| (dictionary.id(), DDict::create(dictionary.bytes()));
        Self { context: None, dictionaries: dictionaries.iter().map(prepared).collect() }
    }

    /// What a payload was before it was compressed, if that has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// If it is longer, or not one whole frame, or compressed by another dictionary.
    pub fn decompress(&mut self, payload: &[u8], bytes_max: usize) -> Result<Bytes, DecompressionFault> {
        if !payload.starts_with(&MAGIC) {
            return Err(DecompressionFault::NotZstd);
        }
        let frame_bytes = find_frame_compressed_size(payload).map_err(damaged)?;
        if frame_bytes < payload.len() {
            return Err(DecompressionFault::Trailing(payload.len() - frame_bytes));
        }
        let declared =
            get_frame_content_size(payload).map_err(|_| DecompressionFault::Damaged("its header is damaged"))?;
        if let Some(bytes) = declared.filter(|bytes| *bytes > bytes_max as u64) {
            return Err(DecompressionFault::TooLong { bytes, bytes_max });
        }
        let dictionary = self.dictionary(payload)?;
        let context = self.context.get_or_insert_default();
        // Memory that is not written to is only reserved.
        let mut output = Vec::with_capacity(declared.map_or(bytes_max, |bytes| bytes as usize));
        let result = match dictionary {
            Some(index) => context.decompress_using_ddict(&mut output, payload, &self.dictionaries[index].1),
            None => context.decompress(&mut output, payload),
        };
        match result {
            Ok(_) if declared.is_some() => Ok(output.into()),
            Ok(_) => Ok(Bytes::copy_from_slice(&output)),
            Err(code) if declared.is_none() && get_error_name(code) == ROOM_MISSING => {
                Err(DecompressionFault::MuchTooLong(bytes_max))
            }
            Err(code) => Err(damaged(code)),
        }
    }

    /// The place of the dictionary that a frame names, if it names one.
    fn dictionary(&self, frame: &[u8]) -> Result<Option<usize>, DecompressionFault> {
        let Some(id) = get_dict_id_from_frame(frame) else { return Ok(None) };
        let index = self.dictionaries.iter().position(|(other, _)| *other == id);
        index.map(Some).ok_or(DecompressionFault::UnknownDictionary(id))
    }
}

/// How zstd says that the room for its output is used up; a test holds it to that.
const ROOM_MISSING: &str = "Destination buffer is too small";

fn damaged(code: usize) -> DecompressionFault {
    DecompressionFault::Damaged(get_error_name(code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, compress_bound, zstd_sys::ZSTD_EndDirective};

    use super::*;
    use crate::config::load;

    const BYTES_MAX: usize = 64 * 1024;

    fn compressed(payload: &[u8], change: impl FnOnce(&mut CCtx<'static>)) -> Vec<u8> {
        let mut context = CCtx::create();
        change(&mut context);
        let mut frame = Vec::with_capacity(compress_bound(payload.len()));
        context.compress2(&mut frame, payload).expect("there is room");
        frame
    }

    /// A frame as a stream writes it, which does not know its length when it begins.
    fn streamed(payload: &[u8]) -> Vec<u8> {
        let mut context = CCtx::create();
        let mut frame = Vec::with_capacity(compress_bound(payload.len()) + 64);
        let mut output = OutBuffer::around(&mut frame);
        let mut input = InBuffer::around(payload);
        while input.pos() < payload.len() {
            context
                .compress_stream2(&mut output, &mut input, ZSTD_EndDirective::ZSTD_e_continue)
                .expect("there is room");
        }
        while context.end_stream(&mut output).expect("there is room") > 0 {}
        frame
    }

    fn plain(payload: &[u8]) -> Vec<u8> {
        compressed(payload, |_| {})
    }

    fn of(frame: &[u8]) -> Result<Bytes, DecompressionFault> {
        Decompressor::new(&[]).decompress(frame, BYTES_MAX)
    }

    fn dictionaries() -> Vec<Dictionary> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ticks.dictionary");
        let variable = ("TIDEGATE_INGEST_ZSTD_DICTIONARIES".to_owned(), path.to_owned());
        load(None, [variable].into_iter()).expect("a dictionary").config.ingest.zstd_dictionaries
    }

    #[test]
    fn frames_that_say_their_length_and_frames_that_do_not_are_read() {
        let payload = br#"{"symbol":"EURUSD","bid":1.09}"#.repeat(40);
        assert_eq!(of(&plain(&payload)), Ok(payload.clone().into()));
        assert_eq!(get_frame_content_size(&streamed(&payload)).unwrap(), None, "a stream knows no length");
        assert_eq!(of(&streamed(&payload)), Ok(payload.clone().into()));
        let with_checksum = compressed(&payload, |context| {
            context.set_parameter(CParameter::ChecksumFlag(true)).expect("a parameter");
        });
        assert_eq!(of(&with_checksum), Ok(payload.into()));
        assert_eq!(of(&plain(b"")), Ok(Bytes::new()));
    }

    #[test]
    fn bombs_cost_their_bound() {
        let fitting = vec![b' '; BYTES_MAX];
        assert_eq!(of(&plain(&fitting)), Ok(fitting.clone().into()));
        assert_eq!(of(&streamed(&fitting)), Ok(fitting.into()));
        let too_long = vec![b' '; BYTES_MAX + 1];
        let bytes = too_long.len() as u64;
        assert_eq!(of(&plain(&too_long)), Err(DecompressionFault::TooLong { bytes, bytes_max: BYTES_MAX }));
        assert_eq!(of(&streamed(&too_long)), Err(DecompressionFault::MuchTooLong(BYTES_MAX)));
        let bomb = vec![b' '; 64 * 1024 * 1024];
        assert!(streamed(&bomb).len() < 8 * 1024);
        assert_eq!(of(&streamed(&bomb)), Err(DecompressionFault::MuchTooLong(BYTES_MAX)));
        // Says that it has 1,000 bytes, and has more: the length is in the two bytes before the first block.
        let mut liar = plain(&vec![b' '; 2_000]);
        let place = liar.windows(2).position(|two| two == (2_000u16 - 256).to_le_bytes()).expect("a length");
        liar[place..place + 2].copy_from_slice(&(1_000u16 - 256).to_le_bytes());
        assert!(matches!(of(&liar), Err(DecompressionFault::Damaged(_))));
    }

    #[test]
    fn a_window_of_any_length_costs_nothing() {
        // Of 2 GiB, which a stream would have to keep; then one block as it is (RFC 8878 sections 3.1.1.1.2 and 3.1.1.2).
        let frame = [&MAGIC[..], &[0, 21 << 3], &[7 << 3 | 1, 0, 0], br#"{"a":1}"#].concat();
        assert!(zstd::stream::decode_all(&frame[..]).is_err());
        assert_eq!(of(&frame), Ok(br#"{"a":1}"#[..].into()));
    }

    #[test]
    fn what_is_not_one_whole_frame_is_refused() {
        let frame = plain(br#"{"a":[1,2,3]}"#);
        for wrong in [&b""[..], b"\x28\xb5\x2f", br#"{"a":1}"#, b"\x50\x2a\x4d\x18\x01\0\0\0x", b"\x1f\x8b\x08\0"] {
            assert_eq!(of(wrong), Err(DecompressionFault::NotZstd));
        }
        for end in MAGIC.len()..frame.len() {
            assert!(matches!(of(&frame[..end]), Err(DecompressionFault::Damaged(_))), "{end} bytes of it");
        }
        assert_eq!(of(&[&frame[..], b"x"].concat()), Err(DecompressionFault::Trailing(1)));
        assert_eq!(of(&frame.repeat(2)), Err(DecompressionFault::Trailing(frame.len())));
    }

    #[test]
    fn a_frame_names_its_dictionary() {
        let dictionaries = dictionaries();
        let payload = br#"{"symbol":"EURUSD","bid":1.09,"ask":1.1}"#;
        let frame = compressed(payload, |context| {
            context.load_dictionary(dictionaries[0].bytes()).expect("a dictionary");
        });
        assert!(frame.len() < plain(payload).len());
        let mut decompressor = Decompressor::new(&dictionaries);
        assert_eq!(decompressor.decompress(&frame, BYTES_MAX), Ok(payload[..].into()));
        assert_eq!(decompressor.decompress(&plain(payload), BYTES_MAX), Ok(payload[..].into()));
        assert_eq!(of(&frame), Err(DecompressionFault::UnknownDictionary(dictionaries[0].id())));
        let nameless = compressed(payload, |context| {
            context.load_dictionary(dictionaries[0].bytes()).expect("a dictionary");
            context.set_parameter(CParameter::DictIdFlag(false)).expect("a parameter");
        });
        assert!(decompressor.decompress(&nameless, BYTES_MAX) != Ok(payload[..].into()));
        assert_eq!(decompressor.decompress(&frame, BYTES_MAX), Ok(payload[..].into()), "faults leave nothing behind");
    }

    proptest! {
        #[test]
        fn whatever_was_compressed_comes_back(
            parts in prop::collection::vec((any::<Vec<u8>>(), 1usize..50), 0..8),
            level in -7i32..=9,
        ) {
            let payload: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
            let frame = compressed(&payload, |context| {
                context.set_parameter(CParameter::CompressionLevel(level)).expect("a level");
            });
            if payload.len() <= BYTES_MAX {
                prop_assert_eq!(of(&frame), Ok(payload.clone().into()));
                prop_assert_eq!(of(&streamed(&payload)), Ok(payload.into()));
            } else {
                prop_assert!(of(&frame).is_err() && of(&streamed(&payload)).is_err());
            }
        }

        #[test]
        fn no_bytes_make_more_than_the_bound(
            seed in prop::collection::vec(any::<u8>(), 1..200),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            for mut frame in [plain(&seed.repeat(30)), streamed(&seed.repeat(30))] {
                for (place, byte) in &changes {
                    let place = place.index(frame.len());
                    frame[place] = *byte;
                }
                if let Ok(payload) = Decompressor::new(&[]).decompress(&frame, 4_096) {
                    prop_assert!(payload.len() <= 4_096);
                }
            }
        }
    }
}
