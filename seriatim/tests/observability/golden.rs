//! The list of metrics: as processes serve it, and as docs/metrics.md has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// One metric family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Family {
    /// The name of its samples, for a histogram without their endings.
    pub(crate) name: String,
    pub(crate) kind: String,
    unit: String,
    pub(crate) labels: BTreeSet<String>,
    meaning: String,
}

/// One line of an exposition.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// What a process served.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) families: Vec<Family>,
    pub(crate) samples: Vec<Sample>,
}

impl Scrape {
    pub(crate) fn read(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            let told = |what: &str| line.strip_prefix(what).and_then(|rest| rest.split_once(' '));
            if let Some((name, meaning)) = told("# HELP ") {
                let meaning = meaning.trim_end_matches('.').to_owned();
                scrape.families.push(Family { name: name.to_owned(), meaning, ..Family::default() });
            } else if let Some((_, kind)) = told("# TYPE ") {
                let family = scrape.families.last_mut().unwrap();
                family.kind = kind.to_owned();
                if kind == "counter" {
                    family.name.push_str("_total");
                }
            } else if let Some((_, unit)) = told("# UNIT ") {
                scrape.families.last_mut().unwrap().unit = unit.to_owned();
            } else if !line.starts_with('#') {
                scrape.take_sample(line);
            }
        }
        scrape
    }

    fn take_sample(&mut self, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        // no value of ours has a comma or a quotation mark in it
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let pair = |label: &str| {
            let (key, value) = label.split_once('=').unwrap();
            (key.to_owned(), value.trim_matches('"').to_owned())
        };
        let labels: BTreeMap<_, _> = labels.map(pair).collect();
        let family = self.families.last_mut().unwrap();
        assert!(name.starts_with(&family.name), "{name} stands with {}", family.name);
        family.labels.extend(labels.keys().filter(|label| *label != "le").cloned());
        self.samples.push(Sample { name: name.to_owned(), labels, value: value.parse().unwrap() });
    }

    /// The sum of the samples of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &&Sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(|sample| sample.name == name).filter(has).map(|sample| sample.value).sum()
    }
}

/// The families of several processes of one role, in the order in which they serve them.
pub(crate) fn families(scrapes: &[Scrape]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for family in scrapes.iter().flat_map(|scrape| &scrape.families) {
        match families.iter_mut().find(|known| known.name == family.name) {
            Some(known) => {
                assert_eq!((&known.kind, &known.unit, &known.meaning), (&family.kind, &family.unit, &family.meaning));
                known.labels.extend(family.labels.iter().cloned());
            }
            None => families.push(family.clone()),
        }
    }
    families
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn page_path() -> PathBuf {
    root().join("docs/metrics.md")
}

const INTRODUCTION: &str = "\
# Metrics

Every process serves `/metrics` at its HTTP address, in the format of OpenMetrics, which Prometheus reads. This is all of
them. The page is made from a running cluster and compared with one by a test (`seriatim/tests/observability`), so it lacks
nothing and promises nothing that is not there; after a change, `SERIATIM_WRITE_DOCS=1 cargo test --release --workspace
--test observability` writes it again.

Counters count since the process started. Histograms have the usual `_bucket`, `_sum` and `_count`. Every label has few
values: `reason` and `code` those of [errors.md](errors.md), `stage` the six of [observability.md](observability.md), `table`
the ledger's tables; `key`, `address` and `to` are the cluster's own validators, provers and nodes; `client` is `certificate` or
`address`: how a client is known. Nothing is labelled with what clients send.
";

/// The page that these families make.
pub(crate) fn page(roles: &[(&str, Vec<Family>)]) -> String {
    let mut page = INTRODUCTION.to_owned();
    for (role, families) in roles {
        write!(page, "\n## {role}\n\n| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n").unwrap();
        for Family { name, kind, unit, labels, meaning } in families {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            writeln!(page, "| `{name}` | {kind} | {unit} | {} | {meaning} |", labels.join(", ")).unwrap();
        }
    }
    page
}

/// The page as it is kept.
pub(crate) fn kept_page() -> String {
    fs::read_to_string(page_path()).unwrap_or_default()
}

/// Keeps the page where that was asked for.
pub(crate) fn write_page(page: &str) {
    if std::env::var_os("SERIATIM_WRITE_DOCS").is_some() {
        fs::write(page_path(), page).unwrap();
    }
}

/// The labels of every sample that the page promises, by the sample's name.
pub(crate) fn promised() -> BTreeMap<String, BTreeSet<String>> {
    let mut promised: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let page = kept_page();
    for row in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[4].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels: BTreeSet<String> = labels.filter(|label| !label.is_empty()).collect();
        let name = cells[1].trim_matches('`');
        let endings: &[&str] = if cells[2] == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        for ending in endings {
            let known = promised.entry(format!("{name}{ending}")).or_default();
            known.extend(labels.iter().cloned());
            if *ending == "_bucket" {
                known.insert("le".to_owned());
            }
        }
    }
    promised
}
