//! Attestations: what a signature, a chain and m of n are worth, and that the evidence decides.

use checker::attestation::{AttestationFault, Findings, ProofStatistics, Versions, verify_agreement, verify_chain};
use checker::collect::Testimony;
use checker::state::Snapshot;
use checker::{Attestation, CHECKER_VERSION, Chunk, Finding, Frontier, Replay, Statement, Verdict};
use ledger::entry::ConfigurationChange;
use ledger::{Contract, Hash, Origin, Outcome, OutputId, Party, Rejection, Sequence, TransactionId};

use crate::fixture;
use crate::scene::{Scene, batch_chunks};
use crate::support::{identity, key};

fn findings(chunks: &[Chunk], predecessor: Hash) -> Findings {
    Findings {
        statement: Statement::of(chunks).unwrap(),
        verdict: Verdict::Proved,
        versions: Versions { checker: CHECKER_VERSION, encoder: 0, solver: "none".to_owned() },
        patterns: Vec::new(),
        statistics: ProofStatistics::default(),
        predecessor,
    }
}

/// One attestation per batch of the scene, chained.
fn chain(scene: &Scene, prover: &str) -> (Vec<Attestation>, Vec<Vec<Chunk>>) {
    let mut predecessor = Attestation::NONE;
    let batches: Vec<Vec<Chunk>> = (0..3).map(|batch| batch_chunks(scene, batch)).collect();
    let attest = |chunks: &Vec<Chunk>| {
        let attestation = findings(chunks, predecessor).sign(&key(prover));
        predecessor = attestation.hash();
        attestation
    };
    (batches.iter().map(attest).collect(), batches)
}

fn trusted() -> Vec<Party> {
    ["one", "two", "three"].map(|name| key(name).party()).to_vec()
}

#[test]
fn a_chain_with_its_evidence_leads_from_genesis_to_the_last_head() {
    let scene = Scene::new();
    let (chain, batches) = chain(&scene, "one");
    let end = verify_chain(&chain, &trusted(), &Frontier::genesis(), Attestation::NONE).unwrap();
    assert!(end.agrees_with(&scene.testimonies[2].head));
    let mut replay = fixture::genesis();
    for (attestation, chunks) in chain.iter().zip(&batches) {
        attestation.verify(&trusted(), chunks, &mut replay).unwrap();
        let bytes = ledger::identifier::canonical_bytes(attestation);
        assert_eq!(&borsh::from_slice::<Attestation>(&bytes).unwrap(), attestation);
    }
    assert_eq!(*replay.frontier(), end);
}

#[test]
fn a_broken_chain_is_not_followed() {
    let scene = Scene::new();
    let (mut links, _) = chain(&scene, "one");
    links.remove(1);
    let verify = |links: &[Attestation]| verify_chain(links, &trusted(), &Frontier::genesis(), Attestation::NONE);
    assert!(matches!(verify(&links), Err(AttestationFault::Chain { batch: 3, .. })));
    let (mut links, _) = chain(&scene, "one");
    links.swap(0, 1);
    assert!(matches!(verify(&links), Err(AttestationFault::Chain { batch: 2, .. })));
    let (mut links, _) = chain(&scene, "one");
    links.insert(1, links[0].clone());
    assert!(matches!(verify(&links), Err(AttestationFault::Chain { batch: 1, .. })));
    let (others, _) = chain(&scene, "two");
    let (mut links, _) = chain(&scene, "one");
    links[1] = others[1].clone();
    assert!(matches!(verify(&links), Err(AttestationFault::Chain { batch: 2, .. })));
}

#[test]
fn a_forged_signature_and_an_unknown_prover_are_worth_nothing() {
    let scene = Scene::new();
    let (links, _) = chain(&scene, "one");
    let mut forged = links[0].clone();
    forged.findings.statement.after.next = Sequence::new(1);
    assert_eq!(forged.verify_signature(&trusted()), Err(AttestationFault::Signature));
    let mut taken_over = links[0].clone();
    taken_over.prover = key("two").party();
    assert_eq!(taken_over.verify_signature(&trusted()), Err(AttestationFault::Signature));
    let (strangers, _) = chain(&scene, "stranger");
    assert!(matches!(strangers[0].verify_signature(&trusted()), Err(AttestationFault::Untrusted(_))));
}

#[test]
fn evidence_of_another_batch_is_not_what_was_attested() {
    let scene = Scene::new();
    let (links, batches) = chain(&scene, "one");
    let mut replay = fixture::genesis();
    let other = links[0].verify_evidence(&batches[1], &mut replay);
    assert!(matches!(other, Err(AttestationFault::OtherEvidence(_))), "{other:?}");
    let mut changed = batches[0].clone();
    changed[0].entries[0].responded = None;
    let changed = links[0].verify_evidence(&changed, &mut replay);
    assert!(matches!(changed, Err(AttestationFault::OtherEvidence(_))), "{changed:?}");
    assert_eq!(*replay.frontier(), Frontier::genesis());
}

#[test]
fn a_signed_proof_of_a_lie_is_found_out_by_its_evidence() {
    let scene = Scene::new();
    let mut told = scene.testimonies[1].clone();
    let (_, mut replay) = fixture::chunks(&scene.testimonies[..1], 6);
    told.lines[1].record.outcome = Outcome::Committed { chosen: Vec::new() };
    let chunks = crate::liar::chunks(&told, &replay, 200);
    let attestation = findings(&chunks, Attestation::NONE).sign(&key("one"));
    assert_eq!(attestation.verify_signature(&trusted()), Ok(()));
    let found = attestation.verify_evidence(&chunks, &mut replay);
    assert!(matches!(found, Err(AttestationFault::Finding(Finding::Refuted(_)))), "{found:?}");
}

#[test]
fn what_was_left_open_is_no_proof() {
    let scene = Scene::new();
    let chunks = batch_chunks(&scene, 0);
    let mut open = findings(&chunks, Attestation::NONE);
    open.statistics.undecided = 1;
    let passed_off = open.clone().sign(&key("one"));
    assert_eq!(passed_off.verify_signature(&trusted()), Err(AttestationFault::Undecided(1)));
    open.verdict = Verdict::Inconclusive("timeout".to_owned());
    let honest = open.sign(&key("one"));
    assert_eq!(honest.verify_signature(&trusted()), Ok(()));
    let mut replay = fixture::genesis();
    assert!(matches!(honest.verify_evidence(&chunks, &mut replay), Err(AttestationFault::NotProved(_))));
    let agreed = verify_agreement(1, std::slice::from_ref(&honest), &trusted(), 1);
    assert!(matches!(agreed, Err(AttestationFault::TooFew { found: 0, .. })));
}

#[test]
fn m_of_n_counts_different_provers_of_one_statement() {
    let scene = Scene::new();
    let (one, batches) = chain(&scene, "one");
    let (two, _) = chain(&scene, "two");
    let evidence = Chunk::digest(&batches[0]);
    let agreed = |attestations: &[Attestation]| verify_agreement(1, attestations, &trusted(), 2);
    assert_eq!(agreed(&[one[0].clone(), two[0].clone()]), Ok(evidence));
    assert!(agreed(&[one[0].clone(), one[0].clone()]).is_err());
    assert!(agreed(&[one[0].clone(), two[1].clone()]).is_err());
    let longer = findings(&[batches[0].clone(), batches[1].clone()].concat(), Attestation::NONE).sign(&key("three"));
    assert_eq!(agreed(&[one[0].clone(), longer.clone()]), Ok(evidence), "runs may differ in length");
    let mut other = longer.findings;
    other.statement.evidence.swap(0, 1);
    assert!(agreed(&[one[0].clone(), other.sign(&key("three"))]).is_err(), "of other evidence");
}

/// The history's state before a batch as a snapshot: what every transaction before it created and consumed.
fn snapshot(scene: &Scene, batches: usize, whole: bool) -> Snapshot {
    let (chunks, replay) = fixture::chunks(&scene.testimonies[..batches], 200);
    let mut live: Vec<(Origin, Contract, Sequence)> = Vec::new();
    let mut spent: Vec<(Origin, OutputId, TransactionId)> = Vec::new();
    for output in chunks.iter().flat_map(|chunk| &chunk.touched) {
        live.retain(|(origin, ..)| *origin != output.origin);
        match output.after {
            checker::Fate::Live { created_at } => live.push((output.origin, output.contract, created_at)),
            checker::Fate::Spent { by } => spent.push((output.origin, output.id, by)),
            checker::Fate::Absent => {}
        }
    }
    let entries = chunks.iter().flat_map(|chunk| &chunk.entries);
    let sequenced = entries.map(|entry| (entry.id(), entry.sequence));
    Snapshot {
        frontier: *replay.frontier(),
        log: replay.log().clone(),
        live,
        spent: if whole { spent } else { Vec::new() },
        sequenced: sequenced.collect(),
        roots: Vec::new(),
        kept: checker::kept::KeptHistory::default(),
        whole,
    }
}

#[test]
fn a_replay_continues_from_a_snapshot() {
    let scene = Scene::new();
    for batch in 1..3 {
        let snapshot = snapshot(&scene, batch, true);
        let (cluster, group) = (identity().cluster, identity().group);
        let mut replay = Replay::from_snapshot(cluster, group, &snapshot, 3).unwrap();
        for chunk in batch_chunks(&scene, batch) {
            replay.accept(&chunk).unwrap();
        }
        assert!(replay.frontier().agrees_with(&scene.testimonies[batch].head));
    }
}

#[test]
fn what_a_snapshot_of_live_outputs_cannot_tell_is_inconclusive() {
    let scene = Scene::new();
    let snapshot = snapshot(&scene, 2, false);
    let mut replay = Replay::from_snapshot(identity().cluster, identity().group, &snapshot, 3).unwrap();
    for chunk in batch_chunks(&scene, 2) {
        replay.accept(&chunk).unwrap();
    }
    let mut replay = Replay::from_snapshot(identity().cluster, identity().group, &snapshot, 3).unwrap();
    // a loser that names what was spent before the snapshot
    let (mut told, (output, winner)) = (scene.testimonies[2].clone(), scene.spent_by_winner());
    let line = told.lines.last_mut().unwrap();
    line.received = ledger::transaction::ReceivedTransaction::from(scene.spends_what_winner_spent());
    line.record.transaction = line.received.id();
    line.record.outcome = Outcome::Rejected(Rejection::InputSpent { input: 0, output, winner });
    let chunks = crate::liar::chunks(&told, &replay, 200);
    assert!(matches!(replay.accept(&chunks[0]), Err(Finding::Inconclusive(_))));
}

#[test]
fn a_snapshot_that_contradicts_itself_is_refused() {
    let scene = Scene::new();
    let begin = |snapshot: &Snapshot| {
        Replay::from_snapshot(identity().cluster, identity().group, snapshot, 3)
            .map(|_| ())
            .map_err(|fault| fault.to_string())
    };
    let right = snapshot(&scene, 2, true);
    assert_eq!(begin(&right), Ok(()));
    let mut wrong = right.clone();
    wrong.live.pop();
    assert!(begin(&wrong).unwrap_err().contains("digest"));
    let mut wrong = right.clone();
    wrong.frontier.next = Sequence::new(1);
    assert!(begin(&wrong).unwrap_err().contains("log"));
    let mut wrong = right;
    let (origin, contract, _) = wrong.live[0];
    wrong.spent.push((origin, origin.output_id(&contract), scene.id("winner")));
    assert!(begin(&wrong).unwrap_err().contains("twice"));
}

#[test]
fn a_change_of_the_configuration_is_a_batch_without_transactions_and_begins_one_epoch() {
    let scene = Scene::new();
    let (_, replay) = fixture::chunks(&scene.testimonies, 6);
    let last = scene.testimonies[2].head;
    let configured = |epochs: u64, change: Option<ConfigurationChange>| {
        let head = ledger::Head { batch: last.batch + 1, epoch: last.epoch + epochs, ..last };
        let told = Testimony { head, lines: Vec::new(), groups: Vec::new(), change };
        let chunks = checker::collect::chunks(&told, &replay);
        assert_eq!(chunks.len(), 1);
        replay.clone().accept(&chunks[0]).map(|accepted| accepted.after.epoch)
    };
    let change = || Some(ConfigurationChange::RequireCertificates(2));
    assert_eq!(configured(1, change()), Ok(last.epoch + 1));
    assert_eq!(configured(0, None), Ok(last.epoch));
    let too_short = Some(ConfigurationChange::KeepHistory(Some(9)));
    for (epochs, change) in [(2, change()), (0, change()), (1, None), (1, too_short)] {
        assert!(matches!(configured(epochs, change), Err(Finding::Refuted(_))));
    }
}

#[test]
fn encodings_are_these_bytes_for_ever() {
    let scene = Scene::new();
    let chunks = scene.honest();
    let (chain, _) = chain(&scene, "one");
    let golden = [
        (Chunk::digest(&chunks), "5e8360cb05248b1e64d6c5cf2c3170af1223d33d65cd25a1646bb8f9bb8c0b56"),
        (chain[2].hash(), "9e7b5417214bda9e067fddd56f1460beca77a80eadbfe6789a86cad9679a5f8f"),
        (
            Hash::from_bytes(ledger::identifier::tagged_hash(
                b"seriatim golden.",
                &[&ledger::identifier::canonical_bytes(&Frontier::genesis())],
            )),
            "56f66350a3bd08512f05b168d27a9b252c323ce7e2dfe5e67f997a1771207c50",
        ),
    ];
    for (digest, expected) in golden {
        assert_eq!(digest.to_string(), expected);
    }
}

#[test]
fn a_log_without_room_is_refused_and_not_a_panic() {
    let scene = Scene::new();
    for size in [ledger::merkle::LEAVES_MAX, ledger::merkle::LEAVES_MAX - 1, u64::MAX] {
        let mut chunk = scene.honest().remove(0);
        chunk.before.next = Sequence::new(size);
        let peaks = vec![Hash::from_bytes([7; 32]); usize::try_from(size.count_ones()).unwrap()];
        if let Ok(log) = borsh::from_slice(&ledger::identifier::canonical_bytes(&(size, peaks))) {
            chunk.log = log;
        }
        chunk.before.log_root = chunk.log.root();
        let found = Replay::claimed(&chunk).accept(&chunk);
        assert!(matches!(found, Err(Finding::Refuted(_))), "{found:?}");
    }
}
