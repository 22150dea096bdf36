//! A real Prometheus scrapes a real cluster, and evaluates every query of the dashboards and every alert on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{DevCluster, ask};
use crate::golden::root;
use crate::queries::{Query, dashboards, for_one_cluster, queries, rules, selectors};

/// How long until everything may be seen: rates need two scrapes, and a prover has to have judged batches.
const PATIENCE: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(500);

const CLUSTER: &str = "tested";
const ALERTS: &str = "deploy/observability/alerts.yml";

/// Listens on loopback, keeps what it has in a directory that is removed, and is killed with this.
struct Prometheus {
    child: Child,
    address: String,
    _directory: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Prometheus {
    fn is_installed() -> bool {
        Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    fn start(cluster: &DevCluster) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("prometheus.yml");
        // YAML has all of JSON
        fs::write(&config, config_of(cluster).to_string()).unwrap();
        let mut child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = listening(&mut log);
        thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        let prometheus = Self { child, address, _directory: directory };
        until_none_is_left(|| {
            let (status, said) = ask(&prometheus.address, "/-/ready").unwrap();
            (status != 200).then_some(said).into_iter().collect()
        });
        prometheus
    }

    fn get(&self, path: &str) -> Result<Value, String> {
        let (status, body) = ask(&self.address, path).unwrap();
        if status == 200 { Ok(serde_json::from_str(&body).unwrap()) } else { Err(body) }
    }

    /// The values that a query has now.
    fn values(&self, query: &str) -> Result<Vec<f64>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
        let series = answer["data"]["result"].as_array().unwrap();
        Ok(series.iter().map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect())
    }

    /// The alert rules that it has, by name.
    fn rules(&self) -> BTreeMap<String, Value> {
        let answer = self.get("/api/v1/rules?type=alert").unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.map(|rule| (rule["name"].as_str().unwrap().to_owned(), rule.clone())).collect()
    }
}

/// What it scrapes, with the labels that deploy's scrape configurations add.
fn config_of(cluster: &DevCluster) -> Value {
    let job = |component: &str, list: &str| {
        let labels = json!({"cluster": CLUSTER, "component": component});
        let targets = cluster.list(list);
        json!({"job_name": format!("seriatim-{component}s"), "static_configs": [{"targets": targets, "labels": labels}]})
    };
    json!({
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": [root().join(ALERTS)],
        "scrape_configs":
            [job("node", "http_endpoints"), job("validator", "validator_http_endpoints"), job("prover", "provers")],
    })
}

/// The address that it tells in its log.
fn listening(log: &mut impl BufRead) -> String {
    let mut told = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "Prometheus ended:\n{told}");
        if let Ok(entry) = serde_json::from_str::<Value>(&line)
            && entry["msg"] == "Listening on"
        {
            return entry["address"].as_str().unwrap().to_owned();
        }
        told.push_str(&line);
    }
}

/// Shows only what there was, and there need not have been any: reasons of rejections.
fn may_be_empty((_, query): &Query) -> bool {
    query.ends_with(" > 0")
}

/// Every query that has to have something to show: the panels', and what the alerts look at.
fn to_be_shown() -> Vec<Query> {
    let panels = dashboards().into_iter().flat_map(|(name, dashboard)| queries(&name, &dashboard));
    let watched = rules(ALERTS).into_iter().flat_map(|(place, query)| {
        let parts = selectors(&query);
        assert!(!parts.is_empty(), "{place}");
        parts.into_iter().map(move |part| (place.clone(), part))
    });
    panels.chain(watched).map(|(place, query)| (place, for_one_cluster(&query, CLUSTER))).collect()
}

/// What has nothing to show yet. A query that cannot be evaluated ends the test.
fn missing(prometheus: &Prometheus, all: &[Query]) -> Vec<Query> {
    let is_missing = |(place, query): &&Query| {
        let values = prometheus.values(query).unwrap_or_else(|fault| panic!("{place}: {query}: {fault}"));
        values.iter().all(|value| value.is_nan())
    };
    all.iter().filter(is_missing).cloned().collect()
}

/// Every alert was evaluated without a fault, and none that calls somebody fires.
fn alerts_rest(prometheus: &Prometheus) {
    let loaded = prometheus.rules();
    let names: BTreeSet<&str> = loaded.keys().map(String::as_str).collect();
    let written = rules(ALERTS);
    let written: BTreeSet<&str> = written.iter().filter_map(|(place, _)| place.rsplit(' ').next()).collect();
    assert_eq!(names, written);
    for (name, rule) in &loaded {
        assert!(rule["health"] == "ok" && rule["lastError"].is_null(), "{name}: {rule}");
        assert!(rule["labels"]["severity"] != "critical" || rule["state"] != "firing", "{name}: {rule}");
    }
}

/// Asks again until there is nothing left of what has to come.
fn until_none_is_left<T: std::fmt::Debug>(mut left: impl FnMut() -> Vec<T>) {
    let begun = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "still missing: {left:#?}");
        sleep(PAUSE);
    }
}

/// Tells `./test`, which counts what was left out.
fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
    if let Ok(list) = std::env::var("SERIATIM_SKIPPED_LIST") {
        let mut list = OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{what}").unwrap();
    }
}

#[test]
fn a_prometheus_evaluates_every_query_on_a_running_cluster() {
    if !Prometheus::is_installed() {
        return skipped("no Prometheus scraped a cluster: it is not installed (Debian's package prometheus)");
    }
    let cluster = DevCluster::start(&["--nodes", "3", "--validators", "2", "--provers", "1", "--pairs", "8"], &[]);
    let prometheus = Prometheus::start(&cluster);

    let all = to_be_shown();
    let mut left: Vec<Query> = all.iter().filter(|query| !may_be_empty(query)).cloned().collect();
    until_none_is_left(|| {
        left = missing(&prometheus, &left);
        left.clone()
    });
    // those that may be empty are evaluated too
    let empty = missing(&prometheus, &all);
    println!("{} queries evaluated, {} of them with nothing to show at the end", all.len(), empty.len());
    until_none_is_left(|| {
        let rules = prometheus.rules().into_iter();
        rules.filter(|(_, rule)| rule["health"] == "unknown").map(|(name, _)| name).collect()
    });
    alerts_rest(&prometheus);

    // and once nobody answers, it is noticed
    cluster.stop();
    until_none_is_left(|| {
        let rules = prometheus.rules();
        ["SeriatimNodeDown", "SeriatimWorkerDown"]
            .into_iter()
            .filter(|name| rules[*name]["state"] == "inactive")
            .collect()
    });
}
