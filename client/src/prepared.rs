//! Prepared transactions: everything is decided but the signatures, which may come from elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use ledger::check::LedgerIdentity;
use ledger::effects::Effects;
use ledger::identifier::canonical_bytes;
use ledger::signature::{Claim, transaction_message};
use ledger::transaction::{Origin, ReceivedTransaction};
use ledger::view::{LiveOutput, Place};
use ledger::{
    AtomicGroupId, Body, Command, Intent, Limits, LogTime, Party, Rejection, Sequence, Signature, Transaction,
    TransactionId, check,
};

use crate::builder::{BuildFault, Context};
use crate::key::Key;

/// A transaction that keeps every rule but lacks signatures.
#[derive(Debug, Clone)]
pub struct Prepared {
    body: Body,
    id: TransactionId,
    size_bytes: usize,
    signatures: BTreeMap<Party, Signature>,
}

/// Why a signature is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The transaction does not name this party as a signer.
    #[error("{0} is not a signer of this transaction")]
    NotASigner(Party),
    /// It is not this party's signature over this transaction.
    #[error("not a signature of {0} over this transaction")]
    False(Party),
    /// Signatures are missing.
    #[error("signatures are missing: {0:?}")]
    Missing(Vec<Party>),
}

impl Prepared {
    /// Checks every order-free rule but the signatures.
    pub(crate) fn check(body: Body, identity: &LedgerIdentity, limits: &Limits) -> Result<Self, Rejection> {
        let unsigned = Signature::from_bytes([0; 64]);
        let signatures = vec![unsigned; body.signers.len()];
        let received = ReceivedTransaction::from(Transaction { body, signatures });
        check::check_structure(&received, identity, limits)?;
        let (id, size_bytes) = (received.id(), received.encoded_bytes());
        Ok(Self { body: received.into_transaction().body, id, size_bytes, signatures: BTreeMap::new() })
    }

    /// A transaction of the command lane: its inputs are chosen when it is applied.
    ///
    /// # Errors
    /// Where the command breaks a rule.
    pub fn command(context: &Context, command: Command) -> Result<Self, Rejection> {
        let mut signers = match &command {
            Command::Transfer { from, .. } => vec![*from],
            Command::Settle { terms } => terms.legs.iter().map(|leg| leg.payer).collect(),
        };
        signers.sort_unstable();
        signers.dedup();
        let body = context.body(None, signers, Intent::Command(command));
        Self::check(body, &context.identity, &context.limits)
    }

    /// The transaction's identifier.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// What is signed, decoded.
    #[must_use]
    pub const fn body(&self) -> &Body {
        &self.body
    }

    /// The outputs that it creates once it happens, for later members of the same group to spend. A command's are not
    /// known before it happens.
    #[must_use]
    pub fn outputs(&self) -> Vec<LiveOutput> {
        expected_outputs(&self.id, &self.body)
    }

    /// The canonical bytes of the body. Whoever signs elsewhere decodes them ([`borsh`]), looks at what they say, and
    /// signs [`Body::signed_message`] of what it saw.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        canonical_bytes(&self.body)
    }

    /// Size of the signed transaction, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Who has to sign, ascending.
    #[must_use]
    pub fn required_signers(&self) -> &[Party] {
        &self.body.signers
    }

    /// Who has not signed yet, ascending.
    #[must_use]
    pub fn missing_signers(&self) -> Vec<Party> {
        self.body.signers.iter().filter(|party| !self.signatures.contains_key(party)).copied().collect()
    }

    /// Signs with a key at hand.
    ///
    /// # Errors
    /// Where the key's party is not a signer.
    pub fn sign(mut self, key: &Key) -> Result<Self, SignatureFault> {
        let party = key.party();
        self.expect_signer(&party)?;
        self.signatures.insert(party, key.signing_key().sign(&self.message()));
        Ok(self)
    }

    /// Adds a signature made elsewhere.
    ///
    /// # Errors
    /// Where it is not that of a signer over this transaction.
    pub fn add_signature(mut self, signer: Party, signature: Signature) -> Result<Self, SignatureFault> {
        self.expect_signer(&signer)?;
        if !(Claim { signer, message: self.message(), signature }).holds() {
            return Err(SignatureFault::False(signer));
        }
        self.signatures.insert(signer, signature);
        Ok(self)
    }

    fn message(&self) -> [u8; 48] {
        transaction_message(&self.id, self.body.atomic.as_ref())
    }

    fn expect_signer(&self, party: &Party) -> Result<(), SignatureFault> {
        let named = self.body.signers.binary_search(party).is_ok();
        if named { Ok(()) } else { Err(SignatureFault::NotASigner(*party)) }
    }

    /// The transaction with all its signatures.
    ///
    /// # Errors
    /// Where some are missing.
    pub fn finish(self) -> Result<SignedTransaction, SignatureFault> {
        let missing = self.missing_signers();
        if !missing.is_empty() {
            return Err(SignatureFault::Missing(missing));
        }
        let (id, valid_until) = (self.id, self.body.valid_until);
        // both maps are in the signers' ascending order
        let signatures = self.signatures.into_values().collect();
        let bytes = Transaction { body: self.body, signatures }.encode().into();
        Ok(SignedTransaction { id, valid_until, bytes })
    }
}

/// Binds transactions into an atomic group: all of them happen or none. They are submitted together and in this
/// order ([`crate::Client::submit_group`]), and later ones may spend what earlier ones create
/// ([`Prepared::outputs`]). Signatures for a group are made after this, and are worth nothing outside it.
///
/// # Errors
/// Where a member already belongs to a group, or their number is beyond the limit.
pub fn group(members: Vec<Prepared>, limits: &Limits) -> Result<Vec<Prepared>, BuildFault> {
    if members.is_empty() || members.len() > limits.group_members_max {
        return Err(BuildFault::GroupSize { members: members.len(), members_max: limits.group_members_max });
    }
    let ids: Vec<TransactionId> = members.iter().map(Prepared::id).collect();
    let twice = |position: &usize| ids.iter().take(*position).any(|id| ids.get(*position) == Some(id));
    if let Some(member) = (0..ids.len()).find(twice) {
        return Err(BuildFault::MemberTwice { member });
    }
    if let Some(position) = members.iter().position(|member| member.body.atomic.is_some()) {
        return Err(BuildFault::GroupedTwice { member: position });
    }
    let group = AtomicGroupId::of(&ids);
    let bind = |member: Prepared| {
        let body = Body { atomic: Some(group), ..member.body };
        let identity = LedgerIdentity { cluster: body.cluster, group: body.group };
        // the group's name makes the body longer, so its size is judged again
        Prepared::check(body, &identity, limits).map_err(BuildFault::from)
    };
    members.into_iter().map(bind).collect()
}

/// What a transaction creates once it happens. Its place in the order is not known yet and stands as 0.
#[must_use]
pub fn expected_outputs(id: &TransactionId, body: &Body) -> Vec<LiveOutput> {
    let live = |(index, (output, contract))| LiveOutput {
        id: output,
        origin: Origin { transaction: *id, index },
        place: Place { sequence: Sequence::default(), index },
        contract,
    };
    (0_u16..).zip(Effects::of(id, body).created).map(live).collect()
}

/// A transaction ready to be submitted, again and again if need be: the same bytes happen at most once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    id: TransactionId,
    valid_until: LogTime,
    bytes: Bytes,
}

impl SignedTransaction {
    /// Reads a transaction that was signed elsewhere.
    ///
    /// # Errors
    /// [`Rejection::Malformed`] where the bytes are not exactly one canonical transaction.
    pub fn decode(bytes: Bytes) -> Result<Self, Rejection> {
        let received = ReceivedTransaction::decode(&bytes).map_err(|_reason| Rejection::Malformed {})?;
        let valid_until = received.transaction().body.valid_until;
        Ok(Self { id: received.id(), valid_until, bytes })
    }

    /// The transaction's identifier.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.id
    }

    /// The log time from which on it can no longer happen.
    #[must_use]
    pub const fn valid_until(&self) -> LogTime {
        self.valid_until
    }

    /// The canonical bytes.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}
