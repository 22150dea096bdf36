//! Every decoder of a node, and its submit path, against mutated valid encodings and random bytes. The properties are
//! those of the fuzz targets.

use std::time::Duration;

use bytes::Bytes;
use client::{Context, TransactionBuilder};
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::check::LedgerIdentity;
use ledger::identifier::canonical_bytes;
use ledger::signature::SigningKey;
use ledger::{BundleDigest, ClusterId, Limits, LogTime, Quantity, Rejection};
use node::gateway::{ForwardAnswer, ForwardRequest};
use proptest::prelude::*;
use prost::Message;
use proto::{Problem, wire};
use seams::{Address, Clock, SystemClock};
use serde_json::json;
use storage::record::seal;
use validator::message::{Announcement, ValidateReply, ValidateRequest};

use crate::support::{asset, key};

#[expect(unreachable_pub, reason = "public in the fuzz crate")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[path = "../../../ledger/tests/fixtures/mutations.rs"]
mod mutations;

use mutations::inputs;

fn identity() -> LedgerIdentity {
    LedgerIdentity { cluster: ClusterId::of_name("test"), group: 0 }
}

/// A transaction that would commit.
fn transaction(nonce: u64) -> Bytes {
    let now = LogTime::from_unix_millis(SystemClock.unix_millis());
    let valid_until = now.plus_millis(3_600_000);
    let context = Context { identity: identity(), limits: Limits::V1, valid_until, nonce };
    let mut transaction = TransactionBuilder::new(context);
    transaction.issue(asset(&key(1)), key(2).party(), Quantity::new(5));
    transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap().bytes().clone()
}

fn request(submissions: Vec<Vec<Bytes>>) -> Vec<u8> {
    let submission = |(tag, transactions): (u64, Vec<Bytes>)| wire::Submission { tag, transactions };
    let submissions = (1..).zip(submissions).map(submission).collect();
    wire::SubmitRequest { submissions, timeout_ms: 0 }.encode_to_vec()
}

fn requests() -> Vec<Vec<u8>> {
    let [first, second] = [transaction(1), transaction(2)];
    vec![
        request(vec![vec![first.clone()]]),
        request(vec![vec![first.clone(), second.clone()], vec![second]]),
        request(vec![vec![Bytes::new()], Vec::new(), vec![first]]),
    ]
}

fn bodies() -> Vec<Vec<u8>> {
    let first = hex::encode(transaction(3));
    let item = json!({ "tag": 7, "transactions": [first] });
    let bodies = [json!({ "transactions": [first] }), json!({ "submissions": [item, item], "timeout_ms": 9_000 })];
    bodies.iter().map(|body| body.to_string().into_bytes()).collect()
}

fn stored() -> Vec<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let kv = storage::RocksKv::open(directory.path(), b"test", storage::KvOptions::default()).unwrap();
    let snapshot = storage::KvStore::checkpoint(&kv, Bytes::from_static(b"label"), Box::new(|| ())).unwrap();
    vec![seal(7, b"settlement"), snapshot.manifest().encode()]
}

fn between_nodes() -> Vec<Vec<u8>> {
    let signing = SigningKey::from_seed([4; 32]);
    let bitmap = VerdictBitmap::of(&[true, false]);
    let certificate = Attested { bundle: BundleDigest::of(b"bundle"), verdicts: bitmap, epoch: 1 }.certify(&signing);
    let reply = ValidateReply { certificate: certificate.clone(), rejections: vec![(1, Rejection::Malformed {})] };
    let bundle = ledger::entry::CertifiedBundle { bundle: b"bundle".to_vec(), certificates: vec![certificate] };
    vec![
        canonical_bytes(&ForwardRequest::Bundle(bundle)),
        canonical_bytes(&ForwardAnswer::NotLeader(Some("n2:7".to_owned()))),
        ValidateRequest { epoch: 1, bundle: Bytes::from_static(b"bundle") }.encode().to_vec(),
        reply.encode().to_vec(),
        Announcement::new(&identity(), &Address::new("v:1"), 5, &signing).encode().to_vec(),
    ]
}

fn messages() -> Vec<Vec<u8>> {
    let problem = Problem::overloaded(Duration::from_millis(40)).to_wire();
    let party = Bytes::copy_from_slice(key(1).party().as_bytes());
    let member =
        wire::Member { node: 1, address: "n1:7".to_owned(), voter: true, key: party.clone(), ..Default::default() };
    let holdings = wire::ListHoldingsRequest { owner: party.clone(), limit: 9, ..Default::default() };
    vec![
        wire::Submission { tag: 3, transactions: vec![transaction(1)] }.encode_to_vec(),
        wire::SubmissionResult { tag: 1, outcomes: Vec::new(), refused: Some(problem) }.encode_to_vec(),
        wire::WatchUpdatesRequest { parties: vec![party], ..Default::default() }.encode_to_vec(),
        wire::ClusterInfo { members: vec![member.clone()], ..Default::default() }.encode_to_vec(),
        holdings.encode_to_vec(),
        member.encode_to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_one_stored_record_or_none(bytes in inputs(stored())) {
        targets::stored(&bytes);
    }

    #[test]
    fn any_bytes_are_one_message_of_the_order_or_none(bytes in inputs(between_nodes())) {
        targets::order(&bytes);
    }

    #[test]
    fn any_bytes_are_one_message_between_nodes_or_none(bytes in inputs(between_nodes())) {
        targets::between_nodes(&bytes);
    }

    #[test]
    fn any_bytes_are_one_message_of_the_services_or_none(bytes in inputs(messages())) {
        targets::messages(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_posted_are_answered(body in inputs(bodies())) {
        targets::http_submission(&body);
    }

    #[test]
    fn any_bytes_submitted_are_answered(bytes in inputs(requests())) {
        targets::submission(&bytes);
    }
}
