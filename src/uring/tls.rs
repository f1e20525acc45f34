//! Kernel TLS: sockets whose records the kernel seals and opens, once it has been given their keys.
//!
//! Owns the system calls for it and the probe of what this kernel offers. What the keys are, and what records other than
//! data say, is `tls`' business.
//!
//! A socket that has its keys takes and gives plaintext. A record that is no data fails a plain receive with `EIO` and
//! stays in its place until [`receive_record`] takes it, which also tells what it carries. A record that was not sealed
//! by the peer fails it with `EBADMSG`; one of a wrong length or version with `EMSGSIZE` or `EINVAL`.

#![allow(unsafe_code)]

use std::{
    fmt, io,
    mem::{MaybeUninit, offset_of},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::{AsRawFd, RawFd},
    ptr,
};

use nix::{errno::Errno, libc};
use zeroize::Zeroize;

/// Bytes of the longest key.
pub const RECORD_KEY_BYTES_MAX: usize = 32;

/// Bytes of a nonce.
pub const RECORD_NONCE_BYTES: usize = 12;

/// A cipher that the kernel may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordCipher {
    /// AES-128-GCM.
    Aes128Gcm = 0,
    /// AES-256-GCM.
    Aes256Gcm = 1,
    /// `ChaCha20-Poly1305`.
    Chacha20Poly1305 = 2,
}

/// What the kernel has to know to seal and open the records of one connection.
pub struct RecordKeys {
    /// The version is TLS 1.3, otherwise TLS 1.2.
    pub is_tls13: bool,
    /// The cipher of both directions.
    pub cipher: RecordCipher,
    /// The peer's records.
    pub read: DirectionKeys,
    /// Ours.
    pub write: DirectionKeys,
}

/// The keys of one direction. They are wiped when they go.
pub struct DirectionKeys {
    /// Filled up with zeros.
    pub key: [u8; RECORD_KEY_BYTES_MAX],
    /// What each record's nonce is made of. In TLS 1.2 with AES-GCM the last 8 bytes are those of our next record, and
    /// the kernel counts on from them (RFC 5288 section 3).
    pub nonce: [u8; RECORD_NONCE_BYTES],
    /// Records so far, by which the next one is numbered.
    pub records: u64,
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Why the kernel does not seal and open a connection's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverError {
    /// It has taken nothing: the connection can go on as it was.
    Refused(Errno),
    /// It has taken one direction of two: the connection cannot go on.
    Halfway(Errno),
}

/// What a kernel can seal and open, found out once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelTls {
    /// One bit for each version and cipher.
    offered: u8,
}

impl KernelTls {
    /// Of a kernel that offers everything, for a shard whose kernel then refuses it.
    #[cfg(test)]
    pub const EVERYTHING: Self = Self { offered: u8::MAX };

    /// Whether records of this version and cipher can be handed over.
    pub fn offers(self, is_tls13: bool, cipher: RecordCipher) -> bool {
        self.offered & bit(is_tls13, cipher) != 0
    }

    /// Whether nothing can be handed over.
    pub fn is_empty(self) -> bool {
        self.offered == 0
    }
}

impl fmt::Display for KernelTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (version, is_tls13) in [("TLS 1.2", false), ("TLS 1.3", true)] {
            let ciphers = CIPHERS.iter().filter(|(_, cipher)| self.offers(is_tls13, *cipher));
            let names: Vec<&str> = ciphers.map(|(name, _)| *name).collect();
            if !names.is_empty() {
                write!(formatter, "{separator}{version}: {}", names.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

/// Looks what this host's kernel can seal and open, on connections of its own over loopback. If the kernel has a module
/// for it that is not loaded, this loads it, which takes `CAP_NET_ADMIN`.
///
/// # Errors
/// `ENOENT`: the kernel has none of it, or its module is not loaded. Others: no socket could be had to ask with.
pub fn probe_tls() -> io::Result<KernelTls> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let mut found = KernelTls::default();
    for is_tls13 in [false, true] {
        for (_, cipher) in CIPHERS {
            let _client = TcpStream::connect(address)?;
            let (socket, _) = listener.accept()?;
            let keys = || DirectionKeys { key: [0; RECORD_KEY_BYTES_MAX], nonce: [0; RECORD_NONCE_BYTES], records: 0 };
            let keys = RecordKeys { is_tls13, cipher: *cipher, read: keys(), write: keys() };
            match hand_over(socket.as_raw_fd(), &keys) {
                Ok(()) => found.offered |= bit(is_tls13, *cipher),
                Err(HandOverError::Refused(error @ Errno::ENOENT)) if found.is_empty() => return Err(error.into()),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

/// Gives a connected socket's keys to the kernel: from then on it takes and gives plaintext.
pub(super) fn hand_over(socket: RawFd, keys: &RecordKeys) -> Result<(), HandOverError> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_ULP, b"tls").map_err(HandOverError::Refused)?;
    // Without keys the socket goes on as it was.
    set_keys(socket, libc::TLS_TX, keys, &keys.write).map_err(HandOverError::Refused)?;
    set_keys(socket, libc::TLS_RX, keys, &keys.read).map_err(HandOverError::Halfway)
}

/// Takes the record that is first in line: what it carries, and how many bytes of it. Records of one kind behind each
/// other may come together. What has no room in `bytes` stays for the next call.
pub(super) fn receive_record(socket: RawFd, bytes: &mut [u8]) -> Result<(u8, usize), Errno> {
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    let mut message = message(&mut part, &mut control);
    // SAFETY: `message` names `part` and `control`, which name `bytes`; all live through the call, which writes no more
    // than the lengths that are given.
    let received = unsafe { libc::recvmsg(socket, &raw mut message, libc::MSG_DONTWAIT) };
    let received = Errno::result(received)? as usize;
    if received == 0 {
        return Err(Errno::ECONNRESET);
    }
    // SAFETY: the kernel has set the length of what it wrote into `control`, which is aligned as headers are.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return Err(Errno::EIO);
    }
    // SAFETY: the header lies in `control` with the byte behind it: a record's kind is all that this socket tells.
    unsafe {
        if ((*header).cmsg_level, (*header).cmsg_type) != (libc::SOL_TLS, libc::TLS_GET_RECORD_TYPE) {
            return Err(Errno::EIO);
        }
        Ok((*libc::CMSG_DATA(header), received))
    }
}

/// Sends a record that is no data. The error that a receive has left behind is taken first, as nothing is sent before.
pub(super) fn send_record(socket: RawFd, content: u8, bytes: &[u8]) -> Result<(), Errno> {
    option::<libc::c_int>(socket, libc::SOL_SOCKET, libc::SO_ERROR);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control::default();
    let message = message(&mut part, &mut control);
    // SAFETY: `control` has room for a header and a byte, as its size says, and is aligned as headers are.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_TLS;
        (*header).cmsg_type = libc::TLS_SET_RECORD_TYPE;
        (*header).cmsg_len = libc::CMSG_LEN(1) as usize;
        *libc::CMSG_DATA(header) = content;
    }
    // SAFETY: what `message` names lives through the call, which only reads it.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    Errno::result(sent).map(drop)
}

/// How many records the kernel has sealed with a key of AES-GCM; none: the key is of another cipher, or there is none.
pub(super) fn records_sent(socket: RawFd) -> Option<u64> {
    let info = option::<libc::tls_crypto_info>(socket, libc::SOL_TLS, libc::TLS_TX)?;
    let records = match info.cipher_type {
        libc::TLS_CIPHER_AES_GCM_128 => {
            option::<libc::tls12_crypto_info_aes_gcm_128>(socket, libc::SOL_TLS, libc::TLS_TX)?.rec_seq
        }
        libc::TLS_CIPHER_AES_GCM_256 => {
            option::<libc::tls12_crypto_info_aes_gcm_256>(socket, libc::SOL_TLS, libc::TLS_TX)?.rec_seq
        }
        _ => return None,
    };
    Some(u64::from_be_bytes(records))
}

/// Room for one control message of one byte. Headers are aligned as their first field, a `size_t`.
#[derive(Default)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

// SAFETY: arithmetic on its argument, and nothing else.
const CONTROL_BYTES: usize = unsafe { libc::CMSG_SPACE(1) } as usize;

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and lengths of 0.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = ptr::from_mut(part);
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(control).cast();
    message.msg_controllen = CONTROL_BYTES;
    message
}

fn set_keys(socket: RawFd, direction: libc::c_int, keys: &RecordKeys, own: &DirectionKeys) -> Result<(), Errno> {
    let version = if keys.is_tls13 { libc::TLS_1_3_VERSION } else { libc::TLS_1_2_VERSION };
    let mut bytes = [0; CRYPTO_INFO_BYTES_MAX];
    let layout = keys.cipher.layout();
    bytes[..2].copy_from_slice(&version.to_ne_bytes());
    bytes[2..4].copy_from_slice(&layout.number.to_ne_bytes());
    let (salt, rest) = own.nonce.split_at(layout.salt_bytes);
    bytes[layout.iv..][..rest.len()].copy_from_slice(rest);
    bytes[layout.key..][..layout.key_bytes].copy_from_slice(&own.key[..layout.key_bytes]);
    bytes[layout.salt..][..salt.len()].copy_from_slice(salt);
    bytes[layout.records..][..8].copy_from_slice(&own.records.to_be_bytes());
    let outcome = set_option(socket, libc::SOL_TLS, direction, &bytes[..layout.bytes]);
    bytes.zeroize();
    outcome
}

fn set_option(socket: RawFd, level: libc::c_int, name: libc::c_int, value: &[u8]) -> Result<(), Errno> {
    // SAFETY: `value` lives through the call, which reads no more than its length.
    let result =
        unsafe { libc::setsockopt(socket, level, name, value.as_ptr().cast(), value.len() as libc::socklen_t) };
    Errno::result(result).map(drop)
}

fn option<T: OptionValue>(socket: RawFd, level: libc::c_int, name: libc::c_int) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` and `length` live through the call, which writes no more than `length` bytes.
    let result = unsafe { libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut length) };
    // SAFETY: an `OptionValue` is valid whatever its bytes are, and all of them were set.
    (result == 0).then(|| unsafe { value.assume_init() })
}

/// Values of options: integers, and the kernel's structures of integers and arrays of bytes (`linux/tls.h`).
trait OptionValue {}

impl OptionValue for libc::c_int {}
impl OptionValue for libc::tls_crypto_info {}
impl OptionValue for libc::tls12_crypto_info_aes_gcm_128 {}
impl OptionValue for libc::tls12_crypto_info_aes_gcm_256 {}

/// Where a cipher's parts lie in its structure.
struct Layout {
    number: u16,
    bytes: usize,
    iv: usize,
    key: usize,
    key_bytes: usize,
    salt: usize,
    salt_bytes: usize,
    records: usize,
}

macro_rules! layout {
    ($structure:ident, $number:ident, $key_bytes:literal, $salt_bytes:literal) => {
        Layout {
            number: libc::$number,
            bytes: size_of::<libc::$structure>(),
            iv: offset_of!(libc::$structure, iv),
            key: offset_of!(libc::$structure, key),
            key_bytes: $key_bytes,
            salt: offset_of!(libc::$structure, salt),
            salt_bytes: $salt_bytes,
            records: offset_of!(libc::$structure, rec_seq),
        }
    };
}

impl RecordCipher {
    fn layout(self) -> Layout {
        match self {
            Self::Aes128Gcm => layout!(tls12_crypto_info_aes_gcm_128, TLS_CIPHER_AES_GCM_128, 16, 4),
            Self::Aes256Gcm => layout!(tls12_crypto_info_aes_gcm_256, TLS_CIPHER_AES_GCM_256, 32, 4),
            Self::Chacha20Poly1305 => {
                layout!(tls12_crypto_info_chacha20_poly1305, TLS_CIPHER_CHACHA20_POLY1305, 32, 0)
            }
        }
    }
}

const CRYPTO_INFO_BYTES_MAX: usize = size_of::<libc::tls12_crypto_info_aes_gcm_256>();

const _: () = assert!(CRYPTO_INFO_BYTES_MAX >= size_of::<libc::tls12_crypto_info_chacha20_poly1305>());

const CIPHERS: &[(&str, RecordCipher)] = &[
    ("AES-128-GCM", RecordCipher::Aes128Gcm),
    ("AES-256-GCM", RecordCipher::Aes256Gcm),
    ("ChaCha20-Poly1305", RecordCipher::Chacha20Poly1305),
];

fn bit(is_tls13: bool, cipher: RecordCipher) -> u8 {
    1 << (cipher as u8 + if is_tls13 { 3 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_offers_what_was_found() {
        let none = KernelTls::default();
        assert!(none.is_empty() && none.to_string().is_empty());
        let some = KernelTls {
            offered: bit(false, RecordCipher::Aes128Gcm)
                | bit(true, RecordCipher::Aes128Gcm)
                | bit(true, RecordCipher::Chacha20Poly1305),
        };
        assert!(
            some.offers(true, RecordCipher::Chacha20Poly1305) && !some.offers(false, RecordCipher::Chacha20Poly1305)
        );
        assert_eq!(some.to_string(), "TLS 1.2: AES-128-GCM; TLS 1.3: AES-128-GCM, ChaCha20-Poly1305");
    }

    #[test]
    fn the_probe_agrees_with_what_the_kernel_lists() {
        let listed = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
        let is_listed = listed.split_whitespace().any(|name| name == "tls");
        match probe_tls() {
            Ok(found) => assert!(!found.is_empty(), "a kernel with TLS has a cipher"),
            Err(error) => assert!(!is_listed, "{error}"),
        }
    }

    #[test]
    fn what_the_kernel_refuses_leaves_the_socket_as_it_was() {
        use std::io::{Read, Write};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        assert_eq!(records_sent(socket.as_raw_fd()), None);
        assert_eq!(set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_ULP, b"none"), Err(Errno::ENOENT));
        socket.write_all(b"plain").unwrap();
        let mut bytes = [0; 5];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"plain");
    }
}
