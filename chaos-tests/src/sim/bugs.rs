//! Flaws of the simulated world that the checks must find. Production code is the same with and without.
//!
//! Each stands for a bug that production code could have below or beside the seams: a disk, a store, a validator or a
//! client library that does not do what it says. Which check has to find it is part of its definition: a flaw that is
//! only noticed by accident is not found.

use sequencer::NodeId;

use crate::check::Property;

/// Defines the flaws: name, what it is, which node it strikes, what must find it (a property, or a check in the product that
/// stops a node with these words), within how many seeds.
macro_rules! flaws {
    ($($(#[doc = $doc:literal])+ $name:ident, strikes $strikes:expr, found by $($property:ident)|+ $(or stopped by $words:literal)?, within $seeds:literal;)+) => {
        /// A flaw of the simulated world.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum PlantedBug {
            $($(#[doc = $doc])+ $name,)+
        }

        impl PlantedBug {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it is, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The properties of which one has to be found violated.
            #[must_use]
            pub const fn found_by(self) -> &'static [Property] {
                match self { $(Self::$name => &[$(Property::$property),+],)+ }
            }

            /// Words of the check in the product that stops a node because of it, which is as good.
            #[must_use]
            pub const fn stopped_by(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($words)?],)+ }
            }

            /// Seeds within which it has to be found.
            #[must_use]
            pub const fn seeds(self) -> u64 {
                match self { $(Self::$name => $seeds,)+ }
            }

            const fn struck(self) -> Struck {
                match self { $(Self::$name => $strikes,)+ }
            }
        }
    };
}

/// Whose disk has a flaw.
enum Struck {
    Nobody,
    Everybody,
    Node(NodeId),
}

flaws! {
    /// Logs say that a batch is durable long before it is.
    AcknowledgeBeforeSync, strikes Struck::Everybody, found by Acknowledgements | EqualReplicas, within 20;
    /// Logs say that a vote is durable long before it is.
    VoteBeforeSync, strikes Struck::Everybody, found by Acknowledgements | EqualReplicas, within 1_000;
    /// Logs say that what contradicts a new leader is gone long before it is.
    TruncationBeforeSync, strikes Struck::Everybody, found by Acknowledgements | EqualReplicas, within 1_000;
    /// Logs forget the vote at a power cut.
    VoteNotDurable, strikes Struck::Everybody, found by EqualReplicas | Acknowledgements, within 40;
    /// Logs lose their last durable entry at a power cut.
    TornTail, strikes Struck::Everybody, found by Acknowledgements | EqualReplicas, within 40;
    /// What is known to be committed outlives a power cut that the entries do not outlive.
    CommittedAheadOfLog, strikes Struck::Everybody, found by EqualReplicas | Acknowledgements or stopped by "is known to be committed", within 100;
    /// A log whose disk fails goes on as if it did not.
    SyncErrorSwallowed, strikes Struck::Everybody, found by Acknowledgements | EqualReplicas, within 300;
    /// The log of node 1 gives entries with a byte changed, and no checksum notices.
    LogRot, strikes Struck::Node(1), found by EqualReplicas, within 20;
    /// The disk of node 1 loses a live output at each flush, unnoticed.
    LoseLiveOutput, strikes Struck::Node(1), found by EqualReplicas | Acknowledgements, within 40;
    /// Snapshots of the ledger lack the table of transactions that were sequenced.
    SnapshotForgetsTransactions, strikes Struck::Everybody, found by EqualReplicas | OneOutcome, within 60;
    /// A snapshot says that it is newer than its content.
    SnapshotAheadOfContent, strikes Struck::Everybody, found by EqualReplicas or stopped by "but was promised", within 60;
    /// Taking in a snapshot leaves the rows in place that it does not have.
    RestoreKeepsOldRows, strikes Struck::Everybody, found by EqualReplicas or stopped by "do not add up to the head", within 60;
    /// Node 2 loses its disk at every crash, and takes part again under its number.
    WipedNodeRejoins, strikes Struck::Nobody, found by Acknowledgements | EqualReplicas, within 100;
    /// Validators certify every transaction, whatever it is.
    ValidatorApprovesAll, strikes Struck::Nobody, found by Authority | Outcomes, within 40;
    /// Validators' verdicts are those on the transactions before.
    ShiftedVerdicts, strikes Struck::Nobody, found by Authority | Outcomes, within 40;
    /// Reads that should be linearizable reflect whatever the replica has.
    ReadLocally, strikes Struck::Nobody, found by RealTime, within 20;
    /// Reads that should be fresh enough reflect whatever the replica has.
    ReadTooEarly, strikes Struck::Nobody, found by Reads, within 60;
    /// Reads leave out an output now and then.
    ReadMissesOutput, strikes Struck::Nobody, found by Reads, within 10;
    /// Now and then an acknowledged outcome reaches the client as another one.
    GarbleAnswer, strikes Struck::Nobody, found by Acknowledgements, within 10;
    /// Now and then a client is told that what happened was refused.
    RefuseWhatHappened, strikes Struck::Nobody, found by Authority | Acknowledgements, within 10;
}

impl PlantedBug {
    /// Whether finding it may take hundreds of seeds: then it is hunted for only where there is time.
    #[must_use]
    pub const fn is_rare(self) -> bool {
        self.seeds() > 300
    }

    /// Whether it is on the disk of this node.
    #[must_use]
    pub fn strikes(self, node: NodeId) -> bool {
        match self.struck() {
            Struck::Nobody => false,
            Struck::Everybody => true,
            Struck::Node(struck) => struck == node,
        }
    }
}
