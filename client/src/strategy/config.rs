//! Which strategy, as a value and as text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::plan::SplitPlan;

/// Requests of a transaction where the text says nothing: what the settlement document's transactions hold.
const BATCH: usize = 50;
/// How long the first request of a batch waits for others at most, where the text says nothing. It is what a busy ledger
/// needs to fill batches; on an idle one half of a transaction's time is less, and bounds it.
const LINGER: Duration = Duration::from_millis(10);
/// How long a burst is gathered before it is planned.
const GATHER: Duration = Duration::from_millis(20);
/// Positions of a pool where the text says nothing.
const TARGET: usize = 100;
/// Positions of one asset from which on they are netted.
const NET_AT: usize = 100;

/// Which strategy. As text: `naive`, `serial`, `batching[:N]`, `per-position[:N]`, `bookkeeping[:N]`, `shards[:S[:N]]`,
/// `p99[:S[:N]]`, `split`, `command`, with N requests per transaction and S positions in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StrategyConfig {
    /// Every request at once with the same position. One wins, the others are rejected: a demonstration.
    Naive,
    /// One request after another.
    Serial,
    /// Batches of requests, one batch after another.
    Batching {
        /// Requests of a transaction at most.
        batch: usize,
        /// How long the first one waits for others at most, and never longer than half of what transactions take.
        linger: Duration,
    },
    /// The same for each asset by itself; an asset's positions are merged whenever one is touched.
    PerPosition {
        /// Requests of a transaction at most; 1 for none together.
        batch: usize,
        /// How long the first one waits for others at most, and never longer than half of what transactions take.
        linger: Duration,
    },
    /// Signed positions under a grant: nothing to wait for. Netted in the background.
    Bookkeeping {
        /// Requests of a transaction at most.
        batch: usize,
        /// How long the first one waits for others at most, and never longer than half of what transactions take.
        linger: Duration,
        /// Positions of one asset from which on they are netted.
        net_at: usize,
    },
    /// About so many positions, each in one transaction at a time.
    Shards {
        /// How many positions.
        target: usize,
        /// Requests of a transaction at most.
        batch: usize,
        /// How long the first one waits for others at most, and never longer than half of what transactions take.
        linger: Duration,
    },
    /// Positions between the 99th percentile of the requests' sizes and twice that, and one large remainder.
    P99 {
        /// How many positions, the remainder included.
        target: usize,
        /// Requests of a transaction at most.
        batch: usize,
        /// How long the first one waits for others at most, and never longer than half of what transactions take.
        linger: Duration,
    },
    /// Bursts: the position is split into a tree, then everything settles in parallel.
    Split {
        /// The tree; without one the planner finds the fastest.
        plan: Option<SplitPlan>,
        /// How long a burst is gathered.
        gather: Duration,
    },
    /// Inputs are chosen by the ledger after ordering. Every payer signs.
    Command,
}

/// A text that names no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no strategy: {0:?}. Say naive, serial, batching[:N], per-position[:N], bookkeeping[:N], shards[:S[:N]], p99[:S[:N]], split or command"
)]
pub struct StrategyConfigFault(String);

impl StrategyConfig {
    /// Its name, without numbers.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Serial => "serial",
            Self::Batching { .. } => "batching",
            Self::PerPosition { .. } => "per-position",
            Self::Bookkeeping { .. } => "bookkeeping",
            Self::Shards { .. } => "shards",
            Self::P99 { .. } => "p99",
            Self::Split { .. } => "split",
            Self::Command => "command",
        }
    }
}

impl FromStr for StrategyConfig {
    type Err = StrategyConfigFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || StrategyConfigFault(text.to_owned());
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let numbers: Vec<usize> = parts
            .map(|part| part.parse().ok().filter(|number| *number > 0).ok_or_else(fault))
            .collect::<Result<_, _>>()?;
        let linger = LINGER;
        let config = match (name, numbers.as_slice()) {
            ("naive", []) => Self::Naive,
            ("serial", []) => Self::Serial,
            ("split", []) => Self::Split { plan: None, gather: GATHER },
            ("command", []) => Self::Command,
            ("batching", []) => Self::Batching { batch: BATCH, linger },
            ("batching", [batch]) => Self::Batching { batch: *batch, linger },
            ("per-position", []) => Self::PerPosition { batch: 1, linger: Duration::ZERO },
            ("per-position", [batch]) => Self::PerPosition { batch: *batch, linger },
            ("bookkeeping", []) => Self::Bookkeeping { batch: 1, linger: Duration::ZERO, net_at: NET_AT },
            ("bookkeeping", [batch]) => Self::Bookkeeping { batch: *batch, linger, net_at: NET_AT },
            ("shards", []) => Self::Shards { target: TARGET, batch: 1, linger: Duration::ZERO },
            ("shards", [target]) => Self::Shards { target: *target, batch: 1, linger: Duration::ZERO },
            ("shards", [target, batch]) => Self::Shards { target: *target, batch: *batch, linger },
            ("p99", []) => Self::P99 { target: TARGET, batch: 1, linger: Duration::ZERO },
            ("p99", [target]) => Self::P99 { target: *target, batch: 1, linger: Duration::ZERO },
            ("p99", [target, batch]) => Self::P99 { target: *target, batch: *batch, linger },
            _ => return Err(fault()),
        };
        Ok(config)
    }
}

impl fmt::Display for StrategyConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Naive | Self::Serial | Self::Split { .. } | Self::Command => formatter.write_str(name),
            Self::Batching { batch, .. } | Self::PerPosition { batch, .. } | Self::Bookkeeping { batch, .. } => {
                write!(formatter, "{name}:{batch}")
            }
            Self::Shards { target, batch, .. } | Self::P99 { target, batch, .. } => {
                write!(formatter, "{name}:{target}:{batch}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "naive",
            "serial",
            "batching:7",
            "per-position:1",
            "bookkeeping:50",
            "shards:10:5",
            "p99:100:1",
            "split",
            "command",
        ] {
            assert_eq!(text.parse::<StrategyConfig>().map(|config| config.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "fast", "serial:2", "batching:0", "batching:x", "shards:1:2:3"] {
            assert!(text.parse::<StrategyConfig>().is_err(), "{text}");
        }
    }
}
