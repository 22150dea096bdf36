//! The map must not rot: the crate table of ARCHITECTURE.md is what Cargo builds.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Uses = BTreeMap<String, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Rows of the crate table: `| [name](name/) | sentence | uses | must not know |`.
fn uses_on_the_map() -> Uses {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = map.lines().filter(|line| line.starts_with("| ["));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_start_matches('[').split(']').next().unwrap().to_owned();
        assert!(cells[1].ends_with(&format!("({name}/)")), "folder and crate share a name: {row}");
        assert!(cells.len() >= 5 && !cells[2].is_empty() && !cells[4].is_empty(), "incomplete row: {row}");
        let uses = cells[3].split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned);
        (name, uses.collect())
    })
    .collect()
}

/// Dependencies on crates of this workspace, tests' own excepted.
fn uses_in_the_build() -> Uses {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let uses = |package: &serde_json::Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        normal.map(name).filter(|name| ours.contains(name)).collect()
    };
    packages.iter().map(|package| (name(package), uses(package))).collect()
}

#[test]
fn the_crate_table_is_what_cargo_builds() {
    assert_eq!(uses_on_the_map(), uses_in_the_build());
}

#[test]
fn the_paths_on_the_map_exist() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let quoted = map.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|text| text.contains('/') && !text.contains(['{', ' ', ':', '*', '>']));
    let missing: Vec<&str> =
        paths.filter(|path| *path != "log/" && *path != "ledger/" && !root().join(path).exists()).collect();
    let relative = |path: &&str| !path.starts_with("gateway/") && !path.starts_with("check/");
    let missing: Vec<&str> = missing.into_iter().filter(relative).collect();
    assert!(missing.is_empty(), "on the map, not in the tree: {missing:?}");
}

/// Pairs of a test and its file, as a page names them: `` `name` in `path` ``.
fn tests_named_on(page: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let parts: Vec<&str> = text.split('`').collect();
    let is_name = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    let mut found = Vec::new();
    // names before the last one of a list share its file: `` `one`, `other` in `path` ``
    let mut together = Vec::new();
    // code stands at odd places, and what follows it behind
    for (place, name) in parts.iter().enumerate().skip(1).step_by(2).filter(|(_, name)| is_name(name)) {
        together.push((*name).to_owned());
        match (parts.get(place + 1), parts.get(place + 2)) {
            (Some(&", "), Some(next)) if is_name(next) => {}
            (Some(&" in "), Some(file)) if file.ends_with(".rs") => {
                found.extend(together.drain(..).map(|test| (test, (*file).to_owned())));
            }
            _ => together.clear(),
        }
    }
    found
}

/// Whether a source has this test, and it runs: a test that is left out keeps no promise.
fn is_run(source: &str, test: &str) -> bool {
    let Some((before, _)) = source.split_once(&format!("fn {test}(")) else { return false };
    // its attributes, which may take several lines, stand behind the last empty line or the end of another item
    let above = before.rsplit('\n').skip(1).map(str::trim).filter(|line| !line.starts_with("//"));
    let own = above.take_while(|line| !line.is_empty() && !line.ends_with(['{', '}', ';']));
    // also `tokio::test`, and what `cfg_attr` adds
    let words = own.flat_map(|line| line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'));
    let words: BTreeSet<&str> = words.collect();
    words.contains("test") && !words.contains("ignore")
}

fn not_run(named: &[(String, String)]) -> Vec<&(String, String)> {
    let is_not_run = |(test, file): &&(String, String)| {
        let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
        !is_run(&source, test)
    };
    named.iter().filter(is_not_run).collect()
}

#[test]
fn a_promise_is_kept_by_a_test_that_runs() {
    for (source, runs) in [
        ("#[test]\nfn it_holds() {", true),
        ("#[tokio::test(flavor = \"multi_thread\")]\n// why\nasync fn it_holds() {", true),
        ("#[test]\n#[ignore]\nfn other() {\n}\n#[test]\nfn it_holds() {", true),
        ("#[test]\n/// Nothing to ignore.\nfn it_holds() {", true),
        ("#[test]\n#[ignore]\nfn it_holds() {", false),
        ("#[ignore = \"it hung once\"]\n#[test]\nfn it_holds() {", false),
        ("#[test]\n#[ignore]\n// why\npub fn it_holds() {", false),
        ("#[test]\n#[cfg_attr(\n    unix,\n    ignore\n)]\nfn it_holds() {", false),
        ("fn it_holds() {", false),
        ("#[test]\nfn other() {\n}\n\nfn it_holds() {", false),
        ("#[test]\nfn it_holds_no_more() {", false),
    ] {
        assert_eq!(is_run(source, "it_holds"), runs, "{source}");
    }
}

#[test]
fn the_tests_on_the_page_of_bad_input_run() {
    let named = tests_named_on("docs/bad-input.md");
    assert!(named.len() > 20, "{named:?}");
    assert_eq!(not_run(&named), Vec::<&(String, String)>::new());
}

/// What somebody cannot do is a promise, and each has the test that keeps it.
#[test]
fn the_tests_on_the_page_of_security_run_and_every_row_names_one() {
    let named = tests_named_on("docs/security.md");
    assert!(named.len() > 50, "{named:?}");
    assert_eq!(not_run(&named), Vec::<&(String, String)>::new());
    let page = std::fs::read_to_string(root().join("docs/security.md")).unwrap();
    let (_, promises) = page.split_once("## What each can do, and cannot").unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| It cannot"));
    let unproven: Vec<&str> = rows.filter(|row| !row.contains("` in `")).collect();
    assert_eq!(unproven, Vec::<&str>::new());
}
