//! The language of the rule tables: scenarios of transactions, each written as a few statements.
//!
//! ```text
//! terms T = alice>bob:10:USD bob>alice:9:EUR      for the whole file
//! = 206 InputSpent                                 the rule that the following rows are about
//! - words | statements | expectation               a row with one transaction
//! - words                                          a row with several, one bundle until `--`
//!     one: statements
//!     two &g: statements | expectation             members with one label are one atomic group
//!     -- 5000                                      a new bundle at this log time
//! ```
//! An expectation is `commits` (assumed where there is none) or a rejection's number and name.
//!
//! Statements, separated by `;`:
//! `sign A B` signers, sorted; `signers A B` as given; `forge A` a false signature; `unsigned` no signatures at all;
//! `spend C [by RIGHT]`, `refer C`, `out C`; `issue Q SYM`, `redeem Q SYM`; `propose T`, `settle T`, `reject T`;
//! `transfer A B Q SYM` and `swap T` make it a command; `until MS`, `head latest|bogus`, `cluster other`, `group N`;
//! `nonce N` (equal statements with one nonce are one transaction);
//! `trailing` and `cut` spoil the bytes; `absent`, `loose`, `first` spoil a group; `times N STATEMENT` repeats.
//!
//! `C` is a contract (`alice:10:USD`, `grant:alice:USD`, `lock:T:0[,qty=..,payer=..,asset=..,return=..,expires=..]`,
//! each with an optional `#N` that fixes its made-up origin) or an output of an earlier transaction (`one.0`).
//! `MAX` and `MIN` are the ends of 128 bits.

use std::collections::BTreeMap;

use ledger::apply::MemberResult;
use ledger::signature::SigningKey;
use ledger::transaction::{ReceivedTransaction, SeenHead};
use ledger::{
    Allocation, AtomicGroupId, Body, ClusterId, Command, Contract, Grant, Hash, Input, Intent, Leg, LogTime, Movements,
    Origin, Outcome, Position, Quantity, Reference, Rejection, Sequence, Signature, SupplyChange, Terms, TermsAction,
    TermsEntry, Transaction, TransactionId, Unlock,
};

use crate::support::{Submitted, TestLedger, asset, identity, key, party, verdicts};

/// Log time of the first bundle of a scenario, and how long transactions are valid unless they say otherwise.
const START: u64 = 1_000;
const VALID_UNTIL: u64 = 100_000;

/// One row: what happens in words, the transactions, and the rule's heading above it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) heading: String,
    pub(crate) words: String,
    lines: Vec<String>,
}

/// A table: its rows and the terms that they use.
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    terms: BTreeMap<String, Terms>,
}

impl Table {
    pub(crate) fn parse(text: &str) -> Self {
        let mut table = Self { rows: Vec::new(), terms: BTreeMap::new() };
        let mut heading = String::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(definition) = line.strip_prefix("terms ") {
                let (name, legs) = definition.split_once(" = ").unwrap();
                table.terms.insert(name.trim().to_owned(), parse_terms(legs));
            } else if let Some(title) = line.strip_prefix("= ") {
                title.clone_into(&mut heading);
            } else if let Some(row) = line.strip_prefix("- ") {
                let (words, rest) = row.split_once(" | ").unwrap_or((row, ""));
                let lines = if rest.is_empty() { Vec::new() } else { vec![format!("it: {rest}")] };
                table.rows.push(Row { heading: heading.clone(), words: words.to_owned(), lines });
            } else {
                table.rows.last_mut().expect("a row").lines.push(line.trim().to_owned());
            }
        }
        table
    }

    /// Runs a row. Returns what differs from its expectations, and every reason that occurred.
    pub(crate) fn run(&self, row: &Row) -> (Vec<String>, Vec<Rejection>) {
        let mut run = Run {
            table: self,
            ledger: TestLedger::new(),
            built: BTreeMap::new(),
            log_time: START,
            pending: Vec::new(),
            differences: Vec::new(),
            reasons: Vec::new(),
        };
        for line in &row.lines {
            match line.strip_prefix("-- ") {
                Some(time) => {
                    run.flush();
                    run.log_time = time.parse().unwrap();
                }
                None => run.line(line),
            }
        }
        run.flush();
        (run.differences, run.reasons)
    }
}

fn parse_terms(text: &str) -> Terms {
    let leg = |word: &str| {
        let (payer, rest) = word.split_once('>').unwrap();
        let parts: Vec<&str> = rest.split(':').collect();
        Leg { payer: party(payer), receiver: party(parts[0]), quantity: quantity(parts[1]), asset: asset(parts[2]) }
    };
    let legs = text.split_whitespace().flat_map(|word| match word.split_once('*') {
        Some((word, copies)) => vec![leg(word); copies.parse().unwrap()],
        None => vec![leg(word)],
    });
    Terms { legs: legs.collect(), nonce: 0 }
}

fn quantity(word: &str) -> Quantity {
    Quantity::new(match word {
        "MAX" => i128::MAX,
        "MIN" => i128::MIN,
        number => number.parse().unwrap_or_else(|_| panic!("a quantity, not {number:?}")),
    })
}

/// A transaction of a scenario that waits for its bundle.
struct Pending {
    name: String,
    group: Option<String>,
    expected: String,
    draft: Draft,
}

struct Run<'a> {
    table: &'a Table,
    ledger: TestLedger,
    built: BTreeMap<String, Transaction>,
    log_time: u64,
    pending: Vec<Pending>,
    differences: Vec<String>,
    reasons: Vec<Rejection>,
}

impl Run<'_> {
    fn line(&mut self, line: &str) {
        let (head, rest) = line.split_once(": ").unwrap_or_else(|| panic!("a name and statements: {line:?}"));
        let (statements, expected) = rest.split_once(" | ").unwrap_or((rest, "commits"));
        let mut head = head.split_whitespace();
        let (name, copies) = match head.next().unwrap().split_once('*') {
            Some((name, copies)) => (name, copies.parse().unwrap()),
            None => (line.split([' ', ':']).next().unwrap(), 1_u64),
        };
        let group = head.next().map(|label| label.strip_prefix('&').unwrap().to_owned());
        for _ in 0..copies {
            let mut draft = Draft::new(u64::try_from(self.built.len() + self.pending.len()).unwrap());
            for statement in statements.split(';') {
                draft.statement(statement.trim(), self);
            }
            self.built.insert(name.to_owned(), draft.transaction());
            self.pending.push(Pending {
                name: name.to_owned(),
                group: group.clone(),
                expected: expected.trim().to_owned(),
                draft,
            });
        }
    }

    /// Submits what is pending as one bundle and compares the answers.
    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let mut rest = std::mem::take(&mut self.pending).into_iter().peekable();
        let mut submissions: Vec<(Vec<Pending>, Submitted)> = Vec::new();
        while let Some(first) = rest.next() {
            let mut members = vec![first];
            while let Some(next) = rest.next_if(|next| next.group.is_some() && next.group == members[0].group) {
                members.push(next);
            }
            submissions.push(submission(members));
        }
        let verdicts = verdicts(&submissions.iter().map(|(_, submitted)| submitted.clone()).collect::<Vec<_>>());
        let passed: Vec<bool> = verdicts.iter().flatten().map(Result::is_ok).collect();
        let submitted: Vec<Submitted> = submissions.iter().map(|(_, submitted)| submitted.clone()).collect();
        let time = LogTime::from_unix_millis(self.log_time);
        let effects = self.ledger.batch_certified(&ledger::parallel::Serial, time, &submitted, &passed);
        let answers = TestLedger::answers(&effects);
        let refused_late = |result: &MemberResult| match result {
            MemberResult::ValidityTooLong { latest } => Err(Rejection::ValidityTooLong { latest: *latest }),
            _ => Ok(()),
        };
        let verdicts = verdicts.into_iter().flatten().zip(&effects.results);
        let verdicts = verdicts.map(|(verdict, result)| verdict.and_then(|()| refused_late(result)));
        for ((pending, verdict), answer) in
            submissions.iter().flat_map(|(members, _)| members).zip(verdicts).zip(answers)
        {
            self.compare(pending, verdict, answer);
            self.built.insert(pending.name.clone(), pending.draft.transaction());
        }
    }

    fn compare(&mut self, pending: &Pending, verdict: Result<(), Rejection>, answer: Option<(Sequence, Outcome)>) {
        let reason = match (pending.draft.decoding(), verdict, answer) {
            (Err(malformed), _, _) => Some(malformed),
            (Ok(()), Err(refused), None) => Some(refused),
            (Ok(()), Ok(()), Some((_, Outcome::Rejected(rejected)))) => Some(rejected),
            (Ok(()), Ok(()), Some((_, Outcome::Committed { .. }))) => None,
            (Ok(()), verdict, answer) => panic!("verdict {verdict:?} and answer {answer:?} contradict each other"),
        };
        let found = reason.as_ref().map_or("commits".to_owned(), |it| format!("{} {}", it.code(), it.name()));
        if found != pending.expected {
            self.differences
                .push(format!("{}: expected {}, found {found}: {reason:?}", pending.name, pending.expected));
        }
        self.reasons.extend(reason);
    }

    fn output_of(&self, reference: &str) -> Option<(Contract, Origin)> {
        let (name, index) = reference.split_once('.')?;
        let transaction = self.built.get(name).unwrap_or_else(|| panic!("no transaction {name:?} before"));
        let index: u16 = index.parse().unwrap();
        let position = |owner, asset, quantity| Contract::Position(Position { asset, owner, quantity });
        let contract = match &transaction.body.intent {
            Intent::Movements(movements) => movements.outputs[usize::from(index)],
            Intent::Command(Command::Transfer { asset, to, quantity, .. }) => position(*to, *asset, *quantity),
            Intent::Command(Command::Settle { terms }) => {
                let leg = terms.legs[usize::from(index)];
                position(leg.receiver, leg.asset, leg.quantity)
            }
        };
        Some((contract, Origin { transaction: transaction.id(), index }))
    }

    fn contract(&self, words: &str) -> Contract {
        let parts: Vec<&str> = words.split(':').collect();
        match parts[0] {
            "grant" => Contract::Grant(Grant { owner: party(parts[1]), asset: asset(parts[2]) }),
            "lock" => Contract::Allocation(self.allocation(parts[1], parts[2])),
            owner => Contract::Position(Position {
                owner: party(owner),
                quantity: quantity(parts[1]),
                asset: asset(parts[2]),
            }),
        }
    }

    fn allocation(&self, terms: &str, rest: &str) -> Allocation {
        let terms = &self.table.terms[terms];
        let mut words = rest.split(',');
        let index: u16 = words.next().unwrap().parse().unwrap();
        let leg = terms.legs.get(usize::from(index)).unwrap_or(&terms.legs[0]);
        let mut allocation = Allocation {
            terms: terms.id(),
            leg: index,
            asset: leg.asset,
            quantity: leg.quantity,
            payer: leg.payer,
            return_to: leg.payer,
            expires_at: LogTime::from_unix_millis(VALID_UNTIL),
        };
        for word in words {
            match word.split_once('=').unwrap() {
                ("qty", value) => allocation.quantity = quantity(value),
                ("payer", value) => allocation.payer = party(value),
                ("asset", value) => allocation.asset = asset(value),
                ("return", value) => allocation.return_to = party(value),
                ("expires", value) => allocation.expires_at = LogTime::from_unix_millis(value.parse().unwrap()),
                (other, _) => panic!("unknown field {other:?}"),
            }
        }
        allocation
    }
}

/// Names the group of the members, and signs.
fn submission(members: Vec<Pending>) -> (Vec<Pending>, Submitted) {
    let mut members = members;
    if members[0].group.is_some() {
        let ids: Vec<TransactionId> = members.iter().map(|member| member.draft.transaction().id()).collect();
        let group = AtomicGroupId::of(&ids);
        for member in &mut members {
            member.draft.body.atomic = (!member.draft.loose).then_some(group);
        }
        members.retain(|member| !member.draft.absent);
        members.sort_by_key(|member| !member.draft.first);
    }
    let transactions = members.iter().map(|member| member.draft.transaction()).collect();
    (members, Submitted::new(transactions))
}

/// A transaction in the making, with everything that spoils it.
struct Draft {
    body: Body,
    movements: Movements,
    command: Option<Command>,
    keys: Vec<SigningKey>,
    forged: Vec<String>,
    unsigned: bool,
    trailing: bool,
    cut: bool,
    absent: bool,
    loose: bool,
    first: bool,
    origins: u8,
}

impl Draft {
    fn new(nonce: u64) -> Self {
        let body = Body {
            cluster: identity().cluster,
            group: 0,
            valid_until: LogTime::from_unix_millis(VALID_UNTIL),
            nonce,
            atomic: None,
            seen_head: None,
            signers: Vec::new(),
            intent: Intent::Movements(Movements::default()),
        };
        Self {
            body,
            movements: Movements::default(),
            command: None,
            keys: Vec::new(),
            forged: Vec::new(),
            unsigned: false,
            trailing: false,
            cut: false,
            absent: false,
            loose: false,
            first: false,
            origins: 0,
        }
    }

    fn statement(&mut self, statement: &str, run: &Run<'_>) {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words.as_slice() {
            ["times", count, rest @ ..] => {
                for _ in 0..count.parse::<usize>().unwrap() {
                    self.statement(&rest.join(" "), run);
                }
            }
            ["sign", names @ ..] => {
                self.keys.extend(names.iter().map(|name| key(name)));
                self.keys.sort_by_key(SigningKey::party);
            }
            ["signers", names @ ..] => self.keys = names.iter().map(|name| key(name)).collect(),
            ["strangers", count] => {
                self.keys.extend((0..count.parse().unwrap()).map(|number: u64| key(&number.to_string())));
                self.keys.sort_by_key(SigningKey::party);
            }
            ["forge", name] => self.forged.push((*name).to_owned()),
            ["unsigned"] => self.unsigned = true,
            ["trailing"] => self.trailing = true,
            ["cut"] => self.cut = true,
            ["absent"] => self.absent = true,
            ["loose"] => self.loose = true,
            ["first"] => self.first = true,
            ["nonce", number] => self.body.nonce = number.parse().unwrap(),
            ["until", time] => self.body.valid_until = LogTime::from_unix_millis(time.parse().unwrap()),
            ["cluster", name] => self.body.cluster = ClusterId::of_name(name),
            ["group", number] => self.body.group = number.parse().unwrap(),
            ["head", which] => self.body.seen_head = Some(seen_head(which, run)),
            ["transfer", from, to, amount, symbol] => {
                let (from, to) = (party(from), party(to));
                self.command = Some(Command::Transfer { asset: asset(symbol), from, to, quantity: quantity(amount) });
            }
            ["swap", terms] => self.command = Some(Command::Settle { terms: run.table.terms[*terms].clone() }),
            _ => self.movement(&words, run),
        }
    }

    fn movement(&mut self, words: &[&str], run: &Run<'_>) {
        match words {
            ["spend", output] => self.spend(output, None, run),
            ["spend", output, "by", right] => self.spend(output, Some(right), run),
            ["refer", output] => {
                let (contract, origin) = self.existing(output, run);
                self.movements.references.push(Reference { origin, contract });
            }
            ["out", contract] => self.movements.outputs.push(run.contract(contract)),
            ["issue", amount, symbol] => {
                self.movements.supply.push(SupplyChange { asset: asset(symbol), quantity: quantity(amount) });
            }
            ["redeem", amount, symbol] => {
                let quantity = Quantity::ZERO.checked_sub(quantity(amount)).unwrap();
                self.movements.supply.push(SupplyChange { asset: asset(symbol), quantity });
            }
            [action @ ("propose" | "settle" | "reject"), terms] => {
                let action = match *action {
                    "propose" => TermsAction::Propose,
                    "settle" => TermsAction::Settle,
                    _ => TermsAction::Reject,
                };
                self.movements.terms.push(TermsEntry { action, terms: run.table.terms[*terms].clone() });
            }
            unknown => panic!("unknown statement {unknown:?}"),
        }
    }

    fn spend(&mut self, output: &str, right: Option<&str>, run: &Run<'_>) {
        let (contract, origin) = self.existing(output, run);
        let unlock = match right {
            None | Some("owner") => Unlock::Owner,
            Some("settle") => Unlock::Settle,
            Some("withdraw") => Unlock::Withdraw,
            Some("reject") => Unlock::Reject,
            Some("expire") => Unlock::Expire,
            Some(other) => panic!("unknown right {other:?}"),
        };
        self.movements.inputs.push(Input { origin, contract, unlock });
    }

    /// An output of an earlier transaction, or one that is made up.
    fn existing(&mut self, words: &str, run: &Run<'_>) -> (Contract, Origin) {
        if let Some(output) = run.output_of(words) {
            return output;
        }
        let (contract, origin) = words.split_once('#').unwrap_or((words, ""));
        self.origins = self.origins.wrapping_add(1);
        let number = origin.parse().unwrap_or(self.origins);
        let count = self.movements.inputs.len() + self.movements.references.len();
        let index = if origin.is_empty() { u16::try_from(count).unwrap() } else { 0 };
        (run.contract(contract), Origin { transaction: TransactionId::from_bytes([number; 32]), index })
    }

    fn transaction(&self) -> Transaction {
        let mut body = self.body.clone();
        body.signers = self.keys.iter().map(SigningKey::party).collect();
        body.intent = match &self.command {
            Some(command) => Intent::Command(command.clone()),
            None => Intent::Movements(self.movements.clone()),
        };
        let forged = |signer: &SigningKey| self.forged.iter().any(|name| party(name) == signer.party());
        let sign = |signer: &SigningKey| {
            if forged(signer) { Signature::from_bytes([7; 64]) } else { signer.sign_transaction(&body) }
        };
        let signatures = if self.unsigned { Vec::new() } else { self.keys.iter().map(sign).collect() };
        Transaction { body, signatures }
    }

    /// What a gateway says to the bytes before anything else is known.
    fn decoding(&self) -> Result<(), Rejection> {
        let mut bytes = self.transaction().encode();
        if self.trailing {
            bytes.push(0);
        }
        if self.cut {
            bytes.pop();
        }
        ReceivedTransaction::decode(&bytes).map(|_| ()).map_err(|_malformed| Rejection::Malformed {})
    }
}

fn seen_head(which: &str, run: &Run<'_>) -> SeenHead {
    let head = run.ledger.commitments.head();
    let log_root = if which == "bogus" { Hash::from_bytes([9; 32]) } else { head.log_root };
    let size = if which == "future" { head.size.plus(1) } else { head.size };
    SeenHead { size, log_root }
}
