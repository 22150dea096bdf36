//! The search, against all orders there are, and against the check that knows the order.

use std::time::Duration;

use chaos_tests::check::linearizability::{Interval, Object, Search, search};
use chaos_tests::check::registers::{Register, RegisterCall};
use chaos_tests::dice::Dice;
use ledger::OutputId;

fn value(number: u64) -> OutputId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    OutputId::from_bytes(bytes)
}

/// A register's history from a seed: every call takes effect at one moment between its beginning and its answer, and
/// answers what it finds then. Returned in the order of those moments.
fn history(seed: u64, calls: u64, clients: u64) -> Vec<Interval<RegisterCall>> {
    let dice = Dice::new(seed);
    let mut free = vec![0; usize::try_from(clients).unwrap()];
    let mut moments: Vec<(u64, u64, u64)> = Vec::new();
    for call in 0..calls {
        let client = usize::try_from(call % clients).unwrap();
        let invoked = free[client] + dice.between(0..=5);
        let moment = invoked + dice.between(0..=10);
        let answered = moment + dice.between(0..=10);
        free[client] = answered + 1;
        moments.push((moment, invoked, answered));
    }
    moments.sort_unstable();
    let mut state = None;
    let mut last_seen = value(0);
    let at = Duration::from_millis;
    moments
        .into_iter()
        .enumerate()
        .map(|(number, (_, invoked, answered))| {
            let to = value(u64::try_from(number).unwrap() + 1);
            let call = match (state, dice.between(0..=2)) {
                (None, _) => RegisterCall::Create { to },
                (Some(_), 0) => RegisterCall::Read(state),
                (Some(now), choice) => {
                    let from = if choice == 1 { now } else { last_seen };
                    RegisterCall::Replace { from, to, happened: Some(from == now) }
                }
            };
            let before = state;
            state = Register.step(&state, &call).unwrap();
            if dice.chance(500) {
                last_seen = before.unwrap_or(last_seen);
            }
            let lost = dice.chance(80) && matches!(call, RegisterCall::Replace { .. });
            let call = match call {
                RegisterCall::Replace { from, to, .. } if lost => RegisterCall::Replace { from, to, happened: None },
                call @ (RegisterCall::Create { .. } | RegisterCall::Replace { .. } | RegisterCall::Read(_)) => call,
            };
            Interval { invoked: at(invoked), answered: (!lost).then_some(at(answered)), call }
        })
        .collect()
}

/// Whether this order explains the history: what the linear check does, once it has been told the order.
fn explains(history: &[Interval<RegisterCall>], order: &[usize]) -> bool {
    let mut state = Register.initial();
    let mut latest = Duration::ZERO;
    for interval in order.iter().map(|call| &history[*call]) {
        if interval.answered.is_some_and(|answered| answered < latest) {
            return false;
        }
        latest = latest.max(interval.invoked);
        match Register.step(&state, &interval.call) {
            Some(after) => state = after,
            None => return false,
        }
    }
    let missing = (0..history.len()).filter(|call| !order.contains(call));
    missing.map(|call| &history[call]).all(|interval| interval.answered.is_none())
}

fn any_order_explains(history: &[Interval<RegisterCall>], order: &mut Vec<usize>) -> bool {
    if explains(history, order) {
        return true;
    }
    for call in 0..history.len() {
        if !order.contains(&call) {
            order.push(call);
            let found = any_order_explains(history, order);
            order.pop();
            if found {
                return true;
            }
        }
    }
    false
}

/// Changes one answer.
fn spoil(history: &mut [Interval<RegisterCall>], dice: &Dice) {
    let position = usize::try_from(dice.between(0..=u64::try_from(history.len() - 1).unwrap())).unwrap();
    match &mut history[position].call {
        RegisterCall::Replace { happened: Some(happened), .. } => *happened = !*happened,
        RegisterCall::Read(found) => *found = Some(value(dice.between(1..=8))),
        RegisterCall::Create { .. } | RegisterCall::Replace { .. } => {}
    }
}

#[test]
fn what_happened_in_some_order_is_explained_by_an_order_that_the_linear_check_accepts() {
    for seed in 0..200 {
        let history = history(seed, 60, 5);
        let order: Vec<usize> = (0..history.len()).collect();
        assert!(explains(&history, &order), "seed {seed}: the history was made in this order");
        match search(&Register, &history, 1_000_000) {
            Search::Explained(order) => assert!(explains(&history, &order), "seed {seed}"),
            other @ (Search::Impossible { .. } | Search::Undecided) => panic!("seed {seed}: {other:?}"),
        }
    }
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let mut impossible = 0;
    for seed in 0..400 {
        let mut history = history(seed, 6, 3);
        spoil(&mut history, &Dice::new(seed + 10_000));
        let found = search(&Register, &history, 1_000_000);
        let possible = any_order_explains(&history, &mut Vec::new());
        assert_eq!(matches!(found, Search::Explained(_)), possible, "seed {seed}: {found:?} {history:?}");
        impossible += u64::from(!possible);
    }
    assert!((50..350).contains(&impossible), "{impossible} of 400 are impossible");
}

#[test]
fn a_search_that_is_too_long_says_so() {
    let history = history(1, 60, 5);
    assert_eq!(search(&Register, &history, 10), Search::Undecided);
}
