//! What a node must do with any bytes that a client, another node or a disk gives it: refuse, or take them for exactly
//! what they say. It neither panics nor allocates much more than it was given.
//!
//! The functions are run by libFuzzer (the targets beside this crate) and, with mutated valid encodings and random
//! bytes, by the node's own tests (`tests/suite/any_bytes.rs`), which include this file. The decoders of the ledger
//! have targets of their own (`ledger/fuzz`).

use std::sync::OnceLock;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::check::LedgerIdentity;
use ledger::identifier::canonical_bytes;
use ledger::{ClusterId, Limits};
use node::api::greeting::Greeting;
use node::config::{NodeConfig, NodeSettings};
use node::gateway::{ForwardAnswer, ForwardRequest};
use node::roles::RunningNode;
use prost::Message;
use proto::convert::{self, Cluster, Consistency, Decision, Holdings, Member, SubmissionResult, Update};
use proto::{Problem, ProblemKind, wire};
use storage::Manifest;
use storage::record::{seal_into, unseal};
use storage::state::HoldingsCursor;
use tower::ServiceExt;
use validator::message::{Announcement, ValidateReply, ValidateRequest};

/// What the log and the snapshots keep on disk.
pub fn stored(bytes: &[u8]) {
    if let Some(tag) = bytes.first_chunk().map(|tag| u64::from_be_bytes(*tag))
        && let Ok(payload) = unseal(tag, &Bytes::copy_from_slice(bytes))
    {
        let mut sealed = Vec::new();
        seal_into(&mut sealed, tag, &payload);
        assert_eq!(sealed, bytes);
    }
    if let Some(manifest) = Manifest::decode(bytes) {
        assert_eq!(manifest.encode(), bytes);
    }
}

/// What nodes send each other about the order, and records of the log.
pub fn order(bytes: &[u8]) {
    sequencer::any_bytes(bytes);
}

/// What nodes and validators send each other besides.
pub fn between_nodes(bytes: &[u8]) {
    fn canonical<T: BorshDeserialize + BorshSerialize>(bytes: &[u8]) {
        if let Ok(value) = T::try_from_slice(bytes) {
            assert_eq!(canonical_bytes(&value), bytes);
        }
    }
    canonical::<ForwardRequest>(bytes);
    canonical::<ForwardAnswer>(bytes);
    canonical::<Greeting>(bytes);
    if let Ok(request) = ValidateRequest::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(reply) = ValidateReply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
        if reply.is_consistent() {
            drop(reply.into_parts());
        }
    }
    let identity = LedgerIdentity { cluster: ClusterId::of_name("test"), group: 0 };
    if let Ok(announcement) = Announcement::decode(bytes, &identity) {
        assert_eq!(announcement.encode(), bytes);
    }
}

/// Every message of the public services, and what becomes of its fields.
pub fn messages(bytes: &[u8]) {
    fn read<T: Message + Default>(bytes: &[u8], convert: impl Fn(&T)) {
        if let Ok(message) = T::decode(bytes) {
            convert(&message);
        }
    }
    read(bytes, |submission: &wire::Submission| {
        if let Ok(members) = convert::members(submission, Limits::V1.group_members_max) {
            assert!(!members.is_empty() && members.len() <= Limits::V1.group_members_max);
        }
    });
    read(bytes, |request: &wire::GetTransactionRequest| {
        drop(convert::identifier::<ledger::TransactionId>("transaction", &request.transaction));
        drop(Consistency::of(request.consistency.as_ref()));
    });
    read(bytes, |request: &wire::ListHoldingsRequest| {
        drop(convert::identifier::<ledger::Party>("owner", &request.owner));
        if let Some(cursor) = HoldingsCursor::from_bytes(&request.after) {
            assert_eq!(cursor.as_bytes(), request.after);
        }
    });
    read(bytes, |request: &wire::WatchUpdatesRequest| drop(convert::parties("parties", &request.parties)));
    read(bytes, |request: &wire::ConfigureValidatorsRequest| drop(convert::parties("add", &request.add)));
    read(bytes, |member: &wire::Member| drop(Member::try_from(member)));
    read(bytes, |cluster: &wire::ClusterInfo| drop(Cluster::try_from(cluster)));
    read(bytes, |page: &wire::ListHoldingsResponse| drop(Holdings::try_from(page)));
    read(bytes, |update: &wire::Update| drop(Update::try_from(update)));
    read(bytes, |outcome: &wire::SubmissionResult| {
        if let Ok(result) = SubmissionResult::try_from(outcome) {
            let again = SubmissionResult::try_from(&wire::SubmissionResult::from(&result));
            assert_eq!(again.as_ref(), Ok(&result));
        }
    });
}

/// A body posted to `/v1/submissions`: whatever it is, it has an answer that says what it was.
pub fn http_submission(bytes: &[u8]) {
    let world = World::get();
    let request = Request::post("/v1/submissions").body(Body::from(bytes.to_vec())).expect("a request");
    let response = world.runtime.block_on(world.router().oneshot(request)).expect("a router answers");
    let status = response.status().as_u16();
    assert!([200, 400, 409, 413, 422].contains(&status), "{status}");
    let body = world.runtime.block_on(to_bytes(response.into_body(), usize::MAX)).expect("a whole answer");
    let answer = String::from_utf8_lossy(&body);
    assert!(!answer.contains("\"unknown\""), "{answer}");
}

/// A request to submit, through the gateway, the validator, the order and the disk: every submission has its answers.
pub fn submission(bytes: &[u8]) {
    let Ok(mut request) = wire::SubmitRequest::decode(bytes) else { return };
    request.timeout_ms = 0;
    let sent: Vec<(u64, usize)> =
        request.submissions.iter().map(|submission| (submission.tag, submission.transactions.len())).collect();
    let world = World::get();
    let results = match world.runtime.block_on(world.node.api().submit(None, request, &Default::default())) {
        Ok(results) => results,
        Err(problem) => return assert!(problem.kind == ProblemKind::BadRequest && sent.is_empty(), "{problem}"),
    };
    assert_eq!(results.len(), sent.len());
    for (SubmissionResult { tag, answers }, (sent_tag, members)) in results.iter().zip(sent) {
        assert_eq!(*tag, sent_tag);
        match answers {
            Ok(answers) => {
                assert_eq!(answers.len(), members);
                let known = answers.iter().all(|answer| !matches!(answer.decision, Decision::Unknown(_)));
                assert!(known, "{answers:?}");
            }
            Err(Problem { kind: ProblemKind::BadRequest | ProblemKind::MessageTooLarge, .. }) => {}
            Err(problem) => panic!("{problem}"),
        }
    }
}

/// A node of this process, a cluster of itself.
struct World {
    runtime: tokio::runtime::Runtime,
    node: RunningNode,
    _directory: tempfile::TempDir,
}

impl World {
    fn get() -> &'static Self {
        static WORLD: OnceLock<World> = OnceLock::new();
        WORLD.get_or_init(Self::start)
    }

    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let settings = NodeSettings {
            cluster: Some("test".to_owned()),
            data_dir: Some(directory.path().join("data")),
            listen: Some(anywhere),
            http_listen: Some(anywhere),
            initialize: Some(true),
            ..NodeSettings::default()
        };
        let config = NodeConfig::try_from(settings).expect("a configuration");
        let node = runtime.block_on(async {
            let node = RunningNode::start(config).await.expect("a node");
            let mut status = node.replica().sequencer().watch();
            status.wait_for(|status| status.leader.is_some()).await.expect("a leader");
            node
        });
        Self { runtime, node, _directory: directory }
    }

    fn router(&self) -> axum::Router {
        node::http::node_router(self.node.api())
    }
}
