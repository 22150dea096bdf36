//! The registers' histories as Knossos checks them: values per key, so that another's checker can look for an order.
//!
//! One map a line. `:f` is `:write`, `:cas` or `:read`; `:value` is `[key value]`, what Jepsen calls an independent tuple.
//! A key is a party. Its values are numbers in the order in which the history names them, 0 before the first, so that the
//! model is `(knossos.model/cas-register 0)`. `:cas` has `[old new]`; one that found something else has `:type :fail`.
//! A call without an answer ends with `:info`, after everything, and its process is never heard of again.
//!
//! Deliberately absent: what had no effect whatever the register held, such as what no node took in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use ledger::{OutputId, Party};

use super::registers::{RegisterCall, register_call};
use crate::history::Operation;
use crate::history::export::{Kind, Processes};

/// A call on one of the registers, and which number each value has.
struct Named {
    client: u64,
    invoked: Duration,
    answered: Option<Duration>,
    ending: Kind,
    function: &'static str,
    /// What was asked and what was answered, in EDN.
    asked: String,
    told: String,
}

/// Numbers the values of each register as they are named.
#[derive(Default)]
struct Values(BTreeMap<Party, BTreeMap<OutputId, usize>>);

impl Values {
    fn number(&mut self, party: &Party, value: &OutputId) -> usize {
        let known = self.0.entry(*party).or_default();
        let next = known.len() + 1;
        *known.entry(*value).or_insert(next)
    }

    fn name(&mut self, operation: &Operation, party: &Party, call: &RegisterCall) -> Named {
        let Operation { client, invoked, answered, .. } = *operation;
        let (function, ending, asked, told) = match call {
            RegisterCall::Create { to } => {
                let value = self.number(party, to).to_string();
                ("write", Kind::Ok, value.clone(), value)
            }
            RegisterCall::Replace { from, to, happened } => {
                let value = format!("[{} {}]", self.number(party, from), self.number(party, to));
                let ending = if *happened == Some(false) { Kind::Fail } else { Kind::Ok };
                ("cas", ending, value.clone(), value)
            }
            RegisterCall::Read(found) => {
                let found = found.map_or(0, |found| self.number(party, &found));
                ("read", Kind::Ok, "nil".to_owned(), found.to_string())
            }
        };
        let ending = if answered.is_some() { ending } else { Kind::Info };
        let told = if ending == Kind::Info { asked.clone() } else { told };
        let of = |value: String| format!("[\"{party}\" {value}]");
        Named { client, invoked, answered, ending, function, asked: of(asked), told: of(told) }
    }
}

/// The calls on these parties' registers, as events in the order of their times.
#[must_use]
pub fn to_registers_edn(operations: &[Operation], parties: &BTreeSet<Party>) -> String {
    let mut values = Values::default();
    let found = operations.iter().filter_map(|operation| Some((operation, register_call(operation, parties)?)));
    let calls: Vec<Named> = found.map(|(operation, (party, call))| values.name(operation, &party, &call)).collect();
    let end = calls.iter().flat_map(|call| call.answered.into_iter().chain([call.invoked])).max().unwrap_or_default();
    let ends = |call: &Named| (call.answered.unwrap_or(end), call.ending);
    let mut events: Vec<(Duration, Kind, usize, &Named)> = Vec::with_capacity(2 * calls.len());
    for (number, call) in calls.iter().enumerate() {
        let (ended, ending) = ends(call);
        events.push((call.invoked, Kind::Invoke, number, call));
        events.push((ended, ending, number, call));
    }
    // what ends and what begins at one moment may have met
    events.sort_by_key(|(time, kind, number, _)| (*time, *kind, *number));
    let mut processes = Processes::default();
    let mut text = String::new();
    for (index, (time, kind, number, call)) in events.into_iter().enumerate() {
        let process = processes.of(kind, number, call.client);
        let value = if kind == Kind::Invoke { &call.asked } else { &call.told };
        let (kind, function, nanos) = (kind.name(), call.function, time.as_nanos());
        writeln!(
            text,
            "{{:index {index}, :type :{kind}, :process {process}, :time {nanos}, :f :{function}, :value {value}}}"
        )
        .expect("writing to memory cannot fail");
    }
    text
}
