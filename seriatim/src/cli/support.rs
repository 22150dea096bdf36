//! `seriatim support-bundle`: what somebody else needs to understand a cluster's trouble, in one file.
//!
//! Nothing of it is secret: what key files hold is struck out wherever it stands, and so is what looks like a private key
//! or like a password. Public keys stay, since they are names here.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use clap::Args;
use client::TlsIdentity;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::admin;
use super::endpoints::Endpoints;
use super::get::{Believed, get};

/// A process that does not answer in this time has no metrics in the bundle.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Of each log, the end.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A key file holds a line of so many hexadecimal digits.
const KEY_DIGITS: usize = 64;

const STRUCK_OUT: &str = "[struck out]";
/// How names of settings and variables end whose values are nobody else's business.
const SECRET_ENDINGS: [&str; 8] =
    ["key", "seed", "secret", "password", "passphrase", "token", "headers", "authorization"];
/// Variables of the environment that have to do with this program.
const PREFIXES: [&str; 3] = ["SERIATIM_", "OTEL_", "RUST_"];

/// Put together what somebody else needs to look into a cluster's trouble: status, metrics, settings, logs, versions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim support-bundle --endpoint a:7400
  seriatim support-bundle --endpoint a:7400 --tls-ca ca.crt --tls-certificate operator.crt --tls-key operator.key
  seriatim support-bundle --config /etc/seriatim/node.toml --log /var/log/seriatim/node.log --http v1:7480,v2:7480

What key files hold is struck out, and so are values of settings and variables that are secret by their name. Look through
it all the same before you give it away: logs and settings name machines and parties.")]
pub(crate) struct SupportArguments {
    #[command(flatten)]
    endpoints: Endpoints,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The file to write; there must be none yet
    #[arg(long, value_name = "FILE", default_value = "seriatim-support.tar.gz")]
    out: PathBuf,
    /// Where a validator or a prover serves HTTP, for its metrics; repeat for several. Nodes are found
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    http: Vec<String>,
    /// A process's file of settings; repeat for several
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// A process's log, of which the last 8 MiB are taken; repeat for several
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// A key file whose content is struck out too; those that settings name, and that of --tls-key, are known
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
}

/// What the bundle has, by name, and what could not be had.
#[derive(Debug, Default)]
struct Parts {
    found: BTreeMap<String, String>,
    missing: BTreeMap<String, String>,
}

impl Parts {
    fn names(&self) -> Vec<&String> {
        self.found.keys().collect()
    }

    fn add(&mut self, name: impl Into<String>, content: anyhow::Result<String>) {
        match content {
            Ok(content) => drop(self.found.insert(name.into(), content)),
            Err(why) => drop(self.missing.insert(name.into(), format!("{why:#}"))),
        }
    }
}

pub(crate) async fn run(arguments: SupportArguments) -> anyhow::Result<ExitCode> {
    let identity = arguments.endpoints.tls.believing()?;
    let status = admin::status_json(&arguments.endpoints).await.map_err(|problem| anyhow!("{problem}"));
    let parts = gather(&arguments, status, identity.as_ref()).await;
    let (out, files) = (arguments.out.display(), parts.found.len());
    pack(&arguments.out, &parts.found).with_context(|| format!("{out} cannot be written"))?;
    if arguments.json {
        println!("{:#}", json!({ "file": arguments.out, "files": parts.names(), "missing": parts.missing }));
    } else {
        println!("{out}: {files} files");
        parts.missing.iter().for_each(|(name, why)| println!("  missing: {name}: {why}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything that goes in, with nothing secret in it.
async fn gather(arguments: &SupportArguments, status: anyhow::Result<Value>, identity: Option<&TlsIdentity>) -> Parts {
    let settings: Vec<anyhow::Result<String>> = arguments.config.iter().map(|file| read(file)).collect();
    let named = settings.iter().filter_map(|text| text.as_deref().ok()).flat_map(key_files);
    let given = arguments.key_file.iter().map(PathBuf::as_path).chain(arguments.endpoints.tls.key_file());
    let secrets = Secrets::of(given.map(Path::to_owned).chain(named).chain(own_key_files()));

    let mut parts = Parts::default();
    let nodes = status.as_ref().map(http_addresses).unwrap_or_default();
    let by_name = identity.map_or(Believed::Anybody, Believed::ByName);
    // validators and provers come and go at any address
    let by_role = identity.map_or(Believed::Anybody, Believed::OfCluster);
    let asked = nodes.iter().map(|address| (address, by_name)).chain(arguments.http.iter().map(|it| (it, by_role)));
    let fetched = asked.map(|(address, believed)| async move { (address, metrics(believed, address).await) });
    for (address, text) in join_all(fetched).await {
        parts.add(format!("metrics/{}.txt", plain(address)), text.map(|text| secrets.strike(&text)));
    }
    parts.add("status.json", status.map(|status| secrets.strike(&format!("{status:#}"))));
    for (position, (file, text)) in arguments.config.iter().zip(settings).enumerate() {
        parts.add(numbered("settings", position, file), text.map(|text| secrets.strike(&without_values(&text))));
    }
    for (position, file) in arguments.log.iter().enumerate() {
        parts.add(numbered("logs", position, file), tail(file).map(|text| secrets.strike(&text)));
    }
    parts.add("environment.txt", Ok(secrets.strike(&without_values(&environment()))));
    let about = about(&parts);
    parts.add("about.json", Ok(secrets.strike(&format!("{about:#}"))));
    parts
}

fn read(file: &Path) -> anyhow::Result<String> {
    fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// The end of a file, from the beginning of a line.
fn tail(file: &Path) -> anyhow::Result<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut log = File::open(file)?;
        let from = log.metadata()?.len().saturating_sub(LOG_BYTES_MAX);
        log.seek(SeekFrom::Start(from))?;
        let mut end = Vec::new();
        log.take(LOG_BYTES_MAX).read_to_end(&mut end)?;
        if from > 0 {
            let line = end.iter().position(|byte| *byte == b'\n').map_or(end.len(), |newline| newline + 1);
            end.drain(..line);
        }
        Ok(end)
    };
    let end = read().with_context(|| format!("{} cannot be read", file.display()))?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Where nodes serve HTTP, by what any of them knows.
fn http_addresses(status: &Value) -> Vec<String> {
    let nodes = status["nodes"].as_array().into_iter().flatten();
    let members = nodes.flat_map(|node| node["members"].as_array().into_iter().flatten());
    let mut addresses: Vec<String> =
        members.filter_map(|member| member["http_address"].as_str().map(str::to_owned)).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

async fn metrics(believed: Believed<'_>, address: &str) -> anyhow::Result<String> {
    let asked = timeout(ANSWER_TIMEOUT, get(believed, address, "/metrics"));
    let (status, body) = asked.await.with_context(|| format!("{address} does not answer"))??;
    anyhow::ensure!(status.is_success(), "{address} answered {status}");
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn environment() -> String {
    let ours = |name: &str| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let variables = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().replace('\n', " ")));
    let mut lines: Vec<String> =
        variables.filter(|(name, _)| ours(name)).map(|(name, value)| format!("{name}={value}\n")).collect();
    lines.sort();
    lines.concat()
}

fn about(parts: &Parts) -> Value {
    let system = |file: &str| fs::read_to_string(file).map(|text| text.trim().to_owned()).ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "made_unix_seconds": now.as_secs(),
        "system": std::env::consts::OS,
        "processor": std::env::consts::ARCH,
        "kernel": system("/proc/sys/kernel/osrelease"),
        "files": parts.names(),
        "missing": parts.missing,
    })
}

/// A name of a file in the bundle; several of the same name are told apart.
fn numbered(folder: &str, position: usize, file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{folder}/{}-{}", position + 1, plain(&name))
}

fn plain(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    name.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect()
}

/// Only this user can read the file.
fn pack(out: &Path, parts: &BTreeMap<String, String>) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, content) in parts {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).map_err(io::Error::other)?);
        header.set_mode(0o600);
        header.set_cksum();
        archive.append_data(&mut header, format!("seriatim-support/{name}"), content.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

/// The key files that settings name, or leave at their usual place.
fn key_files(settings: &str) -> Vec<PathBuf> {
    let Ok(settings) = settings.parse::<toml::Table>() else { return Vec::new() };
    let paths = |ending: &'static str| {
        let named = settings.iter().filter(move |(name, _)| name.replace('-', "_").ends_with(ending));
        named.filter_map(|(_, value)| value.as_str().map(PathBuf::from)).collect::<Vec<_>>()
    };
    let usual = paths("data_dir").into_iter().flat_map(|directory| usual_key_files(&directory));
    paths("key_file").into_iter().chain(paths("tls_key")).chain(usual).collect()
}

/// The same, by the environment.
fn own_key_files() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let usual = usual_key_files(&variable("SERIATIM_DATA_DIR").unwrap_or_else(|| PathBuf::from("data")));
    ["SERIATIM_KEY_FILE", "SERIATIM_TLS_KEY", "SERIATIM_KEY"].into_iter().filter_map(variable).chain(usual).collect()
}

fn usual_key_files(directory: &Path) -> Vec<PathBuf> {
    ["node.key", "validator.key", "prover.key"].map(|name| directory.join(name)).into()
}

/// What must not leave this machine.
struct Secrets(Vec<String>);

impl Secrets {
    /// The content of these files, as far as they are there and this user may read them.
    fn of(files: impl Iterator<Item = PathBuf>) -> Self {
        let content = files.filter_map(|file| fs::read_to_string(file).ok());
        let lines = content.flat_map(|text| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>());
        // what is shorter is no secret, and striking it out would hide everything
        let mut secrets: Vec<String> = lines.filter(|line| line.len() >= KEY_DIGITS / 2).collect();
        let as_written: Vec<String> =
            secrets.iter().flat_map(|secret| [secret.to_ascii_lowercase(), secret.to_ascii_uppercase()]).collect();
        secrets.extend(as_written);
        secrets.sort();
        secrets.dedup();
        Self(secrets)
    }

    /// A text without them, and without what looks like one.
    fn strike(&self, text: &str) -> String {
        let known = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret, STRUCK_OUT));
        let mut within_key = false;
        let mut struck = String::with_capacity(known.len());
        for line in known.lines() {
            let begins = line.contains("-----BEGIN") && line.contains("PRIVATE KEY");
            let ends = line.contains("-----END");
            let is_secret = within_key || begins || is_key(line.trim());
            within_key = (within_key || begins) && !ends;
            struck.push_str(if is_secret { STRUCK_OUT } else { line });
            struck.push('\n');
        }
        struck
    }
}

/// A line that a key file may be made of.
fn is_key(line: &str) -> bool {
    line.len() == KEY_DIGITS && line.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Settings, one in a line, without the values of those that are secret by their name.
fn without_values(settings: &str) -> String {
    let shown = |line: &str| match line.split_once('=') {
        Some((name, _)) if is_secret_name(name.trim()) => format!("{name}= {STRUCK_OUT}\n"),
        Some(_) | None => format!("{line}\n"),
    };
    settings.lines().map(shown).collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = name.trim_matches('"').to_ascii_lowercase();
    SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn what_looks_like_a_secret_is_struck_out_and_the_rest_stays() {
        let public = KEY.replace("00", "11");
        let secrets = Secrets(vec![KEY.to_owned()]);
        for (text, struck) in [
            (format!("signed with {KEY} today"), format!("signed with {STRUCK_OUT} today\n")),
            (format!("key={public}"), format!("key={public}\n")),
            (format!("  {public}  "), format!("{STRUCK_OUT}\n")),
            (
                "a\n-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\nb".to_owned(),
                format!("a\n{STRUCK_OUT}\n{STRUCK_OUT}\n{STRUCK_OUT}\nb\n"),
            ),
        ] {
            assert_eq!(secrets.strike(&text), struck);
        }
    }

    #[test]
    fn values_of_secret_settings_are_struck_out() {
        let settings = "id = 1\nkey-file = \"k\"\nadmin_token = \"t\"\nOTEL_EXPORTER_OTLP_HEADERS=authorization=x";
        let shown =
            format!("id = 1\nkey-file = \"k\"\nadmin_token = {STRUCK_OUT}\nOTEL_EXPORTER_OTLP_HEADERS= {STRUCK_OUT}\n");
        assert_eq!(without_values(settings), shown);
    }

    #[test]
    fn key_files_are_those_that_settings_name_and_the_usual_ones() {
        let named = key_files("key-file = \"/k/own.key\"\ntls-key = \"/k/tls.key\"\ndata-dir = \"/d\"");
        for file in ["/k/own.key", "/k/tls.key", "/d/node.key", "/d/prover.key"] {
            assert!(named.contains(&PathBuf::from(file)), "{named:?}");
        }
    }
}
