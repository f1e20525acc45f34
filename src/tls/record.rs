//! Records after the handshake: sealed and opened with the keys that the handshake has agreed on.
//!
//! Owns what an established connection keeps: for each direction a key, a nonce and, in TLS 1.3, the secret from which
//! the next key is derived. Some 200 bytes, where the library that shakes hands keeps thousands, because it can do more.
//! The cipher itself is set up for each use, which costs time and no memory.
//!
//! Invariants:
//! - A nonce is used once: each record counts, whether it is sent or not. Were one used twice, the traffic of both
//!   records, and the key that authenticates all others, would lie open.
//! - What is sealed is sent, in the order in which it was sealed; the peer counts, too.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey},
    hkdf::{self, HKDF_SHA256, HKDF_SHA384, KeyType, Prk},
};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use zeroize::Zeroize;

use crate::uring::{DirectionKeys, RECORD_KEY_BYTES_MAX, RECORD_NONCE_BYTES, RecordCipher, RecordKeys};

/// Bytes of a record's header: type, version, length.
pub const HEADER_BYTES: usize = 5;

/// Longest plaintext of a record (RFC 8446 section 5.1).
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 14;

/// Longest sealed rest of a record, behind its header (RFC 8446 section 5.2).
pub const SEALED_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;

/// Records that one key of AES-GCM may seal (RFC 8446 section 5.5 gives 2^24.5).
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 24;

/// New keys that a peer may have one after the other without a word between them.
const KEY_UPDATES_MAX: u8 = 32;

/// Longest secret of TLS 1.3: that of SHA-384.
const SECRET_BYTES_MAX: usize = 48;

const KEY_BYTES_MAX: usize = RECORD_KEY_BYTES_MAX;
const NONCE_BYTES: usize = RECORD_NONCE_BYTES;

/// What TLS 1.2 sends of a nonce with each record of AES-GCM (RFC 5288 section 3).
const EXPLICIT_NONCE_BYTES: usize = 8;

/// What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    ChangeCipherSpec,
    Alert,
    Handshake,
    Data,
}

/// A record that was not sealed by the peer, or not as it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRecord;

/// The secrets of both directions in TLS 1.3, filled up with zeros.
#[derive(Default)]
pub struct Secrets {
    pub client: Secret,
    pub server: Secret,
}

/// A secret of one direction.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES_MAX]);

/// The keys of an established connection.
pub struct Traffic {
    read: Half,
    write: Half,
    cipher: Cipher,
    is_tls13: bool,
    /// The peer has asked for new keys of ours.
    owes_key_update: bool,
    /// New keys of the peer since its last data.
    key_updates: u8,
}

/// One direction.
struct Half {
    secret: Secret,
    key: [u8; KEY_BYTES_MAX],
    nonce: [u8; NONCE_BYTES],
    /// Records so far, under this key in TLS 1.3, and of the connection in TLS 1.2.
    records: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    Chacha20Poly1305,
}

impl Traffic {
    /// What a handshake has agreed on. `secrets`: those of TLS 1.3, none for TLS 1.2. None: it is not what was expected,
    /// and nothing may be sealed with it.
    pub fn new(extracted: ExtractedSecrets, secrets: Option<&Secrets>) -> Option<Self> {
        let (read_records, read_keys) = extracted.rx;
        let (write_records, write_keys) = extracted.tx;
        let cipher = Cipher::of(&read_keys)?;
        let half = |keys, records, secret| Half::new(cipher, &keys, records, secret);
        let read = half(read_keys, read_records, secrets.map(|secrets| &secrets.client))?;
        let write = half(write_keys, write_records, secrets.map(|secrets| &secrets.server))?;
        Some(Self { read, write, cipher, is_tls13: secrets.is_some(), owes_key_update: false, key_updates: 0 })
    }

    /// Whether the version is TLS 1.3.
    pub fn is_tls13(&self) -> bool {
        self.is_tls13
    }

    /// What the kernel needs to go on from the last record; none: it cannot yet, as the peer waits for new keys of ours.
    pub fn for_kernel(&self) -> Option<RecordKeys> {
        let direction = |half: &Half| DirectionKeys { key: half.key, nonce: half.nonce, records: half.records };
        let (read, mut write) = (direction(&self.read), direction(&self.write));
        if self.has_explicit_nonce() {
            // The kernel counts on from the nonce that it is given; ours are a base, of which each record's number flips
            // bits. With the top bit flipped, none of its first 2^62 is one that we have used.
            write.nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES] ^= 0x80;
        }
        let keys = RecordKeys { is_tls13: self.is_tls13, cipher: self.cipher.for_kernel(), read, write };
        (!self.owes_key_update).then_some(keys)
    }

    /// Whether a part of the nonce is sent with each record.
    fn has_explicit_nonce(&self) -> bool {
        !self.is_tls13 && self.cipher != Cipher::Chacha20Poly1305
    }

    /// Appends records with the plaintext, and before them new keys if they are due.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut Vec<u8>) {
        for part in plaintext.chunks(PLAINTEXT_BYTES_MAX) {
            if self.is_tls13 && (self.owes_key_update || self.write.records >= RECORDS_PER_KEY_MAX) {
                self.update_write_key(out);
            }
            self.seal_record(Content::Data, part, out);
        }
    }

    /// Appends an alert.
    pub fn seal_alert(&mut self, level: u8, description: u8, out: &mut Vec<u8>) {
        self.seal_record(Content::Alert, &[level, description], out);
    }

    /// Whether nothing more may be sealed: the key has sealed all that it may, and TLS 1.2 has no other.
    pub fn is_worn_out(&self) -> bool {
        self.has_explicit_nonce() && self.write.records >= RECORDS_PER_KEY_MAX
    }

    /// The peer asks for new keys of ours: they come before the next data, once however often it has asked.
    pub fn request_key_update(&mut self) {
        self.owes_key_update = true;
    }

    /// The peer's next records are sealed by its next key. False: it has new keys again and again and says nothing, which
    /// costs a hundred times what it costs the peer.
    pub fn update_read_key(&mut self) -> bool {
        self.read.update(self.cipher);
        self.key_updates += 1;
        self.key_updates < KEY_UPDATES_MAX
    }

    /// The peer has said something.
    pub fn data_read(&mut self) {
        self.key_updates = 0;
    }

    fn update_write_key(&mut self, out: &mut Vec<u8>) {
        /// The message: its type, its length, and that no answer is asked for (RFC 8446 section 4.6.3).
        const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
        self.owes_key_update = false;
        self.seal_record(Content::Handshake, &KEY_UPDATE, out);
        self.write.update(self.cipher);
    }

    fn seal_record(&mut self, content: Content, plaintext: &[u8], out: &mut Vec<u8>) {
        let sequence = self.write.records;
        let nonce = self.write.next_nonce();
        let explicit: &[u8] =
            if self.has_explicit_nonce() { &nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..] } else { &[] };
        let inner_bytes = plaintext.len() + usize::from(self.is_tls13);
        let outer = if self.is_tls13 { Content::Data } else { content };
        let header = header(outer, explicit.len() + inner_bytes + MAX_TAG_LEN);
        out.extend_from_slice(&header);
        out.extend_from_slice(explicit);
        let start = out.len();
        out.extend_from_slice(plaintext);
        if self.is_tls13 {
            out.push(content.number());
        }
        let key = self.write.sealing_key(self.cipher);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = &mut out[start..];
        let tag = if self.is_tls13 {
            key.seal_in_place_separate_tag(nonce, Aad::from(header), sealed)
        } else {
            key.seal_in_place_separate_tag(nonce, Aad::from(tls12_context(sequence, content, inner_bytes)), sealed)
        };
        out.extend_from_slice(tag.expect("a record is shorter than any cipher's limit").as_ref());
    }

    /// Opens a whole record in place: what it carries, and where the plaintext lies in it.
    ///
    /// # Errors
    /// When the peer has not sealed it, or not as it may be.
    pub fn open(&mut self, record: &mut [u8]) -> Result<(Content, std::ops::Range<usize>), InvalidRecord> {
        let outer = Content::of_number(record[0]).ok_or(InvalidRecord)?;
        if self.is_tls13 { self.open_tls13(outer, record) } else { self.open_tls12(outer, record) }
    }

    fn open_tls13(
        &mut self,
        outer: Content,
        record: &mut [u8],
    ) -> Result<(Content, std::ops::Range<usize>), InvalidRecord> {
        if outer != Content::Data {
            return Err(InvalidRecord);
        }
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let context: [u8; HEADER_BYTES] = (&*header).try_into().expect("it was split there");
        let nonce = Nonce::assume_unique_for_key(self.read.next_nonce());
        let key = self.read.sealing_key(self.cipher);
        let inner = key.open_in_place(nonce, Aad::from(context), sealed).map_err(|_| InvalidRecord)?;
        // The plaintext, its type, and any number of zeros (RFC 8446 section 5.4).
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(InvalidRecord)?;
        let content = Content::of_number(inner[end]).ok_or(InvalidRecord)?;
        checked(content, HEADER_BYTES, end)
    }

    fn open_tls12(
        &mut self,
        content: Content,
        record: &mut [u8],
    ) -> Result<(Content, std::ops::Range<usize>), InvalidRecord> {
        let sequence = self.read.records;
        let mut nonce = self.read.next_nonce();
        let mut start = HEADER_BYTES;
        if self.has_explicit_nonce() {
            let explicit = record.get(start..start + EXPLICIT_NONCE_BYTES).ok_or(InvalidRecord)?;
            nonce[NONCE_BYTES - EXPLICIT_NONCE_BYTES..].copy_from_slice(explicit);
            start += EXPLICIT_NONCE_BYTES;
        }
        let bytes = (record.len() - start).checked_sub(MAX_TAG_LEN).ok_or(InvalidRecord)?;
        let context = tls12_context(sequence, content, bytes);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let key = self.read.sealing_key(self.cipher);
        key.open_in_place(nonce, Aad::from(context), &mut record[start..]).map_err(|_| InvalidRecord)?;
        checked(content, start, bytes)
    }
}

/// What a record holds, if it is not longer than a record may be.
fn checked(content: Content, start: usize, bytes: usize) -> Result<(Content, std::ops::Range<usize>), InvalidRecord> {
    if bytes > PLAINTEXT_BYTES_MAX { Err(InvalidRecord) } else { Ok((content, start..start + bytes)) }
}

impl Half {
    /// None: the keys are of another cipher, or not those that belong to the secret.
    fn new(cipher: Cipher, keys: &ConnectionTrafficSecrets, records: u64, secret: Option<&Secret>) -> Option<Self> {
        let (key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key.as_ref(), iv.as_ref()),
            _ => return None,
        };
        let mut half = Self { secret: Secret::default(), key: [0; KEY_BYTES_MAX], nonce: iv.try_into().ok()?, records };
        half.key.get_mut(..key.len())?.copy_from_slice(key);
        if Cipher::of(keys)? != cipher {
            return None;
        }
        if let Some(secret) = secret {
            // Were it another's secret, the next keys would be nobody's.
            let derived = Self::derived(cipher, secret.clone());
            if derived.key != half.key || derived.nonce != half.nonce {
                return None;
            }
            half.secret = secret.clone();
        }
        Some(half)
    }

    /// The key and the nonce of a secret (RFC 8446 section 7.3).
    fn derived(cipher: Cipher, secret: Secret) -> Self {
        let (mut key, mut nonce) = ([0; KEY_BYTES_MAX], [0; NONCE_BYTES]);
        secret.expand(cipher, b"key", &mut key[..cipher.algorithm().key_len()]);
        secret.expand(cipher, b"iv", &mut nonce);
        Self { secret, key, nonce, records: 0 }
    }

    /// The next secret, with its key and nonce (RFC 8446 section 7.2).
    fn update(&mut self, cipher: Cipher) {
        let mut next = Secret::default();
        self.secret.expand(cipher, b"traffic upd", &mut next.0[..cipher.secret_bytes()]);
        *self = Self::derived(cipher, next);
    }

    /// The nonce of the next record, which is counted.
    fn next_nonce(&mut self) -> [u8; NONCE_BYTES] {
        let mut nonce = self.nonce;
        let sequence = self.records.to_be_bytes();
        let low = &mut nonce[NONCE_BYTES - sequence.len()..];
        low.iter_mut().zip(sequence).for_each(|(byte, of_sequence)| *byte ^= of_sequence);
        self.records = self.records.checked_add(1).expect("nobody lives to see 2^64 records");
        nonce
    }

    fn sealing_key(&self, cipher: Cipher) -> LessSafeKey {
        let algorithm = cipher.algorithm();
        let key = UnboundKey::new(algorithm, &self.key[..algorithm.key_len()]);
        LessSafeKey::new(key.expect("the key has its cipher's length"))
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Secret {
    /// A secret as the library tells it; none: it is longer than any.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::default();
        secret.0.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(secret)
    }

    /// HKDF-Expand-Label without a context (RFC 8446 section 7.1).
    fn expand(&self, cipher: Cipher, label: &[u8], out: &mut [u8]) {
        const PREFIX: &[u8] = b"tls13 ";
        let length = u16::try_from(out.len()).expect("keys are short").to_be_bytes();
        let label_bytes = [u8::try_from(PREFIX.len() + label.len()).expect("labels are short")];
        let info = [&length[..], &label_bytes, PREFIX, label, &[0]];
        let prk = Prk::new_less_safe(cipher.hkdf(), &self.0[..cipher.secret_bytes()]);
        let keying_material = prk.expand(&info, Length(out.len())).and_then(|material| material.fill(out));
        keying_material.expect("keys are shorter than HKDF's limit");
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self([0; SECRET_BYTES_MAX])
    }
}

/// How many bytes HKDF gives.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Cipher {
    fn of(keys: &ConnectionTrafficSecrets) -> Option<Self> {
        match keys {
            ConnectionTrafficSecrets::Aes128Gcm { .. } => Some(Self::Aes128Gcm),
            ConnectionTrafficSecrets::Aes256Gcm { .. } => Some(Self::Aes256Gcm),
            ConnectionTrafficSecrets::Chacha20Poly1305 { .. } => Some(Self::Chacha20Poly1305),
            _ => None,
        }
    }

    fn for_kernel(self) -> RecordCipher {
        match self {
            Self::Aes128Gcm => RecordCipher::Aes128Gcm,
            Self::Aes256Gcm => RecordCipher::Aes256Gcm,
            Self::Chacha20Poly1305 => RecordCipher::Chacha20Poly1305,
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::Aes256Gcm => &AES_256_GCM,
            Self::Chacha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    /// The hash of its suite in TLS 1.3 (RFC 8446 appendix B.4).
    fn hkdf(self) -> hkdf::Algorithm {
        if self == Self::Aes256Gcm { HKDF_SHA384 } else { HKDF_SHA256 }
    }

    fn secret_bytes(self) -> usize {
        if self == Self::Aes256Gcm { 48 } else { 32 }
    }
}

impl Content {
    /// Its number on the wire (RFC 8446 section 5.1); none: it has no meaning.
    pub fn of_number(number: u8) -> Option<Self> {
        match number {
            20 => Some(Self::ChangeCipherSpec),
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::Data),
            _ => None,
        }
    }

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::ChangeCipherSpec => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
        }
    }
}

/// The header of a record, which says TLS 1.2 in either version (RFC 8446 section 5.1).
fn header(content: Content, bytes: usize) -> [u8; HEADER_BYTES] {
    let [high, low] = u16::try_from(bytes).expect("a record is shorter than 2^16").to_be_bytes();
    [content.number(), 3, 3, high, low]
}

/// What is authenticated beside a record's plaintext in TLS 1.2 (RFC 5246 section 6.2.3.3).
fn tls12_context(sequence: u64, content: Content, bytes: usize) -> [u8; 13] {
    let mut context = [0; 13];
    context[..8].copy_from_slice(&sequence.to_be_bytes());
    context[8..].copy_from_slice(&header(content, bytes));
    context
}
