//! No page without its test: what a runbook says is run, all of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::stage::commands_of;

const HERE: &str = "tests/runbooks";
const PAGES: &str = "../docs/runbooks";

/// The files of a folder with this ending, and what is in them.
fn files(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn every_page_has_a_test_that_runs_all_of_its_commands() {
    // where a page is run: its text is included, and the test demands that every command ran
    let runs = |page: &str, source: &str| {
        source.contains(&format!("const PAGE: &str = include_str!(\"../../../docs/runbooks/{page}\");"))
            && source.lines().any(|line| line == "    stage.all_ran();")
    };
    let (pages, sources) = (files(PAGES, "md"), files(HERE, "rs"));
    let parts = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(HERE).join("main.rs")).unwrap();
    for (path, _) in &pages {
        let running: Vec<&str> =
            sources.iter().filter(|(_, source)| runs(name(path), source)).map(|(source, _)| name(source)).collect();
        let [running] = running.as_slice() else { panic!("{} is run by {running:?}", name(path)) };
        assert!(parts.lines().any(|line| line == format!("mod {};", running.trim_end_matches(".rs"))), "{running}");
    }
    assert!(!pages.is_empty(), "the pages are elsewhere");
}

#[test]
fn no_test_of_a_page_is_left_out() {
    for (path, source) in files(HERE, "rs") {
        let left_out = source.lines().find(|line| line.trim().starts_with("#[ignore"));
        assert_eq!(left_out, None, "{}", name(&path));
    }
}

/// What a test could not see stands nowhere: commands are between fences, and of a kind that the stage runs.
#[test]
fn every_command_of_a_page_is_where_its_test_looks() {
    for (path, page) in files(PAGES, "md") {
        let page_name = name(&path);
        for fence in page.lines().filter(|line| line.trim_start().starts_with("```")) {
            assert!(["```sh", "```"].contains(&fence), "{page_name}: {fence}");
        }
        assert_eq!(page.lines().filter(|line| line.starts_with("```")).count() % 2, 0, "{page_name}: an open fence");
        let commands = commands_of(&page);
        for command in &commands {
            assert!(command.starts_with("seriatim ") || command.starts_with("curl -s "), "{page_name}: {command}");
        }
        let outside = page.lines().filter(|line| line.starts_with("seriatim ") && !commands.contains(line));
        assert_eq!(outside.collect::<Vec<_>>(), Vec::<&str>::new(), "{page_name}");
    }
}
