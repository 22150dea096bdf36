//! Why a transaction is rejected: numbered for ever, ordered by precedence, with the evidence.
//!
//! Numbers 100–199 are order-free (the transaction alone shows them; it never enters the order), 200–299 are
//! order-bound (they depend on the place in the order, and are outcomes). Where several hold, the lowest number
//! is reported, except that the inputs of a transaction are judged in their own order, as are its references;
//! that [`Rejection::GroupMemberRejected`] is also what the rest of a group gets when one member fails before the
//! order; and that [`Rejection::GroupMemberSequenced`] bars a group before its members are looked at.

use std::io::{self, Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};

use crate::asset::AssetType;
use crate::identifier::{OutputId, Party, TermsId, TransactionId};
use crate::quantity::{LogTime, Quantity, Sequence};

/// What a count in [`Rejection::TooMany`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Counted {
    /// Signers.
    Signers,
    /// Consumed outputs.
    Inputs,
    /// Referenced outputs.
    References,
    /// Created outputs.
    Outputs,
    /// Supply changes.
    SupplyChanges,
    /// Terms.
    Terms,
    /// Legs of one terms.
    Legs,
    /// Members of an atomic group.
    GroupMembers,
}

macro_rules! rejections {
    ($($(#[doc = $doc:literal])+ $code:literal $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)* } => $advice:literal;)+) => {
        /// A numbered reason with its evidence. The sender's mistake, and the same on every replica.
        ///
        /// Its encoding begins with the number, so that new reasons never change what is in the log.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Rejection {
            $($(#[doc = $doc])+ $name { $($(#[doc = $field_doc])+ $field: $type,)* },)+
        }

        impl Rejection {
            /// The reason's number, for ever.
            #[must_use]
            pub const fn code(&self) -> u16 {
                match self { $(Self::$name { .. } => $code,)+ }
            }

            /// The reason's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name),)+ }
            }

            /// The evidence, field by field, in words.
            #[must_use]
            pub fn evidence(&self) -> Vec<(&'static str, String)> {
                match self {
                    $(Self::$name { $($field),* } => vec![$((stringify!($field), $field.to_string())),*],)+
                }
            }
        }

        impl BorshSerialize for Rejection {
            fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
                self.code().serialize(writer)?;
                match self {
                    $(Self::$name { $($field),* } => {
                        $($field.serialize(writer)?;)*
                    })+
                }
                Ok(())
            }
        }

        impl BorshDeserialize for Rejection {
            fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
                match u16::deserialize_reader(reader)? {
                    $($code => Ok(Self::$name { $($field: <$type>::deserialize_reader(reader)?),* }),)+
                    unknown => {
                        let message = format!("no reason has the number {unknown}");
                        Err(io::Error::new(io::ErrorKind::InvalidData, message))
                    }
                }
            }
        }

        /// Every reason, ascending: number, name, meaning, what to do.
        pub const CATALOGUE: &[RejectionEntry] = &[
            $(RejectionEntry {
                code: $code,
                name: stringify!($name),
                meaning: concat!($($doc),+).trim_ascii(),
                advice: $advice,
            },)+
        ];
    };
}

/// One line of the catalogue of reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RejectionEntry {
    /// The number.
    pub code: u16,
    /// The name in source and on the wire.
    pub name: &'static str,
    /// What was found.
    pub meaning: &'static str,
    /// What the sender can do.
    pub advice: &'static str,
}

rejections! {
    /// The bytes are not the canonical encoding of one transaction.
    100 Malformed {} => "Encode with the client library of this protocol version; nothing may follow the transaction.";
    /// The encoded transaction is larger than the limit.
    101 TooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        bytes_max: u64,
    } => "Split it into several transactions, or put fewer settlements into each.";
    /// The transaction names another ledger.
    102 WrongCluster {} => "Connect to the ledger that it was signed for, or build and sign it for this one.";
    /// The transaction names a Raft group that does not order here.
    103 WrongGroup {
        /// The group it names.
        group: u16,
    } => "Use group 0.";
    /// More of something than the limit allows.
    104 TooMany {
        /// What.
        counted: Counted,
        /// How many.
        count: u64,
        /// The limit.
        count_max: u64,
    } => "Split the work over several transactions; the limits are served with the cluster's description.";
    /// The transaction consumes nothing, creates nothing and changes no supply.
    105 Empty {} => "Give it inputs, outputs or a command.";
    /// The signers are not in strictly ascending order, so that one might count twice.
    106 SignersUnsorted {
        /// Index of the first signer out of order.
        signer: u16,
    } => "Sort the signers by their key bytes and name each once.";
    /// There is not exactly one signature per signer.
    107 SignatureCount {
        /// Signatures present.
        signatures: u64,
        /// Signers named.
        signers: u64,
    } => "Collect one signature from every signer, in the signers' order.";
    /// One output is named twice among inputs and references.
    108 DuplicateInput {
        /// The output.
        output: OutputId,
    } => "Name every input and reference once.";
    /// A quantity is zero, or not above zero where it has to be.
    109 QuantityOutOfRange {
        /// Which part of the transaction holds it.
        part: Part,
        /// Its index in that part.
        index: u16,
    } => "Leave out empty outputs; legs and allocations carry quantities above zero.";
    /// Terms have fewer than two legs, or a leg pays its own payer.
    110 TermsMalformed {
        /// The terms.
        terms: TermsId,
    } => "Terms need two legs or more, each between two different parties.";
    /// The same terms are revealed twice in one transaction.
    111 DuplicateTerms {
        /// The terms.
        terms: TermsId,
    } => "Name each terms once; give equal trades different nonces.";
    /// The right that an input claims does not fit its contract.
    112 WrongUnlock {
        /// Index of the input.
        input: u16,
    } => "Positions and grants unlock by their owner; allocations by settle, withdraw, reject or expire.";
    /// A reference names a contract that is not a grant.
    113 WrongReference {
        /// Index of the reference.
        reference: u16,
    } => "Only bookkeeping grants are referenced; consume everything else as an input.";
    /// An allocation does not match its leg of terms revealed for this use.
    114 AllocationMismatch {
        /// Which part of the transaction holds it.
        part: Part,
        /// Its index in that part.
        index: u16,
    } => "Reveal the terms with the matching action; leg, payer, asset and quantity must be the leg's own.";
    /// Terms are revealed, and nothing in the transaction concerns them.
    115 TermsUnused {
        /// The terms.
        terms: TermsId,
    } => "Leave out terms that are not proposed, settled or rejected here.";
    /// A party whose right is used is not among the signers.
    116 MissingSigner {
        /// The party.
        party: Party,
        /// Which part of the transaction needs it.
        part: Part,
        /// Index in that part.
        index: u16,
    } => "Add the party to the signers and have it sign.";
    /// A leg is funded by more than one allocation.
    117 LegFundedTwice {
        /// The terms.
        terms: TermsId,
        /// The leg.
        leg: u16,
    } => "Settle with one allocation per leg; withdraw the others.";
    /// A leg has neither an allocation nor its payer's signature.
    118 LegUnfunded {
        /// The terms.
        terms: TermsId,
        /// The leg.
        leg: u16,
    } => "Consume the leg's allocation, or have its payer sign and spend positions.";
    /// A party that did not sign is paid less than it is due.
    119 Underpaid {
        /// The party.
        party: Party,
        /// Of which asset.
        asset: AssetType,
        /// What it is due from settled legs and returned allocations.
        due: Quantity,
        /// What the outputs pay it.
        paid: Quantity,
    } => "Create positions for everything that settled legs and returned allocations owe.";
    /// A sum of quantities leaves 128 bits.
    120 Overflow {
        /// Of which asset.
        asset: AssetType,
    } => "Use quantities whose sums fit a signed 128-bit integer.";
    /// Inputs and supply changes of an asset do not equal its outputs.
    121 NotConserved {
        /// The asset.
        asset: AssetType,
        /// What comes in.
        inflow: Quantity,
        /// What goes out.
        outflow: Quantity,
    } => "Add change outputs, or a supply change signed by the issuer.";
    /// A negative position is created and no bookkeeping grant for it is referenced.
    122 GrantMissing {
        /// Index of the output.
        output: u16,
    } => "Reference the issuer's grant for this owner and asset, or keep positions above zero.";
    /// Supply changes are zero, repeated or out of order.
    123 SupplyMalformed {
        /// Index of the supply change.
        index: u16,
    } => "Name each asset once, ascending, with a quantity that is not zero.";
    /// A command's parties or terms cannot stand.
    124 CommandMalformed {} => "A command pays between two different parties, or settles well-formed terms.";
    /// The transaction is a member of an atomic group that is not here whole and in order.
    125 GroupIncomplete {} => "Submit all members of the group together, in the order in which they were grouped.";
    /// A signature is not the signer's over this transaction.
    126 SignatureInvalid {
        /// Index of the signer.
        signer: u16,
    } => "Sign the transaction's identifier with the signer's key; any later change of the body needs new signatures.";
    /// Log time had reached the transaction's `valid_until`.
    200 Expired {
        /// The log time of its batch.
        log_time: LogTime,
    } => "Nothing happened. Build it again with a later valid_until.";
    /// `valid_until` lies further ahead than the limit. The transaction has no place in the order, and may get one
    /// when its end is near enough and somebody submits it again.
    201 ValidityTooLong {
        /// The latest `valid_until` that would have been taken.
        latest: LogTime,
    } => "Use a nearer valid_until.";
    /// The ledger does not contain the head that the client signed: it forked or was rolled back, or the head is older
    /// than the history that is kept.
    202 HeadUnknown {
        /// The size of the signed head.
        size: Sequence,
    } => "Look up a newer head. Where the old one is younger than the history that is kept, stop and compare heads with other parties: the ledger you saw before is not this one.";
    /// An allocation is returned as expired before its expiry.
    203 NotYetExpired {
        /// Index of the input.
        input: u16,
        /// Its expiry.
        expires_at: LogTime,
    } => "Wait for the expiry, or let the payer withdraw or a counterparty reject.";
    /// An allocation is settled at or after its expiry.
    204 AllocationExpired {
        /// Index of the input.
        input: u16,
        /// Its expiry.
        expires_at: LogTime,
    } => "Return the allocation and propose again with a later expiry.";
    /// An input was never created at or before this place in the order, with this content.
    205 InputUnknown {
        /// Index of the input.
        input: u16,
        /// The output it names.
        output: OutputId,
    } => "Check origin and content, and submit after the transaction that creates it.";
    /// An input was consumed earlier in the order.
    206 InputSpent {
        /// Index of the input.
        input: u16,
        /// The output it names.
        output: OutputId,
        /// The transaction that consumed it.
        winner: TransactionId,
    } => "Another transaction won the race. Choose other inputs and build a new transaction; resending this one never helps.";
    /// A reference was never created at or before this place in the order, with this content.
    207 ReferenceUnknown {
        /// Index of the reference.
        reference: u16,
        /// The output it names.
        output: OutputId,
    } => "Check the grant's origin and content.";
    /// A referenced grant was revoked earlier in the order.
    208 ReferenceSpent {
        /// Index of the reference.
        reference: u16,
        /// The output it names.
        output: OutputId,
        /// The transaction that revoked it.
        winner: TransactionId,
    } => "Ask the issuer for a new grant.";
    /// Another member of the atomic group was rejected, so none of it happened.
    209 GroupMemberRejected {
        /// Index of the first rejected member in the group.
        member: u16,
        /// That member's reason.
        code: u16,
    } => "See the named member's own reason; then build the whole group again.";
    /// A command found less than it needs in the payer's positions.
    210 InsufficientFunds {
        /// The payer.
        party: Party,
        /// Of which asset.
        asset: AssetType,
        /// What it found.
        available: Quantity,
    } => "Fund the payer, or send less.";
    /// A command found the funds in more positions than one command may consume.
    211 TooFragmented {
        /// The payer.
        party: Party,
        /// Of which asset.
        asset: AssetType,
    } => "Merge the payer's positions first.";
    /// Another member of the atomic group had been sequenced before, alone or in another group, so the group can no
    /// longer happen as a whole.
    212 GroupMemberSequenced {
        /// Index of the first member that had been sequenced.
        member: u16,
    } => "Look up the named member's outcome; then build what is still wanted as a new group.";
}

/// The parts of a transaction that evidence points into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Part {
    /// `inputs`.
    Input,
    /// `outputs`.
    Output,
    /// `supply`.
    Supply,
    /// `terms` (the index is that of the terms entry).
    Terms,
    /// The command's payments.
    Command,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let entry = CATALOGUE.iter().find(|entry| entry.code == self.code());
        let meaning = entry.map_or("", |entry| entry.meaning);
        write!(formatter, "{} {}: {meaning}", self.code(), self.name())?;
        self.evidence().iter().try_for_each(|(field, value)| write!(formatter, " {field}={value}"))
    }
}

impl std::fmt::Display for Counted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Signers => "signers",
            Self::Inputs => "inputs",
            Self::References => "references",
            Self::Outputs => "outputs",
            Self::SupplyChanges => "supply changes",
            Self::Terms => "terms",
            Self::Legs => "legs",
            Self::GroupMembers => "group members",
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Input => "inputs",
            Self::Output => "outputs",
            Self::Supply => "supply",
            Self::Terms => "terms",
            Self::Command => "command",
        })
    }
}
