//! What clients send that they should not: every row is refused with its number, over gRPC and over HTTP, and changes
//! nothing. The page `docs/bad-input.md` lists the rows; `node/tests/architecture.rs` compares.

use std::collections::BTreeSet;

use bytes::Bytes;
use client::{Client, Consistency, Outcome};
use ledger::check::LedgerIdentity;
use ledger::digest::UnspentDigest;
use ledger::signature::SigningKey;
use ledger::transaction::{
    Body, Input, Intent, Movements, Origin, Signature, SupplyChange, TermsAction, TermsEntry, Transaction, Unlock,
};
use ledger::view::LiveOutput;
use ledger::{
    Allocation, AssetType, AtomicGroupId, ClusterId, Contract, Leg, LogTime, Party, Position, Quantity, Rejection,
    Terms, TransactionId,
};
use proto::convert::{Decision, SubmissionResult};
use proto::wire::proofs_client::ProofsClient;
use proto::{Problem, ProblemKind, wire};
use serde_json::{Value, json};

use crate::http::post;
use crate::support::{Cluster, asset, commit, commit_something, in_time, issue, key};

const BANK: u8 = 1;
const ALICE: u8 = 2;
const BOB: u8 = 3;

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn party(seed: u8) -> Party {
    signing(seed).party()
}

/// Signs as these, in ascending order of their keys.
fn signed(mut body: Body, seeds: &[u8]) -> Transaction {
    let keys: std::collections::BTreeMap<Party, SigningKey> =
        seeds.iter().map(|seed| (party(*seed), signing(*seed))).collect();
    body.signers = keys.keys().copied().collect();
    let signatures = keys.values().map(|key| key.sign_transaction(&body)).collect();
    Transaction { body, signatures }
}

/// What the rows are made from: the ledger as it is, and one position of 100 that Alice holds.
struct Material {
    identity: LedgerIdentity,
    now: LogTime,
    position: LiveOutput,
    spent: LiveOutput,
}

impl Material {
    async fn of(client: &Client) -> Self {
        let issued = issue(client, &key(BANK), party(ALICE), 7).await;
        commit(client, &issued).await;
        let spent = client.holdings(&party(ALICE), None, 10, Consistency::Linearizable).await.unwrap().outputs[0];
        let mut moved = client.begin().await.unwrap();
        moved.spend(&spent).transfer(party(ALICE), party(BOB), asset(&key(BANK)), Quantity::new(7));
        commit(client, &moved.prepare().unwrap().sign(&key(ALICE)).unwrap().finish().unwrap()).await;
        commit(client, &issue(client, &key(BANK), party(ALICE), 100).await).await;
        let page = client.holdings(&party(ALICE), None, 10, Consistency::Linearizable).await.unwrap();
        let identity = client.cluster().await.unwrap().identity;
        Self { identity, now: client.now(), position: page.outputs[0], spent }
    }

    fn body(&self, movements: Movements) -> Body {
        Body {
            cluster: self.identity.cluster,
            group: self.identity.group,
            valid_until: self.now.plus_millis(60_000),
            nonce: 1,
            seen_head: None,
            signers: Vec::new(),
            intent: Intent::Movements(movements),
            atomic: None,
        }
    }

    fn asset(&self) -> AssetType {
        asset(&key(BANK))
    }

    fn spend(&self, output: &LiveOutput) -> Input {
        Input { origin: output.origin, contract: output.contract, unlock: Unlock::Owner }
    }

    fn position(&self, owner: u8, quantity: i128) -> Contract {
        Contract::Position(Position { asset: self.asset(), owner: party(owner), quantity: Quantity::new(quantity) })
    }

    /// Alice pays Bob everything that she holds: right as it stands.
    fn payment(&self) -> Movements {
        Movements {
            inputs: vec![self.spend(&self.position)],
            outputs: vec![self.position(BOB, 100)],
            ..Movements::default()
        }
    }

    fn terms(&self) -> Terms {
        let leg = |payer, receiver, quantity| Leg {
            payer: party(payer),
            receiver: party(receiver),
            asset: self.asset(),
            quantity: Quantity::new(quantity),
        };
        Terms { legs: vec![leg(ALICE, BOB, 100), leg(BOB, ALICE, 5)], nonce: 1 }
    }

    fn allocation(&self, quantity: i128) -> Contract {
        Contract::Allocation(Allocation {
            terms: self.terms().id(),
            leg: 0,
            asset: self.asset(),
            quantity: Quantity::new(quantity),
            payer: party(ALICE),
            return_to: party(ALICE),
            expires_at: self.now.plus_millis(60_000),
        })
    }

    /// Alice's payment with another body.
    fn altered(&self, change: impl FnOnce(&mut Body)) -> Transaction {
        let mut body = self.body(self.payment());
        change(&mut body);
        signed(body, &[ALICE])
    }

    /// Alice's payment with other movements.
    fn moving(&self, seeds: &[u8], change: impl FnOnce(&mut Movements)) -> Transaction {
        let mut movements = self.payment();
        change(&mut movements);
        signed(self.body(movements), seeds)
    }

    /// Single transactions, each with the number of its refusal.
    fn rows(&self) -> Vec<(&'static str, u16, Vec<u8>)> {
        let mut rows = self.rows_of_bytes();
        rows.extend(self.rows_of_signatures());
        rows.extend(self.rows_of_content());
        rows
    }

    fn rows_of_bytes(&self) -> Vec<(&'static str, u16, Vec<u8>)> {
        let right = self.altered(|_| ()).encode();
        vec![
            ("bytes that are no transaction", 100, b"nonsense".to_vec()),
            ("a byte that is missing", 100, right[..right.len() - 1].to_vec()),
            ("a byte too many", 100, [right.as_slice(), &[0]].concat()),
            ("a transaction of 256 KiB and a byte", 101, vec![0; 256 * 1024 + 1]),
            ("another cluster", 102, self.altered(|body| body.cluster = ClusterId::of_name("other")).encode()),
            ("another Raft group", 103, self.altered(|body| body.group = 1).encode()),
            (
                "an empty transaction",
                105,
                self.altered(|body| body.intent = Intent::Movements(Movements::default())).encode(),
            ),
            (
                "a member without its group",
                125,
                self.altered(|body| {
                    body.atomic = Some(AtomicGroupId::of(&[TransactionId::from_bytes([1; 32])]));
                })
                .encode(),
            ),
        ]
    }

    fn rows_of_signatures(&self) -> Vec<(&'static str, u16, Vec<u8>)> {
        let right = self.altered(|_| ());
        let twice = Transaction {
            body: Body { signers: vec![party(ALICE); 2], ..right.body.clone() },
            signatures: vec![right.signatures[0]; 2],
        };
        let bad = Signature::from_bytes([9; 64]);
        let of_another = vec![signing(BOB).sign_transaction(&right.body)];
        let with = |signatures| Transaction { signatures, ..right.clone() }.encode();
        vec![
            ("a signer named twice", 106, twice.encode()),
            ("a signature that is missing", 107, with(Vec::new())),
            ("a signature given twice", 107, with(vec![right.signatures[0]; 2])),
            ("a party that has to sign and does not", 116, self.moving(&[BOB], |_| ()).encode()),
            ("a signature that is none", 126, with(vec![bad])),
            ("a signature of somebody else", 126, with(of_another)),
        ]
    }

    fn rows_of_content(&self) -> Vec<(&'static str, u16, Vec<u8>)> {
        let entry = |action| TermsEntry { action, terms: self.terms() };
        let unknown = Origin { transaction: TransactionId::from_bytes([5; 32]), index: 0 };
        let most = SupplyChange { asset: self.asset(), quantity: Quantity::new(i128::MAX) };
        let rows: Vec<(&'static str, u16, Transaction)> = vec![
            ("an input named twice", 108, self.moving(&[ALICE], |moved| moved.inputs.push(moved.inputs[0]))),
            (
                "a position of nothing",
                109,
                self.moving(&[ALICE], |moved| moved.outputs.push(self.position(BOB, 0))),
            ),
            (
                "an allocation that is not its leg's",
                114,
                self.moving(&[ALICE], |moved| {
                    moved.outputs = vec![self.allocation(99), self.position(ALICE, 1)];
                    moved.terms = vec![entry(TermsAction::Propose)];
                }),
            ),
            (
                "terms with a leg that nobody funds",
                118,
                self.moving(&[ALICE], |moved| {
                    moved.terms = vec![entry(TermsAction::Settle)];
                }),
            ),
            ("a sum beyond 128 bits", 120, self.moving(&[ALICE, BANK], |moved| moved.supply = vec![most])),
            (
                "more out than in",
                121,
                self.moving(&[ALICE], |moved| moved.outputs = vec![self.position(BOB, 101)]),
            ),
            ("less out than in", 121, self.moving(&[ALICE], |moved| moved.outputs = vec![self.position(BOB, 99)])),
            (
                "a debt without a grant",
                122,
                self.moving(&[ALICE, BOB], |moved| {
                    moved.outputs = vec![self.position(BOB, -1), self.position(ALICE, 101)];
                }),
            ),
            ("an input that never was", 205, self.moving(&[ALICE], |moved| moved.inputs[0].origin = unknown)),
            (
                "an input with other content",
                205,
                self.moving(&[ALICE], |moved| {
                    moved.inputs[0].contract = self.position(ALICE, 1_000);
                    moved.outputs = vec![self.position(BOB, 1_000)];
                }),
            ),
            (
                "an input that was spent",
                206,
                self.moving(&[ALICE], |moved| {
                    moved.inputs = vec![self.spend(&self.spent)];
                    moved.outputs = vec![self.position(BOB, 7)];
                }),
            ),
            ("an expired transaction", 200, self.altered(|body| body.valid_until = LogTime::from_unix_millis(1))),
            (
                "a validity of two days",
                201,
                self.altered(|body| body.valid_until = self.now.plus_millis(172_800_000)),
            ),
        ];
        rows.into_iter().map(|(what, code, transaction)| (what, code, transaction.encode())).collect()
    }
}

/// What no refusal may change: every live output, by digest and count.
async fn outputs(cluster: &Cluster) -> (UnspentDigest, u64) {
    let leader = cluster.leader().await;
    cluster.client_of(leader).head(Consistency::Linearizable).await.unwrap();
    let state = cluster.node(leader).replica().state();
    (state.head().unspent, state.live_outputs())
}

async fn over_grpc(cluster: &Cluster, node: u64, members: Vec<Vec<u8>>) -> SubmissionResult {
    let transactions = members.into_iter().map(Bytes::from).collect();
    let submission = wire::Submission { tag: 1, transactions };
    let request = wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
    let response = in_time(cluster.ledger_stub(node).await.submit(request)).await.unwrap().into_inner();
    SubmissionResult::try_from(&response.results[0]).unwrap()
}

fn reason(decision: &Decision) -> Option<&Rejection> {
    match decision {
        Decision::Refused(reason) => Some(reason),
        Decision::Sequenced { record, .. } => match &record.outcome {
            ledger::Outcome::Rejected(reason) => Some(reason),
            ledger::Outcome::Committed { .. } => None,
        },
        Decision::Unknown(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_transaction_is_refused_by_its_number_over_grpc_and_http_and_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let material = Material::of(&cluster.client()).await;
    let before = outputs(&cluster).await;
    let rows = material.rows();
    let names: BTreeSet<&str> = rows.iter().map(|(what, ..)| *what).collect();
    assert_eq!(names.len(), rows.len());
    for (what, code, bytes) in rows {
        let result = over_grpc(&cluster, follower, vec![bytes.clone()]).await;
        let answers = result.answers.unwrap();
        let found = reason(&answers[0].decision).map(Rejection::code);
        assert_eq!(found, Some(code), "{what}: {:?}", answers[0].decision);
        let body = json!({ "transactions": [hex::encode(&bytes)] }).to_string();
        let (status, _, problem) = post(format!("{}/v1/submissions", cluster.http(leader)), body).await;
        assert_eq!(problem["code"], json!(code), "{what}: {problem}");
        assert_eq!(status, if code < 200 { 422 } else { 409 }, "{what}");
        assert!(problem["advice"].is_string(), "{what}: {problem}");
        assert_eq!(outputs(&cluster).await, before, "{what}");
    }
    // the same with nothing wrong: so each row is refused for what is wrong with it
    let right = material.altered(|body| body.nonce = 2).encode();
    let result = over_grpc(&cluster, follower, vec![right]).await.answers.unwrap();
    assert!(reason(&result[0].decision).is_none(), "{result:?}");
    assert_ne!(outputs(&cluster).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_content_are_refused_by_field() {
    let cluster = Cluster::start(1).await;
    let before = outputs(&cluster).await;
    let mut stub = cluster.ledger_stub(1).await;
    let nothing = in_time(stub.submit(wire::SubmitRequest::default())).await.unwrap_err();
    assert_eq!(Problem::from(nothing).violations[0].field, "submissions");
    for members in [Vec::new(), vec![Vec::new()], vec![vec![0; 10]; 65]] {
        let problem = over_grpc(&cluster, 1, members).await.answers.unwrap_err();
        assert_eq!((problem.kind, problem.violations[0].field.as_str()), (ProblemKind::BadRequest, "transactions"));
    }
    assert_eq!(outputs(&cluster).await, before);
    commit_something(&cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_refused_by_its_number() {
    let cluster = Cluster::start(1).await;
    let before = outputs(&cluster).await;
    let submission = wire::Submission { tag: 1, transactions: vec![Bytes::from(vec![0; 10 * 1024 * 1024])] };
    let request = wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
    let refused = in_time(cluster.ledger_stub(1).await.submit(request)).await.unwrap_err();
    assert_eq!(Problem::from(refused).kind, ProblemKind::MessageTooLarge);
    let request = wire::SubmitAttestationRequest { attestation: Bytes::from(vec![0; 10 * 1024 * 1024]) };
    let mut proofs = ProofsClient::connect(format!("http://{}", cluster.address(1))).await.unwrap();
    let refused = in_time(proofs.submit_attestation(request)).await.unwrap_err();
    assert_eq!(Problem::from(refused).kind, ProblemKind::MessageTooLarge);
    let url = format!("{}/v1/submissions", cluster.http(1));
    let (status, _, problem) = post(url, vec![b' '; 10 * 1024 * 1024]).await;
    assert_eq!((status, &problem["code"]), (413, &json!(314)), "{problem}");
    assert_eq!(outputs(&cluster).await, before);
    commit_something(&cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_no_bundle_can_hold_is_refused_at_once() {
    let cluster = Cluster::start(1).await;
    let before = outputs(&cluster).await;
    // each member is within its limit, and together they are larger than a bundle of 4 MiB
    let members = vec![vec![0; 200 * 1024]; 30];
    let problem = over_grpc(&cluster, 1, members).await.answers.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::MessageTooLarge, "{problem}");
    assert_eq!(outputs(&cluster).await, before);
    commit_something(&cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_at_every_node_has_the_first_outcome_and_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let material = Material::of(&client).await;
    let payment = material.altered(|_| ()).encode();
    let first = over_grpc(&cluster, 1, vec![payment.clone()]).await.answers.unwrap();
    assert!(reason(&first[0].decision).is_none(), "{first:?}");
    let before = outputs(&cluster).await;
    for (node, _) in cluster.running() {
        let again = over_grpc(&cluster, node, vec![payment.clone()]).await.answers.unwrap();
        assert_eq!(again, first, "node {node}");
        let body = json!({ "transactions": [hex::encode(&payment)] }).to_string();
        let (status, _, answer): (_, _, Value) = post(format!("{}/v1/submissions", cluster.http(node)), body).await;
        assert_eq!((status, &answer["outcomes"][0]["outcome"]), (200, &json!("committed")));
    }
    assert_eq!(outputs(&cluster).await, before);
    commit_something(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_submissions_at_the_same_time_have_the_same_answer() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for quantity in 1..=20 {
        let transaction = issue(&client, &key(BANK), party(ALICE), quantity).await;
        let bytes = transaction.bytes().to_vec();
        let all = (0..4).map(|_| over_grpc(&cluster, 1, vec![bytes.clone()]));
        let answers = futures::future::join_all(all).await;
        assert!(matches!(answers[0].answers.as_ref().unwrap()[0].decision, Decision::Sequenced { .. }));
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_dead_address_and_a_follower_commits_and_one_of_only_dead_addresses_is_told() {
    let cluster = Cluster::start(3).await;
    let follower = cluster.address(cluster.follower().await);
    // bound and closed again: nobody listens there
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let client = Client::builder().endpoint(dead.clone()).endpoint(follower.as_str()).connect().unwrap();
    commit_something(&client).await;
    let transaction = issue(&client, &key(BANK), party(ALICE), 3).await;
    let before = outputs(&cluster).await;
    let patience = std::time::Duration::from_secs(2);
    let lost = Client::builder().endpoint(dead).deadline(patience).connect().unwrap();
    let Outcome::Refused { problem } = in_time(lost.submit(&transaction)).await else {
        panic!("a request that never left is known not to have happened")
    };
    assert_eq!(problem.kind, ProblemKind::Unreachable);
    assert_eq!(outputs(&cluster).await, before);
    commit(&client, &transaction).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_expects_another_cluster_signs_nothing() {
    let cluster = Cluster::start(1).await;
    let wrong = Client::builder().endpoint(cluster.address(1).as_str()).ledger(ClusterId::of_name("other"));
    let problem = wrong.connect().unwrap().begin().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::DoubtfulAnswer);
    assert!(problem.message.contains("the node serves ledger"), "{problem}");
    assert!(Client::builder().endpoint("no address at all").connect().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_between_nodes_is_refused_and_harms_nobody() {
    use proto::wire::internal_client::InternalClient;
    let cluster = Cluster::start(3).await;
    let before = outputs(&cluster).await;
    let endpoint = format!("http://{}", cluster.address(cluster.leader().await));
    let mut stub = InternalClient::connect(endpoint).await.unwrap();
    let bodies = [&b""[..], b"\x01", b"\x01\x02\x03nonsense", &[255; 200]];
    for method in seams::Method::ALL.iter().map(|method| u32::from(method.number())).chain([0, 200, 70_000]) {
        for body in bodies {
            let message = wire::InternalMessage { method, body: Bytes::from_static(body) };
            let answer = in_time(stub.call(message.clone())).await;
            let asks = [seams::Method::ReadIndex, seams::Method::Status, seams::Method::ExchangeHead];
            let asks = asks.iter().any(|asked| u32::from(asked.number()) == method);
            assert!(answer.is_err() || asks, "method {method}: {answer:?}");
            let stream = in_time(stub.stream(tokio_stream::iter([message]))).await;
            drop(stream);
        }
    }
    assert_eq!(outputs(&cluster).await, before);
    commit_something(&cluster.client()).await;
}
