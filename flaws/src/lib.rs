//! Bugs of production code that can be planted, for the tests of the tests: each must be found by a check.
//!
//! Where production code could go wrong, it asks [`is_planted`]. Without the feature `planted` that is `false` at compile
//! time, and nothing of the flaw is in the build; the binary refuses to be built with it. With it, one thread at a time
//! has one flaw: a simulated cluster runs in one thread, so clusters beside each other have flaws of their own.

use std::fmt;

/// Whether flaws can be planted in this build.
pub const COMPILED: bool = cfg!(feature = "planted");

macro_rules! flaws {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Flaw {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Flaw {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// What it is, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

flaws! {
    /// A restarted leader goes on in its term, as openraft does by default.
    LeaderRestored;
    /// Appended entries are reported as durable when they are queued.
    AppendBeforeSync;
    /// A vote is given when it is queued.
    VoteBeforeSync;
    /// A failed sync of the log is taken for a successful one.
    SyncErrorSwallowed;
    /// A snapshot is said to be made before it is, and the log is purged behind it, whatever the state could restart from.
    PurgeBeforeFlush;
    /// A snapshot older than the state is installed over it.
    OldSnapshotInstalled;
    /// Linearizable reads believe the node that answers, whoever leads.
    ReadWithoutMajority;
    /// Reads do not wait until the replica is as fresh as was asked for.
    ReadWithoutWaiting;
    /// The position in the log is written before the changes that it reflects.
    FlushInTwoSteps;
    /// A transaction that was sequenced before is sequenced again.
    NoDeduplication;
    /// Within a batch, inputs are judged by the state before it.
    StaleInputs;
    /// An allocation that was returned or settled is not consumed.
    AllocationStays;
    /// Where a member of a group is rejected, those before it stay committed.
    HalfAGroup;
    /// Log time is what the leader's clock says, also where that runs backwards.
    LogTimeRunsBack;
    /// A replica's outcomes come in an order of chance.
    OutcomesByChance;
    /// Certificates are believed without their signatures.
    CertificateUnchecked;
    /// Signatures of transactions are not verified.
    SignatureUnchecked;
    /// Verdicts are those on the transactions before.
    VerdictsShifted;
    /// A gateway that does not know an outcome in time says that nothing happened.
    UnknownIsRefused;
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self:?}")
    }
}

#[cfg(not(feature = "planted"))]
mod planted {
    use super::Flaw;

    /// Whether this bug is to show.
    #[inline]
    #[must_use]
    pub const fn is_planted(_flaw: Flaw) -> bool {
        false
    }

    /// True or false, by chance.
    #[inline]
    #[must_use]
    pub const fn toss() -> bool {
        false
    }
}

#[cfg(feature = "planted")]
mod planted {
    use std::cell::Cell;
    use std::hash::{BuildHasher, RandomState};

    use super::Flaw;

    thread_local! {
        static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
    }

    /// Whether this bug is to show.
    #[must_use]
    pub fn is_planted(flaw: Flaw) -> bool {
        PLANTED.get() == Some(flaw)
    }

    /// True or false, by chance.
    #[must_use]
    pub fn toss() -> bool {
        RandomState::new().hash_one(0) % 2 == 0
    }

    /// Plants a bug in whatever this thread runs from now on, or none.
    pub fn plant(flaw: Option<Flaw>) {
        PLANTED.set(flaw);
    }
}

pub use planted::*;
