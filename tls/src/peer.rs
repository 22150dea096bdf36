//! Who is at the other end of a connection that came in.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::CertificateDer;

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
    Secured(Arc<OnceLock<Peer>>),
}

impl PeerSlot {
    pub(crate) const fn plain() -> Self {
        Self(Slot::Plain)
    }

    pub(crate) fn secured() -> Self {
        Self(Slot::Secured(Arc::new(OnceLock::new())))
    }

    pub(crate) fn tell(&self, peer: Peer) {
        if let Slot::Secured(slot) = &self.0 {
            // hands are shaken once in a connection
            let _told_before = slot.set(peer);
        }
    }

    /// The peer. Before hands were shaken it is unknown.
    #[must_use]
    pub fn peer(&self) -> Peer {
        match &self.0 {
            Slot::Plain => Peer::Plain,
            Slot::Secured(slot) => slot.get().copied().unwrap_or(Peer::Unknown),
        }
    }
}
