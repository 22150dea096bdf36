//! The proof of a chunk: linear checker and solver judge the same evidence apart from each other, and only where both
//! say so it is proved.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use checker::attestation::{Findings, ProofStatistics, Versions};
use checker::{
    Attestation, CHECKER_VERSION, Chunk, Counterexample, Finding, Invariant, Replay, Statement, Verdict, realtime,
};
use ledger::Hash;
use ledger::signature::SigningKey;

use crate::abstraction::{Abstraction, Window};
use crate::cache::PatternCache;
use crate::encode::{Label, encode};
use crate::pattern::{ENCODER_VERSION, FatePattern, OutcomePattern, Spender};
use crate::solver::{Answer, ObligationSolver, SolverSettings, SolverStatistics, solver_version};
use crate::step::{StepBounds, StepLemmas};

/// How a prover works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProverSettings {
    /// Units per window of a long chain.
    pub window_units: usize,
    /// Units per window where a component is longer than `chain_units`: many of its patterns are new.
    pub chain_window_units: usize,
    /// From how many units on a component is a long chain.
    pub chain_units: usize,
    /// Patterns kept at most.
    pub patterns_max: usize,
    /// Of so many uses of known patterns one is proved again with the real amounts; 0 for none.
    pub audit_every: u64,
    /// The solver's bounds.
    pub solver: SolverSettings,
    /// Up to which shapes the step lemmas are proved at the start.
    pub steps: StepBounds,
}

impl Default for ProverSettings {
    fn default() -> Self {
        Self {
            window_units: 8,
            chain_window_units: 1,
            chain_units: 8,
            patterns_max: crate::cache::PATTERNS_MAX,
            audit_every: 1_000,
            solver: SolverSettings::default(),
            steps: StepBounds::default(),
        }
    }
}

/// What the solver's half found of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolverReport {
    /// The verdict, under the hypothesis that the chunk begins as it says.
    pub verdict: Verdict,
    /// Digests of the patterns that were used.
    pub patterns: BTreeSet<Hash>,
    /// At what cost.
    pub statistics: ProofStatistics,
}

/// What both halves found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Proved where both say so.
    pub verdict: Verdict,
    /// The linear checker's verdict.
    pub by_replay: Verdict,
    /// The solver's.
    pub by_solver: Verdict,
    /// Digests of the patterns that were used.
    pub patterns: BTreeSet<Hash>,
    /// At what cost.
    pub statistics: ProofStatistics,
}

/// A prover for the calling thread: solver, lemmas, step lemmas.
#[derive(Debug)]
pub struct Prover {
    settings: ProverSettings,
    solver: ObligationSolver,
    cache: PatternCache,
    steps: StepLemmas,
    uses: u64,
}

/// What became of a window.
enum Obligation {
    Proved(Hash),
    Refuted(Box<Counterexample>),
    Open(String),
}

impl Prover {
    /// A prover with an empty cache. Proves the step lemmas first.
    #[must_use]
    pub fn new(settings: ProverSettings) -> Self {
        Self {
            settings,
            solver: ObligationSolver::new(settings.solver),
            cache: PatternCache::new(settings.patterns_max),
            steps: StepLemmas::prove(&settings.steps, &SolverSettings::default()),
            uses: 0,
        }
    }

    /// The patterns proved so far.
    #[must_use]
    pub const fn cache(&self) -> &PatternCache {
        &self.cache
    }

    /// What the solver was asked so far.
    #[must_use]
    pub const fn solver_statistics(&self) -> SolverStatistics {
        self.solver.statistics()
    }

    /// The step lemmas proved at the start.
    #[must_use]
    pub const fn steps(&self) -> &StepLemmas {
        &self.steps
    }

    /// Takes over patterns that were kept, proving each again.
    ///
    /// # Errors
    /// Where the bytes are not a kept cache.
    pub fn load(&mut self, bytes: &[u8]) -> std::io::Result<crate::cache::Loaded> {
        self.cache.load(bytes, &mut self.solver)
    }

    /// Judges a chunk by the replay and by the solver. The replay moves behind it where the replay accepts it.
    pub fn judge(&mut self, chunk: &Chunk, replay: &mut Replay) -> Report {
        let began = Instant::now();
        let by_replay = match replay.accept(chunk) {
            Ok(_) => Verdict::Proved,
            Err(finding) => finding.into(),
        };
        let solver = self.judge_by_solver(chunk, by_replay.is_proved());
        let verdict = match (&by_replay, &solver.verdict) {
            (Verdict::Proved, by_solver) => by_solver.clone(),
            (by_replay, _) => by_replay.clone(),
        };
        let statistics = ProofStatistics { total_us: micros(began.elapsed()), ..solver.statistics };
        Report { verdict, by_replay, by_solver: solver.verdict, patterns: solver.patterns, statistics }
    }

    /// Judges a chunk by real time and the solver alone. Where the solver finds no answer for a transaction, its step
    /// lemma stands in if the replay accepted the chunk.
    pub fn judge_by_solver(&mut self, chunk: &Chunk, replay_accepts: bool) -> SolverReport {
        let began = Instant::now();
        let before = self.solver.statistics();
        let mut report = SolverReport {
            verdict: Verdict::Proved,
            patterns: BTreeSet::new(),
            statistics: ProofStatistics {
                transactions: count(chunk.entries.len()),
                chunks: 1,
                ..ProofStatistics::default()
            },
        };
        if let Err(finding) = self.prove(chunk, replay_accepts, &mut report) {
            report.verdict = finding.into();
        }
        let after = self.solver.statistics();
        report.statistics.solver_checks = after.checks - before.checks;
        report.statistics.solver_unknown = after.unknown - before.unknown;
        report.statistics.solver_us = micros(after.time.saturating_sub(before.time));
        report.statistics.total_us = micros(began.elapsed());
        report
    }

    fn prove(&mut self, chunk: &Chunk, replay_accepts: bool, report: &mut SolverReport) -> Result<(), Finding> {
        let stamps = chunk.entries.iter().map(|entry| realtime::Stamped {
            id: entry.id(),
            sequence: entry.sequence,
            invoked: entry.invoked,
            responded: entry.responded,
        });
        realtime::scan(chunk.before.real_time, stamps).map_err(Finding::Refuted)?;
        let abstraction = Abstraction::of(chunk)?;
        let longest = abstraction.longest();
        let units_max = if longest > self.settings.chain_units {
            self.settings.chain_window_units
        } else {
            self.settings.window_units
        };
        let windows = abstraction.windows(units_max);
        report.statistics.components = count(abstraction.components());
        report.statistics.windows = count(windows.len());
        let mut open = None;
        for window in &windows {
            match self.window(&abstraction, window, replay_accepts, report) {
                Obligation::Proved(digest) => {
                    report.patterns.insert(digest);
                }
                Obligation::Refuted(counterexample) => return Err(Finding::Refuted(counterexample)),
                Obligation::Open(reason) => {
                    report.statistics.undecided += 1;
                    open.get_or_insert(reason);
                }
            }
        }
        open.map_or(Ok(()), |reason| Err(Finding::Inconclusive(reason)))
    }

    fn window(
        &mut self,
        abstraction: &Abstraction<'_>,
        window: &Window,
        replay_accepts: bool,
        report: &mut SolverReport,
    ) -> Obligation {
        match self.lemma(abstraction, window, report) {
            Obligation::Open(_) if window.entries.len() > 1 && window.pattern.units.len() > 1 => {
                let mut last = None;
                for single in abstraction.singles(window) {
                    let decided = match self.lemma(abstraction, &single, report) {
                        Obligation::Open(reason) => self.by_steps(abstraction, &single, replay_accepts, reason),
                        decided @ (Obligation::Proved(_) | Obligation::Refuted(_)) => decided,
                    };
                    match decided {
                        Obligation::Proved(digest) => last = Some(digest),
                        Obligation::Refuted(_) | Obligation::Open(_) => return decided,
                    }
                }
                last.map_or_else(|| Obligation::Open("a window without transactions".to_owned()), Obligation::Proved)
            }
            Obligation::Open(reason) => self.by_steps(abstraction, window, replay_accepts, reason),
            decided @ (Obligation::Proved(_) | Obligation::Refuted(_)) => decided,
        }
    }

    /// What the solver leaves open for a single transaction is decided by the replay, if the step lemma of its shape
    /// was proved: the lemma says that the replay's conditions are the serial rule's.
    fn by_steps(
        &self,
        abstraction: &Abstraction<'_>,
        window: &Window,
        replay_accepts: bool,
        reason: String,
    ) -> Obligation {
        let covered = |member: &crate::pattern::MemberPattern| {
            self.steps.covers(member.inputs.len(), member.references.len(), member.outputs.len())
        };
        if replay_accepts
            && window.pattern.units.len() == 1
            && window.pattern.members().count() == 1
            && window.pattern.members().all(covered)
        {
            return Obligation::Proved(self.steps.digest());
        }
        let entries = window.entries.iter().filter_map(|place| abstraction.chunk().entries.get(*place));
        let named: Vec<String> = entries.map(|entry| format!("{} = {}", entry.sequence, entry.id())).collect();
        Obligation::Open(format!("{reason}; undecided: transactions {}", named.join(", ")))
    }

    fn lemma(&mut self, abstraction: &Abstraction<'_>, window: &Window, report: &mut SolverReport) -> Obligation {
        let key = window.pattern.key();
        if let Some(digest) = self.cache.find(&key) {
            report.statistics.pattern_hits += 1;
            self.uses += 1;
            let due = self.settings.audit_every > 0 && self.uses.is_multiple_of(self.settings.audit_every);
            return if due { self.audit(abstraction, window, digest, report) } else { Obligation::Proved(digest) };
        }
        report.statistics.pattern_misses += 1;
        // the formula is made from the key, so that what is proved is what will be found by it
        let Some(pattern) = key.pattern() else {
            return Obligation::Open("a pattern that its key does not give back".to_owned());
        };
        match self.solver.decide(&encode(&pattern, None)) {
            Answer::Proved => {
                let digest = key.digest();
                self.cache.insert(key, digest);
                Obligation::Proved(digest)
            }
            Answer::Refuted(labels) => Obligation::Refuted(Box::new(explain(abstraction, window, &labels))),
            Answer::Unknown(reason) => Obligation::Open(reason),
        }
    }

    /// Proves a use of a known pattern with its real amounts. A lemma that fails here was never one: nothing that is
    /// kept is believed any more.
    fn audit(
        &mut self,
        abstraction: &Abstraction<'_>,
        window: &Window,
        digest: Hash,
        report: &mut SolverReport,
    ) -> Obligation {
        report.statistics.audits += 1;
        let formula = encode(&window.pattern, Some(&abstraction.amounts(window)));
        if self.solver.can_hold(&formula) == Some(false) {
            self.cache.clear();
            return Obligation::Open("the amounts do not satisfy the hypotheses of their pattern".to_owned());
        }
        match self.solver.decide(&formula) {
            Answer::Proved => Obligation::Proved(digest),
            Answer::Refuted(labels) => {
                self.cache.clear();
                Obligation::Refuted(Box::new(explain(abstraction, window, &labels)))
            }
            Answer::Unknown(reason) => Obligation::Open(reason),
        }
    }

    /// The obligations of a chunk as SMT-LIB 2, window by window: each is a proof where a solver answers `unsat`.
    ///
    /// # Errors
    /// Where the evidence is not even well formed.
    pub fn export(&mut self, chunk: &Chunk) -> Result<Vec<String>, Finding> {
        let windows = Abstraction::of(chunk)?.windows(self.settings.window_units);
        Ok(windows.iter().map(|window| self.solver.export(&encode(&window.pattern, None))).collect())
    }

    /// Judges a run of whole batches and signs what was found. Stops at the first chunk that is not proved.
    ///
    /// # Errors
    /// Where the chunks are not a run of whole batches.
    pub fn attest(
        &mut self,
        chunks: &[Chunk],
        replay: &mut Replay,
        predecessor: Hash,
        key: &SigningKey,
    ) -> Result<(Attestation, Vec<Report>), checker::attestation::AttestationFault> {
        let statement = Statement::of(chunks)?;
        let mut statistics = ProofStatistics::default();
        let (mut verdict, mut patterns, mut reports) = (Verdict::Proved, BTreeSet::new(), Vec::new());
        for chunk in chunks {
            let report = self.judge(chunk, replay);
            statistics.add(&report.statistics);
            patterns.extend(&report.patterns);
            verdict = report.verdict.clone();
            reports.push(report);
            if !verdict.is_proved() {
                break;
            }
        }
        let versions = Versions { checker: CHECKER_VERSION, encoder: ENCODER_VERSION, solver: solver_version() };
        let patterns = patterns.into_iter().collect();
        let findings = Findings { statement, verdict, versions, patterns, statistics, predecessor };
        Ok((findings.sign(key), reports))
    }
}

/// A model in words: the first claim that differs, who makes it, and who else names the output concerned.
fn explain(abstraction: &Abstraction<'_>, window: &Window, labels: &[Label]) -> Counterexample {
    let chunk = abstraction.chunk();
    let Some(label) = labels.first() else {
        return Counterexample::new(Invariant::Outcome, "a claim differs, and the model does not show which");
    };
    let entry = |member: u16| window.entries.get(usize::from(member)).and_then(|place| chunk.entries.get(*place));
    let members: Vec<_> = window.pattern.members().collect();
    let concerned = label.output.or_else(|| {
        let member = members.get(usize::from(label.member?))?;
        let inputs = member.inputs.iter().map(|input| input.output);
        let named: Vec<u16> = inputs.chain(member.references.iter().copied()).collect();
        named.get(usize::from(label.input.unwrap_or_default())).copied()
    });
    let words = match (label.member.and_then(entry), label.member.and_then(|member| members.get(usize::from(member)))) {
        (Some(entry), Some(member)) => format!(
            "no serial execution gives transaction {} what is claimed of it ({}), whatever the amounts",
            entry.sequence,
            told(member.outcome)
        ),
        _ => "no serial execution ends with what is claimed".to_owned(),
    };
    let mut counterexample = Counterexample::new(label.invariant, words);
    if let Some(entry) = label.member.and_then(entry) {
        counterexample = counterexample.naming(entry.id(), Some(entry.sequence));
    }
    if let Some(input) = label.input {
        counterexample = counterexample.at_input(input);
    }
    let Some(output) = concerned else { return counterexample };
    let touched = window.outputs.get(usize::from(output)).and_then(|place| chunk.touched.get(*place));
    if let Some(touched) = touched {
        counterexample = counterexample.about(touched.id);
    }
    for (number, member) in members.iter().enumerate() {
        let names = member.inputs.iter().any(|input| input.output == output)
            || member.outputs.iter().any(|created| created.output == output)
            || member.references.contains(&output);
        if let Some(entry) = u16::try_from(number).ok().and_then(entry).filter(|_| names) {
            counterexample = counterexample.naming(entry.id(), Some(entry.sequence));
        }
    }
    match (touched.map(|touched| touched.before), window.pattern.outputs.get(usize::from(output))) {
        (Some(checker::Fate::Spent { by }), Some(pattern))
            if pattern.before == FatePattern::Spent(Spender::Earlier) =>
        {
            counterexample.naming(by, None)
        }
        _ => counterexample,
    }
}

fn told(outcome: OutcomePattern) -> String {
    format!("{outcome:?}")
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::scene::{Scene, lies};

    /// The chunks of a lie, and a prover whose cache was told that they are lemmas.
    fn tampered(audit_every: u64) -> (Vec<Chunk>, Prover) {
        let scene = Scene::new();
        let lie = lies().into_iter().find(|lie| lie.name == "both spenders of one output committed");
        let chunks = lie.map(|lie| (lie.tell)(&scene)).unwrap_or_default();
        let mut prover = Prover::new(ProverSettings { audit_every, ..ProverSettings::default() });
        for chunk in &chunks {
            for window in Abstraction::of(chunk).expect("well formed").windows(8) {
                let key = window.pattern.key();
                let digest = key.digest();
                prover.cache.insert(key, digest);
            }
        }
        (chunks, prover)
    }

    #[test]
    fn an_audit_finds_a_lemma_that_never_was_one_and_forgets_them_all() {
        let (chunks, mut prover) = tampered(1);
        let found = chunks.iter().map(|chunk| prover.judge_by_solver(chunk, false).verdict);
        let found = found.into_iter().find(|verdict| !verdict.is_proved());
        assert!(matches!(found, Some(Verdict::Refuted(_))), "{found:?}");
        assert!(prover.cache.is_empty(), "what was kept is not believed any more");
    }

    #[test]
    fn a_tampered_cache_alone_proves_nothing_because_the_replay_judges_too() {
        let (chunks, mut prover) = tampered(0);
        let believed = chunks.iter().all(|chunk| prover.judge_by_solver(chunk, false).verdict.is_proved());
        assert!(believed, "without audits the cache is believed");
        let mut replay = fixture::genesis();
        let verdicts: Vec<Verdict> = chunks.iter().map(|chunk| prover.judge(chunk, &mut replay).verdict).collect();
        assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refuted(_))), "{verdicts:?}");
    }
}
