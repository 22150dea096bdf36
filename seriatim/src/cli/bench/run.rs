//! One run of a load against a cluster, its own or one that is there, with the audit of the end state.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::local::{LocalCluster, LocalOptions, healthy_validators};
use ::bench::audit::{Expected, audit};
use ::bench::load::{Load, Onlooker};
use ::bench::meter::Meter;
use ::bench::processes::Watched;
use ::bench::proofs::{Arrivals, audit_proofs};
use ::bench::report::Report;
use client::Access;
use tokio::task::JoinHandle;

use crate::cli::demo::single_clients;
use crate::cli::{progress, view};

/// Where the load goes.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A temporary cluster on this machine.
    Temporary {
        /// Voting nodes.
        nodes: u8,
        /// Validator processes.
        validators: u8,
        /// Prover processes.
        provers: u8,
        /// Whether connections are secured.
        tls: bool,
    },
    /// These nodes, which run already.
    Running(Access),
}

/// How a run is made and shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// The end state is audited.
    pub(super) audited: bool,
    /// A live view is drawn, and how far things have come.
    pub(super) shown: bool,
}

/// Runs the load and says what came of it.
pub(super) async fn run(place: &Place, load: Load, manner: Manner) -> anyhow::Result<Report> {
    match place {
        Place::Running(nodes) => against(nodes, &[Watched::load_generator()], load, manner).await,
        Place::Temporary { nodes, validators, provers, tls } => {
            let options = LocalOptions {
                nodes: usize::from(*nodes),
                validators: usize::from(*validators),
                provers: usize::from(*provers),
                name: "bench".to_owned(),
                directory: None,
                tls: *tls,
            };
            let cluster = LocalCluster::start(&options).await?;
            let mut watched = cluster.watched();
            watched.push(Watched::load_generator());
            let arrivals = Arrivals::default();
            let client = cluster.client()?;
            let timing = tokio::spawn(arrivals.clone().watch(client.clone()));
            let mut report = against(&cluster.access(), &watched, load, manner).await;
            if let (Ok(report), false) = (&mut report, cluster.prover_keys().is_empty()) {
                audit_proofs(&client, cluster.prover_keys(), &arrivals, progress::proofs(), report).await;
            }
            timing.abort();
            cluster.stop().await?;
            report
        }
    }
}

async fn against(nodes: &Access, watched: &[Watched], load: Load, manner: Manner) -> anyhow::Result<Report> {
    let meter = Arc::new(Meter::default());
    let mut report = Report { audit_skipped: !manner.audited, ..Report::default() };
    report.nodes = u64::try_from(nodes.addresses.len())?;
    report.validators = healthy_validators(nodes).await;
    let screen = Screen::new(nodes, &meter, load.warm_up + load.duration, manner);
    let done = load.run(nodes, watched, &meter, &screen, &mut report).await;
    screen.close();
    let done = done?;
    if manner.audited {
        let expected = Expected { acknowledged: &done.acknowledged, supply: &done.supply };
        let nodes = single_clients(nodes)?;
        if manner.shown {
            audit(&nodes, &expected, &progress::audit(), &mut report).await;
        } else {
            audit(&nodes, &expected, &|_, _| {}, &mut report).await;
        }
    }
    Ok(report)
}

/// What is shown while a load runs.
struct Screen {
    nodes: Access,
    meter: Arc<Meter>,
    length: Duration,
    manner: Manner,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    preload: Option<indicatif::ProgressBar>,
    view: Option<JoinHandle<()>>,
}

impl Screen {
    fn new(nodes: &Access, meter: &Arc<Meter>, length: Duration, manner: Manner) -> Self {
        let (nodes, meter) = (nodes.clone(), Arc::clone(meter));
        Self { nodes, meter, length, manner, shown: Mutex::default() }
    }

    fn close(self) {
        let shown = self.shown.into_inner().unwrap_or_else(PoisonError::into_inner);
        shown.view.iter().for_each(JoinHandle::abort);
    }
}

impl Onlooker for Screen {
    fn preloaded(&self, done: u64, of: u64) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = shown.preload.get_or_insert_with(|| progress::bar("Issuing live outputs", "outputs"));
        bar.set_length(of);
        bar.set_position(done);
    }

    fn endowing(&self, pairs: usize) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).preload = None;
        if self.manner.shown {
            eprintln!("Issuing cash and bonds to {pairs} pairs of parties");
        }
    }

    fn begun(&self) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if self.manner.shown {
            eprintln!("Settling for {} s", self.length.as_secs());
            let view = view::draw(self.nodes.clone(), Arc::clone(&self.meter), Some(self.length));
            shown.view = Some(tokio::spawn(view));
        }
    }
}
