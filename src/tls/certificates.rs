//! The certificates of a port: read from files, checked, and chosen by the name that a client asks for.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use super::validity::ends_unix_seconds;
use crate::config::CertificateFiles;

/// What is wrong with a file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which file.
    pub file: PathBuf,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.file.display(), self.message)
    }
}

/// What is wrong with the files of all ports: one for each port, with its section.
#[derive(Debug)]
pub struct Problems(pub Vec<(&'static str, Problem)>);

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (section, problem)) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\n" };
            write!(formatter, "{separator}[{section}] {problem}")?;
        }
        Ok(())
    }
}

/// What operators want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its file.
    pub file: PathBuf,
    /// For which names it is.
    pub names: Vec<String>,
    /// Until when it is valid, in seconds since 1970.
    pub ends_unix_seconds: u64,
}

/// The contents of a port's files, as they are now.
pub struct Files {
    pairs: Vec<(CertificateFiles, Vec<u8>, Vec<u8>)>,
    client_authority: Option<(PathBuf, Vec<u8>)>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read(pairs: &[CertificateFiles], client_authority: Option<&Path>) -> Result<Self, Problem> {
        let pairs = pairs.iter().map(|pair| Ok((pair.clone(), content(&pair.certificate)?, content(&pair.key)?)));
        let client_authority = client_authority.map(|file| Ok((file.to_owned(), content(file)?)));
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()?, client_authority: client_authority.transpose()? })
    }

    /// A number that changes when a content does.
    pub fn fingerprint(&self) -> u128 {
        use siphasher::sip128::{Hasher128, SipHasher13};
        use std::hash::Hash;

        let mut hasher = SipHasher13::new();
        self.pairs.iter().for_each(|(_, certificate, key)| (certificate, key).hash(&mut hasher));
        self.client_authority.as_ref().map(|(_, content)| content).hash(&mut hasher);
        hasher.finish128().into()
    }

    /// The certificates with their keys.
    ///
    /// # Errors
    /// The first that is none, or does not fit its key.
    pub fn certificates(&self, provider: &CryptoProvider) -> Result<Certificates, Problem> {
        let entries = self.pairs.iter().map(|(files, certificate, key)| entry(files, certificate, key, provider));
        Ok(Certificates { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Who checks the certificates of clients, if they have to show some.
    ///
    /// # Errors
    /// When the file holds no certificate of an authority.
    pub fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, Problem> {
        let Some((file, pem)) = &self.client_authority else { return Ok(None) };
        let problem = |message: String| Problem { file: file.clone(), message };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| problem(format!("is no certificate in PEM: {error}")))?;
            roots.add(certificate).map_err(|error| problem(format!("has a certificate that is unusable: {error}")))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let verifier = verifier.map_err(|_| {
            problem("has no certificate of an authority; write it in PEM: -----BEGIN CERTIFICATE-----".to_owned())
        })?;
        Ok(Some(verifier))
    }
}

fn content(file: &Path) -> Result<Vec<u8>, Problem> {
    fs::read(file).map_err(|error| Problem {
        file: file.to_owned(),
        message: format!("cannot be read: {error}. Let the server's user read it, or correct its path"),
    })
}

fn entry(
    files: &CertificateFiles,
    certificate: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Entry, Problem> {
    let problem = |file: &Path, message: String| Problem { file: file.to_owned(), message };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| problem(&files.certificate, format!("is no certificate in PEM: {error}")))?;
    let Some(own) = chain.first() else {
        let message = "holds no certificate; write the server's own first, then those that lead to its authority, in \
                       PEM: -----BEGIN CERTIFICATE-----";
        return Err(problem(&files.certificate, message.to_owned()));
    };
    let unusable = |error: &dyn fmt::Display| problem(&files.certificate, format!("is unusable: {error}"));
    let names = {
        let parsed = webpki::EndEntityCert::try_from(own).map_err(|error| unusable(&error))?;
        parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
    };
    let ends_unix_seconds =
        ends_unix_seconds(own).ok_or_else(|| unusable(&"it does not say until when it is valid"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        let message =
            format!("is no private key in PEM: {error}. Write it without a password: -----BEGIN PRIVATE KEY-----");
        problem(&files.key, message)
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => problem(
            &files.key,
            format!("is not the key of {}; write the one that belongs to it", files.certificate.display()),
        ),
        error => problem(&files.key, format!("is unusable: {error}")),
    })?;
    let facts = CertificateFacts { file: files.certificate.clone(), names, ends_unix_seconds };
    Ok(Entry { facts, certified: Arc::new(certified) })
}

/// The certificates of a port, in the order of the configuration.
#[derive(Debug)]
pub struct Certificates {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    facts: CertificateFacts,
    certified: Arc<CertifiedKey>,
}

impl Certificates {
    /// What is known of each.
    pub fn facts(&self) -> impl Iterator<Item = &CertificateFacts> {
        self.entries.iter().map(|entry| &entry.facts)
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that is for the name and has a key that the client takes; the first of all if none is: a client by
    /// address, or of another name, sees for itself whether it wants that.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_taken = |entry: &&Entry| entry.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_named = |entry: &&Entry| {
            hello.server_name().is_some_and(|name| entry.facts.names.iter().any(|pattern| matches(pattern, name)))
        };
        let usable = || self.entries.iter().filter(is_taken);
        usable().find(is_named).or_else(|| usable().next()).map(|entry| Arc::clone(&entry.certified))
    }
}

/// Whether a certificate's name, of which the first label may be `*`, is that of a host (RFC 6125 section 6.4).
fn matches(pattern: &str, name: &str) -> bool {
    let rest_of = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(domain) => rest_of(name).is_some_and(|rest| rest == domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_exactly_or_by_their_first_label() {
        for (pattern, name) in
            [("a.example", "a.example"), ("a.example", "A.Example"), ("*.example.com", "push.example.com")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("a.example", "b.example"),
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*.example.com", "push.example.org"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
