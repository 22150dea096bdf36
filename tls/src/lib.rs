//! The wire's security: who is at the other end of a connection, by a certificate of the cluster's own authority.
//!
//! ```text
//! Files ─► Identity (read again when the files change) ─► Accepted: connections that come in, with their Peer
//!                                                      └► Connector: connections that go out, to whom is Expected
//! ```
//!
//! Invariants:
//! 1. TLS 1.3 and nothing older; no session is resumed, so that every connection shows its certificates anew.
//! 2. What a certificate's owner may do is its [`Role`], a URI in the certificate, and not its name in the network.
//! 3. New files are used as a whole or not at all: where they are no good, the old ones stay in use.
//!
//! Deliberately absent: which role may call what (crate `node`), lists of revoked certificates (short-lived ones and a
//! new authority take their place), and anything of the ledger.

mod role;
mod fault;
mod identity;
mod material;
mod peer;
mod accepted;
mod connector;
mod authority;

pub use accepted::Accepted;
pub use authority::{Authority, AuthorityFault, Issued, LOCAL_NAMES, own_name};
pub use connector::{ConnectFault, Connector, Expectation, SecuredStream, secured_fault};
pub use fault::TlsFault;
pub use identity::{Files, Identity, OwnFiles, Protocol};
pub use peer::{Peer, PeerSlot};
pub use role::{Role, RoleSyntax};
