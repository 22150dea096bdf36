//! A ledger without any cluster: right histories, made by the rules themselves, for tests to spoil.

use std::time::Duration;

use bytes::Bytes;
use chaos_tests::check::OrderedBatch;
use chaos_tests::dice::Dice;
use chaos_tests::history::{Call, Found, Journal, Level, Told};
use chaos_tests::workload::{Kind, Market};
use client::testkit::LocalLedger;
use client::{Consistency, Outcome, SignedTransaction, Watch};
use futures::StreamExt;
use ledger::{Party, Transaction};

/// A run: what was ordered, and what its clients recorded.
pub(crate) struct Scene {
    pub(crate) batches: Vec<OrderedBatch>,
    pub(crate) journal: Journal,
    pub(crate) registers: std::collections::BTreeSet<Party>,
}

/// Milliseconds of a run.
fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Committed { record, .. } | Outcome::Rejected { record: Some(record), .. } => {
            Told::Sequenced(record.clone())
        }
        Outcome::Rejected { rejection, record: None } => Told::Refused(rejection.clone()),
        Outcome::Refused { .. } => Told::NotTaken,
        Outcome::Unknown { .. } => unreachable!("the ledger in memory always answers"),
    }
}

impl Scene {
    /// So many submissions of a market, one after another, each followed by a read.
    pub(crate) async fn play(seed: u64, submissions: u64) -> Self {
        Self::play_with(seed, submissions, false).await
    }

    /// The same, where now and then two writes want the same register.
    pub(crate) async fn contended(seed: u64, submissions: u64) -> Self {
        Self::play_with(seed, submissions, true).await
    }

    async fn play_with(seed: u64, submissions: u64, contended: bool) -> Self {
        let ledger = LocalLedger::new("scene");
        let client = ledger.client();
        let identity = client.cluster().await.unwrap().identity;
        let market = Market::new(&Dice::new(seed), ledger.clock(), identity);
        let mut journal = Journal::default();
        let mut submitted: Vec<Transaction> = Vec::new();
        let mut now = 0;
        let mut next: Vec<Vec<Transaction>> = market.preparations().into_iter().map(|one| vec![one]).collect();
        for round in 0..submissions {
            for members in next {
                let signed: Vec<SignedTransaction> =
                    members.iter().map(|member| SignedTransaction::decode(member.encode().into()).unwrap()).collect();
                let bytes: Vec<Bytes> = signed.iter().map(|member| member.bytes().clone()).collect();
                let ids = signed.iter().map(SignedTransaction::id).collect();
                let answers = vec![None; members.len()];
                let ticket = journal.invoke(1, at(now), Call::Submission { members: bytes, ids, answers });
                let outcomes = client.submit_group(&signed).await;
                let told: Vec<Option<Told>> = outcomes.iter().map(told).map(Some).collect();
                assert!(journal.learn(ticket, at(now + 5), &told).unwrap());
                market.learn(&members, &told);
                submitted.extend(members);
                let party = market.some_holder();
                let call = Call::Read { party, level: Level::Linearizable, found: None };
                let ticket = journal.invoke(2, at(now + 6), call);
                let held = client.holdings(&party, None, 1_000, Consistency::Linearizable).await.unwrap();
                let outputs = held.outputs.iter().map(|output| output.id).collect();
                journal.read(ticket, at(now + 8), Found { head: held.head, outputs, complete: held.next.is_none() });
                now += 10;
            }
            next = market.draw();
            if contended && round % 10 == 9 {
                // one more than there are registers, all made before any is answered: two of them want the same position
                (0..=market.registers().len()).for_each(|_| next.extend(market.draw_of(&[Kind::Register])));
            }
        }
        let head = client.position(Consistency::Local).await.unwrap();
        let watch = Watch { from_batch: 1, parties: Vec::new(), with_records: true };
        let mut updates = client.updates(&watch).await.unwrap();
        let mut batches: Vec<OrderedBatch> = Vec::new();
        while batches.last().is_none_or(|batch| batch.head != head) {
            let update = updates.next().await.unwrap().unwrap();
            let find = |id| submitted.iter().find(|transaction| transaction.id() == id).unwrap().clone();
            let transactions = update.records.iter().map(|record| find(record.transaction)).collect();
            batches.push(OrderedBatch { head: update.head, transactions, records: update.records });
        }
        Self { batches, journal, registers: market.registers() }
    }
}
