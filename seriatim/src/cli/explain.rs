//! `seriatim explain`: the catalogue of everything that has a number.

use std::fmt::Write as _;
use std::process::ExitCode;

use ::node::json;
use anyhow::bail;
use clap::Args;
use proto::problem::{CatalogueEntry, Effect, Family, Retry, catalogue};
use serde_json::Value;

use super::settings;

/// Explain an error or a reason by its number or name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim explain 206
  seriatim explain InputSpent
  seriatim explain --all
  seriatim explain --settings        every setting of a node, a validator and a prover")]
pub(crate) struct ExplainArguments {
    /// The number or the name
    #[arg(value_name = "CODE", required_unless_present_any = ["all", "settings"], conflicts_with_all = ["all", "settings"])]
    code: Option<String>,
    /// The whole catalogue
    #[arg(long)]
    all: bool,
    /// Every setting, with its flag, its variable of the environment and its key in a file
    #[arg(long, conflicts_with = "all")]
    settings: bool,
    /// As a page in Markdown (docs/errors.md, docs/configuration.md)
    #[arg(long, conflicts_with_all = ["json", "code"])]
    markdown: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    if arguments.settings {
        match (arguments.markdown, arguments.json) {
            (true, _) => print!("{}", settings::markdown()),
            (false, true) => println!("{:#}", settings::json()),
            (false, false) => print!("{}", settings::text()),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let entries: Vec<CatalogueEntry> = match &arguments.code {
        None => catalogue().collect(),
        Some(asked) => {
            let meant =
                |entry: &CatalogueEntry| entry.code.to_string() == *asked || entry.name.eq_ignore_ascii_case(asked);
            let Some(entry) = catalogue().find(meant) else {
                bail!("nothing is called {asked}; `seriatim explain --all` lists everything that has a number");
            };
            vec![entry]
        }
    };
    match (arguments.markdown, arguments.json, entries.as_slice()) {
        (true, ..) => print!("{}", markdown(&entries)),
        (false, true, [only]) => println!("{:#}", json::catalogue_entry(only)),
        (false, true, all) => println!("{:#}", all.iter().map(json::catalogue_entry).collect::<Value>()),
        (false, false, [only]) => println!("{}", text(only)),
        (false, false, all) => {
            all.iter().for_each(|entry| println!("{}  {:<22} {}", entry.code, entry.name, entry.meaning))
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(entry: &CatalogueEntry) -> String {
    format!(
        "{} {}\n  {}\n  What to do: {}\n  {}\n  gRPC {:?}, HTTP {}",
        entry.code,
        entry.name,
        entry.meaning,
        entry.advice,
        consequence(entry),
        entry.grpc,
        entry.http
    )
}

/// What it says about the transaction, and whether the same bytes may be sent again.
fn consequence(entry: &CatalogueEntry) -> &'static str {
    match (entry.family, entry.effect, entry.retry) {
        (Family::OrderFree, ..) => "The transaction never entered the order: nothing happened.",
        (Family::OrderBound, ..) => "The transaction has a place in the order and did not happen, for ever.",
        (Family::Problem, Effect::None, Retry::Never) => "Nothing happened; the same request fails again.",
        (Family::Problem, Effect::None, Retry::Later) => "Nothing happened; the same request may succeed later.",
        (Family::Problem, Effect::None, Retry::Elsewhere) => {
            "Nothing happened; the same request may succeed at another node, or later."
        }
        (Family::Problem, Effect::Unknown, Retry::Never) => "Whether it happened is not known.",
        (Family::Problem, Effect::Unknown, Retry::Later | Retry::Elsewhere) => {
            "Whether it happened is not known; the same bytes may be sent again, at another node or later."
        }
    }
}

/// The page in docs.
pub(crate) fn markdown(entries: &[CatalogueEntry]) -> String {
    let mut page = String::from(
        "# Everything that has a number\n\n\
         Made by `seriatim explain --all --markdown`; a test compares. Numbers are never reused.\n\n\
         Reasons below 300 are the sender's mistake and the same on every replica. Problems from 300 on are the \
         world's failure: they say nothing against the transaction.\n",
    );
    let families = [
        (Family::OrderFree, "Refused before the order"),
        (Family::OrderBound, "Rejected at a place in the order"),
        (Family::Problem, "Problems of nodes and the network"),
    ];
    for (family, title) in families {
        writeln!(page, "\n## {title}\n").expect("writing to a String cannot fail");
        for entry in entries.iter().filter(|entry| entry.family == family) {
            writeln!(
                page,
                "### {} {}\n\n{}\n\n*What to do:* {}\n\n{} gRPC `{:?}`, HTTP {}.\n",
                entry.code,
                entry.name,
                entry.meaning,
                entry.advice,
                consequence(entry),
                entry.grpc,
                entry.http
            )
            .expect("writing to a String cannot fail");
        }
    }
    page
}
