//! What the protocol bounds, so that no transaction, bundle or client can exhaust a replica.

/// Limits that every transaction keeps; refused with a reason of its own where it does not. They are constants
/// of the protocol version: a replica that judged by other limits would compute other outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Encoded transaction, in bytes.
    pub transaction_bytes_max: usize,
    /// Signers of one transaction.
    pub signers_max: usize,
    /// Consumed outputs of one transaction.
    pub inputs_max: usize,
    /// Referenced outputs of one transaction.
    pub references_max: usize,
    /// Created outputs of one transaction.
    pub outputs_max: usize,
    /// Supply changes of one transaction.
    pub supply_max: usize,
    /// Terms proposed, settled or rejected by one transaction.
    pub terms_max: usize,
    /// Legs of one terms.
    pub legs_max: usize,
    /// Members of one atomic group.
    pub group_members_max: usize,
    /// Furthest that `valid_until` may lie ahead of log time, in milliseconds.
    pub validity_ms_max: u64,
    /// Positions that one command may consume.
    pub command_inputs_max: usize,
    /// Transactions of one bundle.
    pub bundle_transactions_max: usize,
    /// Encoded bundle, in bytes.
    pub bundle_bytes_max: usize,
}

impl Limits {
    /// The limits of protocol version 1. A settlement takes about 1 KiB in a transaction, so that the byte limit
    /// holds some 250 of them; a bundle of 4 MiB stays far below what one Raft message may carry.
    pub const V1: Self = Self {
        transaction_bytes_max: 256 * 1024,
        signers_max: 512,
        inputs_max: 1_024,
        references_max: 64,
        outputs_max: 2_048,
        supply_max: 64,
        terms_max: 256,
        legs_max: 64,
        group_members_max: 64,
        validity_ms_max: 24 * 3_600 * 1_000,
        command_inputs_max: 256,
        bundle_transactions_max: 4_096,
        bundle_bytes_max: 4 * 1024 * 1024,
    };
}

const _: () = assert!(
    Limits::V1.transaction_bytes_max * Limits::V1.group_members_max <= 16 * 1024 * 1024,
    "a whole group must fit in the largest message"
);
const _: () = assert!(Limits::V1.outputs_max <= 65_535, "output indexes are 16 bits");
