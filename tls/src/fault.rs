//! Why certificates and keys are not used. Every message says what to do.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;

use crate::role::Role;

/// Files of certificates and keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others than those it is for may read the private key.
    #[error("the private key in {path} may be read by others (mode {mode:o}); run chmod 600")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is no certificate in the file.
    #[error("{path} holds no certificate: it has to begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
    /// There is no private key in the file.
    #[error("{path} holds no private key in PEM form (PKCS #8, SEC 1 or PKCS #1)")]
    NoKey {
        /// Which.
        path: PathBuf,
    },
    /// A certificate of the authority is none.
    #[error("{path} holds a certificate that cannot be an authority's: {why}")]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The private key is not that of the certificate.
    #[error("the private key {key} is not that of the certificate {certificate}: take both from the same issue")]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate has expired.
    #[error("the certificate {path} has expired ({until}): issue a new one (`seriatim cert issue`)")]
    Expired {
        /// Which.
        path: PathBuf,
        /// When.
        until: String,
    },
    /// The certificate is not valid yet.
    #[error("the certificate {path} is not valid before {from}: see that this machine's clock is right")]
    NotYetValid {
        /// Which.
        path: PathBuf,
        /// From when on.
        from: String,
    },
    /// Another authority issued it.
    #[error("the certificate {path} was not issued by the authority in {authority}: both have to be of one authority")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// The authority's file.
        authority: PathBuf,
    },
    /// It cannot be used for something else.
    #[error("the certificate {path} cannot be used: {why}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It is of another role than the process.
    #[error(
        "the certificate {path} is of {}, and this process is {expected}: issue one with `seriatim cert issue`",
        named(*.found)
    )]
    WrongRole {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        found: Option<Role>,
        /// Whose it has to be.
        expected: Role,
    },
}

/// A role in a sentence, also where there is none.
pub(crate) fn named(role: Option<Role>) -> String {
    role.map_or_else(|| "no role".to_owned(), |role| role.to_string())
}

/// A time as people write it.
pub(crate) fn written(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs());
    humantime::format_rfc3339_seconds(time).to_string()
}
