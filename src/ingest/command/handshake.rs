//! What a client library says when it connects, and what concerns the connection alone.

use subtle::ConstantTimeEq;

use super::{Call, Outcome, introspection::REDIS_VERSION};
use crate::{
    ingest::{
        producer::Producer,
        refusal::{Refusal, quote},
    },
    limits::INGEST_LABEL_BYTES_MAX,
    resp::{Limits, Reply, Version},
};

pub(super) fn ping(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    match call.command.len() {
        1 => Ok(Reply::Simple("PONG").into()),
        2 => echo(call),
        _ => Err(Refusal::WrongArity("ping".to_owned())),
    }
}

pub(super) fn echo(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Ok(Reply::bulk(call.argument(1)).into())
}

/// `AUTH [user] password`.
pub(super) fn auth(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    match call.command.len() {
        2 if call.state.config.ingest.password.is_none() => Err(Refusal::NoPasswordConfigured),
        2 => call.authenticate(DEFAULT_USER, 1),
        3 => {
            let user = call.argument(1).to_vec();
            call.authenticate(&user, 2)
        }
        _ => Err(Refusal::WrongArity("auth".to_owned())),
    }?;
    Ok(Reply::OK.into())
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`. Nothing is changed unless all of it is right.
pub(super) fn hello(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let version = match call.command.argument(1) {
        None => call.producer.version,
        Some(b"2") => Version::Two,
        Some(b"3") => Version::Three,
        Some(other) if other.iter().all(u8::is_ascii_digit) => return Err(Refusal::UnsupportedVersion),
        Some(_) => return Err(Refusal::VersionNotInteger),
    };
    let (mut credentials, mut name) = (None, None);
    let mut index = 2;
    while let Some(option) = call.command.argument(index) {
        let values = call.command.len() - index - 1;
        if option.eq_ignore_ascii_case(b"AUTH") && values >= 2 {
            credentials = Some(index + 1);
            index += 3;
        } else if option.eq_ignore_ascii_case(b"SETNAME") && values >= 1 {
            name = Some(check_label(call.argument(index + 1))?);
            index += 2;
        } else {
            return Err(Refusal::HelloOption(quote(option)));
        }
    }
    if let Some(index) = credentials {
        let user = call.argument(index).to_vec();
        call.authenticate(&user, index + 1)?;
    }
    if !call.producer.is_authenticated {
        return Err(Refusal::HelloWithoutAuthentication);
    }
    if let Some(name) = name {
        call.producer.name = name;
    }
    call.producer.version = version;
    Ok(hello_reply(call.producer).into())
}

fn hello_reply(producer: &Producer) -> Reply {
    let id = i64::try_from(producer.id).unwrap_or(i64::MAX);
    let fields = [
        ("server", Reply::bulk("tidegate")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(producer.version.number())),
        ("id", Reply::Integer(id)),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

pub(super) fn set_info(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let value = check_label(call.argument(3))?;
    let attribute = call.argument(2);
    if attribute.eq_ignore_ascii_case(b"LIB-NAME") {
        call.producer.library_name = value;
    } else if attribute.eq_ignore_ascii_case(b"LIB-VER") {
        call.producer.library_version = value;
    } else {
        return Err(Refusal::ClientOption(quote(attribute)));
    }
    Ok(Reply::OK.into())
}

pub(super) fn set_name(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    call.producer.name = check_label(call.argument(2))?;
    Ok(Reply::OK.into())
}

pub(super) fn get_name(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let name = &call.producer.name;
    Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(name.as_bytes()) }.into())
}

pub(super) fn id(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Ok(Reply::Integer(i64::try_from(call.producer.id).unwrap_or(i64::MAX)).into())
}

/// With every field that libraries take for granted; what has no meaning here is 0.
pub(super) fn info(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let Producer { id, address, name, library_name, library_version, version, connected_at, .. } = &*call.producer;
    let (age, version) = (connected_at.elapsed().as_secs(), version.number());
    Ok(Reply::Verbatim(format!(
        "id={id} addr={address} name={name} age={age} idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 \
         qbuf-free=0 argv-mem=0 multi-mem=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=client|info user=default \
         redir=-1 resp={version} lib-name={library_name} lib-ver={library_version}\n"
    ))
    .into())
}

/// Any number is a database, and all are the same: many libraries select one that they were configured with.
pub(super) fn select(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let number = str::from_utf8(call.argument(1)).ok().and_then(|number| number.parse::<u32>().ok());
    number.map(|_| Reply::OK.into()).ok_or(Refusal::NotInteger)
}

/// Back to the state after connecting; commands whose answers are awaited keep their places.
pub(super) fn reset(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    let producer = &mut *call.producer;
    let ingest = &call.state.config.ingest;
    let fresh = Producer::new(
        producer.id,
        std::mem::take(&mut producer.address),
        ingest.password.is_some(),
        ingest.payload_bytes_max as usize,
    );
    let replies = std::mem::take(&mut producer.replies);
    *producer = Producer { replies, connected_at: producer.connected_at, ..fresh };
    Ok(Reply::Simple("RESET").into())
}

pub(super) fn quit(call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    call.producer.is_ending = true;
    Ok(Reply::OK.into())
}

/// An HTTP request: what follows it, a command perhaps that the page's author thought of, is not read.
pub(super) fn web_request(_call: &mut Call<'_>) -> Result<Outcome, Refusal> {
    Err(Refusal::WebRequest)
}

/// The user that a password alone means.
const DEFAULT_USER: &[u8] = b"default";

impl Call<'_> {
    /// Checks a user and the password at `password_index`; without a configured password the default user needs none.
    fn authenticate(&mut self, user: &[u8], password_index: usize) -> Result<(), Refusal> {
        let is_right = match &self.state.config.ingest.password {
            Some(password) => password.as_bytes().ct_eq(self.argument(password_index)).into(),
            None => true,
        };
        if !is_right || user != DEFAULT_USER {
            return Err(Refusal::WrongPassword);
        }
        self.producer.is_authenticated = true;
        self.producer.limits = Limits::new(self.state.config.ingest.payload_bytes_max as usize);
        Ok(())
    }
}

/// A name of a connection or a library: printable ASCII without spaces, as in Redis.
fn check_label(label: &[u8]) -> Result<Box<str>, Refusal> {
    if label.len() > INGEST_LABEL_BYTES_MAX {
        return Err(Refusal::LabelTooLong);
    }
    match str::from_utf8(label) {
        Ok(text) if label.iter().all(u8::is_ascii_graphic) => Ok(text.into()),
        _ => Err(Refusal::ClientName),
    }
}
