//! A pattern as a formula: the serial rule over the facts "live", "created" and "consumed by", in the sequenced order,
//! and the disjunction of "some claim differs". Unsatisfiable means: no amounts satisfying the hypotheses make any
//! claim wrong.
//!
//! Facts are propositional, because the order and the states before are fixed; only amounts are integers, of any size.
//! Symbols are numbers and are used again for every pattern, so that the solver's memory does not grow with the ledger.

use checker::Invariant;
use z3::ast::{Bool, Int};

use crate::pattern::{
    Choice, ContentPattern, CreatedPattern, Expiry, FatePattern, InputPattern, MemberPattern, OutcomePattern, Pattern,
    Spender, UnitPattern, UnitStanding,
};

/// Where the numbers of symbols begin: "this transaction could happen", amounts, supply changes.
const COULD_HAPPEN: u32 = 0;
const AMOUNT: u32 = 1 << 20;
const SUPPLY: u32 = 1 << 21;

/// What a claim that differs is about, so that a model can be told in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The property that is violated then.
    pub invariant: Invariant,
    /// The transaction's number in the window.
    pub member: Option<u16>,
    /// The input's number, or (behind the inputs) the reference's.
    pub input: Option<u16>,
    /// The output's number.
    pub output: Option<u16>,
}

impl Label {
    const fn of_member(invariant: Invariant, member: u16) -> Self {
        Self { invariant, member: Some(member), input: None, output: None }
    }

    const fn of_output(invariant: Invariant, output: u16) -> Self {
        Self { invariant, member: None, input: None, output: Some(output) }
    }
}

/// A formula: hypotheses and definitions to be asserted, and what would refute the claims.
#[derive(Debug)]
pub struct Formula {
    /// What holds of the instance's numbers, and what the names of facts stand for.
    pub assertions: Vec<Bool>,
    /// Ways in which a claim can differ.
    pub violations: Vec<(Label, Bool)>,
}

impl Formula {
    /// "Some claim differs."
    #[must_use]
    pub fn goal(&self) -> Bool {
        any(&self.violations.iter().map(|(_, violation)| violation.clone()).collect::<Vec<_>>())
    }
}

/// Amounts of an instance, for proving it concretely: of outputs, then of supply changes in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    /// By output; `None` for grants.
    pub outputs: Vec<Option<i128>>,
    /// By transaction and supply change.
    pub supply: Vec<i128>,
}

/// The formula of a pattern, for all amounts, or for these.
#[must_use]
pub fn encode(pattern: &Pattern, amounts: Option<&Amounts>) -> Formula {
    let mut encoder = Encoder::new(pattern, amounts);
    for unit in &pattern.units {
        encoder.unit(unit);
    }
    encoder.states_after();
    encoder.totals();
    Formula { assertions: encoder.assertions, violations: encoder.violations }
}

/// What is so of an output at a place of the order.
#[derive(Debug, Clone)]
struct Facts {
    live: Bool,
    created: Bool,
    consumed_by: Vec<(Spender, Bool)>,
}

impl Facts {
    fn before(fate: FatePattern) -> Self {
        let consumed_by = match fate {
            FatePattern::Spent(spender) => vec![(spender, truth(true))],
            FatePattern::Absent | FatePattern::Live | FatePattern::Impossible => Vec::new(),
        };
        Self {
            live: truth(fate == FatePattern::Live),
            created: truth(!matches!(fate, FatePattern::Absent | FatePattern::Impossible)),
            consumed_by,
        }
    }

    fn consumed_by(&self, spender: Spender) -> Bool {
        let same = self.consumed_by.iter().filter(|(other, _)| *other == spender);
        any(&same.map(|(_, fact)| fact.clone()).collect::<Vec<_>>())
    }

    /// True where the claim holds.
    fn agree_with(&self, claim: FatePattern) -> Bool {
        match claim {
            FatePattern::Absent => all(&[self.live.not(), self.created.not()]),
            FatePattern::Live => self.live.clone(),
            FatePattern::Spent(spender) => all(&[self.live.not(), self.created.clone(), self.consumed_by(spender)]),
            FatePattern::Impossible => truth(false),
        }
    }
}

struct Encoder<'a> {
    pattern: &'a Pattern,
    facts: Vec<Facts>,
    amounts: Vec<Option<Int>>,
    assertions: Vec<Bool>,
    violations: Vec<(Label, Bool)>,
    members: u16,
    /// Supply changes: asset, amount, and whether they happen.
    supply: Vec<(u16, Int, Bool)>,
    supply_amounts: Option<&'a [i128]>,
}

/// What the serial rule says of a transaction where it stands.
struct Rule {
    number: u16,
    /// Times, head and expiries are right.
    in_time: Bool,
    inputs: Vec<Facts>,
    references: Vec<Facts>,
    could_happen: Bool,
}

impl<'a> Encoder<'a> {
    fn new(pattern: &'a Pattern, amounts: Option<&'a Amounts>) -> Self {
        let mut assertions = Vec::new();
        let mut symbols = Vec::with_capacity(pattern.outputs.len());
        for (position, output) in pattern.outputs.iter().enumerate() {
            let given = amounts.and_then(|amounts| amounts.outputs.get(position).copied().flatten());
            let amount = output
                .content
                .asset()
                .map(|_| given.map_or_else(|| Int::new_const(AMOUNT.saturating_add(number(position))), Int::from_i128));
            if let Some(amount) = &amount {
                let is_debt = matches!(output.content, ContentPattern::Debt(_));
                assertions.push(if is_debt { amount.lt(0) } else { amount.ge(0) });
            }
            symbols.push(amount);
        }
        Self {
            pattern,
            facts: pattern.outputs.iter().map(|output| Facts::before(output.before)).collect(),
            amounts: symbols,
            assertions,
            violations: Vec::new(),
            members: 0,
            supply: Vec::new(),
            supply_amounts: amounts.map(|amounts| amounts.supply.as_slice()),
        }
    }

    fn unit(&mut self, unit: &UnitPattern) {
        let first = self.members;
        let failed = unit.members.iter().position(|member| is_own_reason(member.outcome));
        let mut tentative = self.facts.clone();
        let mut rules: Vec<Rule> = Vec::with_capacity(unit.members.len());
        for (position, member) in unit.members.iter().enumerate() {
            let number = first.saturating_add(small(position));
            // members behind the one that failed saw the state in which it was undone
            let undone = failed.is_some_and(|failed| position > failed) || unit.standing != UnitStanding::Whole;
            let seen = if undone { &self.facts } else { &tentative };
            let observations = observations(member, number, seen);
            let rule = self.rule(member, number, &tentative);
            self.admission(member, number);
            if unit.standing != UnitStanding::Assumed {
                self.violations.extend(observations);
            }
            happen(&mut tentative, member, number, &truth(true));
            rules.push(rule);
        }
        self.members = first.saturating_add(small(unit.members.len()));
        let happens = match unit.standing {
            UnitStanding::Whole => all(&rules.iter().map(|rule| rule.could_happen.clone()).collect::<Vec<_>>()),
            UnitStanding::Barred(_) | UnitStanding::Broken | UnitStanding::Assumed => truth(false),
        };
        self.outcomes(unit, first, &rules, &happens);
        self.effects(unit, first, &happens);
    }

    /// The order-free part that is about amounts, as the formula's own; the rest as the pattern says.
    fn admission(&mut self, member: &MemberPattern, number: u16) {
        let violated = |invariant, violation| (Label::of_member(invariant, number), violation);
        if !member.admissible {
            self.violations.push(violated(Invariant::Admission, truth(true)));
        }
        let supply: Vec<(u16, Int)> = member.supply.iter().map(|asset| (*asset, self.supply_symbol(*asset))).collect();
        let conserved = self.conservation(member, &supply);
        self.assertions.push(conserved.eq(truth(member.conserved)));
        self.violations.push(violated(Invariant::Conservation, conserved.not()));
        for CreatedPattern { output, granted_by } in &member.outputs {
            let position = matches!(self.content(*output), Some(ContentPattern::Holding(_) | ContentPattern::Debt(_)));
            let amount = self.amounts.get(usize::from(*output)).cloned().flatten();
            if let (true, None, Some(amount)) = (position, granted_by, amount) {
                self.violations.push(violated(Invariant::Constraint, amount.lt(0)));
            }
            if let Some(facts) = self.facts.get(usize::from(*output)) {
                self.violations.push(violated(Invariant::Order, facts.created.clone()));
            }
        }
    }

    fn content(&self, output: u16) -> Option<ContentPattern> {
        self.pattern.outputs.get(usize::from(output)).map(|output| output.content)
    }

    fn supply_symbol(&mut self, asset: u16) -> Int {
        let position = self.supply.len();
        let given = self.supply_amounts.and_then(|given| given.get(position));
        let amount =
            given.map_or_else(|| Int::new_const(SUPPLY.saturating_add(number(position))), |it| Int::from_i128(*it));
        self.supply.push((asset, amount.clone(), truth(false)));
        amount
    }

    fn conservation(&self, member: &MemberPattern, supply: &[(u16, Int)]) -> Bool {
        let inputs = member.inputs.iter().map(|input| input.output);
        let outputs = member.outputs.iter().map(|created| created.output);
        let mut assets: Vec<u16> = inputs.clone().chain(outputs.clone()).filter_map(|it| self.asset(it)).collect();
        assets.extend(&member.supply);
        assets.sort_unstable();
        assets.dedup();
        let equal = |asset: u16| {
            let supplied = supply.iter().filter(|(other, _)| *other == asset).map(|(_, amount)| amount.clone());
            let inflow: Vec<Int> = self.of_asset(inputs.clone(), asset).chain(supplied).collect();
            let outflow: Vec<Int> = self.of_asset(outputs.clone(), asset).collect();
            sum(&inflow).eq(sum(&outflow))
        };
        all(&assets.into_iter().map(equal).collect::<Vec<_>>())
    }

    fn asset(&self, output: u16) -> Option<u16> {
        self.content(output)?.asset()
    }

    fn of_asset(&self, outputs: impl Iterator<Item = u16>, asset: u16) -> impl Iterator<Item = Int> {
        let of_asset = outputs.filter(move |output| self.asset(*output) == Some(asset));
        of_asset.filter_map(|output| self.amounts.get(usize::from(output)).cloned().flatten())
    }

    fn rule(&mut self, member: &MemberPattern, number: u16, facts: &[Facts]) -> Rule {
        let fits = |input: &InputPattern| input.expiry == Expiry::Fits;
        let in_time = !member.expired && !member.head_unknown && member.inputs.iter().all(fits);
        let at = |output: u16| facts.get(usize::from(output)).cloned();
        let inputs: Vec<Facts> = member.inputs.iter().filter_map(|input| at(input.output)).collect();
        let references: Vec<Facts> = member.references.iter().filter_map(|reference| at(*reference)).collect();
        let live = inputs.iter().chain(&references).map(|facts| facts.live.clone());
        let conditions: Vec<Bool> =
            [truth(in_time), truth(member.choice == Choice::Right)].into_iter().chain(live).collect();
        let could_happen = Bool::new_const(COULD_HAPPEN.saturating_add(u32::from(number)));
        self.assertions.push(could_happen.eq(all(&conditions)));
        Rule { number, in_time: truth(in_time), inputs, references, could_happen }
    }

    fn outcomes(&mut self, unit: &UnitPattern, first: u16, rules: &[Rule], happens: &Bool) {
        if unit.standing == UnitStanding::Assumed {
            return;
        }
        for (position, member) in unit.members.iter().enumerate() {
            let number = first.saturating_add(small(position));
            let right = match (unit.standing, member.outcome) {
                (UnitStanding::Whole, OutcomePattern::Committed) => happens.clone(),
                (UnitStanding::Whole, OutcomePattern::GroupMemberRejected(culprit, code)) => {
                    let culprit = usize::from(culprit);
                    let reason = unit.members.get(culprit).zip(rules.get(culprit));
                    match reason.filter(|_| culprit != position) {
                        Some((member, rule)) => all(&[fails_first(rules, culprit), rule.has_code(member, code)]),
                        None => truth(false),
                    }
                }
                (UnitStanding::Whole, outcome) => match rules.get(position) {
                    Some(rule) => all(&[fails_first(rules, position), rule.has_reason(member, outcome)]),
                    None => truth(false),
                },
                (UnitStanding::Barred(by), OutcomePattern::GroupMemberSequenced(claimed)) => truth(by == claimed),
                (UnitStanding::Barred(_) | UnitStanding::Broken | UnitStanding::Assumed, _) => truth(false),
            };
            let invariant = match (unit.standing, member.outcome) {
                (UnitStanding::Barred(_) | UnitStanding::Broken, _)
                | (_, OutcomePattern::GroupMemberRejected(..) | OutcomePattern::GroupMemberSequenced(_)) => {
                    Invariant::Group
                }
                _ => Invariant::Outcome,
            };
            let mut label = Label::of_member(invariant, number);
            label.input = claimed_input(member.outcome);
            self.violations.push((label, right.not()));
        }
    }

    fn effects(&mut self, unit: &UnitPattern, first: u16, happens: &Bool) {
        let supply_before = self.supply.len();
        let changes: usize = unit.members.iter().map(|member| member.supply.len()).sum();
        for supply in self.supply.iter_mut().skip(supply_before.saturating_sub(changes)) {
            supply.2 = happens.clone();
        }
        for (position, member) in unit.members.iter().enumerate() {
            happen(&mut self.facts, member, first.saturating_add(small(position)), happens);
        }
    }

    fn states_after(&mut self) {
        for (position, (output, facts)) in self.pattern.outputs.iter().zip(&self.facts).enumerate() {
            let label = Label::of_output(Invariant::PostState, small(position));
            self.violations.push((label, facts.agree_with(output.after).not()));
        }
    }

    /// Of each asset there is as much as before and what issuers changed; and nothing is owed without a grant.
    fn totals(&mut self) {
        let mut assets: Vec<u16> = self.pattern.outputs.iter().filter_map(|output| output.content.asset()).collect();
        assets.extend(self.supply.iter().map(|(asset, ..)| *asset));
        assets.sort_unstable();
        assets.dedup();
        let zero = Int::from_i64(0);
        for asset in assets {
            let outputs = self.pattern.outputs.iter().zip(self.facts.iter().zip(&self.amounts)).enumerate();
            let of_asset = outputs.filter(|(_, (output, _))| output.content.asset() == Some(asset));
            let (mut before, mut after, mut example) = (Vec::new(), Vec::new(), 0);
            for (position, (output, (facts, amount))) in of_asset {
                let Some(amount) = amount else { continue };
                if output.before == FatePattern::Live {
                    before.push(amount.clone());
                }
                after.push(facts.live.ite(amount, &zero));
                example = position;
            }
            let issued = self.supply.iter().filter(|(other, ..)| *other == asset);
            before.extend(issued.map(|(_, amount, happens)| happens.ite(amount, &zero)));
            let label = Label::of_output(Invariant::Conservation, small(example));
            self.violations.push((label, sum(&before).eq(sum(&after)).not()));
        }
    }
}

/// What a transaction does to the facts, where it happens.
fn happen(facts: &mut [Facts], member: &MemberPattern, number: u16, happens: &Bool) {
    for input in &member.inputs {
        if let Some(facts) = facts.get_mut(usize::from(input.output)) {
            let consumed = all(&[facts.live.clone(), happens.clone()]);
            facts.live = all(&[facts.live.clone(), happens.not()]);
            facts.consumed_by.push((Spender::Member(number), consumed));
        }
    }
    for created in &member.outputs {
        if let Some(facts) = facts.get_mut(usize::from(created.output)) {
            facts.live = any(&[facts.live.clone(), happens.clone()]);
            facts.created = any(&[facts.created.clone(), happens.clone()]);
        }
    }
}

fn observations(member: &MemberPattern, number: u16, facts: &[Facts]) -> Vec<(Label, Bool)> {
    let named = member.inputs.iter().map(|input| input.output).chain(member.references.iter().copied());
    let claimed = named.zip(&member.observations).enumerate();
    let differs = claimed.filter_map(|(position, (output, claim))| {
        let facts = facts.get(usize::from(output))?;
        let label = Label {
            invariant: Invariant::Observation,
            member: Some(number),
            input: Some(small(position)),
            output: Some(output),
        };
        Some((label, facts.agree_with((*claim)?).not()))
    });
    differs.collect()
}

/// True where this member of a unit is the first that cannot happen.
fn fails_first(rules: &[Rule], position: usize) -> Bool {
    let before = rules.iter().take(position).map(|rule| rule.could_happen.clone());
    let fails = rules.get(position).map(|rule| rule.could_happen.not());
    all(&before.chain(fails).collect::<Vec<_>>())
}

impl Rule {
    /// True where the serial rule gives this reason.
    fn has_reason(&self, member: &MemberPattern, outcome: OutcomePattern) -> Bool {
        let MemberPattern { expired, head_unknown, inputs, .. } = member;
        let timely = !*expired && !*head_unknown;
        let first_with = |expiry| inputs.iter().position(|input| input.expiry == expiry).map(small);
        let early = first_with(Expiry::TooEarly);
        match outcome {
            OutcomePattern::Expired => truth(*expired),
            OutcomePattern::HeadUnknown => truth(!*expired && *head_unknown),
            OutcomePattern::NotYetExpired(input) => truth(timely && early == Some(input)),
            OutcomePattern::AllocationExpired(input) => {
                truth(timely && early.is_none() && first_with(Expiry::TooLate) == Some(input))
            }
            OutcomePattern::InputUnknown(input) => self.first_dead(&self.inputs, input, &[], None),
            OutcomePattern::InputSpent(input, by) => self.first_dead(&self.inputs, input, &[], Some(by)),
            OutcomePattern::ReferenceUnknown(reference) => {
                self.first_dead(&self.references, reference, &self.inputs, None)
            }
            OutcomePattern::ReferenceSpent(reference, by) => {
                self.first_dead(&self.references, reference, &self.inputs, Some(by))
            }
            OutcomePattern::Insufficient => all(&[self.in_time.clone(), truth(member.choice == Choice::Insufficient)]),
            OutcomePattern::TooFragmented => {
                all(&[self.in_time.clone(), truth(member.choice == Choice::TooFragmented)])
            }
            OutcomePattern::Committed
            | OutcomePattern::GroupMemberRejected(..)
            | OutcomePattern::GroupMemberSequenced(_)
            | OutcomePattern::Impossible => truth(false),
        }
    }

    /// True where the first of these that is not live is this one, everything judged before being right: never
    /// created, or consumed by that transaction.
    fn first_dead(&self, among: &[Facts], position: u16, before: &[Facts], by: Option<Spender>) -> Bool {
        let Some(facts) = among.get(usize::from(position)) else { return truth(false) };
        let live = before.iter().chain(among.iter().take(usize::from(position))).map(|facts| facts.live.clone());
        let fate = match by {
            None => facts.created.not(),
            Some(by) => all(&[facts.created.clone(), facts.consumed_by(by)]),
        };
        all(&live.chain([self.in_time.clone(), facts.live.not(), fate]).collect::<Vec<_>>())
    }

    /// True where the serial rule gives a reason with this number, with whatever evidence.
    fn has_code(&self, member: &MemberPattern, code: u16) -> Bool {
        let inputs = || (0..self.inputs.len()).map(small);
        let references = || (0..self.references.len()).map(small);
        let spenders = |among: &[Facts], position: u16| -> Vec<Spender> {
            let facts = among.get(usize::from(position));
            facts.map(|facts| facts.consumed_by.iter().map(|(by, _)| *by).collect()).unwrap_or_default()
        };
        let reasons: Vec<OutcomePattern> = match code {
            200 => vec![OutcomePattern::Expired],
            202 => vec![OutcomePattern::HeadUnknown],
            203 => inputs().map(OutcomePattern::NotYetExpired).collect(),
            204 => inputs().map(OutcomePattern::AllocationExpired).collect(),
            205 => inputs().map(OutcomePattern::InputUnknown).collect(),
            206 => inputs()
                .flat_map(|at| spenders(&self.inputs, at).into_iter().map(move |by| OutcomePattern::InputSpent(at, by)))
                .collect(),
            207 => references().map(OutcomePattern::ReferenceUnknown).collect(),
            208 => references()
                .flat_map(|at| {
                    let spenders = spenders(&self.references, at).into_iter();
                    spenders.map(move |by| OutcomePattern::ReferenceSpent(at, by))
                })
                .collect(),
            210 => vec![OutcomePattern::Insufficient],
            211 => vec![OutcomePattern::TooFragmented],
            _ => Vec::new(),
        };
        debug_assert!(self.number < u16::MAX);
        any(&reasons.into_iter().map(|reason| self.has_reason(member, reason)).collect::<Vec<_>>())
    }
}

/// True for a reason that a transaction has by itself and not through its group.
const fn is_own_reason(outcome: OutcomePattern) -> bool {
    !matches!(
        outcome,
        OutcomePattern::Committed | OutcomePattern::GroupMemberRejected(..) | OutcomePattern::GroupMemberSequenced(_)
    )
}

const fn claimed_input(outcome: OutcomePattern) -> Option<u16> {
    if let OutcomePattern::NotYetExpired(input)
    | OutcomePattern::AllocationExpired(input)
    | OutcomePattern::InputUnknown(input)
    | OutcomePattern::InputSpent(input, _) = outcome
    {
        return Some(input);
    }
    None
}

fn truth(value: bool) -> Bool {
    Bool::from_bool(value)
}

fn all(conditions: &[Bool]) -> Bool {
    match conditions {
        [] => truth(true),
        [only] => only.clone(),
        several => Bool::and(several),
    }
}

fn any(conditions: &[Bool]) -> Bool {
    match conditions {
        [] => truth(false),
        [only] => only.clone(),
        several => Bool::or(several),
    }
}

fn sum(amounts: &[Int]) -> Int {
    match amounts {
        [] => Int::from_i64(0),
        [only] => only.clone(),
        several => Int::add(several),
    }
}

/// A number of a symbol; windows are far smaller than the space between two kinds of symbols.
fn number(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

fn small(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
