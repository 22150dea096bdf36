//! Obligations as SMT-LIB, given to whatever other solvers this machine has.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use checker::Chunk;
use prover::{Obligation, Prover, ProverSettings};

use crate::scene::{Scene, lies};

/// Programs that read SMT-LIB 2 from their standard input, with what makes them do so.
const SOLVERS: [(&str, &[&str]); 4] = [
    ("z3", &["-in"]),
    ("cvc5", &["--lang=smt2", "--incremental", "-"]),
    ("cvc4", &["--lang=smt2", "--incremental", "-"]),
    ("yices-smt2", &["--incremental"]),
];

fn obligations(chunks: &[Chunk]) -> Vec<Obligation> {
    let prover = Prover::new(ProverSettings::default());
    chunks.iter().filter_map(|chunk| prover.export(chunk).ok()).flatten().collect()
}

/// All the obligations in one text, with a reset between two.
fn text(obligations: &[Obligation]) -> String {
    obligations.iter().fold(String::new(), |mut text, obligation| {
        writeln!(text, "{}\n(reset)", obligation.smt_lib).unwrap();
        text
    })
}

/// A program's answers, one for each obligation; `None` where there is no such program.
fn asked(program: &str, arguments: &[&str], text: &str) -> Option<Vec<String>> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut running = command.spawn().ok()?;
    let mut input = running.stdin.take().unwrap();
    let text = text.to_owned();
    let writing = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = running.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let answers = String::from_utf8(output.stdout).unwrap();
    Some(answers.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

fn library(obligation: &Obligation) -> &'static str {
    let solver = z3::Solver::new();
    solver.from_string(obligation.smt_lib.as_str());
    match solver.check() {
        z3::SatResult::Unsat => "unsat",
        z3::SatResult::Sat => "sat",
        z3::SatResult::Unknown => "unknown",
    }
}

#[test]
fn other_solvers_answer_exported_obligations_as_the_library_does() {
    let scene = Scene::new();
    let mut sample = obligations(&scene.honest());
    let honest = sample.len();
    assert!(honest > 10);
    for lie in lies().iter().filter(|lie| lie.seen_by_solver) {
        sample.extend(obligations(&(lie.tell)(&scene)));
    }
    let expected: Vec<&str> = sample.iter().map(library).collect();
    assert!(expected[..honest].iter().all(|answer| *answer == "unsat"));
    assert!(expected.iter().filter(|answer| **answer == "sat").count() >= 10);
    let text = text(&sample);
    let mut found = Vec::new();
    for (program, arguments) in SOLVERS {
        let Some(answers) = asked(program, arguments, &text) else { continue };
        assert_eq!(answers, expected, "{program}");
        found.push(program);
    }
    println!("{} obligations were given to: {}", sample.len(), found.join(", "));
    let others = found.iter().filter(|program| **program != "z3").count();
    if !found.contains(&"z3") {
        skipped("exported obligations were not given to Debian's z3, which is not installed");
    }
    if others == 0 {
        skipped("exported obligations were given to no solver but Z3: install cvc5, cvc4 or yices-smt2");
    }
}

/// Tells `./test`, which counts what was left out.
fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
    if let Ok(list) = std::env::var("SERIATIM_SKIPPED_LIST") {
        let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}
