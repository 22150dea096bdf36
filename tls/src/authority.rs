//! An authority of a cluster's own, and the certificates that it issues: files in PEM form.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;

use crate::identity::{Files, OwnFiles};
use crate::role::Role;

/// The authority's files in its directory.
const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
/// An authority outlives the hardware it was made on; whoever wants another one earlier makes it.
const AUTHORITY_DAYS: u64 = 3_650;
/// A certificate is valid from a little earlier, for machines whose clocks are behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
/// Bytes of an authority's key that its name shows: two authorities have different names.
const NAME_BYTES: usize = 6;

/// Names that every serving certificate is for: what is called on its own machine.
pub const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why certificates are not made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityFault {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name cannot be in a certificate, or a file holds something else.
    #[error("{what}: {source}")]
    Certificate {
        /// What was being done.
        what: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// Who issues certificates.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate that was issued, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What its owner needs.
    pub files: Files,
    /// Whose it is.
    pub role: Role,
}

impl Authority {
    /// Makes an authority in a directory, where there is none yet: files are never replaced.
    ///
    /// # Errors
    /// Where there is one, or its files cannot be written.
    pub fn make(directory: &Path) -> Result<Self, AuthorityFault> {
        fs::create_dir_all(directory).map_err(file(directory))?;
        let key = KeyPair::generate().map_err(certificate("making the authority's key"))?;
        let params = authority_params(&key);
        let made = params.self_signed(&key).map_err(certificate("making the authority"))?;
        write_new(&directory.join(KEY), &key.serialize_pem(), 0o600)?;
        write_new(&directory.join(CERTIFICATE), &made.pem(), 0o644)?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// The authority in a directory.
    ///
    /// # Errors
    /// Where there is none.
    pub fn open(directory: &Path) -> Result<Self, AuthorityFault> {
        let path = directory.join(KEY);
        let text = fs::read_to_string(&path).map_err(file(&path))?;
        let key = KeyPair::from_pem(&text).map_err(certificate("reading the authority's key"))?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(authority_params(&key), key) })
    }

    /// The one in a directory, made where there is none.
    ///
    /// # Errors
    /// Where it can neither be read nor made.
    pub fn open_or_make(directory: &Path) -> Result<Self, AuthorityFault> {
        if directory.join(KEY).exists() { Self::open(directory) } else { Self::make(directory) }
    }

    /// The file with its certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.directory.join(CERTIFICATE)
    }

    /// Puts the authority's certificate into a directory, beside what it issues there.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub fn copy_to(&self, directory: &Path) -> Result<PathBuf, AuthorityFault> {
        let (own, copy) = (self.certificate(), directory.join(CERTIFICATE));
        let text = fs::read_to_string(&own).map_err(file(&own))?;
        replace(&copy, &text, 0o644)?;
        Ok(copy)
    }

    /// Issues a certificate with a new key: `NAME.crt` and `NAME.key` in a directory. Files that are there are
    /// replaced, each at once. Who serves can be called by these names and by [`LOCAL_NAMES`].
    ///
    /// # Errors
    /// Where a name cannot be in a certificate, or a file cannot be written.
    pub fn issue(
        &self,
        role: Role,
        names: &[String],
        valid: Duration,
        directory: &Path,
        file_name: &str,
    ) -> Result<Issued, AuthorityFault> {
        let until = SystemTime::now() + valid;
        self.issue_until(role, names, until, directory, file_name)
    }

    /// The same to a subject of this name: by that name nodes tell one client from another.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_to(
        &self,
        subject: &str,
        role: Role,
        names: &[String],
        valid: Duration,
        directory: &Path,
        file_name: &str,
    ) -> Result<Issued, AuthorityFault> {
        let params = params_of(subject, role, names, SystemTime::now() + valid)?;
        self.write(&params, role, directory, file_name)
    }

    /// The same, valid until then, which may be over.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_until(
        &self,
        role: Role,
        names: &[String],
        until: SystemTime,
        directory: &Path,
        file_name: &str,
    ) -> Result<Issued, AuthorityFault> {
        self.write(&params_of(&own_name(role), role, names, until)?, role, directory, file_name)
    }

    fn write(
        &self,
        params: &CertificateParams,
        role: Role,
        directory: &Path,
        file_name: &str,
    ) -> Result<Issued, AuthorityFault> {
        let key = KeyPair::generate().map_err(certificate("making a key"))?;
        let issued = params.signed_by(&key, &self.issuer).map_err(certificate("issuing a certificate"))?;
        fs::create_dir_all(directory).map_err(file(directory))?;
        let own = OwnFiles {
            certificate: directory.join(format!("{file_name}.crt")),
            key: directory.join(format!("{file_name}.key")),
        };
        replace(&own.key, &key.serialize_pem(), 0o600)?;
        replace(&own.certificate, &issued.pem(), 0o644)?;
        Ok(Issued { files: Files { authority: self.certificate(), own: Some(own) }, role })
    }
}

/// The same for the same key, so that the key is all that has to be kept.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let id = params.key_identifier(key);
    let id: String = id.iter().take(NAME_BYTES).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("Seriatim authority {id}"));
    let now = SystemTime::now();
    (params.not_before, params.not_after) = times(now, now + DAY * u32::try_from(AUTHORITY_DAYS).unwrap_or(u32::MAX));
    params
}

/// The subject of who has no name of its own.
#[must_use]
pub fn own_name(role: Role) -> String {
    format!("Seriatim {role}")
}

fn params_of(
    subject: &str,
    role: Role,
    names: &[String],
    until: SystemTime,
) -> Result<CertificateParams, AuthorityFault> {
    let serves = matches!(role, Role::Node(_) | Role::Validator | Role::Prover);
    let local = LOCAL_NAMES.iter().map(|name| (*name).to_owned()).filter(|_| serves);
    let mut names: Vec<String> = names.iter().cloned().chain(local).collect();
    names.dedup();
    let mut params = CertificateParams::new(names).map_err(certificate("--name"))?;
    let uri = role.uri().try_into().map_err(certificate("the role"))?;
    params.subject_alt_names.push(SanType::URI(uri));
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if serves {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now().min(until - CLOCK_TOLERANCE);
    (params.not_before, params.not_after) = times(now, until);
    Ok(params)
}

fn times(from: SystemTime, until: SystemTime) -> (OffsetDateTime, OffsetDateTime) {
    (OffsetDateTime::from(from - CLOCK_TOLERANCE), OffsetDateTime::from(until))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityFault> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut open = opened.map_err(file(path))?;
    open.write_all(text.as_bytes()).and_then(|()| open.sync_all()).map_err(file(path))
}

/// Whoever reads the file finds the old text or the new one.
fn replace(path: &Path, text: &str, mode: u32) -> Result<(), AuthorityFault> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(file(&beside)(fault)),
        Ok(()) | Err(_) => {}
    }
    write_new(&beside, text, mode)?;
    fs::rename(&beside, path).map_err(file(path))
}

fn file(path: &Path) -> impl Fn(io::Error) -> AuthorityFault {
    let path = path.to_owned();
    move |source| AuthorityFault::File { path: path.clone(), source }
}

fn certificate(what: &str) -> impl Fn(rcgen::Error) -> AuthorityFault {
    let what = what.to_owned();
    move |source| AuthorityFault::Certificate { what: what.clone(), source }
}
