//! Exported histories say what was recorded, in forms that other checkers read.

use std::collections::BTreeMap;

use chaos_tests::history::{to_edn, to_json_lines};

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
