//! What processes of this machine use: processor time and memory, once a second, and disk space at the end.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::WithCurrentSystemInfo;
use procfs::process::Process;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::report::{Report, Resources, number};

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Unit of the blocks that a file occupies, in bytes (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// The role of nodes.
pub const NODES: &str = "nodes";
/// The role of validators.
pub const VALIDATORS: &str = "validators";
/// The role of provers.
pub const PROVERS: &str = "provers";
/// The role and the name of the process that makes the load.
pub const LOAD_GENERATOR: &str = "load generator";

/// A process to be watched.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its name, for people.
    pub name: String,
    /// What it does: processes of one role are added up.
    pub role: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Where its data is, if it keeps any.
    pub data: Option<PathBuf>,
}

impl Watched {
    /// This process, which makes the load.
    #[must_use]
    pub fn load_generator() -> Self {
        Self { name: LOAD_GENERATOR.to_owned(), role: LOAD_GENERATOR, pid: std::process::id(), data: None }
    }
}

/// One process, sample by sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessFigures {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: String,
    /// Samples, a second apart.
    pub samples: Vec<Sample>,
}

/// What a process had used at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Time since the measured part began, in seconds.
    pub seconds: f64,
    /// Processor time since the measured part began, in seconds: 1 per second is one busy processor.
    pub cpu_seconds: f64,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
}

/// Samples the processes from `begin` for `length`. A process that is gone has no further samples.
pub async fn sample(watched: &[Watched], begin: Instant, length: Duration) -> Vec<ProcessFigures> {
    let mut figures: Vec<ProcessFigures> = watched
        .iter()
        .map(|process| ProcessFigures {
            name: process.name.clone(),
            role: process.role.to_owned(),
            samples: Vec::new(),
        })
        .collect();
    let mut zero: Vec<Option<f64>> = vec![None; watched.len()];
    let mut ticks = interval_at(begin, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let seconds = begin.elapsed().as_secs_f64();
        for ((process, figures), zero) in watched.iter().zip(&mut figures).zip(&mut zero) {
            let Ok((cpu, rss_bytes)) = usage(process.pid) else { continue };
            let cpu_seconds = cpu - *zero.get_or_insert(cpu);
            figures.samples.push(Sample { seconds, cpu_seconds, rss_bytes });
        }
        if begin.elapsed() >= length {
            return figures;
        }
    }
}

/// Processor time in seconds and resident memory in bytes.
fn usage(pid: u32) -> procfs::ProcResult<(f64, u64)> {
    let stat = Process::new(i32::try_from(pid).unwrap_or_default())?.stat()?;
    let cpu = number(stat.utime + stat.stime) / number(procfs::ticks_per_second());
    Ok((cpu, stat.rss_bytes().get()))
}

/// Fills in what the processes used while the report's transactions committed.
pub fn fill(report: &mut Report, watched: &[Watched], figures: Vec<ProcessFigures>) {
    let mut resources = Resources::default();
    let mut by_role: BTreeMap<String, f64> = BTreeMap::new();
    for process in &figures {
        let cpu = process.samples.last().map_or(0.0, |sample| sample.cpu_seconds);
        let rss = process.samples.iter().map(|sample| sample.rss_bytes).max().unwrap_or_default();
        resources.cpu_seconds.insert(process.name.clone(), cpu);
        resources.rss_peak_bytes.insert(process.name.clone(), rss);
        *by_role.entry(process.role.clone()).or_default() += cpu;
    }
    if report.transactions_committed > 0 {
        let micros = |cpu: f64| cpu * 1_000_000.0 / number(report.transactions_committed);
        resources.cpu_micros_per_transaction = by_role.into_iter().map(|(role, cpu)| (role, micros(cpu))).collect();
    }
    for process in watched {
        if let Some(data) = &process.data {
            resources.disk_bytes.insert(process.name.clone(), disk_bytes(data));
        }
    }
    report.resources = Some(resources);
    report.processes = figures;
}

/// Disk space that a directory's files occupy, in bytes. What vanishes meanwhile counts nothing.
fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * BLOCK_BYTES,
        Err(_gone) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_is_seen_and_one_that_is_gone_is_not() {
        let gone = Watched { name: "gone".to_owned(), role: NODES, pid: u32::MAX, data: None };
        let watched = [Watched::load_generator(), gone];
        let figures = sample(&watched, Instant::now(), Duration::ZERO).await;
        assert_eq!(figures.iter().map(|process| process.samples.len()).collect::<Vec<_>>(), [1, 0]);
        let mut report = Report { transactions_committed: 4, ..Report::default() };
        fill(&mut report, &watched, figures);
        let resources = report.resources.expect("they were filled in");
        assert!(resources.rss_peak_bytes[LOAD_GENERATOR] > 0);
        assert_eq!(resources.cpu_seconds["gone"].to_bits(), 0.0_f64.to_bits());
    }
}
