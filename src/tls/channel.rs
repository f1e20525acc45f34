//! One connection's TLS, sans-IO: ciphertext in, plaintext and ciphertext to send out.
//!
//! The handshake is the library's (`rustls`), whose state goes with its end; then the connection keeps its keys
//! ([`Traffic`]) and what is incomplete, and nothing else. A session never learns that there is TLS.

use std::{cell::Cell, mem, sync::Arc};

use rustls::{Error, KeyLog, PeerIncompatible, ProtocolVersion, ServerConnection};

use super::{
    Port,
    alert::{
        BAD_RECORD_MAC, CLOSE_NOTIFY, LEVEL_FATAL, LEVEL_WARNING, NO_RENEGOTIATION, RECORD_OVERFLOW,
        UNEXPECTED_MESSAGE, USER_CANCELED,
    },
    record::{Content, HEADER_BYTES, InvalidRecord, SEALED_BYTES_MAX, Secret, Secrets, Traffic},
};
use crate::uring::RecordKeys;

/// A connection's TLS.
pub struct Channel {
    stage: Stage,
    /// Received, and no whole record or message yet.
    input: Vec<u8>,
    /// To be sent before anything that is sealed later.
    output: Vec<u8>,
    /// The kernel has refused its keys.
    stays: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "almost all connections are established, and a box would cost each of them"
)]
enum Stage {
    /// Nothing has arrived.
    Fresh(Arc<Port>),
    Handshake(Box<Handshake>),
    Established(Traffic),
    /// Nothing more is said or heard.
    Over,
}

struct Handshake {
    connection: ServerConnection,
    secrets: Option<Secrets>,
}

/// What has become of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// More may come.
    More,
    /// It has said that nothing more comes.
    End,
}

/// Why a connection ends whose TLS is not as it must be. What the peer is told of it is in [`Channel::output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What the peer speaks is not TLS.
    NotTls,
    /// It and we have no version, cipher or protocol in common.
    Incompatible,
    /// It has shown no certificate that is accepted here.
    ClientCertificate,
    /// It has refused what we showed it, or it has given up.
    PeerAlert,
    /// It does not shake hands as it must.
    Handshake,
    /// A record that it has not sealed, or that breaks the rules.
    Record,
    /// It wants to negotiate anew.
    Renegotiation,
    /// Our own mistake.
    Internal,
}

impl Refusal {
    /// Its label in the metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotTls => "tls_not_spoken",
            Self::Incompatible => "tls_incompatible",
            Self::ClientCertificate => "tls_client_certificate",
            Self::PeerAlert => "tls_peer_alert",
            Self::Handshake => "tls_handshake_failed",
            Self::Record => "tls_record_invalid",
            Self::Renegotiation => "tls_renegotiation",
            Self::Internal => "tls_internal",
        }
    }
}

impl Channel {
    /// For a connection that was just accepted. It costs little until something arrives.
    pub fn new(port: &Arc<Port>) -> Self {
        Self { stage: Stage::Fresh(Arc::clone(port)), input: Vec::new(), output: Vec::new(), stays: false }
    }

    /// Whether data can be sealed.
    pub fn is_established(&self) -> bool {
        matches!(self.stage, Stage::Established(_))
    }

    /// Whether a handshake has to come first, or to go on.
    pub fn needs_handshake(&self) -> bool {
        matches!(self.stage, Stage::Fresh(_) | Stage::Handshake(_))
    }

    /// Whether it is between its first byte and its keys, which is when it costs most.
    pub fn is_shaking_hands(&self) -> bool {
        matches!(self.stage, Stage::Handshake(_))
    }

    /// Takes in what was received, all of it, and appends the plaintext of whole records. Bytes of `received` are
    /// changed. Whatever is in [`Channel::output`] then is to be sent.
    ///
    /// # Errors
    /// When the connection has to end; plaintext that was appended is valid nevertheless.
    pub fn receive(&mut self, received: &mut [u8], plaintext: &mut Vec<u8>) -> Result<Heard, Refusal> {
        if let Stage::Fresh(port) = &self.stage {
            let Some(first) = received.first() else { return Ok(Heard::More) };
            if Content::of_number(*first) != Some(Content::Handshake) {
                self.output.extend_from_slice(port.plain_answer.as_bytes());
                return Err(self.give_up(Refusal::NotTls));
            }
            let handshake = Handshake::new(port).map_err(|_| Refusal::Internal)?;
            self.stage = Stage::Handshake(Box::new(handshake));
        }
        match &mut self.stage {
            Stage::Handshake(handshake) => {
                self.input.extend_from_slice(received);
                match handshake.advance(&self.input, &mut self.output) {
                    Ok((read, is_over)) => {
                        self.input.drain(..read);
                        if is_over { self.establish(plaintext) } else { Ok(Heard::More) }
                    }
                    Err(refusal) => Err(self.give_up(refusal)),
                }
            }
            Stage::Established(_) if self.input.is_empty() => {
                let (read, heard) = self.open_records(received, plaintext)?;
                self.input.extend_from_slice(&received[read..]);
                Ok(heard)
            }
            Stage::Established(_) => {
                self.input.extend_from_slice(received);
                self.open_input(plaintext)
            }
            Stage::Fresh(_) | Stage::Over => Ok(Heard::End),
        }
    }

    /// Seals data behind what is to be sent already.
    pub fn seal(&mut self, data: &[u8]) {
        let Stage::Established(traffic) = &mut self.stage else { panic!("data is sealed once the handshake is over") };
        traffic.seal(data, &mut self.output);
    }

    /// Its keys, if everything that has come was opened and everything sealed is on its way, so that another can go on
    /// with them.
    pub fn for_kernel(&self) -> Option<RecordKeys> {
        let Stage::Established(traffic) = &self.stage else { return None };
        let can_go = !self.stays && self.input.is_empty() && self.output.is_empty();
        if can_go { traffic.for_kernel() } else { None }
    }

    /// Nobody else goes on with its keys.
    pub fn stay(&mut self) {
        self.stays = true;
    }

    /// Whether it may seal no more, and has to be told to connect anew.
    pub fn is_worn_out(&self) -> bool {
        matches!(&self.stage, Stage::Established(traffic) if traffic.is_worn_out())
    }

    /// Says that nothing more comes; what the peer says is heard still.
    pub fn say_end(&mut self) {
        if let Stage::Established(traffic) = &mut self.stage {
            traffic.seal_alert(LEVEL_WARNING, CLOSE_NOTIFY, &mut self.output);
        }
    }

    /// What is to be sent.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// Takes what is to be sent; the caller keeps it in order, or gives it back.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }

    /// Gives back what was taken and not sent, if anything.
    pub fn keep_output(&mut self, rest: &[u8]) {
        assert!(self.output.is_empty(), "nothing is sealed between taking and giving back");
        self.output = rest.to_vec();
    }

    /// Forgets what is to be sent, as nobody takes it.
    pub fn drop_output(&mut self) {
        self.output = Vec::new();
    }

    /// Bytes that it holds on the heap, itself among them.
    pub fn bytes(&self) -> usize {
        let handshake = if self.is_shaking_hands() { size_of::<Handshake>() } else { 0 };
        size_of::<Self>() + self.input.capacity() + self.output.capacity() + handshake
    }

    /// The handshake is over: the library's part goes, and what has arrived behind it is opened.
    fn establish(&mut self, plaintext: &mut Vec<u8>) -> Result<Heard, Refusal> {
        let Stage::Handshake(handshake) = mem::replace(&mut self.stage, Stage::Over) else {
            unreachable!("it was just advanced")
        };
        self.stage = Stage::Established(handshake.into_traffic()?);
        self.open_input(plaintext)
    }

    fn open_input(&mut self, plaintext: &mut Vec<u8>) -> Result<Heard, Refusal> {
        let mut input = mem::take(&mut self.input);
        let (read, heard) = self.open_records(&mut input, plaintext)?;
        if read < input.len() {
            input.drain(..read);
            self.input = input;
        }
        Ok(heard)
    }

    /// Opens the whole records at the beginning: how many bytes they have.
    fn open_records(&mut self, bytes: &mut [u8], plaintext: &mut Vec<u8>) -> Result<(usize, Heard), Refusal> {
        let mut read = 0;
        loop {
            let length = match whole_record(&bytes[read..]) {
                Ok(Some(record)) => record.len(),
                Ok(None) => return Ok((read, Heard::More)),
                Err(InvalidRecord) => return Err(self.alert(RECORD_OVERFLOW, Refusal::Record)),
            };
            let record = &mut bytes[read..read + length];
            let Stage::Established(traffic) = &mut self.stage else { return Ok((bytes.len(), Heard::End)) };
            let Ok((content, range)) = traffic.open(record) else {
                return Err(self.alert(BAD_RECORD_MAC, Refusal::Record));
            };
            read += length;
            match content {
                Content::Data => {
                    traffic.data_read();
                    plaintext.extend_from_slice(&record[range]);
                }
                Content::Alert => match record[range] {
                    [_, CLOSE_NOTIFY] => return Ok((bytes.len(), Heard::End)),
                    [LEVEL_WARNING, USER_CANCELED] => {}
                    _ => return Err(self.give_up(Refusal::PeerAlert)),
                },
                Content::Handshake => self.after_handshake(&record[range])?,
                Content::ChangeCipherSpec => return Err(self.alert(UNEXPECTED_MESSAGE, Refusal::Record)),
            }
        }
    }

    /// A message of a handshake although it is over: new keys, or the wish to negotiate anew.
    fn after_handshake(&mut self, message: &[u8]) -> Result<(), Refusal> {
        let Stage::Established(traffic) = &mut self.stage else { return Ok(()) };
        match message {
            // KeyUpdate, alone in its record, as the next is under another key (RFC 8446 sections 4.6.3 and 5.1).
            [24, 0, 0, 1, asks @ (0 | 1)] if traffic.is_tls13() => {
                if !traffic.update_read_key() {
                    return Err(self.alert(UNEXPECTED_MESSAGE, Refusal::Record));
                }
                if *asks == 1 {
                    traffic.request_key_update();
                }
                Ok(())
            }
            // ClientHello.
            [1, ..] if !traffic.is_tls13() => Err(self.alert(NO_RENEGOTIATION, Refusal::Renegotiation)),
            _ => Err(self.alert(UNEXPECTED_MESSAGE, Refusal::Renegotiation)),
        }
    }

    fn alert(&mut self, description: u8, refusal: Refusal) -> Refusal {
        if let Stage::Established(traffic) = &mut self.stage {
            traffic.seal_alert(LEVEL_FATAL, description, &mut self.output);
        }
        self.give_up(refusal)
    }

    fn give_up(&mut self, refusal: Refusal) -> Refusal {
        self.stage = Stage::Over;
        self.input = Vec::new();
        refusal
    }
}

impl Handshake {
    fn new(port: &Port) -> Result<Self, Error> {
        Ok(Self { connection: ServerConnection::new(port.server_config())?, secrets: None })
    }

    /// Reads whole records until the handshake is over, and writes what is to be said: how many bytes they had, and
    /// whether it is. The library is given no record more, as it would keep what it cannot give back.
    fn advance(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<(usize, bool), Refusal> {
        let mut read = 0;
        while self.connection.is_handshaking() {
            let Some(record) = whole_record(&input[read..]).map_err(|InvalidRecord| Refusal::Handshake)? else {
                return Ok((read, false));
            };
            read += record.len();
            let outcome = self.read_record(record);
            if let Some(secrets) = SECRETS.take() {
                self.secrets = Some(secrets);
            }
            while self.connection.wants_write() {
                self.connection.write_tls(output).expect("a vector takes everything");
            }
            outcome.map_err(|error| refusal(&error))?;
        }
        Ok((read, true))
    }

    fn read_record(&mut self, mut record: &[u8]) -> Result<(), Error> {
        while !record.is_empty() {
            let bytes = self.connection.read_tls(&mut record);
            if bytes.is_ok_and(|bytes| bytes > 0) {
                self.connection.process_new_packets()?;
            } else {
                return Err(Error::General("the library takes no more".to_owned()));
            }
        }
        Ok(())
    }

    fn into_traffic(self) -> Result<Traffic, Refusal> {
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let extracted = self.connection.dangerous_extract_secrets().map_err(|_| Refusal::Internal)?;
        let secrets = match (is_tls13, &self.secrets) {
            (true, None) => return Err(Refusal::Internal),
            (true, secrets) => secrets.as_ref(),
            (false, _) => None,
        };
        Traffic::new(extracted, secrets).ok_or(Refusal::Internal)
    }
}

/// The record at the beginning; none: it is not all there.
fn whole_record(bytes: &[u8]) -> Result<Option<&[u8]>, InvalidRecord> {
    let Some(header) = bytes.get(..HEADER_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > SEALED_BYTES_MAX {
        return Err(InvalidRecord);
    }
    Ok(bytes.get(..HEADER_BYTES + length))
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::PeerIncompatible(PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon)
        | Error::InvalidCertificate(_)
        | Error::NoCertificatesPresented => Refusal::ClientCertificate,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Refusal::Incompatible,
        Error::AlertReceived(_) => Refusal::PeerAlert,
        _ => Refusal::Handshake,
    }
}

thread_local! {
    /// The secrets of the handshake that is being advanced on this thread.
    static SECRETS: Cell<Option<Secrets>> = const { Cell::new(None) };
}

/// Catches the secrets of TLS 1.3, which the library tells nobody else: new keys are derived from them.
#[derive(Debug)]
pub(super) struct SecretCatcher;

impl SecretCatcher {
    const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
    const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";
}

impl KeyLog for SecretCatcher {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let Some(secret) = Secret::new(secret) else { return };
        let mut secrets = SECRETS.take().unwrap_or_default();
        match label {
            Self::CLIENT => secrets.client = secret,
            Self::SERVER => secrets.server = secret,
            _ => {}
        }
        SECRETS.set(Some(secrets));
    }

    fn will_log(&self, label: &str) -> bool {
        label == Self::CLIENT || label == Self::SERVER
    }
}
