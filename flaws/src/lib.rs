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
    /// What contradicts a new leader is said to be gone when that is queued.
    TruncationBeforeSync;
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
    /// Certificates are believed that were made under an earlier set of validators.
    OldEpochAccepted;
    /// Whether something has expired is judged by the clock of the machine that asks.
    ExpiryByLocalClock;
    /// An attestation is kept whether or not it continues its prover's last one.
    AttestationLinkUnchecked;
    /// A learner takes the place of another voter in one step, without the majorities of both.
    MembersInOneStep;
    /// A restarted node takes all of its log into its state, and writes it out, whatever a majority has synced.
    StatePastLog;
    /// The dependency analysis links nobody: transactions that change the same output are resolved apart.
    ConflictsUnlinked;
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

    /// What some machine's own clock shows where the log says this, both in milliseconds.
    #[inline]
    #[must_use]
    pub const fn local_clock(log_time: u64) -> u64 {
        log_time
    }
}

#[cfg(feature = "planted")]
mod planted {
    use std::cell::Cell;

    use super::Flaw;

    /// How wrong a machine's own clock is at most, in milliseconds.
    const LOCAL_CLOCK_WRONG_BY: u64 = 1_000;

    thread_local! {
        static PLANTED: Cell<Option<Flaw>> = const { Cell::new(None) };
        /// What chance has drawn since the flaw was planted: a seed's flaws come out the same every time.
        static DRAWN: Cell<u64> = const { Cell::new(0) };
    }

    /// The next of a fixed sequence of numbers (SplitMix64).
    fn draw() -> u64 {
        let state = DRAWN.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        DRAWN.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Whether this bug is to show.
    #[must_use]
    pub fn is_planted(flaw: Flaw) -> bool {
        PLANTED.get() == Some(flaw)
    }

    /// True or false, by chance.
    #[must_use]
    pub fn toss() -> bool {
        draw().is_multiple_of(2)
    }

    /// What some machine's own clock shows where the log says this, both in milliseconds: by chance, because whoever
    /// applies has no clock.
    #[must_use]
    pub fn local_clock(log_time: u64) -> u64 {
        let wrong_by = draw() % (2 * LOCAL_CLOCK_WRONG_BY + 1);
        log_time.saturating_add(wrong_by).saturating_sub(LOCAL_CLOCK_WRONG_BY)
    }

    /// Plants a bug in whatever this thread runs from now on, or none.
    pub fn plant(flaw: Option<Flaw>) {
        PLANTED.set(flaw);
        DRAWN.set(0);
    }
}

pub use planted::*;
