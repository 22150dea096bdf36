//! Every query of the dashboards and of the alert rules asks for metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use promql_parser::label::Labels;
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

use crate::golden::{promised, root};

/// What Prometheus gives every series of a target, with what deploy's scrape configurations add.
const OF_TARGETS: [&str; 4] = ["instance", "job", "cluster", "component"];
/// Prometheus's own.
const FOREIGN: [&str; 1] = ["up"];

type Promised = BTreeMap<String, BTreeSet<String>>;

/// Where a query stands, and the query.
pub(crate) type Query = (String, String);

/// What a part of a query asks for.
struct Asked<'a> {
    promised: &'a Promised,
    /// Labels of all metrics in this part.
    labels: BTreeSet<String>,
    faults: Vec<String>,
}

impl<'a> Asked<'a> {
    fn of(promised: &'a Promised, part: &Expr) -> Self {
        let labels = OF_TARGETS.map(str::to_owned).into();
        let mut asked = Self { promised, labels, faults: Vec::new() };
        walk_expr(&mut asked, part).unwrap();
        asked
    }

    fn selector(&mut self, selector: &parser::VectorSelector) {
        let name = selector.name.clone().unwrap_or_default();
        let none = BTreeSet::new();
        let own = match self.promised.get(&name) {
            Some(own) => own,
            None if FOREIGN.contains(&name.as_str()) => &none,
            None => return self.faults.push(format!("there is no metric {name:?}")),
        };
        self.labels.extend(own.iter().cloned());
        let alternatives = selector.matchers.or_matchers.iter().flatten();
        for matcher in selector.matchers.matchers.iter().chain(alternatives) {
            if !own.contains(&matcher.name) && !OF_TARGETS.contains(&matcher.name.as_str()) {
                self.faults.push(format!("{name} has no label {}", matcher.name));
            }
        }
    }

    /// Labels by which a part is grouped or joined are labels of the metrics in it.
    fn grouping(&mut self, part: &Expr, labels: &Labels) {
        let inner = Self::of(self.promised, part);
        let unknown = labels.labels.iter().filter(|label| !inner.labels.contains(*label));
        self.faults.extend(unknown.map(|label| format!("nothing in `{part}` has a label {label}")));
    }
}

impl ExprVisitor for Asked<'_> {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, part: &Expr) -> Result<bool, Self::Error> {
        if let Expr::VectorSelector(selector) = part {
            self.selector(selector);
        }
        if let Expr::MatrixSelector(selector) = part {
            self.selector(&selector.vs);
        }
        if let Expr::Aggregate(aggregate) = part
            && let Some(grouped) = &aggregate.modifier
        {
            self.grouping(&aggregate.expr, grouped.labels());
        }
        if let Expr::Binary(binary) = part
            && let Some(matching) = binary.modifier.as_ref().and_then(|modifier| modifier.matching.as_ref())
        {
            self.grouping(&binary.lhs, matching.labels());
            self.grouping(&binary.rhs, matching.labels());
        }
        Ok(true)
    }
}

/// What is wrong with a query.
fn faults(promised: &Promised, query: &str) -> Vec<String> {
    match parser::parse(&for_one_cluster(query, "c")) {
        Ok(parsed) => Asked::of(promised, &parsed).faults,
        Err(fault) => vec![format!("not PromQL: {fault}")],
    }
}

/// A query with what Grafana puts in before it asks.
pub(crate) fn for_one_cluster(query: &str, cluster: &str) -> String {
    query.replace("$__rate_interval", "1m").replace("$__range", "1h").replace("$cluster", cluster)
}

/// The metrics that a query asks for, each with its labels.
struct Selectors(Vec<String>);

impl ExprVisitor for Selectors {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, part: &Expr) -> Result<bool, Self::Error> {
        if let Expr::VectorSelector(selector) = part {
            self.0.push(selector.to_string());
        }
        if let Expr::MatrixSelector(selector) = part {
            self.0.push(selector.vs.to_string());
        }
        Ok(true)
    }
}

/// The metrics that a query asks for, each as a query by itself.
pub(crate) fn selectors(query: &str) -> Vec<String> {
    let mut selectors = Selectors(Vec::new());
    walk_expr(&mut selectors, &parser::parse(query).unwrap()).unwrap();
    selectors.0
}

pub(crate) fn dashboards() -> Vec<(String, Value)> {
    let mut dashboards = Vec::new();
    for file in fs::read_dir(root().join("deploy/observability/dashboards")).unwrap() {
        let path = file.unwrap().path();
        let content = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        dashboards.push((path.file_name().unwrap().to_str().unwrap().to_owned(), content));
    }
    dashboards.sort_by(|(left, _), (right, _)| left.cmp(right));
    dashboards
}

/// The queries of a dashboard's panels, and where each stands.
pub(crate) fn queries(name: &str, dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((format!("{name}: {title}"), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

/// The rules' queries: each stands in a line of its own.
pub(crate) fn rules(path: &str) -> Vec<Query> {
    let text = fs::read_to_string(root().join(path)).unwrap();
    let value = |line: &str, key: &str| line.trim().strip_prefix(key).map(str::to_owned);
    let names: Vec<String> = text.lines().filter_map(|line| value(line, "- alert: ")).collect();
    let found: Vec<String> = text.lines().filter_map(|line| value(line, "expr: ")).collect();
    assert!(names.len() == found.len() && !names.is_empty(), "{path}: every rule has one query");
    names.into_iter().map(|name| format!("{path}: {name}")).zip(found).collect()
}

#[test]
fn every_query_asks_for_what_there_is() {
    let promised = promised();
    let mut all = rules("deploy/observability/alerts.yml");
    let of_kubernetes = rules("deploy/kubernetes/base/monitoring.yaml");
    let only_queries = |rules: &[Query]| rules.iter().map(|(_, query)| query.clone()).collect::<Vec<_>>();
    assert_eq!(only_queries(&all), only_queries(&of_kubernetes));
    all.extend(of_kubernetes);
    for (name, dashboard) in dashboards() {
        let found = queries(&name, &dashboard);
        assert!(found.len() >= 5, "{name} has {} queries", found.len());
        all.extend(found);
    }
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|(place, query)| {
            faults(&promised, query).into_iter().map(move |fault| format!("{place}: {fault}, in {query}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_query_for_what_there_is_not_is_found() {
    let labels = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
    let promised: Promised = [
        ("seriatim_ready".to_owned(), labels(&[])),
        ("seriatim_stage_seconds_bucket".to_owned(), labels(&["stage", "le"])),
    ]
    .into();
    for right in [
        "sum by (cluster) (seriatim_ready) / count(up)",
        "histogram_quantile(0.5, sum by (stage, le) (rate(seriatim_stage_seconds_bucket{cluster=\"$cluster\"}[$__rate_interval])))",
    ] {
        assert_eq!(faults(&promised, right), Vec::<String>::new(), "{right}");
    }
    for wrong in [
        "seriatim_redy",
        "seriatim_ready{role=\"leader\"}",
        "sum by (stage) (seriatim_ready)",
        "seriatim_ready and on (stage) seriatim_ready",
        "rate(seriatim_stage_seconds[1m])",
        "max(max by (reason) (rate(seriatim_stage_seconds_bucket[1m])))",
        "sum(",
    ] {
        assert!(!faults(&promised, wrong).is_empty(), "{wrong}");
    }
}

#[test]
fn dashboards_are_what_is_provisioned() {
    let names: Vec<String> = dashboards().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["cluster.json", "contention.json", "proof.json", "settlement.json"]);
    let promised = promised();
    let mut identifiers = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        assert!(identifiers.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name}: another has this uid");
        let variable = &dashboard["templating"]["list"][0];
        let asked = variable["query"].as_str().unwrap();
        let metric = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(", cluster)")).unwrap();
        assert!(variable["name"] == "cluster" && promised.contains_key(metric), "{name}: {asked}");
        let mut places = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            assert_eq!(panel["datasource"]["uid"], "prometheus", "{name}: {}", panel["title"]);
            let place = &panel["gridPos"];
            assert!(
                places.insert((place["x"].as_u64(), place["y"].as_u64())),
                "{name}: {} hides another",
                panel["title"]
            );
        }
    }
}
