//! Dictionaries by which producers compress their payloads, as an operator names them: paths of files.

use std::{fmt, fs, io::Read, num::NonZeroU32, path::Path, sync::Arc};

use zstd::zstd_safe::{DDict, get_dict_id_from_dict};

use crate::limits::DICTIONARY_BYTES_MAX;

/// A dictionary of zstd (RFC 8878 section 5) that is known to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct Dictionary {
    id: NonZeroU32,
    bytes: Arc<[u8]>,
}

impl Dictionary {
    /// The number by which frames name it.
    pub fn id(&self) -> NonZeroU32 {
        self.id
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the file of this absolute path.
    ///
    /// # Errors
    /// What was found instead, to follow "found".
    pub(super) fn read(path: &str) -> Result<Self, String> {
        if !Path::new(path).is_absolute() {
            return Err(format!("{path:?}, which is no absolute path"));
        }
        let unreadable = |error| format!("{path:?}, which cannot be read: {error}");
        let file = fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(DICTIONARY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::of_bytes(bytes).map_err(|found| format!("{path:?}, {found}"))
    }

    fn of_bytes(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() > DICTIONARY_BYTES_MAX {
            return Err(format!("which is longer than {DICTIONARY_BYTES_MAX} bytes"));
        }
        // Any bytes can serve as a dictionary, but only one that was trained has a number by which frames name it.
        let id = get_dict_id_from_dict(&bytes).filter(|_| DDict::try_create(&bytes).is_some());
        let id = id.ok_or("which is no dictionary as `zstd --train` makes them")?;
        Ok(Self { id, bytes: bytes.into() })
    }
}

impl fmt::Debug for Dictionary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "[dictionary {} of {} bytes]", self.id, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trained_dictionaries_are_taken() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ticks.dictionary");
        let trained = fs::read(path).expect("a file of the tests");
        let dictionary = Dictionary::of_bytes(trained.clone()).expect("a dictionary");
        assert_eq!((dictionary.id().get(), dictionary.bytes()), (7400, &*trained));
        assert_eq!(Dictionary::read(path), Ok(dictionary));
        let mut broken = trained.clone();
        broken[8..200].fill(0xff);
        for wrong in [Vec::new(), b"{\"number\":".repeat(100), trained[..20].to_vec(), broken] {
            assert!(Dictionary::of_bytes(wrong).unwrap_err().contains("zstd --train"));
        }
        assert!(Dictionary::of_bytes(vec![0; DICTIONARY_BYTES_MAX + 1]).unwrap_err().contains("longer than"));
        assert!(Dictionary::read("ticks.dictionary").unwrap_err().contains("no absolute path"));
        assert!(Dictionary::read("/nowhere/ticks.dictionary").unwrap_err().contains("cannot be read"));
    }
}
