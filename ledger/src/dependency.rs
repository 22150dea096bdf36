//! Which transactions of a batch depend on which: conflicts by kind, levels that may run side by side, the longest
//! chain, and an order of execution that equals the order of the log.
//!
//! Flows in: the named effects of a batch in its order. Flows out: for every output that two transactions name, who
//! must come before whom, and why. What a transaction *names* counts, not whether it commits: the analysis needs no
//! state, and a loser depends on its winner as much as a successor does.
//!
//! Per output the accesses are read in order, keeping the last one that changed it (its creation or a consumption)
//! and those that referenced it since. An access conflicts with that last change, and a change also with each of
//! those references, which are then forgotten. So every access adds one conflict at most as the later side, and
//! every reference one at most as the earlier side: conflicts are fewer than twice the accesses, and what is left
//! out follows through the chain. (A thousand readers before one revocation are a thousand conflicts and not a
//! thousand for every further attempt to revoke.)
//!
//! Deliberately absent: commands, which choose their inputs when they are applied and so depend on everything before
//! them; and atomic groups, whose effects callers merge into one entry where a group must stay together.

use crate::effects::Effects;
use crate::id_map::SeededIds;
use crate::identifier::{OutputId, TransactionId, tagged_hash};

/// How two transactions meet at an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictKind {
    /// The later one spends or references what the earlier one creates (or references what it consumes).
    ReadAfterWrite,
    /// Both consume the output: the first to commit wins.
    WriteAfterWrite,
    /// The later one consumes what the earlier one references (or creates what it named too soon).
    WriteAfterRead,
}

/// Two transactions, by their places in the batch, and the output where they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Conflict {
    /// The place of the transaction that comes first.
    pub earlier: usize,
    /// The place of the one that depends on it.
    pub later: usize,
    /// Why.
    pub kind: ConflictKind,
    /// Where.
    pub output: OutputId,
}

/// The dependencies of one batch. Places count its transactions from 0, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependencies {
    transactions: Vec<TransactionId>,
    conflicts: Vec<Conflict>,
    /// By place.
    levels: Vec<usize>,
    /// By place: the predecessor that decides the level, if any.
    deciding: Vec<Option<usize>>,
}

impl Dependencies {
    /// Analyses a batch in its order, in time linear in the outputs that it names.
    #[must_use]
    pub fn of(batch: &[(TransactionId, &Effects)]) -> Self {
        let transactions: Vec<TransactionId> = batch.iter().map(|(id, _)| *id).collect();
        let names: Vec<&[u8]> = transactions.iter().map(|id| id.as_bytes().as_slice()).collect();
        let outputs = batch.iter().map(|(_, effects)| effects.changed_count()).sum();
        let mut histories = SeededIds::new(&tagged_hash(b"seriatim depends", &names)).map::<OutputId, History>(outputs);
        let mut dependencies = Self { transactions, conflicts: Vec::new(), levels: Vec::new(), deciding: Vec::new() };
        for (place, (_, effects)) in batch.iter().enumerate() {
            let before = dependencies.conflicts.len();
            for (access, output) in accesses(effects) {
                let history = histories.entry(*output).or_default();
                history.access(place, access, *output, &mut dependencies.conflicts);
            }
            dependencies.give_level(before);
        }
        dependencies
    }

    /// The level of the next place, which is the later side of all conflicts from `first` on.
    fn give_level(&mut self, first: usize) {
        let predecessors = self.conflicts.get(first..).unwrap_or_default().iter().map(|conflict| conflict.earlier);
        let ranked = predecessors.map(|place| (self.level(place), std::cmp::Reverse(place)));
        let (level, deciding) = match ranked.max() {
            Some((level, std::cmp::Reverse(place))) => (level.saturating_add(1), Some(place)),
            None => (0, None),
        };
        self.levels.push(level);
        self.deciding.push(deciding);
    }

    fn level(&self, place: usize) -> usize {
        self.levels.get(place).copied().unwrap_or_default()
    }

    /// The transactions in their order.
    #[must_use]
    pub fn transactions(&self) -> &[TransactionId] {
        &self.transactions
    }

    /// The conflicts, ordered by the later transaction.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// The edges of the dependency graph, (earlier, later), each once, ascending by the later place and then by
    /// the earlier one. Every edge leads forward in the order, so the graph has no cycle.
    #[must_use]
    pub fn edges(&self) -> Vec<(usize, usize)> {
        let mut edges: Vec<(usize, usize)> =
            self.conflicts.iter().map(|conflict| (conflict.later, conflict.earlier)).collect();
        edges.sort_unstable();
        edges.dedup();
        edges.into_iter().map(|(later, earlier)| (earlier, later)).collect()
    }

    /// The places by level, each ascending: 0 for what depends on nothing in the batch, otherwise one more than the
    /// highest level among the predecessors. Nothing in a level depends on anything else in it.
    #[must_use]
    pub fn levels(&self) -> Vec<Vec<usize>> {
        let mut levels: Vec<Vec<usize>> = Vec::new();
        for (place, level) in self.levels.iter().enumerate() {
            if levels.len() <= *level {
                levels.resize_with(level.saturating_add(1), Vec::new);
            }
            if let Some(places) = levels.get_mut(*level) {
                places.push(place);
            }
        }
        levels
    }

    /// An order of execution: level by level, and by place inside a level.
    ///
    /// Executing in this order (the transactions of a level even at once) has the outcomes of executing in the
    /// order of the log: an outcome depends on the accesses before it to the outputs that it names, every pair of
    /// accesses of which one is a change is linked by a chain of edges, and edges lead to higher levels only. So
    /// the order between conflicting transactions, and who wins, is always that of the log.
    #[must_use]
    pub fn execution_order(&self) -> Vec<usize> {
        self.levels().into_iter().flatten().collect()
    }

    /// The longest chain of dependent transactions, first to last: no number of threads needs fewer steps. Of
    /// several it is the one through the smallest places, read from its end.
    #[must_use]
    pub fn critical_path(&self) -> Vec<usize> {
        let highest = self.levels.iter().enumerate().max_by_key(|(place, level)| (**level, std::cmp::Reverse(*place)));
        let last = highest.map(|(place, _)| place);
        let mut path: Vec<usize> =
            std::iter::successors(last, |place| self.deciding.get(*place).copied().flatten()).collect();
        path.reverse();
        path
    }

    /// Transactions in the fullest level: more threads than that are of no use.
    #[must_use]
    pub fn width(&self) -> usize {
        self.levels().iter().map(Vec::len).max().unwrap_or(0)
    }
}

/// What a transaction does with an output that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Reference,
    Consume,
    Create,
}

fn accesses(effects: &Effects) -> impl Iterator<Item = (Access, &OutputId)> {
    let referenced = effects.referenced.iter().map(|(id, _)| (Access::Reference, id));
    let consumed = effects.consumed.iter().map(|(id, _)| (Access::Consume, id));
    let created = effects.created.iter().map(|(id, _)| (Access::Create, id));
    referenced.chain(consumed).chain(created)
}

/// The accesses to one output so far, as far as later ones can depend on them directly.
#[derive(Debug, Default)]
struct History {
    last_change: Option<(usize, Access)>,
    references_since: Vec<usize>,
}

impl History {
    fn access(&mut self, place: usize, access: Access, output: OutputId, conflicts: &mut Vec<Conflict>) {
        let mut conflict = |earlier: usize, kind: ConflictKind| {
            // a transaction does not wait for itself
            if earlier != place {
                conflicts.push(Conflict { earlier, later: place, kind, output });
            }
        };
        if let Some((earlier, change)) = self.last_change {
            conflict(earlier, kind_after_change(change, access));
        }
        if access == Access::Reference {
            self.references_since.push(place);
            return;
        }
        for earlier in self.references_since.drain(..) {
            conflict(earlier, ConflictKind::WriteAfterRead);
        }
        self.last_change = Some((place, access));
    }
}

fn kind_after_change(change: Access, access: Access) -> ConflictKind {
    match (change, access) {
        (_, Access::Reference) | (Access::Create, Access::Consume) => ConflictKind::ReadAfterWrite,
        (_, Access::Consume) => ConflictKind::WriteAfterWrite,
        (_, Access::Create) => ConflictKind::WriteAfterRead,
    }
}

#[cfg(test)]
mod tests {
    use super::ConflictKind::{ReadAfterWrite, WriteAfterRead, WriteAfterWrite};
    use super::*;
    use crate::contract::{Contract, Grant};
    use crate::identifier::Party;
    use crate::transaction::Origin;
    use crate::{AssetType, Symbol};

    /// One transaction per line; each word is an access to the output of that number: `r` references, `-` consumes,
    /// `+` creates.
    fn analyse(batch: &str) -> Dependencies {
        let effects: Vec<Effects> =
            batch.lines().map(|line| line.trim()).filter(|line| !line.is_empty()).map(effects).collect();
        let named: Vec<_> =
            (0_u8..).zip(&effects).map(|(n, effects)| (TransactionId::from_bytes([n; 32]), effects)).collect();
        Dependencies::of(&named)
    }

    fn output(number: u8) -> OutputId {
        OutputId::from_bytes([number; 32])
    }

    fn effects(line: &str) -> Effects {
        let party = Party::from_bytes([0; 32]);
        let symbol: Symbol = "USD".parse().expect("a symbol");
        let contract = Contract::Grant(Grant { asset: AssetType { issuer: party, symbol }, owner: party });
        let origin = Origin { transaction: TransactionId::from_bytes([0; 32]), index: 0 };
        let mut effects = Effects::default();
        for word in line.split_whitespace().filter(|word| *word != ".") {
            let (access, number) = word.split_at(1);
            let id = output(number.parse().expect("a number"));
            match access {
                "r" => effects.referenced.push((id, origin)),
                "-" => effects.consumed.push((id, origin)),
                "+" => effects.created.push((id, contract)),
                _ => panic!("unknown access {word}"),
            }
        }
        effects
    }

    fn conflicts(batch: &str) -> Vec<(usize, usize, ConflictKind)> {
        analyse(batch).conflicts().iter().map(|conflict| (conflict.earlier, conflict.later, conflict.kind)).collect()
    }

    #[test]
    fn spending_or_referencing_what_another_creates_is_read_after_write() {
        assert_eq!(conflicts("+1 +2\n -1 +3\n r2"), [(0, 1, ReadAfterWrite), (0, 2, ReadAfterWrite)]);
    }

    #[test]
    fn two_that_consume_one_output_are_write_after_write() {
        assert_eq!(conflicts("-1 \n -1 \n -1"), [(0, 1, WriteAfterWrite), (1, 2, WriteAfterWrite)]);
    }

    #[test]
    fn consuming_what_another_references_is_write_after_read() {
        assert_eq!(conflicts("r1 \n r1 \n -1"), [(0, 2, WriteAfterRead), (1, 2, WriteAfterRead)]);
    }

    #[test]
    fn referencing_what_another_consumed_waits_for_its_fate() {
        assert_eq!(conflicts("-1 \n r1"), [(0, 1, ReadAfterWrite)]);
    }

    #[test]
    fn what_is_named_before_it_is_created_keeps_its_place_before_the_creation() {
        assert_eq!(conflicts("-1 \n r2 \n +1 +2"), [(0, 2, WriteAfterRead), (1, 2, WriteAfterRead)]);
    }

    #[test]
    fn referencing_alone_links_nobody() {
        let dependencies = analyse("r1 \n r1 \n r1");
        assert_eq!(dependencies.conflicts(), []);
        assert_eq!((dependencies.width(), dependencies.levels().len()), (3, 1));
    }

    #[test]
    fn a_transaction_does_not_depend_on_itself() {
        assert_eq!(conflicts("r1 -1 +2 \n ."), []);
    }

    #[test]
    fn many_readers_and_many_writers_make_conflicts_linear_in_both() {
        let readers = "r1\n".repeat(100);
        let writers = "-1\n".repeat(100);
        assert_eq!(conflicts(&format!("{readers}{writers}")).len(), 100 + 99);
    }

    #[test]
    fn levels_critical_path_and_width_follow_the_longest_chains() {
        let dependencies = analyse(
            "+1 +2
             +3
             -1 +4
             -3 +5
             -4 -5 +6
             r9
             -2",
        );
        assert_eq!(dependencies.levels(), [vec![0, 1, 5], vec![2, 3, 6], vec![4]]);
        assert_eq!(dependencies.execution_order(), [0, 1, 5, 2, 3, 6, 4]);
        assert_eq!(dependencies.critical_path(), [0, 2, 4]);
        assert_eq!(dependencies.width(), 3);
        assert_eq!(dependencies.edges(), [(0, 2), (1, 3), (2, 4), (3, 4), (0, 6)]);
    }

    #[test]
    fn two_outputs_between_one_pair_are_two_conflicts_and_one_edge() {
        let dependencies = analyse("+1 +2 \n -1 -2");
        assert_eq!((dependencies.conflicts().len(), dependencies.edges()), (2, vec![(0, 1)]));
    }

    #[test]
    fn an_empty_batch_has_no_levels() {
        let dependencies = analyse("");
        assert_eq!((dependencies.width(), dependencies.critical_path(), dependencies.levels().len()), (0, vec![], 0));
    }
}
