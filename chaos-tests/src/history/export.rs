//! Histories as other checkers read them: events in the order of their times, one a line.
//!
//! The events are those of Jepsen: `invoke`, then `ok`, `fail` (it did not happen) or `info` (unknown). A process that
//! does not know what became of its call is never heard of again; its client goes on as another process.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use ledger::Outcome;
use serde_json::{Value, json};

use super::{Call, Operation, Told};

/// Writes both forms into a directory.
///
/// # Errors
/// Where a file cannot be written.
pub fn write(directory: &Path, operations: &[Operation]) -> anyhow::Result<()> {
    let write = |name: &str, text: String| {
        let file = directory.join(name);
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    write("history.jsonl", to_json_lines(operations))?;
    write("history.edn", to_edn(operations))
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Invoke => "invoke",
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Info => "info",
        }
    }
}

struct Event<'a> {
    time: Duration,
    kind: Kind,
    /// Which call; also the process, before it has a number.
    call: usize,
    operation: &'a Operation,
}

/// Every call's two events, in the order of their times. What was never answered ends as unknown, after everything.
fn events(operations: &[Operation]) -> Vec<Event<'_>> {
    let mut events = Vec::with_capacity(operations.len() * 2);
    let end = operations.iter().flat_map(|operation| operation.answered.into_iter().chain([operation.invoked])).max();
    for (call, operation) in operations.iter().enumerate() {
        events.push(Event { time: operation.invoked, kind: Kind::Invoke, call, operation });
        let time = operation.answered.or(end).unwrap_or_default();
        events.push(Event { time, kind: ending(operation), call, operation });
    }
    events.sort_by_key(|event| (event.time, event.kind, event.call));
    events
}

fn ending(operation: &Operation) -> Kind {
    if operation.answered.is_none() {
        return Kind::Info;
    }
    match &operation.call {
        Call::Read { found: Some(_), .. } => Kind::Ok,
        Call::Read { found: None, .. } => Kind::Fail,
        Call::Submission { answers, .. } => {
            let happened = |told: &Told| matches!(told, Told::Sequenced(record) if record.outcome.is_committed());
            if answers.iter().flatten().any(happened) { Kind::Ok } else { Kind::Fail }
        }
    }
}

/// Numbers processes: a client is one until a call of it stays unknown.
#[derive(Default)]
pub(crate) struct Processes {
    /// By call: the process that made it.
    of_call: BTreeMap<usize, u64>,
    free: BTreeMap<u64, Vec<u64>>,
    next: u64,
}

impl Processes {
    /// Whose event this is, of all events in their order: the process that makes the call, by the number of the call and
    /// its client.
    pub(crate) fn of(&mut self, kind: Kind, call: usize, client: u64) -> u64 {
        if kind == Kind::Invoke {
            // a client may make several calls at once: each is a process then
            let process = self.free.entry(client).or_default().pop().unwrap_or_else(|| {
                self.next += 1;
                self.next - 1
            });
            self.of_call.insert(call, process);
            return process;
        }
        let process = self.of_call.remove(&call).unwrap_or(u64::MAX);
        if kind != Kind::Info {
            self.free.entry(client).or_default().push(process);
        }
        process
    }
}

fn function(operation: &Operation) -> &'static str {
    match operation.call {
        Call::Submission { .. } => "submit",
        Call::Read { .. } => "read",
    }
}

/// What was told of one transaction, in a word, with its place.
fn outcome(told: Option<&Told>) -> (String, Option<u64>) {
    match told {
        None => ("unknown".to_owned(), None),
        Some(Told::NotTaken) => ("not-taken".to_owned(), None),
        Some(Told::Refused(reason)) => (format!("refused-{}", reason.code()), None),
        Some(Told::Sequenced(record)) => {
            let place = Some(record.sequence.get());
            match &record.outcome {
                Outcome::Committed { .. } => ("committed".to_owned(), place),
                Outcome::Rejected(reason) => (format!("rejected-{}", reason.code()), place),
            }
        }
    }
}

fn value(event: &Event<'_>) -> Value {
    let told = event.kind != Kind::Invoke;
    match &event.operation.call {
        Call::Submission { ids, answers, .. } => {
            let member = |(id, answer): (&ledger::TransactionId, &Option<Told>)| {
                if !told {
                    return json!({ "transaction": id.to_string() });
                }
                let (outcome, place) = outcome(answer.as_ref());
                json!({ "transaction": id.to_string(), "outcome": outcome, "place": place })
            };
            ids.iter().zip(answers).map(member).collect()
        }
        Call::Read { party, found, level } => {
            let mut value = json!({ "party": party.to_string(), "level": format!("{level:?}") });
            if let Some(found) = found.as_ref().filter(|_| told) {
                value["batch"] = found.head.batch.into();
                value["size"] = found.head.size.get().into();
                value["complete"] = found.complete.into();
                value["outputs"] = found.outputs.iter().map(ToString::to_string).collect();
            }
            value
        }
    }
}

fn lines(operations: &[Operation], line: impl Fn(usize, &Event<'_>, u64, &Value) -> String) -> String {
    let mut processes = Processes::default();
    let mut text = String::new();
    for (index, event) in events(operations).iter().enumerate() {
        let process = processes.of(event.kind, event.call, event.operation.client);
        text.push_str(&line(index, event, process, &value(event)));
        text.push('\n');
    }
    text
}

/// The history as one JSON object a line: index, type, process, time in nanoseconds, function, value.
#[must_use]
pub fn to_json_lines(operations: &[Operation]) -> String {
    lines(operations, |index, event, process, value| {
        let nanos = u64::try_from(event.time.as_nanos()).unwrap_or(u64::MAX);
        let (kind, function) = (event.kind.name(), function(event.operation));
        json!({ "index": index, "type": kind, "process": process, "time": nanos, "f": function, "value": value })
            .to_string()
    })
}

/// The same in EDN, as Jepsen stores histories: one map a line.
#[must_use]
pub fn to_edn(operations: &[Operation]) -> String {
    lines(operations, |index, event, process, value| {
        let (kind, function, nanos) = (event.kind.name(), function(event.operation), event.time.as_nanos());
        let mut text =
            format!("{{:index {index}, :type :{kind}, :process {process}, :time {nanos}, :f :{function}, :value ");
        write_edn(&mut text, value);
        text.push('}');
        text
    })
}

/// A value of JSON in EDN: names of fields are keywords.
pub(crate) fn write_edn(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("nil"),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            write!(text, "{value}").expect("writing to memory cannot fail");
        }
        Value::Array(items) => {
            text.push('[');
            for (position, item) in items.iter().enumerate() {
                text.push_str(if position > 0 { " " } else { "" });
                write_edn(text, item);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (position, (name, field)) in fields.iter().enumerate() {
                text.push_str(if position > 0 { ", " } else { "" });
                write!(text, ":{name} ").expect("writing to memory cannot fail");
                write_edn(text, field);
            }
            text.push('}');
        }
    }
}
