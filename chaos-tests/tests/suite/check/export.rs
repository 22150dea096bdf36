//! Exported histories say what was recorded, in forms that other checkers read.

use std::collections::{BTreeMap, BTreeSet};

use chaos_tests::check::{registers, to_registers_edn};
use chaos_tests::history::{Call, Operation, to_edn, to_json_lines};

use super::scene::Scene;

#[tokio::test]
async fn a_history_has_two_events_for_each_call_and_no_process_calls_twice_at_once() {
    let scene = Scene::play(3, 60).await;
    let operations = scene.journal.operations();
    let text = to_json_lines(operations);
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2 * operations.len());
    let mut open = BTreeMap::new();
    let mut last = 0;
    for event in &events {
        let (process, time) = (event["process"].as_u64().unwrap(), event["time"].as_u64().unwrap());
        assert!(time >= last);
        last = time;
        if event["type"] == "invoke" {
            assert_eq!(open.insert(process, event["f"].clone()), None, "one call at a time");
        } else {
            assert_eq!(open.remove(&process), Some(event["f"].clone()));
        }
    }
    assert!(open.is_empty());
    assert!(events.iter().any(|event| event["type"] == "fail") && events.iter().any(|event| event["type"] == "ok"));
}

#[tokio::test]
async fn edn_is_balanced_and_has_the_same_events() {
    let scene = Scene::play(3, 20).await;
    let text = to_edn(scene.journal.operations());
    assert_eq!(text.lines().count(), 2 * scene.journal.operations().len());
    for line in text.lines() {
        assert!(line.starts_with("{:index ") && line.ends_with('}'), "{line}");
        let count = |wanted: &[char]| line.chars().filter(|found| wanted.contains(found)).count();
        assert_eq!(count(&['{', '[']), count(&['}', ']']), "{line}");
    }
}

/// What the EDN that we write consists of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Edn {
    Nil,
    Integer(u64),
    Keyword(String),
    Text(String),
    Vector(Vec<Edn>),
    Map(BTreeMap<Edn, Edn>),
}

impl Edn {
    /// Reads a whole line.
    fn of(line: &str) -> Self {
        let mut rest = line;
        let value = Self::read(&mut rest);
        assert_eq!(rest, "", "nothing stands behind the value: {line}");
        value
    }

    /// Reads one value from the front.
    fn read(text: &mut &str) -> Self {
        let opening = text.chars().next().expect("a value");
        match opening {
            '[' => Self::Vector(Self::read_until(text, ']')),
            '{' => {
                let items = Self::read_until(text, '}');
                assert_eq!(items.len() % 2, 0, "a map has pairs");
                let pairs = items.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                let map: BTreeMap<Self, Self> = pairs.collect();
                assert_eq!(map.len() * 2, items.len(), "a key stands in a map once");
                Self::Map(map)
            }
            '"' => {
                let (content, rest) = text[1..].split_once('"').expect("a text ends");
                assert!(!content.contains('\\'), "no text of ours needs escapes");
                *text = rest;
                Self::Text(content.to_owned())
            }
            _ => {
                let end = text.find([' ', ',', ']', '}']).unwrap_or(text.len());
                let (token, rest) = text.split_at(end);
                *text = rest;
                match token.strip_prefix(':') {
                    Some(keyword) => Self::Keyword(keyword.to_owned()),
                    None if token == "nil" => Self::Nil,
                    None => Self::Integer(token.parse().unwrap()),
                }
            }
        }
    }

    fn read_until(text: &mut &str, closing: char) -> Vec<Self> {
        *text = &text[1..];
        let mut items = Vec::new();
        loop {
            *text = text.trim_start_matches([' ', ',']);
            if let Some(rest) = text.strip_prefix(closing) {
                *text = rest;
                return items;
            }
            items.push(Self::read(text));
        }
    }

    fn at(&self, key: &str) -> &Self {
        let Self::Map(fields) = self else { panic!("{self:?} is no map") };
        &fields[&Self::Keyword(key.to_owned())]
    }

    fn integer(&self) -> u64 {
        let Self::Integer(number) = self else { panic!("{self:?} is no number") };
        *number
    }

    fn keyword(&self) -> &str {
        let Self::Keyword(word) = self else { panic!("{self:?} is no keyword") };
        word
    }

    /// The key and the value of an independent tuple.
    fn tuple(&self) -> (&str, &Self) {
        let Self::Vector(items) = self else { panic!("{self:?} is no tuple") };
        let [Self::Text(key), value] = items.as_slice() else { panic!("{self:?} is no tuple") };
        (key, value)
    }

    fn pair(&self) -> (u64, u64) {
        let Self::Vector(items) = self else { panic!("{self:?} is no pair") };
        let [old, new] = items.as_slice() else { panic!("{self:?} is no pair") };
        (old.integer(), new.integer())
    }
}

/// A scene in which some clients were never answered.
async fn scene_with_unknown() -> (Scene, Vec<Operation>) {
    let scene = Scene::contended(3, 200).await;
    let mut operations = scene.journal.operations().to_vec();
    for operation in operations.iter_mut().skip(20).step_by(7) {
        if let Call::Submission { answers, .. } = &mut operation.call {
            answers.fill(None);
            operation.answered = None;
        }
    }
    (scene, operations)
}

#[tokio::test]
async fn the_registers_history_is_what_knossos_takes() {
    let (scene, operations) = scene_with_unknown().await;
    let text = to_registers_edn(&operations, &scene.registers);
    let events: Vec<Edn> = text.lines().map(Edn::of).collect();
    let calls: usize = registers::histories(&operations, &scene.registers).values().map(Vec::len).sum();
    assert_eq!(events.len(), 2 * calls);
    let mut open: BTreeMap<u64, &Edn> = BTreeMap::new();
    let (mut last_time, mut lost) = (0, BTreeSet::new());
    let mut kinds: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for (index, event) in (0..).zip(&events) {
        assert_eq!(event.at("index").integer(), index, "indices are those of the lines");
        let (process, time) = (event.at("process").integer(), event.at("time").integer());
        assert!(time >= last_time, "times never go back");
        last_time = time;
        let (kind, function) = (event.at("type").keyword(), event.at("f").keyword());
        *kinds.entry((function, kind)).or_default() += 1;
        let (key, value) = event.at("value").tuple();
        if kind == "invoke" {
            assert!(!lost.contains(&process), "a process that does not know what happened calls no more");
            assert!(open.insert(process, event).is_none(), "one call of a process at a time");
            assert_eq!(*value == Edn::Nil, function == "read", "{event:?}");
            continue;
        }
        let invoked = open.remove(&process).expect("a completion has its invocation");
        assert_eq!(invoked.at("f"), event.at("f"));
        assert_eq!(invoked.at("value").tuple().0, key, "it is about the same register");
        match function {
            "read" => assert!(kind == "ok" && matches!(value, Edn::Integer(_)), "{event:?}"),
            "write" => assert_eq!((value, value.integer() > 0), (invoked.at("value").tuple().1, true)),
            "cas" => {
                assert_eq!(value, invoked.at("value").tuple().1);
                assert!(value.pair().0 != value.pair().1, "{event:?}");
            }
            other => panic!("{other} is none of a register's functions"),
        }
        if kind == "info" {
            lost.insert(process);
        }
    }
    assert!(open.is_empty(), "every invocation has its completion");
    for kind in [("write", "ok"), ("cas", "ok"), ("cas", "fail"), ("cas", "info"), ("read", "ok")] {
        assert!(kinds.contains_key(&kind), "{kind:?} is in none of {kinds:?}");
    }
}

/// A register as the exported lines tell it, one after another: what Knossos' `(cas-register 0)` does.
fn explain(events: &[Edn]) -> Result<(), String> {
    let mut held: BTreeMap<&str, u64> = BTreeMap::new();
    for event in events {
        let (key, value) = event.at("value").tuple();
        let now = held.entry(key).or_default();
        match (event.at("type").keyword(), event.at("f").keyword()) {
            ("ok", "write") => *now = value.integer(),
            ("ok", "cas") if value.pair().0 == *now => *now = value.pair().1,
            ("ok", "read") if value.integer() == *now => {}
            ("fail" | "invoke", _) => {}
            _ => return Err(format!("{event:?} where {now} is held")),
        }
    }
    Ok(())
}

/// Scenes are played one call after another, so that the order of the lines explains them.
#[tokio::test]
async fn the_values_of_the_registers_history_are_those_that_were_there() {
    let scene = Scene::play(5, 150).await;
    let text = to_registers_edn(scene.journal.operations(), &scene.registers);
    let mut events: Vec<Edn> = text.lines().map(Edn::of).collect();
    assert_eq!(explain(&events), Ok(()));
    let is_read = |event: &&mut Edn| event.at("f").keyword() == "read" && event.at("type").keyword() == "ok";
    let Some(Edn::Map(fields)) = events.iter_mut().rfind(is_read) else { panic!("there are reads") };
    let value = fields.get_mut(&Edn::Keyword("value".to_owned())).unwrap();
    let Edn::Vector(items) = value else { panic!("a tuple") };
    items[1] = Edn::Integer(items[1].integer() + 1);
    assert!(explain(&events).is_err(), "another value is noticed");
}
