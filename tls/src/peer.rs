//! Who is at the other end of a connection that came in.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::objects::oid_registry;
use x509_parser::prelude::FromDer;

use crate::role::Role;

/// The other end, as far as it has shown who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The connection is not secured: nobody can know.
    Plain,
    /// It showed no certificate.
    Unknown,
    /// It showed a certificate of the authority that names no role, or not one.
    WithoutRole,
    /// It has this role.
    Known(Role),
}

impl Peer {
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        match certificates.and_then(<[_]>::first) {
            None => Self::Unknown,
            Some(certificate) => Role::of_certificate(certificate).map_or(Self::WithoutRole, Self::Known),
        }
    }
}

/// Where a connection's peer is told: known once hands were shaken, which is before the first request.
#[derive(Debug, Clone)]
pub struct PeerSlot(Slot);

#[derive(Debug, Clone)]
enum Slot {
    Plain,
    Secured(Arc<OnceLock<Shown>>),
}

/// What a handshake told.
#[derive(Debug)]
struct Shown {
    peer: Peer,
    subject: Option<Arc<str>>,
}

impl PeerSlot {
    pub(crate) const fn plain() -> Self {
        Self(Slot::Plain)
    }

    pub(crate) fn secured() -> Self {
        Self(Slot::Secured(Arc::new(OnceLock::new())))
    }

    /// The certificates that were shown in the handshake, the peer's own first.
    pub(crate) fn tell(&self, certificates: Option<&[CertificateDer<'_>]>) {
        if let Slot::Secured(slot) = &self.0 {
            let subject = certificates.and_then(<[_]>::first).and_then(subject_of);
            // hands are shaken once in a connection
            let _told_before = slot.set(Shown { peer: Peer::of(certificates), subject });
        }
    }

    /// The peer. Before hands were shaken it is unknown.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.0 {
            Slot::Plain => Peer::Plain,
            Slot::Secured(slot) => slot.get().map_or(Peer::Unknown, |shown| shown.peer),
        }
    }

    /// The subject of the certificate that the peer showed, as text, such as `CN=Seriatim a client`: the same after a
    /// renewal under the same name. None where it showed none, or one without a subject.
    #[must_use]
    pub fn subject(&self) -> Option<Arc<str>> {
        match &self.0 {
            Slot::Plain => None,
            Slot::Secured(slot) => slot.get()?.subject.clone(),
        }
    }
}

/// The subject of a certificate, of which the signature is somebody else's matter.
fn subject_of(certificate: &CertificateDer<'_>) -> Option<Arc<str>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    // what is no text still tells one subject from another
    let text = subject
        .to_string_with_registry(oid_registry())
        .unwrap_or_else(|_unwritten| subject.as_raw().iter().map(|byte| format!("{byte:02x}")).collect());
    Some(text).filter(|text| !text.is_empty()).map(Arc::from)
}
