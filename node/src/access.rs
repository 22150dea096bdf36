//! Which role may call what, and which role is to answer it: the two tables of docs/security.md.
//!
//! Clients' services (`Ledger`, `Proofs`, HTTP, health) are open to everybody: what they take is signed by whom it
//! concerns.

use std::fmt;

use proto::{Problem, ProblemKind};
use seams::Method;
use tls::{Peer, Role};
use tonic::Extensions;

use crate::connections::Caller;

/// Who has to be at the other end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A node.
    Node,
    /// Whoever checks bundles: a validator, or a node that does it besides.
    Checker,
}

impl Wanted {
    /// Who answers this.
    pub(crate) const fn serving(method: Method) -> Self {
        match method {
            Method::RaftAppend
            | Method::RaftVote
            | Method::RaftSnapshotChunk
            | Method::RaftTransferLeader
            | Method::ReadIndex
            | Method::Forward
            | Method::ExchangeHead
            | Method::Status
            | Method::AnnounceValidator => Self::Node,
            Method::Validate => Self::Checker,
        }
    }

    /// Whether this one is.
    pub(crate) fn is_met(self, found: Option<Role>) -> bool {
        match self {
            Self::Node => found.is_some_and(Role::is_node),
            Self::Checker => matches!(found, Some(Role::Validator | Role::Node(_))),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Node => "a node",
            Self::Checker => "a validator",
        })
    }
}

/// Who sent a request. Only secured connections know; every one of them says so.
pub(crate) fn peer_of(extensions: &Extensions) -> Peer {
    extensions.get::<Caller>().map_or(Peer::Plain, |caller| caller.peer.peer())
}

/// Whether the peer may look at the cluster from inside and change it: operators, and nodes, which hand on what only
/// the leader does.
///
/// # Errors
/// Where it may not.
pub(crate) fn permit_admin(peer: Peer) -> Result<(), Problem> {
    match peer {
        Peer::Plain | Peer::Known(Role::Operator | Role::Node(_)) => Ok(()),
        Peer::Unknown | Peer::WithoutRole | Peer::Known(Role::Validator | Role::Prover | Role::Client) => {
            Err(refused(peer, "the administration of the cluster", "an operator"))
        }
    }
}

/// Whether the peer may call this between roles, and, where the message names the node that it is from, is that node.
///
/// # Errors
/// Where it may not.
pub(crate) fn permit(peer: Peer, method: Method, body: &[u8]) -> Result<(), Problem> {
    match (peer, method) {
        (Peer::Plain, _) | (Peer::Known(Role::Validator), Method::AnnounceValidator) => Ok(()),
        (_, Method::AnnounceValidator) => Err(refused(peer, "announcing a validator", "a validator")),
        (Peer::Known(Role::Node(number)), _) => match sequencer::sender(method, body) {
            Some(sender) if sender != number => {
                let message = format!("the message is from node {sender}, and the certificate of node {number}");
                Err(Problem::new(ProblemKind::Forbidden, message))
            }
            None | Some(_) => Ok(()),
        },
        (
            Peer::Unknown
            | Peer::WithoutRole
            | Peer::Known(Role::Validator | Role::Prover | Role::Operator | Role::Client),
            _,
        ) => Err(refused(peer, &format!("{method:?}"), "a node")),
    }
}

fn refused(peer: Peer, what: &str, whose: &str) -> Problem {
    let (kind, found) = match peer {
        Peer::Plain | Peer::Unknown => (ProblemKind::Unauthenticated, "no certificate was shown".to_owned()),
        Peer::WithoutRole => (ProblemKind::Forbidden, "the certificate names no role".to_owned()),
        Peer::Known(role) => (ProblemKind::Forbidden, format!("the certificate is of {role}")),
    };
    Problem::new(kind, format!("{what} is for {whose}: {found}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const STRANGERS: [Peer; 4] =
        [Peer::Unknown, Peer::WithoutRole, Peer::Known(Role::Prover), Peer::Known(Role::Client)];

    #[test]
    fn between_roles_each_method_is_for_one_role() {
        for method in Method::ALL {
            let validators = *method == Method::AnnounceValidator;
            assert_eq!(permit(Peer::Known(Role::Node(1)), *method, b"").is_ok(), !validators, "{method:?}");
            assert_eq!(permit(Peer::Known(Role::Validator), *method, b"").is_ok(), validators, "{method:?}");
            assert!(permit(Peer::Known(Role::Operator), *method, b"").is_err(), "{method:?}");
            for peer in STRANGERS {
                assert!(permit(peer, *method, b"").is_err(), "{peer:?} {method:?}");
            }
            assert!(permit(Peer::Plain, *method, b"").is_ok());
        }
    }

    #[test]
    fn administration_is_for_operators_and_nodes() {
        for peer in [Peer::Plain, Peer::Known(Role::Operator), Peer::Known(Role::Node(2))] {
            assert!(permit_admin(peer).is_ok());
        }
        for peer in STRANGERS.into_iter().chain([Peer::Known(Role::Validator)]) {
            assert!(permit_admin(peer).is_err(), "{peer:?}");
        }
    }

    #[test]
    fn a_refusal_says_whether_a_certificate_is_missing_or_wrong() {
        assert_eq!(permit_admin(Peer::Unknown).unwrap_err().kind, ProblemKind::Unauthenticated);
        let refused = permit_admin(Peer::Known(Role::Validator)).unwrap_err();
        assert_eq!(refused.kind, ProblemKind::Forbidden);
        assert!(refused.message.contains("of a validator"), "{refused}");
    }
}
