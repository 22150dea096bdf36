//! The audit of what nodes tell: it ends, it goes on elsewhere, and it finds what does not hold.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use checker::attestation::{Findings, ProofStatistics, Versions};
use checker::collect::{self, Testimony};
use checker::{Attestation, Replay, Statement, Verdict};

use client::{
    Audit, AuditFault, AuditOptions, BatchStream, Client, EvidenceStream, LedgerApi, Problem, ProblemKind,
    TrustedNodes, UpdateStream,
};
use futures::future::{BoxFuture, ready};
use futures::stream::{self, pending};
use futures::{FutureExt, StreamExt};
use ledger::apply::BatchEffects;
use ledger::batch::BatchRecord;
use ledger::commitments::Commitments;
use ledger::entry::ConfigurationChange;
use ledger::identifier::canonical_bytes;
use ledger::signature::SigningKey;
use ledger::{ClusterId, Hash, LogTime, Party, SignedHead};
use proto::convert::Consistency;
use proto::wire;
use seams::Entropy;

/// More streams than any audit here needs.
const STREAMS_MAX: usize = 100;

fn cluster() -> ClusterId {
    ClusterId::of_name("audited")
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed([number; 32])
}

/// A ledger of so many batches, each of which changes the configuration.
fn records(batches: u8) -> Vec<BatchRecord> {
    records_of((1..=batches).map(|batch| ConfigurationChange::AddProvers(vec![Party::from_bytes([batch; 32])])))
}

fn records_of(changes: impl IntoIterator<Item = ConfigurationChange>) -> Vec<BatchRecord> {
    let mut commitments = Commitments::genesis(cluster(), 0);
    let mut records = Vec::new();
    for (batch, change) in (1..).zip(changes) {
        let tiles = commitments.advance(&BatchEffects::default(), LogTime::from_unix_millis(batch), batch);
        assert!(tiles.is_empty(), "a change of the configuration adds no leaf");
        records.push(BatchRecord::of_configuration(*commitments.head(), change));
    }
    records
}

/// What a prover proves of each batch by itself, unsigned and unlinked.
fn proofs(records: &[BatchRecord]) -> Vec<Findings> {
    let mut replay = Replay::genesis(cluster(), 0, 1);
    let findings = |record: &BatchRecord| {
        let chunks = collect::chunks(&Testimony::of_record(record).unwrap(), &replay);
        for chunk in &chunks {
            replay.accept(chunk).unwrap();
        }
        Findings {
            statement: Statement::of(&chunks).unwrap(),
            verdict: Verdict::Proved,
            versions: Versions { checker: 1, encoder: 1, solver: "none".to_owned() },
            patterns: Vec::new(),
            statistics: ProofStatistics::default(),
            predecessor: Attestation::NONE,
        }
    };
    records.iter().map(findings).collect()
}

/// Signs one after another, each naming the one before it.
fn chain(findings: Vec<Findings>, signer: u8) -> Vec<Attestation> {
    let mut predecessor = Attestation::NONE;
    let sign = |findings: Findings| {
        let signed = Findings { predecessor, ..findings }.sign(&key(signer));
        predecessor = signed.hash();
        signed
    };
    findings.into_iter().map(sign).collect()
}

/// How a node tells evidence.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// All of it.
    Whole,
    /// So many batches of each stream, and then the connection is lost.
    Breaks(usize),
    /// None, without an end.
    Mute,
}

/// A node that tells what it is given.
#[derive(Debug)]
struct Teller {
    records: Vec<BatchRecord>,
    attestations: Vec<Attestation>,
    /// The last batch of which it has a signed head.
    signed: u64,
    manner: Manner,
    streams: AtomicUsize,
}

impl Teller {
    fn new(records: Vec<BatchRecord>, attestations: Vec<Attestation>) -> Self {
        let signed = records.last().unwrap().head.batch;
        Self { records, attestations, signed, manner: Manner::Whole, streams: AtomicUsize::new(0) }
    }

    fn that(manner: Manner) -> Arc<Self> {
        Arc::new(Self { manner, ..Self::new(records(3), Vec::new()) })
    }

    fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }
}

fn unsupported<T: Send + 'static>() -> BoxFuture<'static, Result<T, Problem>> {
    ready(Err(Problem::new(ProblemKind::Unsupported, "an audit does not ask for it"))).boxed()
}

impl LedgerApi for Teller {
    fn get_head(&self, request: wire::GetHeadRequest) -> BoxFuture<'static, Result<wire::GetHeadResponse, Problem>> {
        let local = Consistency::of(request.consistency.as_ref()).unwrap() == Consistency::Local;
        let head = match local {
            true => self.records[usize::try_from(self.signed).unwrap() - 1].head,
            false => self.records.last().unwrap().head,
        };
        let signatures = if local { vec![head.sign(&key(0))] } else { Vec::new() };
        let signed_head = canonical_bytes(&SignedHead { head, signatures }).into();
        ready(Ok(wire::GetHeadResponse { signed_head })).boxed()
    }

    fn watch_evidence(
        &self,
        request: wire::WatchEvidenceRequest,
    ) -> BoxFuture<'static, Result<EvidenceStream, Problem>> {
        assert!(self.streams.fetch_add(1, Ordering::SeqCst) < STREAMS_MAX, "it is asked again and again");
        let from = usize::try_from(request.from_batch).unwrap() - 1;
        let told = self.records[from..]
            .iter()
            .map(|record| Ok(wire::BatchEvidence { batch: record.head.batch, record: record.encode().into() }));
        let told = stream::iter(told.collect::<Vec<_>>());
        let lost = || Err(Problem::new(ProblemKind::OutcomeUnknown, "the connection was lost"));
        let evidence = match self.manner {
            Manner::Whole => told.boxed(),
            Manner::Breaks(batches) => told.take(batches).chain(stream::once(ready(lost()))).boxed(),
            Manner::Mute => pending().boxed(),
        };
        ready(Ok(evidence)).boxed()
    }

    fn list_attestations(
        &self,
        _request: wire::ListAttestationsRequest,
    ) -> BoxFuture<'static, Result<wire::ListAttestationsResponse, Problem>> {
        let numbered = (1..).zip(&self.attestations).map(|(number, attestation)| wire::NumberedAttestation {
            number,
            attestation: canonical_bytes(attestation).into(),
        });
        ready(Ok(wire::ListAttestationsResponse { attestations: numbered.collect(), next: 0 })).boxed()
    }

    fn submit(&self, _: wire::SubmitRequest) -> BoxFuture<'static, Result<wire::SubmitResponse, Problem>> {
        unsupported()
    }

    fn submit_batches(&self) -> BoxFuture<'static, Result<BatchStream, Problem>> {
        unsupported()
    }

    fn get_transaction(
        &self,
        _: wire::GetTransactionRequest,
    ) -> BoxFuture<'static, Result<wire::TransactionStatus, Problem>> {
        unsupported()
    }

    fn get_receipt(&self, _: wire::GetReceiptRequest) -> BoxFuture<'static, Result<wire::GetReceiptResponse, Problem>> {
        unsupported()
    }

    fn get_consistency(
        &self,
        _: wire::GetConsistencyRequest,
    ) -> BoxFuture<'static, Result<wire::GetConsistencyResponse, Problem>> {
        unsupported()
    }

    fn list_holdings(
        &self,
        _: wire::ListHoldingsRequest,
    ) -> BoxFuture<'static, Result<wire::ListHoldingsResponse, Problem>> {
        unsupported()
    }

    fn watch_updates(&self, _: wire::WatchUpdatesRequest) -> BoxFuture<'static, Result<UpdateStream, Problem>> {
        unsupported()
    }

    fn get_cluster(&self, _: wire::GetClusterRequest) -> BoxFuture<'static, Result<wire::ClusterInfo, Problem>> {
        unsupported()
    }
}

/// Clients begin at the first of their nodes.
#[derive(Debug)]
struct Zeros;

impl Entropy for Zeros {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

async fn audit(nodes: &[Arc<Teller>], provers: &[u8]) -> Result<Audit, AuditFault> {
    let builder = Client::builder().entropy(Arc::new(Zeros));
    let builder = nodes.iter().fold(builder, |builder, node| {
        let node: Arc<dyn LedgerApi> = Arc::<Teller>::clone(node);
        builder.node(node)
    });
    let options = AuditOptions {
        nodes: TrustedNodes { cluster: cluster(), keys: vec![key(0).party()], required: 1 },
        provers: provers.iter().map(|number| key(*number).party()).collect(),
        required: 1,
        first_batch: 1,
        last_batch: None,
    };
    let client = builder.connect().unwrap();
    let audited = client.audit(&options, None, |_, _| {});
    tokio::time::timeout(Duration::from_secs(3_600), audited).await.expect("it ends").map(|(audit, _)| audit)
}

fn problem(audited: Result<Audit, AuditFault>) -> ProblemKind {
    match audited {
        Err(AuditFault::Problem(problem)) => problem.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn evidence_that_breaks_off_goes_on_where_it_was() {
    let node = Teller::that(Manner::Breaks(1));
    let found = audit(&[Arc::clone(&node)], &[]).await.unwrap();
    assert_eq!((found.batches, found.signed, node.streams()), (3, true, 3));
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_evidence_does_not_go_on_is_left_for_another() {
    for manner in [Manner::Breaks(0), Manner::Mute] {
        let (node, another) = (Teller::that(manner), Teller::that(Manner::Whole));
        let found = audit(&[Arc::clone(&node), Arc::clone(&another)], &[]).await.unwrap();
        assert_eq!((found.batches, node.streams(), another.streams()), (3, 1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_audit_ends_where_no_node_goes_on() {
    for (manner, kind) in [(Manner::Breaks(0), ProblemKind::OutcomeUnknown), (Manner::Mute, ProblemKind::Timeout)] {
        let nodes = [Teller::that(manner), Teller::that(manner)];
        assert_eq!(problem(audit(&nodes, &[]).await), kind);
        assert!(nodes.iter().all(|node| (1..=2).contains(&node.streams())));
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_newest_signed_head_is_not_signed() {
    let node = Arc::new(Teller { signed: 2, ..Teller::new(records(3), Vec::new()) });
    let found = audit(&[node], &[]).await.unwrap();
    assert_eq!((found.batches, found.signed), (3, false));
    assert_eq!(found.problems, ["no head of batch 3 or later is signed by enough trusted nodes"]);
}

#[tokio::test(start_paused = true)]
async fn provers_that_hold_to_what_was_replayed_attest_it() {
    let records = records(4);
    let proofs = proofs(&records);
    // another prover's runs are longer
    let mut run = proofs[3].clone();
    run.statement.first_batch = 1;
    run.statement.before = proofs[0].statement.before;
    run.statement.evidence = proofs.iter().flat_map(|it| it.statement.evidence.clone()).collect();
    let attestations = [chain(proofs, 1), chain(vec![run], 2)].concat();
    let found = audit(&[Arc::new(Teller::new(records, attestations))], &[1, 2]).await.unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!((found.attestations, found.attested_batches, found.missing_batches), (5, 4, 0));
}

/// What an audit says of four single proofs, once one thing about them is wrong.
#[tokio::test(start_paused = true)]
async fn an_audit_finds_what_does_not_hold() {
    let inconclusive = || Verdict::Inconclusive("too hard".to_owned());
    type Spoil<'a> = dyn Fn(&mut Vec<Findings>, &mut Vec<Attestation>) + 'a;
    let cases: [(&str, u64, &Spoil<'_>); 5] = [
        ("attestation 3 does not hold: it is about other evidence of batch 3", 3, &|findings, signed| {
            findings[2].statement.evidence[0] = Hash::from_bytes([9; 32]);
            *signed = chain(findings.clone(), 1);
        }),
        ("attestation 4 does not hold: it begins or ends at another frontier", 4, &|findings, signed| {
            findings[3].statement.after.log_root = Hash::from_bytes([9; 32]);
            *signed = chain(findings.clone(), 1);
        }),
        (
            "of batch 3 does not continue the one before it: it names another predecessor",
            4,
            &|findings, signed| {
                signed[2] = findings[2].clone().sign(&key(1));
            },
        ),
        (
            "of batch 4 does not continue the one before it: it names another predecessor",
            3,
            &|findings, signed| {
                findings[1].verdict = inconclusive();
                *signed = chain(findings.clone(), 1);
                signed[3] = findings[3].clone().sign(&key(1));
            },
        ),
        ("attestation 2 proves nothing: the signature is not the prover's", 3, &|_findings, signed| {
            signed[1].findings.statistics.chunks = 7;
        }),
    ];
    for (words, attested, spoil) in cases {
        let records = records(4);
        let mut findings = proofs(&records);
        let mut signed = chain(findings.clone(), 1);
        spoil(&mut findings, &mut signed);
        let found = audit(&[Arc::new(Teller::new(records, signed))], &[1]).await.unwrap();
        assert!(found.problems.iter().any(|problem| problem.contains(words)), "{words}: {:?}", found.problems);
        assert_eq!((found.attested_batches, found.missing_batches), (attested, 4 - attested), "{words}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_dismissed_prover_said_before_stands_and_what_its_key_signs_of_later_batches_is_worth_nothing() {
    let (old, new) = (key(1).party(), key(2).party());
    let records = records_of([
        ConfigurationChange::AddProvers(vec![old]),
        ConfigurationChange::AddProvers(vec![new]),
        ConfigurationChange::RemoveProvers(vec![old]),
        ConfigurationChange::RequireProvers(2),
    ]);
    let proofs = proofs(&records);
    let in_their_time = [chain(proofs[..2].to_vec(), 1), chain(proofs[2..].to_vec(), 2)].concat();
    let found = audit(&[Arc::new(Teller::new(records.clone(), in_their_time))], &[1, 2]).await.unwrap();
    assert_eq!((found.problems, found.attested_batches, found.missing_batches), (Vec::new(), 4, 0));
    // whoever has the old key now
    let forged = chain(proofs, 1);
    let found = audit(&[Arc::new(Teller::new(records, forged))], &[1, 2]).await.unwrap();
    assert_eq!((found.attested_batches, found.missing_batches), (2, 2));
    assert_eq!(
        found.problems,
        [
            "attestation 3 proves nothing: batch 3 dismissed its prover, and it is about batch 3",
            "attestation 4 proves nothing: batch 3 dismissed its prover, and it is about batch 4",
        ]
    );
}
