//! From evidence to patterns: connected components, windows, and what the numbers say.
//!
//! Everything is read off the claims and the transactions, in one pass each; nothing is executed. What the numbers say
//! (conserved, negative, expired, admissible) becomes the hypotheses of the lemmas, so it is computed here, for every
//! instance, whether its pattern is known or not.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use checker::commands::{self, Held};
use checker::evidence::TouchedIndex;
use checker::{Chunk, Counterexample, Entry, Fate, Finding, Invariant, Touched, rules};
use foldhash::fast::FixedState;
use ledger::{
    AssetType, AtomicGroupId, Command, Contract, Input, Intent, Limits, LogTime, Movements, Origin, Outcome, OutputId,
    Position, Rejection, TransactionId, Unlock,
};

use crate::encode::Amounts;
use crate::pattern::{
    Choice, ContentPattern, CreatedPattern, Expiry, FatePattern, InputPattern, MemberPattern, OutcomePattern,
    OutputPattern, Pattern, Spender, UnitPattern, UnitStanding,
};

/// Outputs are numbered with 16 bits. A bundle of 4 MiB names fewer than 50,000 (85 bytes each at least), so that only
/// evidence that never was a batch has more.
const OUTPUTS_MAX: usize = 65_535;

const _: () = assert!(Limits::V1.bundle_bytes_max / 85 < OUTPUTS_MAX);

/// A window of a component: a pattern, and what its numbers stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The pattern.
    pub pattern: Pattern,
    /// The entries of the chunk that its transactions are, by number.
    pub entries: Vec<usize>,
    /// The touched outputs of the chunk that its outputs are, by number.
    pub outputs: Vec<usize>,
    /// The units of the chunk that it consists of.
    units: Vec<usize>,
}

/// A chunk taken apart.
#[derive(Debug)]
pub struct Abstraction<'a> {
    chunk: &'a Chunk,
    /// What order-free rules say of its transactions is known: the replay applied the same functions.
    accepted: bool,
    units: Vec<Range<usize>>,
    /// By entry.
    names: Vec<Names>,
    /// The units of each component, ascending; ordered by their first units.
    components: Vec<Vec<usize>>,
    /// By touched output: the last unit that names it.
    last_named: Vec<Option<usize>>,
}

/// Where the outputs that a transaction names stand in the list of touched ones.
#[derive(Debug, Clone, Default)]
struct Names {
    inputs: Vec<usize>,
    references: Vec<usize>,
    outputs: Vec<usize>,
}

impl<'a> Abstraction<'a> {
    /// Takes a chunk apart.
    ///
    /// # Errors
    /// Where the evidence does not list what its transactions name, or lists an output as something that it is not.
    pub fn of(chunk: &'a Chunk) -> Result<Self, Finding> {
        Self::of_judged(chunk, false)
    }

    /// The same; where the replay accepted the chunk, what it found by the order-free rules is not computed again.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub fn of_judged(chunk: &'a Chunk, accepted: bool) -> Result<Self, Finding> {
        let index = TouchedIndex::of(&chunk.touched).map_err(|position| {
            let output = chunk.touched.get(position).map(|output| output.id);
            let counterexample = Counterexample::new(Invariant::Completeness, "an output is listed twice");
            Finding::from(Counterexample { output, ..counterexample })
        })?;
        if chunk.touched.len() > OUTPUTS_MAX {
            return Err(Finding::Inconclusive(format!("the chunk lists {} outputs", chunk.touched.len())));
        }
        let ids: BTreeMap<OutputId, usize> = if chunk.entries.iter().any(is_command) {
            chunk.touched.iter().enumerate().map(|(position, output)| (output.id, position)).collect()
        } else {
            BTreeMap::new()
        };
        let names: Vec<Names> =
            chunk.entries.iter().map(|entry| names(chunk, entry, &index, &ids)).collect::<Result<_, _>>()?;
        let units = chunk.units();
        let mut abstraction =
            Self { chunk, accepted, units, names, components: Vec::new(), last_named: vec![None; chunk.touched.len()] };
        abstraction.frames_hold()?;
        abstraction.components = abstraction.connect();
        Ok(abstraction)
    }

    /// Notes who names an output last. What nobody names must be the same before and after: no lemma speaks of it.
    fn frames_hold(&mut self) -> Result<(), Finding> {
        for (unit, range) in self.units.iter().enumerate() {
            for names in self.names.get(range.clone()).unwrap_or_default() {
                for output in names.inputs.iter().chain(&names.references).chain(&names.outputs) {
                    if let Some(last) = self.last_named.get_mut(*output) {
                        *last = Some(unit);
                    }
                }
            }
        }
        let changed = |(output, last): &(&Touched, &Option<usize>)| last.is_none() && output.before != output.after;
        match self.chunk.touched.iter().zip(&self.last_named).find(changed) {
            Some((output, _)) => {
                let words = "an output that no transaction of the chunk names is claimed to have changed";
                Err(Counterexample::new(Invariant::PostState, words).about(output.id).into())
            }
            None => Ok(()),
        }
    }

    /// Components of units: linked by outputs that one of them creates or consumes. Reading alone links nobody.
    fn connect(&self) -> Vec<Vec<usize>> {
        let mut sets = Sets::new(self.units.len());
        let mut changer: Vec<Option<usize>> = vec![None; self.chunk.touched.len()];
        for (unit, range) in self.units.iter().enumerate() {
            for names in self.names.get(range.clone()).unwrap_or_default() {
                for output in names.inputs.iter().chain(&names.outputs) {
                    if let Some(changer) = changer.get_mut(*output) {
                        sets.join(*changer.get_or_insert(unit), unit);
                    }
                }
            }
        }
        for (unit, range) in self.units.iter().enumerate() {
            for names in self.names.get(range.clone()).unwrap_or_default() {
                for changer in names.references.iter().filter_map(|output| *changer.get(*output)?) {
                    sets.join(changer, unit);
                }
            }
        }
        sets.into_components()
    }

    /// Number of connected components.
    #[must_use]
    pub fn components(&self) -> usize {
        self.components.len()
    }

    /// Units of the largest component.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.components.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The components' units, by entries.
    pub fn component_entries(&self) -> impl Iterator<Item = Vec<usize>> + '_ {
        self.components
            .iter()
            .map(|units| units.iter().filter_map(|unit| self.units.get(*unit).cloned()).flatten().collect())
    }

    /// The windows of all components, each of at most `units_max` units. The claimed state between two windows is what
    /// the outcomes so far say; after the last that names an output it is the chunk's own claim.
    #[must_use]
    pub fn windows(&self, units_max: usize) -> Vec<Window> {
        let mut fates: Vec<Fate> = self.chunk.touched.iter().map(|output| output.before).collect();
        let mut windows = Vec::with_capacity(self.components.len());
        for component in &self.components {
            for units in component.chunks(units_max.max(1)) {
                windows.push(self.window(units, &mut fates));
            }
        }
        windows
    }

    /// A window cut into windows of one unit each.
    #[must_use]
    pub fn singles(&self, window: &Window) -> Vec<Window> {
        let all = self.windows(1);
        all.into_iter().filter(|single| single.units.iter().all(|unit| window.units.contains(unit))).collect()
    }

    fn window(&self, units: &[usize], fates: &mut [Fate]) -> Window {
        let mut writer = Writer::new(self, fates);
        let patterns = units.iter().map(|unit| writer.unit(*unit)).collect();
        let Writer { entries, outputs, contents, befores, .. } = writer;
        // members are numbered now, so claims can be told in numbers
        let mut pattern = Pattern { outputs: Vec::with_capacity(outputs.len()), units: patterns };
        let numbers = Numbers { abstraction: self, entries: &entries };
        for (pattern, unit) in pattern.units.iter_mut().zip(units) {
            numbers.claims(pattern, *unit, &outputs, &befores);
        }
        self.advance(units, fates);
        for ((output, content), before) in outputs.iter().zip(contents).zip(&befores) {
            let claimed = self.claimed_after(*output, units, fates);
            pattern.outputs.push(OutputPattern {
                content,
                before: match before {
                    Fate::Absent => FatePattern::Absent,
                    Fate::Live { .. } => FatePattern::Live,
                    Fate::Spent { .. } => FatePattern::Spent(Spender::Earlier),
                },
                after: numbers.fate(claimed, *output, *before),
            });
        }
        Window { pattern, entries, outputs, units: units.to_vec() }
    }

    fn claimed_after(&self, output: usize, units: &[usize], fates: &[Fate]) -> Fate {
        let last = self.last_named.get(output).copied().flatten();
        let touched = self.chunk.touched.get(output).filter(|_| last.is_none_or(|last| units.contains(&last)));
        touched.map(|touched| touched.after).or_else(|| fates.get(output).copied()).unwrap_or(Fate::Absent)
    }

    /// Moves the claimed states behind the units, as their outcomes say.
    fn advance(&self, units: &[usize], fates: &mut [Fate]) {
        let entries = units.iter().filter_map(|unit| self.units.get(*unit).cloned()).flatten();
        for place in entries {
            let (Some(entry), Some(names)) = (self.chunk.entries.get(place), self.names.get(place)) else { continue };
            if !entry.outcome.is_committed() {
                continue;
            }
            for output in &names.inputs {
                if let Some(fate) = fates.get_mut(*output) {
                    *fate = Fate::Spent { by: entry.id() };
                }
            }
            for output in &names.outputs {
                if let Some(fate) = fates.get_mut(*output) {
                    *fate = Fate::Live { created_at: entry.sequence };
                }
            }
        }
    }

    /// The amounts of a window, for proving it concretely.
    #[must_use]
    pub fn amounts(&self, window: &Window) -> Amounts {
        let value = |output: &usize| {
            let contract = self.chunk.touched.get(*output)?.contract;
            contract.value().map(|(_, quantity)| quantity.minor_units())
        };
        let supply = window.entries.iter().filter_map(|entry| self.chunk.entries.get(*entry)).flat_map(|entry| {
            let changes = movements(entry).map(|movements| movements.supply.as_slice()).unwrap_or_default();
            changes.iter().map(|change| change.quantity.minor_units())
        });
        Amounts { outputs: window.outputs.iter().map(value).collect(), supply: supply.collect() }
    }

    /// The chunk.
    #[must_use]
    pub const fn chunk(&self) -> &'a Chunk {
        self.chunk
    }

    fn standing(&self, unit: usize) -> UnitStanding {
        let entries = self.units.get(unit).and_then(|range| self.chunk.entries.get(range.clone())).unwrap_or_default();
        let Some(group) = entries.first().and_then(|entry| entry.received.transaction().body.atomic) else {
            return UnitStanding::Whole;
        };
        let here: Vec<TransactionId> = entries.iter().map(Entry::id).collect();
        if AtomicGroupId::of(&here) == group {
            let undone = |entry: &Entry| is_command(entry) && !entry.outcome.is_committed();
            let assumed = here.len() > 1 && entries.iter().any(undone);
            return if assumed { UnitStanding::Assumed } else { UnitStanding::Whole };
        }
        let Some(all) = self.chunk.barred.iter().find(|all| AtomicGroupId::of(all) == group) else {
            return UnitStanding::Broken;
        };
        let in_order = all.iter().filter(|member| here.contains(member)).eq(&here);
        match all.iter().position(|member| !here.contains(member)) {
            Some(first) if in_order => UnitStanding::Barred(small(first)),
            Some(_) | None => UnitStanding::Broken,
        }
    }
}

/// Writes a window's units, numbering outputs and assets as they appear.
struct Writer<'a, 'b> {
    abstraction: &'a Abstraction<'b>,
    fates: &'a [Fate],
    entries: Vec<usize>,
    outputs: Vec<usize>,
    numbers: HashMap<usize, u16, FixedState>,
    contents: Vec<ContentPattern>,
    befores: Vec<Fate>,
    assets: Vec<AssetType>,
}

impl<'a, 'b> Writer<'a, 'b> {
    fn new(abstraction: &'a Abstraction<'b>, fates: &'a [Fate]) -> Self {
        Self {
            abstraction,
            fates,
            entries: Vec::new(),
            outputs: Vec::new(),
            numbers: HashMap::default(),
            contents: Vec::new(),
            befores: Vec::new(),
            assets: Vec::new(),
        }
    }

    fn unit(&mut self, unit: usize) -> UnitPattern {
        let range = self.abstraction.units.get(unit).cloned().unwrap_or_default();
        UnitPattern {
            standing: self.abstraction.standing(unit),
            members: range.map(|place| self.member(place)).collect(),
        }
    }

    fn number(&mut self, output: usize) -> u16 {
        if let Some(number) = self.numbers.get(&output) {
            return *number;
        }
        let number = small(self.outputs.len());
        let touched = self.abstraction.chunk.touched.get(output).expect("names are places in the list");
        let content = match touched.contract {
            Contract::Position(held) if held.quantity.is_negative() => ContentPattern::Debt(self.asset(held.asset)),
            Contract::Position(held) => ContentPattern::Holding(self.asset(held.asset)),
            Contract::Allocation(locked) => ContentPattern::Allocation(self.asset(locked.asset)),
            Contract::Grant(_) => ContentPattern::Grant,
        };
        self.numbers.insert(output, number);
        self.outputs.push(output);
        self.contents.push(content);
        self.befores.push(self.fates.get(output).copied().unwrap_or(Fate::Absent));
        number
    }

    fn asset(&mut self, asset: AssetType) -> u16 {
        let known = self.assets.iter().position(|other| *other == asset);
        small(known.unwrap_or_else(|| {
            self.assets.push(asset);
            self.assets.len().saturating_sub(1)
        }))
    }

    /// A transaction without its claims, which need the numbers of the whole window.
    fn member(&mut self, place: usize) -> MemberPattern {
        self.entries.push(place);
        let abstraction = self.abstraction;
        let chunk = abstraction.chunk;
        let entry = chunk.entries.get(place).expect("units are ranges of the entries");
        let names = abstraction.names.get(place).expect("every entry has its names");
        let body = &entry.received.transaction().body;
        let (cluster, group, log_time) = (chunk.cluster, chunk.group, chunk.log_time);
        let context = rules::Context { cluster, group, limits: &Limits::V1, log_time };
        let movements = movements(entry);
        let inputs = names.inputs.iter().enumerate().map(|(position, output)| InputPattern {
            output: self.number(*output),
            expiry: movements
                .and_then(|movements| movements.inputs.get(position))
                .map_or(Expiry::Fits, |input| expiry(input, chunk.log_time)),
        });
        let inputs: Vec<InputPattern> = inputs.collect();
        let references: Vec<u16> = names.references.iter().map(|output| self.number(*output)).collect();
        let outputs = names.outputs.iter().map(|output| CreatedPattern {
            output: self.number(*output),
            granted_by: granted_by(chunk, *output, names),
        });
        let outputs: Vec<CreatedPattern> = outputs.collect();
        let supply = movements.map(|movements| movements.supply.as_slice()).unwrap_or_default();
        MemberPattern {
            admissible: abstraction.accepted || rules::judge_admission(&entry.received, &context).is_ok(),
            conserved: (abstraction.accepted && movements.is_some()) || conserved(chunk, entry, names),
            expired: body.valid_until <= chunk.log_time,
            head_unknown: body.seen_head.is_some_and(|seen| entry.observed_root != Some(seen.log_root)),
            choice: choice(chunk, entry, names),
            inputs,
            references,
            outputs,
            supply: supply.iter().map(|change| self.asset(change.asset)).collect(),
            outcome: OutcomePattern::Impossible,
            observations: Vec::new(),
        }
    }
}

/// Tells claims in the numbers of a window.
struct Numbers<'a, 'b> {
    abstraction: &'a Abstraction<'b>,
    entries: &'a [usize],
}

impl Numbers<'_, '_> {
    fn claims(&self, pattern: &mut UnitPattern, unit: usize, outputs: &[usize], befores: &[Fate]) {
        let range = self.abstraction.units.get(unit).cloned().unwrap_or_default();
        for (member, place) in pattern.members.iter_mut().zip(range) {
            let Some(entry) = self.abstraction.chunk.entries.get(place) else { continue };
            let named: Vec<u16> =
                member.inputs.iter().map(|input| input.output).chain(member.references.iter().copied()).collect();
            let at = |number: &u16| {
                let number = usize::from(*number);
                Some((*outputs.get(number)?, *befores.get(number)?))
            };
            member.outcome = self.outcome(entry, member, &named, &at);
            let claims = named.iter().enumerate().map(|(position, number)| {
                let claim = entry.observations.get(position).copied().flatten()?;
                let (output, before) = at(number)?;
                Some(self.fate(claim, output, before))
            });
            member.observations = claims.collect();
            if entry.observations.len() != named.len() {
                // one claim too many or too few is none that can be right
                member.outcome = OutcomePattern::Impossible;
            }
        }
    }

    fn member(&self, id: &TransactionId) -> Option<u16> {
        let is = |place: &usize| self.abstraction.chunk.entries.get(*place).is_some_and(|entry| entry.id() == *id);
        self.entries.iter().position(is).map(small)
    }

    fn spender(&self, by: &TransactionId, before: Fate) -> Option<Spender> {
        match before {
            Fate::Spent { by: earlier } if earlier == *by => Some(Spender::Earlier),
            Fate::Spent { .. } | Fate::Absent | Fate::Live { .. } => self.member(by).map(Spender::Member),
        }
    }

    fn fate(&self, claim: Fate, output: usize, before: Fate) -> FatePattern {
        match claim {
            Fate::Absent => FatePattern::Absent,
            Fate::Spent { by } => self.spender(&by, before).map_or(FatePattern::Impossible, FatePattern::Spent),
            Fate::Live { created_at } => {
                let expected = match before {
                    Fate::Live { created_at } => Some(created_at),
                    Fate::Absent | Fate::Spent { .. } => {
                        let creator =
                            self.abstraction.chunk.touched.get(output).map(|touched| touched.origin.transaction);
                        let creator = creator.and_then(|creator| self.member(&creator));
                        let place = creator.and_then(|creator| self.entries.get(usize::from(creator)));
                        place.and_then(|place| self.abstraction.chunk.entries.get(*place)).map(|entry| entry.sequence)
                    }
                };
                if expected == Some(created_at) { FatePattern::Live } else { FatePattern::Impossible }
            }
        }
    }

    fn outcome(
        &self,
        entry: &Entry,
        member: &MemberPattern,
        named: &[u16],
        at: &dyn Fn(&u16) -> Option<(usize, Fate)>,
    ) -> OutcomePattern {
        let reason = match &entry.outcome {
            Outcome::Committed { chosen } if chosen.is_empty() || is_command(entry) => {
                return OutcomePattern::Committed;
            }
            Outcome::Committed { .. } => return OutcomePattern::Impossible,
            Outcome::Rejected(reason) => reason,
        };
        self.reason(entry, reason, member.inputs.len(), named, at).unwrap_or(OutcomePattern::Impossible)
    }

    /// A reason in numbers; `None` where its evidence contradicts the transaction.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other reasons are order-free and have no place in the order"
    )]
    fn reason(
        &self,
        entry: &Entry,
        reason: &Rejection,
        inputs: usize,
        named: &[u16],
        at: &dyn Fn(&u16) -> Option<(usize, Fate)>,
    ) -> Option<OutcomePattern> {
        let chunk = self.abstraction.chunk;
        let body = &entry.received.transaction().body;
        let named_as = |position: usize, id: &OutputId| {
            let (output, before) = at(named.get(position)?)?;
            chunk.touched.get(output).filter(|touched| touched.id == *id).map(|_| before)
        };
        let input_of = |input: u16| movements(entry)?.inputs.get(usize::from(input));
        let expires = |input: u16| match input_of(input)?.contract {
            Contract::Allocation(locked) => Some(locked.expires_at),
            Contract::Position(_) | Contract::Grant(_) => None,
        };
        let reference_at = |reference: u16| inputs.checked_add(usize::from(reference));
        match *reason {
            Rejection::Expired { log_time } => (log_time == chunk.log_time).then_some(OutcomePattern::Expired),
            Rejection::HeadUnknown { size } => {
                (body.seen_head.map(|seen| seen.size) == Some(size)).then_some(OutcomePattern::HeadUnknown)
            }
            Rejection::NotYetExpired { input, expires_at } => {
                (expires(input)? == expires_at).then_some(OutcomePattern::NotYetExpired(input))
            }
            Rejection::AllocationExpired { input, expires_at } => {
                (expires(input)? == expires_at).then_some(OutcomePattern::AllocationExpired(input))
            }
            Rejection::InputUnknown { input, output } => {
                let is_input = usize::from(input) < inputs;
                named_as(usize::from(input), &output).filter(|_| is_input).map(|_| OutcomePattern::InputUnknown(input))
            }
            Rejection::InputSpent { input, output, winner } => {
                let before = named_as(usize::from(input), &output).filter(|_| usize::from(input) < inputs)?;
                Some(OutcomePattern::InputSpent(input, self.spender(&winner, before)?))
            }
            Rejection::ReferenceUnknown { reference, output } => {
                named_as(reference_at(reference)?, &output).map(|_| OutcomePattern::ReferenceUnknown(reference))
            }
            Rejection::ReferenceSpent { reference, output, winner } => {
                let before = named_as(reference_at(reference)?, &output)?;
                Some(OutcomePattern::ReferenceSpent(reference, self.spender(&winner, before)?))
            }
            Rejection::GroupMemberRejected { member, code } => Some(OutcomePattern::GroupMemberRejected(member, code)),
            Rejection::GroupMemberSequenced { member } => Some(OutcomePattern::GroupMemberSequenced(member)),
            Rejection::InsufficientFunds { .. } => is_command(entry).then_some(OutcomePattern::Insufficient),
            Rejection::TooFragmented { .. } => is_command(entry).then_some(OutcomePattern::TooFragmented),
            _ => None,
        }
    }
}

fn names(
    chunk: &Chunk,
    entry: &Entry,
    index: &TouchedIndex<'_>,
    ids: &BTreeMap<OutputId, usize>,
) -> Result<Names, Finding> {
    let wrong = |words: &str| {
        let counterexample = Counterexample::new(Invariant::Completeness, words);
        Finding::from(counterexample.naming(entry.id(), Some(entry.sequence)))
    };
    let find = |origin: &Origin, contract: &Contract| {
        index.find(origin, contract).ok_or_else(|| wrong("an output is named and not listed"))
    };
    match &entry.received.transaction().body.intent {
        Intent::Movements(Movements { inputs, references, outputs, .. }) => Ok(Names {
            inputs: inputs.iter().map(|input| find(&input.origin, &input.contract)).collect::<Result<_, _>>()?,
            references: references.iter().map(|it| find(&it.origin, &it.contract)).collect::<Result<_, _>>()?,
            outputs: commands::originated(entry.id(), outputs)
                .map(|(origin, contract)| find(&origin, contract))
                .collect::<Result<_, _>>()?,
        }),
        Intent::Command(command) => {
            let Outcome::Committed { chosen } = &entry.outcome else { return Ok(Names::default()) };
            let listed = |id: &OutputId| ids.get(id).copied().ok_or_else(|| wrong("a chosen output is not listed"));
            let inputs: Vec<usize> = chosen.iter().map(listed).collect::<Result<_, _>>()?;
            let created = commands::creates(command, &positions(chunk, &inputs)).unwrap_or_default();
            let outputs = commands::originated(entry.id(), &created);
            let outputs = outputs.map(|(origin, contract)| find(&origin, contract)).collect::<Result<_, _>>()?;
            Ok(Names { inputs, references: Vec::new(), outputs })
        }
    }
}

fn positions(chunk: &Chunk, outputs: &[usize]) -> Vec<Position> {
    let contracts = outputs.iter().filter_map(|output| chunk.touched.get(*output)).map(|touched| touched.contract);
    contracts
        .filter_map(|contract| match contract {
            Contract::Position(position) => Some(position),
            Contract::Grant(_) | Contract::Allocation(_) => None,
        })
        .collect()
}

/// Whether inputs and supply equal outputs, asset by asset.
fn conserved(chunk: &Chunk, entry: &Entry, names: &Names) -> bool {
    if let Some(movements) = movements(entry) {
        return rules::conserves(movements).is_ok();
    }
    let mut flows: BTreeMap<AssetType, i128> = BTreeMap::new();
    let mut add = |outputs: &[usize], sign: i128| {
        outputs.iter().filter_map(|output| chunk.touched.get(*output)?.contract.value()).all(|(asset, quantity)| {
            let flow = flows.entry(asset).or_default();
            let sum = quantity.minor_units().checked_mul(sign).and_then(|signed| flow.checked_add(signed));
            sum.map(|sum| *flow = sum).is_some()
        })
    };
    add(&names.inputs, 1) && add(&names.outputs, -1) && flows.values().all(|flow| *flow == 0)
}

/// Whether what a command is said to have chosen is what it would choose, were that all there is.
fn choice(chunk: &Chunk, entry: &Entry, names: &Names) -> Choice {
    let Intent::Command(command) = &entry.received.transaction().body.intent else { return Choice::Right };
    match &entry.outcome {
        Outcome::Rejected(Rejection::InsufficientFunds { .. }) => Choice::Insufficient,
        Outcome::Rejected(Rejection::TooFragmented { .. }) => Choice::TooFragmented,
        Outcome::Rejected(_) => Choice::Right,
        Outcome::Committed { chosen } if covers(chunk, command, names, chosen) => Choice::Right,
        Outcome::Committed { .. } => Choice::Wrong,
    }
}

fn covers(chunk: &Chunk, command: &Command, names: &Names, chosen: &[OutputId]) -> bool {
    let held = |output: &usize| {
        let touched = chunk.touched.get(*output)?;
        match touched.contract {
            Contract::Position(position) if position.quantity.is_positive() => {
                Some((touched.id, Held { id: touched.id, origin: touched.origin, position }))
            }
            Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
        }
    };
    let held: BTreeMap<OutputId, Held> = names.inputs.iter().filter_map(held).collect();
    let next = |owner: &(ledger::Party, AssetType), after: Option<OutputId>| {
        let behind = held.values().filter(|held| after.is_none_or(|after| held.id > after));
        behind.into_iter().find(|held| (held.position.owner, held.position.asset) == *owner).copied()
    };
    commands::choose(command, &Limits::V1, next)
        .is_ok_and(|would| would.iter().map(|held| held.id).eq(chosen.iter().copied()))
}

fn granted_by(chunk: &Chunk, output: usize, names: &Names) -> Option<u16> {
    let Contract::Position(held) = chunk.touched.get(output)?.contract else { return None };
    if !held.quantity.is_negative() {
        return None;
    }
    let grants = |reference: &usize| {
        let granted = chunk.touched.get(*reference);
        granted.is_some_and(|granted| rules::grants(&granted.contract, &held.owner, &held.asset))
    };
    names.references.iter().position(grants).map(small)
}

fn expiry(input: &Input, log_time: LogTime) -> Expiry {
    match (&input.contract, input.unlock) {
        (Contract::Allocation(locked), Unlock::Expire) if log_time < locked.expires_at => Expiry::TooEarly,
        (Contract::Allocation(locked), Unlock::Settle) if log_time >= locked.expires_at => Expiry::TooLate,
        _ => Expiry::Fits,
    }
}

fn movements(entry: &Entry) -> Option<&Movements> {
    match &entry.received.transaction().body.intent {
        Intent::Movements(movements) => Some(movements),
        Intent::Command(_) => None,
    }
}

fn is_command(entry: &Entry) -> bool {
    matches!(entry.received.transaction().body.intent, Intent::Command(_))
}

fn small(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}

/// Union-find; the smallest member stands for its set.
struct Sets {
    parents: Vec<usize>,
}

impl Sets {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    fn root(&mut self, mut of: usize) -> usize {
        loop {
            let parent = self.parents.get(of).copied().unwrap_or(of);
            if parent == of {
                return of;
            }
            let above = self.parents.get(parent).copied().unwrap_or(parent);
            if let Some(slot) = self.parents.get_mut(of) {
                *slot = above;
            }
            of = above;
        }
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(slot) = self.parents.get_mut(a.max(b)) {
            *slot = a.min(b);
        }
    }

    fn into_components(mut self) -> Vec<Vec<usize>> {
        let mut components: Vec<Vec<usize>> = Vec::new();
        let mut of_root: Vec<Option<usize>> = vec![None; self.parents.len()];
        for member in 0..self.parents.len() {
            let root = self.root(member);
            let Some(slot) = of_root.get_mut(root) else { continue };
            let component = *slot.get_or_insert_with(|| {
                components.push(Vec::new());
                components.len().saturating_sub(1)
            });
            if let Some(members) = components.get_mut(component) {
                members.push(member);
            }
        }
        components
    }
}
