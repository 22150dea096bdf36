//! `seriatim cert`: an authority for a cluster, and certificates for its roles.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, value_parser};
use tls::{Authority, LOCAL_NAMES, Role, own_name};

const DAY: Duration = Duration::from_secs(86_400);

/// Make an authority for a cluster, and certificates for its roles.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make an authority: ca.crt, which everybody gets, and ca.key, which nobody does
    Authority(AuthorityArguments),
    /// Issue a certificate for one process or person
    Issue(IssueArguments),
}

/// Make an authority. Safe to repeat: one that is there stays. Whoever has ca.key can be anybody in the cluster, so
/// keep it away from the cluster's machines.
#[derive(Debug, Args)]
pub(crate) struct AuthorityArguments {
    /// Where to keep it
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Issue a certificate with a new key. What is there under the same name is replaced: a process that uses it takes the
/// new one within seconds, and no connection ends.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim cert authority ./authority
  seriatim cert issue node/1 --authority ./authority --out ./node-1 --name a.example --name 10.0.0.1
  seriatim cert issue validator --authority ./authority --out ./validator
  seriatim cert issue operator --authority ./authority --out ~/.seriatim
  seriatim cert issue client --subject desk-7 --authority ./authority --out ./desk-7
  seriatim node --id 1 --tls-ca authority/ca.crt --tls-certificate node-1/node-1.crt --tls-key node-1/node-1.key …

What each role may do: docs/security.md.")]
pub(crate) struct IssueArguments {
    /// Whose: node/NUMBER, validator, prover, operator or client
    #[arg(value_name = "ROLE")]
    role: Role,
    /// The directory of the authority
    #[arg(long, value_name = "DIRECTORY")]
    authority: PathBuf,
    /// Whom it names. Clients of one subject share what one client may submit (`--client-rate-max`), so give each its
    /// own [default: the role]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    subject: Option<String>,
    /// A name or address that clients call it by; repeat for several. Its own machine's are always in it
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// For how many days
    #[arg(long, default_value_t = 365, value_parser = value_parser!(u32).range(1..=3_650))]
    days: u32,
    /// Where to write certificate and key, and a copy of ca.crt [default: the authority's directory]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// What the files are called [default: the role, as in node-1.crt and node-1.key]
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
}

pub(crate) fn run(command: CertCommand) -> anyhow::Result<ExitCode> {
    match command {
        CertCommand::Authority(AuthorityArguments { directory }) => {
            let authority = Authority::open_or_make(&directory)?;
            println!("{}", authority.certificate().display());
            eprintln!("ca.key beside it can issue certificates of any role: keep it away from the cluster's machines");
        }
        CertCommand::Issue(arguments) => issue(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn issue(arguments: &IssueArguments) -> anyhow::Result<()> {
    let IssueArguments { role, authority, subject, name, days, out, file } = arguments;
    let directory = out.as_ref().unwrap_or(authority);
    let uri = role.uri();
    let called = uri.trim_start_matches(Role::URI_PREFIX).replace('/', "-");
    let file_name = file.as_ref().unwrap_or(&called);
    let authority = Authority::open(authority)?;
    let subject = subject.clone().unwrap_or_else(|| own_name(*role));
    let mut issued = authority.issue_to(&subject, *role, name, DAY * *days, directory, file_name)?;
    if out.is_some() {
        issued.files.authority = authority.copy_to(directory)?;
    }
    println!("{}", crate::local::flags(&issued.files).join(" "));
    if matches!(role, Role::Node(_) | Role::Validator | Role::Prover) {
        let names: Vec<&str> = name.iter().map(String::as_str).chain(LOCAL_NAMES).collect();
        eprintln!("a certificate of {role}, for {days} days, called by {}", names.join(", "));
    } else {
        eprintln!("a certificate of {role}, for {days} days");
    }
    Ok(())
}
