//! Secured connections: which role may call what, and who has to be at the other end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Client, TlsFiles, TlsIdentity};
use futures::FutureExt;
use node::config::{ValidatorConfig, ValidatorSettings};
use node::connections::Connections;
use node::grpc::{serve, validator_routes};
use node::network::{Channels, GrpcTransport};
use node::roles::{RunningNode, RunningValidator};
use proto::wire::admin_client::AdminClient;
use proto::wire::ledger_client::LedgerClient;
use proto::{Problem, ProblemKind, wire};
use seams::{Address, BoxFuture, CallError, Duplex, Method, Service, Transport};
use tls::{Authority, Protocol, Role};
use tokio::net::TcpListener;

use crate::support::{CLUSTER, Cluster, VALID, commit_something, eventually, in_time};

const PATIENCE: Duration = Duration::from_secs(30);
/// Everybody but nodes.
const OTHERS: [Option<Role>; 5] =
    [None, Some(Role::Client), Some(Role::Operator), Some(Role::Prover), Some(Role::Validator)];

fn transport(cluster: &Cluster, role: Option<Role>) -> GrpcTransport {
    GrpcTransport::new(Channels::secured(Some(cluster.identity(role))))
}

/// Without a certificate nobody knows who is calling; with a wrong one it is known that he may not.
fn expected(role: Option<Role>) -> ProblemKind {
    if role.is_none() { ProblemKind::Unauthenticated } else { ProblemKind::Forbidden }
}

fn code(answer: &Result<Bytes, CallError>) -> Option<u16> {
    let Err(CallError::Refused { code, .. }) = answer else { return None };
    Some(*code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_and_nodes_administer_a_secured_cluster() {
    let cluster = Cluster::start_secured(3).await;
    // whoever has no certificate may settle
    commit_something(&cluster.client()).await;
    let follower = cluster.follower().await;
    let at = cluster.address(follower);
    let admin = async |role| {
        let access = cluster.access(role);
        AdminClient::new(access.channel(at.as_str(), PATIENCE, |endpoint| endpoint).await.unwrap())
    };
    for role in [None, Some(Role::Client), Some(Role::Prover), Some(Role::Validator)] {
        let refused = admin(role).await.get_status(wire::GetStatusRequest {}).await.unwrap_err();
        assert_eq!(Problem::from(&refused).kind, expected(role), "{role:?}: {refused}");
        let refused = admin(role).await.remove(wire::NodeRequest { node: 1 }).await.unwrap_err();
        assert_eq!(Problem::from(&refused).kind, expected(role), "{role:?}: {refused}");
    }
    let status = admin(Some(Role::Operator)).await.get_status(wire::GetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.node, follower);
    // what only the leader does is handed on to it, under the follower's certificate
    let handed = admin(Some(Role::Operator)).await.transfer_leader(wire::NodeRequest { node: follower }).await;
    handed.unwrap();
    commit_something(&cluster.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_speak_what_nodes_speak() {
    let cluster = Cluster::start_secured(1).await;
    let address = cluster.address(1);
    let between_nodes = Method::ALL.iter().filter(|method| **method != Method::AnnounceValidator);
    for method in between_nodes {
        for role in OTHERS {
            let answer = transport(&cluster, role).call(&address, *method, Bytes::new(), PATIENCE).await;
            assert_eq!(code(&answer), Some(expected(role).code()), "{role:?} {method:?}: {answer:?}");
        }
        let answer = transport(&cluster, Some(Role::Node(2))).call(&address, *method, Bytes::new(), PATIENCE).await;
        assert_ne!(code(&answer), Some(ProblemKind::Forbidden.code()), "{method:?}: {answer:?}");
    }
    for role in OTHERS {
        let Duplex { outgoing, mut incoming } =
            transport(&cluster, role).open(&address, Method::RaftAppend).await.unwrap();
        outgoing.send(Bytes::new()).await.unwrap();
        let answer = in_time(incoming.recv()).await.unwrap();
        assert_eq!(code(&answer), Some(expected(role).code()), "{role:?}: {answer:?}");
    }
    commit_something(&cluster.client()).await;
}

/// The question whether a node would be voted for, as `sequencer` writes it: version, only asking, term, node, not
/// granted, no log, no hand-over.
fn ballot(node: u64) -> Bytes {
    let mut body = vec![1, 1];
    body.extend_from_slice(&9_u64.to_le_bytes());
    body.extend_from_slice(&node.to_le_bytes());
    body.extend_from_slice(&[0, 0, 0]);
    body.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cannot_speak_as_another_node() {
    let cluster = Cluster::start_secured(1).await;
    let address = cluster.address(1);
    let third = transport(&cluster, Some(Role::Node(3)));
    let honest = third.call(&address, Method::RaftVote, ballot(3), PATIENCE).await;
    assert!(honest.is_ok(), "{honest:?}");
    let liar = third.call(&address, Method::RaftVote, ballot(2), PATIENCE).await;
    assert_eq!(code(&liar), Some(ProblemKind::Forbidden.code()), "{liar:?}");
    assert!(liar.unwrap_err().to_string().contains("from node 2, and the certificate of node 3"));
}

/// Answers whatever it is asked.
struct Yes;

impl Service for Yes {
    fn handle(&self, _method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        async move { Ok(body) }.boxed()
    }

    fn accept(&self, _method: Method, _duplex: Duplex) {}
}

/// Serves what processes serve each other, under this role.
async fn process(authority: &Authority, role: Role) -> Address {
    let directory = authority.certificate().parent().unwrap().join("processes");
    let issued = authority.issue(role, &[], VALID, &directory, &role.uri().replace(['/', ':'], "-")).unwrap();
    let identity = TlsIdentity::serving(issued.files, role).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::new(listener.local_addr().unwrap().to_string());
    let connections = Connections::new(listener, 64, 0).secured(Some(identity), Protocol::Grpc);
    tokio::spawn(serve(connections, validator_routes(Arc::new(Yes)), std::future::pending()));
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_believes_only_the_roles_that_serve_what_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::make(directory.path()).unwrap();
    let own = authority.issue(Role::Node(1), &[], VALID, directory.path(), "node-1").unwrap();
    let channels = Channels::secured(Some(TlsIdentity::calling(own.files).unwrap()));
    let transport = GrpcTransport::new(channels.clone());
    let ask = |to: Address, method| transport.call(&to, method, Bytes::from_static(b"x"), PATIENCE);
    let (node, validator, prover) = (
        process(&authority, Role::Node(5)).await,
        process(&authority, Role::Validator).await,
        process(&authority, Role::Prover).await,
    );
    for (place, method, answers) in [
        (&node, Method::RaftVote, true),
        (&node, Method::Validate, true),
        (&validator, Method::Validate, true),
        (&validator, Method::RaftVote, false),
        (&validator, Method::Forward, false),
        (&prover, Method::Validate, false),
        (&prover, Method::RaftAppend, false),
    ] {
        let answer = ask(place.clone(), method).await;
        assert_eq!(answer.is_ok(), answers, "{place} {method:?}: {answer:?}");
        assert!(answers || code(&answer) == Some(ProblemKind::Forbidden.code()), "{answer:?}");
    }
    // where node 3 is a member, node 5 is not believed, and the connection from before is not used any more
    channels.expect([(&3, &node)]);
    for _ in 0..2 {
        let answer = ask(node.clone(), Method::RaftVote).await.unwrap_err();
        assert!(!answer.may_have_run() && answer.to_string().contains("of node 5, and"), "{answer}");
    }
    channels.expect([(&5, &node)]);
    assert!(ask(node, Method::RaftVote).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validator_serves_nodes_alone_and_only_a_validator_announces_itself() {
    let cluster = Cluster::start_secured(1).await;
    let own = cluster.issue(Role::Validator, "validator").files;
    let settings = ValidatorSettings {
        cluster: Some(CLUSTER.to_owned()),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        nodes: Some(cluster.address(1).as_str().parse().unwrap()),
        key_file: Some(own.authority.with_file_name("validator-seed.key")),
        tls_ca: Some(own.authority.clone()),
        tls_certificate: own.own.as_ref().map(|own| own.certificate.clone()),
        tls_key: own.own.as_ref().map(|own| own.key.clone()),
        ..ValidatorSettings::default()
    };
    let validator = RunningValidator::start(ValidatorConfig::try_from(settings).unwrap()).await.unwrap();
    let key = validator.ready().key.parse().unwrap();
    cluster.node(1).api().configure_validators(vec![key], Vec::new(), None).await.unwrap();
    // bundles go to it, once the node knows it
    eventually(|| async {
        commit_something(&cluster.client()).await;
        let known = cluster.node(1).replica().pool().status();
        known.iter().any(|validator| validator.served > 0).then_some(())
    })
    .await;
    let address = Address::new(validator.ready().grpc.to_string());
    for role in OTHERS {
        let answer = transport(&cluster, role).call(&address, Method::Validate, Bytes::new(), PATIENCE).await;
        assert_eq!(code(&answer), Some(expected(role).code()), "{role:?}: {answer:?}");
        let announced = transport(&cluster, role)
            .call(&cluster.address(1), Method::AnnounceValidator, Bytes::new(), PATIENCE)
            .await;
        let refused = code(&announced) == Some(expected(role).code());
        assert_eq!(refused, role != Some(Role::Validator), "{role:?}: {announced:?}");
    }
    validator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_another_roles_certificate_does_not_start() {
    let cluster = Cluster::start_secured(1).await;
    let mut config = cluster.config(2);
    let foreign = cluster.issue(Role::Node(3), "node-3").files;
    for (files, advice) in [
        (foreign, "is of node 3, and this process is node 2"),
        (cluster.issue(Role::Validator, "validator").files, "is of a validator, and this process is node 2"),
    ] {
        config.tls = Some(files);
        let refused = RunningNode::start(config.clone()).await.unwrap_err();
        assert!(format!("{refused:#}").contains(advice), "{refused:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_not_secured_or_of_another_authority_are_told_so() {
    let cluster = Cluster::start_secured(1).await;
    let address = cluster.address(1);
    let other = tempfile::tempdir().unwrap();
    let authority = Authority::make(other.path()).unwrap().certificate();
    let foreign = TlsIdentity::calling(TlsFiles { authority, own: None }).unwrap();
    let builder = || Client::builder().endpoint(address.as_str()).deadline(Duration::from_secs(2));
    let problem = builder().tls(foreign).connect().unwrap().cluster().await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::CertificateRefused, "{problem}");
    assert!(problem.message.contains("use the one of this cluster"), "{problem}");
    assert!(builder().connect().unwrap().cluster().await.is_err());
    let unsaid = Client::builder().endpoint(format!("https://{address}")).connect().unwrap_err().to_string();
    assert!(unsaid.contains("--tls-ca"), "{unsaid}");
    assert!(cluster.client().cluster().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_used_while_a_stream_stays_open() {
    let cluster = Cluster::start_secured(1).await;
    let access = cluster.access(None);
    let at = cluster.address(1);
    let channel = access.channel(at.as_str(), PATIENCE, |endpoint| endpoint).await.unwrap();
    let request = wire::WatchUpdatesRequest { from_batch: 1, with_records: true, ..Default::default() };
    let mut updates = LedgerClient::new(channel).watch_updates(request).await.unwrap().into_inner();
    let first = commit_something(&cluster.client()).await;
    let mut seen = 0;
    let mut see = async |batch: u64| {
        while seen < batch {
            seen = proto::convert::Update::try_from(&in_time(updates.message()).await.unwrap().unwrap())
                .unwrap()
                .head
                .batch;
        }
    };
    see(first).await;
    let shown = async || {
        let (host, port) = at.as_str().split_once(':').unwrap();
        let identity = cluster.identity(None);
        let stream = identity.connect_http(host, port.parse().unwrap(), true).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let before = shown().await;
    cluster.issue(Role::Node(1), "node-1");
    eventually(|| async { (shown().await != before).then_some(()) }).await;
    let second = commit_something(&cluster.client()).await;
    see(second).await;
}
