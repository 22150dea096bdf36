//! `seriatim explain --settings`: every setting of a node, a validator and a prover, from the command line's own
//! definition.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};
use serde_json::{Value, json};

use super::Cli;

/// Roles that have settings.
const ROLES: [&str; 3] = ["node", "validator", "prover"];

/// One setting of a role.
struct Setting {
    role: &'static str,
    flag: String,
    environment: String,
    value: String,
    meaning: String,
    /// The setting names the file that has the others, and is no key of it.
    is_file: bool,
}

impl Setting {
    /// A setting is what the environment may say, too; other options are about one start.
    fn of(role: &'static str, arg: &Arg) -> Option<Self> {
        let shown = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let environment = shown(arg.get_env()?);
        let values = arg.get_possible_values();
        let value = if values.is_empty() || values.iter().any(|value| matches!(value.get_name(), "true" | "false")) {
            arg.get_value_names().into_iter().flatten().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")
        } else {
            values.iter().map(clap::builder::PossibleValue::get_name).collect::<Vec<_>>().join(", ")
        };
        let meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let flag = arg.get_long()?.to_owned();
        (!arg.is_hide_set()).then_some(Self { role, is_file: flag == "config", flag, environment, value, meaning })
    }

    fn json(&self) -> Value {
        let key = (!self.is_file).then_some(&self.flag);
        json!({
            "role": self.role,
            "flag": format!("--{}", self.flag),
            "environment": self.environment,
            "key": key,
            "value": self.value,
            "meaning": self.meaning,
        })
    }
}

fn all() -> Vec<Setting> {
    let cli = Cli::command();
    let arguments = |role| cli.find_subcommand(role).into_iter().flat_map(Command::get_arguments);
    ROLES.into_iter().flat_map(|role| arguments(role).filter_map(move |arg| Setting::of(role, arg))).collect()
}

/// All of them, as an array.
pub(super) fn json() -> Value {
    all().iter().map(Setting::json).collect()
}

/// All of them, a line each.
pub(super) fn text() -> String {
    let mut text = String::new();
    for Setting { role, flag, environment, meaning, .. } in all() {
        writeln!(text, "{role:<9}  --{flag:<26} {environment:<34} {meaning}").expect("writing to a String cannot fail");
    }
    text
}

/// All of them, as docs/configuration.md.
pub(super) fn markdown() -> String {
    let mut page = "\
# Configuration

Every setting is a flag, a variable of the environment and a key of a TOML file (`--config FILE`, or `SERIATIM_CONFIG`). A flag
prevails over the environment, the environment over the file, the file over the default. `--print-config` prints the settings that
result and ends. A file with a key that is none is refused.

Two variables have no flag: `SERIATIM_LOG`, what is logged ([observability](observability.md)), and the `OTEL_…` of traces (the same
page). Tools that call a cluster take `SERIATIM_ENDPOINTS`, `SERIATIM_KEY` and `SERIATIM_TLS_…`; their `--help` names them.

What all replicas have to agree on is no setting: limits are part of the ledger's version, and validators, provers, certificates
and how long history is kept are decided by the order (`seriatim admin --help`).

This page is made by `seriatim explain --settings --markdown`.
"
    .to_owned();
    let settings = all();
    for role in ROLES {
        writeln!(page, "\n## `seriatim {role}`\n").expect("writing to a String cannot fail");
        page.push_str("| Flag | Environment | Key | Value | What it is |\n|---|---|---|---|---|\n");
        for Setting { flag, environment, value, meaning, is_file, .. } in
            settings.iter().filter(|each| each.role == role)
        {
            let key = if *is_file { String::new() } else { format!("`{flag}`") };
            let (value, meaning) = (cell(value), cell(meaning));
            writeln!(page, "| `--{flag}` | `{environment}` | {key} | `{value}` | {meaning} |")
                .expect("writing to a String cannot fail");
        }
    }
    page
}

/// A text inside of a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}
