//! Both sides of a connection over loopback, with certificates from files.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tls::{
    Accepted, Authority, ConnectFault, Connector, Files, Identity, Issued, OwnFiles, Peer, Protocol, Role, TlsFault,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::codegen::http::Uri;
use tower::Service;

const VALID: Duration = Duration::from_secs(86_400);

struct Scene {
    directory: TempDir,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::make(&directory.path().join("authority")).unwrap();
        Self { directory, authority }
    }

    fn issue(&self, role: Role, file: &str) -> Issued {
        self.authority.issue(role, &[], VALID, self.directory.path(), file).unwrap()
    }

    fn expired(&self, role: Role, file: &str) -> Issued {
        let yesterday = SystemTime::now() - VALID;
        self.authority.issue_until(role, &[], yesterday, self.directory.path(), file).unwrap()
    }

    fn stranger(&self) -> Identity {
        Identity::calling(Files { authority: self.authority.certificate(), own: None }).unwrap()
    }
}

/// Greets everybody, says who it is, and answers with what it hears.
async fn serve(identity: Identity) -> SocketAddr {
    serve_at("127.0.0.1:0", identity).await
}

async fn serve_at(place: &str, identity: Identity) -> SocketAddr {
    let listener = TcpListener::bind(place).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = Accepted::secured(stream, &identity, Protocol::Grpc).unwrap();
            tokio::spawn(async move {
                if stream.write_all(b"?").await.is_err() {
                    return;
                }
                let peer = format!("{:?}", stream.peer().peer());
                drop(stream.write_all(&[u8::try_from(peer.len()).unwrap()]).await);
                drop(stream.write_all(peer.as_bytes()).await);
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
            });
        }
    });
    address
}

async fn connect(connector: &Connector, host: &str, port: u16) -> Result<tls::SecuredStream, ConnectFault> {
    let uri: Uri = format!("https://{host}:{port}").parse().unwrap();
    connector.clone().call(uri).await.map(hyper_util::rt::TokioIo::into_inner)
}

/// Who the server says is calling.
async fn found(stream: &mut tls::SecuredStream) -> String {
    assert_eq!(stream.read_u8().await.unwrap(), b'?');
    let mut name = vec![0; usize::from(stream.read_u8().await.unwrap())];
    stream.read_exact(&mut name).await.unwrap();
    String::from_utf8(name).unwrap()
}

fn advice(result: Result<tls::SecuredStream, ConnectFault>) -> String {
    let fault = result.map(|_| ()).unwrap_err();
    assert!(fault.is_refusal(), "{fault:?}");
    fault.to_string()
}

#[tokio::test]
async fn both_sides_learn_the_others_role() {
    let scene = Scene::new();
    let server = Identity::serving(scene.issue(Role::Node(3), "node-3").files, Role::Node(3)).unwrap();
    let address = serve(server).await;
    let callers = [
        (scene.stranger(), Peer::Unknown),
        (Identity::calling(scene.issue(Role::Client, "client").files).unwrap(), Peer::Known(Role::Client)),
        (Identity::calling(scene.issue(Role::Node(2), "node-2").files).unwrap(), Peer::Known(Role::Node(2))),
    ];
    for (identity, expected) in callers {
        let connector = Connector::to_nodes(identity);
        let mut stream = connect(&connector, "localhost", address.port()).await.unwrap();
        assert_eq!(found(&mut stream).await, format!("{expected:?}"));
        assert_eq!(connector.found(), Some(Role::Node(3)));
    }
}

#[tokio::test]
async fn a_server_learns_the_subject_which_a_renewal_keeps() {
    let scene = Scene::new();
    let node = Identity::serving(scene.issue(Role::Node(3), "node-3").files, Role::Node(3)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let subject_of = async |identity: Identity| {
        let connector = Connector::to_nodes(identity);
        let calling = async {
            let mut stream = connect(&connector, "localhost", port).await.unwrap();
            stream.read_u8().await.unwrap()
        };
        let answering = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = Accepted::secured(stream, &node, Protocol::Grpc).unwrap();
            stream.write_all(b"!").await.unwrap();
            stream.flush().await.unwrap();
            stream.peer().subject()
        };
        let (_, subject) = tokio::join!(calling, answering);
        subject.map(|subject| subject.to_string())
    };
    let to = |subject: &str, file: &str| {
        let issued = scene.authority.issue_to(subject, Role::Client, &[], VALID, scene.directory.path(), file);
        Identity::calling(issued.unwrap().files).unwrap()
    };
    assert_eq!(subject_of(scene.stranger()).await, None);
    assert_eq!(subject_of(to("desk 7", "first")).await.as_deref(), Some("CN=desk 7"));
    assert_eq!(subject_of(to("desk 7", "second")).await.as_deref(), Some("CN=desk 7"));
    let unnamed = Identity::calling(scene.issue(Role::Client, "client").files).unwrap();
    assert_eq!(subject_of(unnamed).await.as_deref(), Some("CN=Seriatim a client"));
}

#[tokio::test]
async fn who_is_there_is_not_who_is_expected() {
    let scene = Scene::new();
    let server = Identity::serving(scene.issue(Role::Node(5), "node-5").files, Role::Node(5)).unwrap();
    let node = serve(server).await;
    let server = Identity::serving(scene.issue(Role::Validator, "validator").files, Role::Validator).unwrap();
    let validator = serve(server).await;
    let third = Connector::between_roles(scene.stranger(), || tls::Expectation::Node(3));
    let refused = advice(connect(&third, "127.0.0.1", node.port()).await);
    assert!(refused.contains("of node 5, and node 3 is expected"), "{refused}");
    let client = Connector::to_nodes(scene.stranger());
    let refused = advice(connect(&client, "127.0.0.1", validator.port()).await);
    assert!(refused.contains("of a validator, and a node is expected"), "{refused}");
}

#[tokio::test]
async fn a_clients_certificate_serves_nobody() {
    let scene = Scene::new();
    let issued = scene.issue(Role::Client, "client");
    assert!(matches!(Identity::serving(issued.files.clone(), Role::Client), Err(TlsFault::Unusable { .. })));
    // whoever leaves out the check of its own certificate
    let address = serve(Identity::calling(issued.files).unwrap()).await;
    for connector in
        [Connector::to_nodes(scene.stranger()), Connector::between_roles(scene.stranger(), || tls::Expectation::Server)]
    {
        let refused = advice(connect(&connector, "127.0.0.1", address.port()).await);
        assert!(refused.contains("not accepted"), "{refused}");
    }
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_sides_with_advice() {
    let (scene, foreign) = (Scene::new(), Scene::new());
    let server = Identity::serving(scene.issue(Role::Node(1), "node-1").files, Role::Node(1)).unwrap();
    let address = serve(server).await;
    let by_name = Connector::to_nodes(foreign.stranger());
    let by_role = Connector::between_roles(foreign.stranger(), || tls::Expectation::Node(1));
    for connector in [by_name, by_role] {
        let refused = advice(connect(&connector, "127.0.0.1", address.port()).await);
        assert!(refused.contains("not issued by the authority in --tls-ca"), "{refused}");
    }
    // a caller that believes this authority, and shows a certificate of the other one
    let mut files = foreign.issue(Role::Node(1), "node-1").files;
    assert!(matches!(
        Identity::calling(Files { authority: scene.authority.certificate(), ..files.clone() }),
        Err(TlsFault::Foreign { .. })
    ));
    let both = scene.directory.path().join("both.crt");
    let own = fs::read_to_string(scene.authority.certificate()).unwrap();
    fs::write(&both, own + &fs::read_to_string(foreign.authority.certificate()).unwrap()).unwrap();
    files.authority = both;
    let connector = Connector::to_nodes(Identity::calling(files).unwrap());
    let refused = advice(connect(&connector, "127.0.0.1", address.port()).await);
    assert!(refused.contains("this side's certificate, which is of another authority"), "{refused}");
}

#[tokio::test]
async fn expired_certificates_are_refused_on_both_sides_with_advice() {
    let scene = Scene::new();
    let expired = scene.expired(Role::Client, "expired");
    let fault = Identity::calling(expired.files.clone()).unwrap_err();
    assert!(
        matches!(fault, TlsFault::Expired { .. }) && fault.to_string().contains("seriatim cert issue"),
        "{fault}"
    );
    let address = {
        let server = Identity::serving(scene.issue(Role::Node(1), "node-1").files, Role::Node(1)).unwrap();
        serve(server).await
    };
    // a certificate that expires while it is in use
    let soon = SystemTime::now() + Duration::from_secs(8);
    let files = scene.authority.issue_until(Role::Node(2), &[], soon, scene.directory.path(), "soon").unwrap().files;
    let identity = Identity::serving(files, Role::Node(2)).unwrap();
    let expiring = serve(identity.clone()).await;
    let (out, inward) = (Connector::to_nodes(identity), Connector::to_nodes(scene.stranger()));
    let mut said = Vec::new();
    while said.len() < 2 {
        said.clear();
        said.extend(connect(&out, "127.0.0.1", address.port()).await.err().map(|fault| fault.to_string()));
        said.extend(connect(&inward, "127.0.0.1", expiring.port()).await.err().map(|fault| fault.to_string()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(said[0].contains("refuses this side's certificate, which has expired"), "{said:?}");
    assert!(said[1].contains("the certificate there has expired"), "{said:?}");
}

#[tokio::test]
async fn a_name_that_is_not_in_the_certificate_counts_for_clients_and_not_between_roles() {
    let scene = Scene::new();
    let named = [String::from("a.example")];
    let issued = scene.authority.issue(Role::Node(1), &named, VALID, scene.directory.path(), "node-1").unwrap();
    // every address of 127.0.0.0/8 is this machine
    let address = serve_at("127.0.0.2:0", Identity::serving(issued.files, Role::Node(1)).unwrap()).await;
    let client = Connector::to_nodes(scene.stranger());
    let refused = advice(connect(&client, "127.0.0.2", address.port()).await);
    assert!(refused.contains("not for the name 127.0.0.2"), "{refused}");
    let between = Connector::between_roles(scene.stranger(), || tls::Expectation::Node(1));
    assert!(connect(&between, "127.0.0.2", address.port()).await.is_ok());
}

#[tokio::test]
async fn somebody_without_tls_is_told_apart() {
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        drop(stream.read_u8().await);
    });
    let refused = advice(connect(&Connector::to_nodes(scene.stranger()), "127.0.0.1", port).await);
    assert!(refused.contains("does not speak TLS"), "{refused}");
}

#[test]
fn files_that_are_no_good_are_refused_with_advice() {
    let scene = Scene::new();
    let path = |name: &str| scene.directory.path().join(name);
    let good = scene.issue(Role::Node(1), "good").files;
    let other = scene.issue(Role::Node(1), "other").files;
    let (own, others) = (good.own.clone().unwrap(), other.own.unwrap());
    fs::write(path("empty"), "").unwrap();
    fs::set_permissions(path("empty"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy(&own.key, path("open.key")).unwrap();
    fs::set_permissions(path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let with = |certificate: &Path, key: &Path| Files {
        own: Some(OwnFiles { certificate: certificate.to_owned(), key: key.to_owned() }),
        ..good.clone()
    };
    let table = [
        (with(&path("none"), &own.key), "No such file"),
        (with(&path("empty"), &own.key), "holds no certificate"),
        (with(&own.certificate, &path("empty")), "holds no private key"),
        (with(&own.certificate, &path("open.key")), "chmod 600"),
        (with(&own.certificate, &others.key), "is not that of the certificate"),
        (Files { authority: path("empty"), ..good.clone() }, "holds no certificate"),
        (Files { authority: own.key.clone(), ..good.clone() }, "holds no certificate"),
    ];
    for (files, advice) in table {
        let fault = Identity::serving(files, Role::Node(1)).unwrap_err().to_string();
        assert!(fault.contains(advice), "{advice}: {fault}");
    }
    let fault = Identity::serving(good, Role::Node(2)).unwrap_err().to_string();
    assert!(fault.contains("is of node 1, and this process is node 2"), "{fault}");
}

#[test]
fn an_authority_and_its_key_are_never_replaced_and_kept_from_others() {
    let scene = Scene::new();
    let directory = scene.directory.path().join("authority");
    assert!(Authority::make(&directory).is_err());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(directory.join("ca.key")), 0o600);
    let issued = Authority::open(&directory).unwrap().issue(Role::Prover, &[], VALID, &directory, "prover").unwrap();
    assert_eq!(mode(issued.files.own.clone().unwrap().key), 0o600);
    // it is the same authority after having been opened again
    Identity::serving(issued.files, Role::Prover).unwrap();
}

/// The layout in which orchestrators hand out secrets: files are links through a link that is replaced at once.
struct Mounted {
    directory: PathBuf,
}

impl Mounted {
    fn show(&self, version: &str, issued: &Issued) {
        let data = self.directory.join(version);
        fs::create_dir_all(&data).unwrap();
        let own = issued.files.own.as_ref().unwrap();
        fs::copy(&own.certificate, data.join("tls.crt")).unwrap();
        fs::copy(&own.key, data.join("tls.key")).unwrap();
        fs::copy(&issued.files.authority, data.join("ca.crt")).unwrap();
        self.swap(version);
    }

    fn swap(&self, version: &str) {
        symlink(version, self.directory.join("..data_tmp")).unwrap();
        fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).unwrap();
    }

    fn files(&self) -> Files {
        let link = |name: &str| {
            let path = self.directory.join(name);
            if !path.is_symlink() {
                symlink(Path::new("..data").join(name), &path).unwrap();
            }
            path
        };
        Files { authority: link("ca.crt"), own: Some(OwnFiles { certificate: link("tls.crt"), key: link("tls.key") }) }
    }
}

/// The certificate that a new connection is shown.
async fn shown(connector: &Connector, port: u16) -> Vec<u8> {
    let stream = connect(connector, "127.0.0.1", port).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn new_files_are_used_for_new_connections_and_bad_ones_are_not() {
    let scene = Scene::new();
    let mounted = Mounted { directory: scene.directory.path().join("mounted") };
    mounted.show("..1", &scene.issue(Role::Node(1), "first"));
    let identity = Identity::serving(mounted.files(), Role::Node(1)).unwrap();
    let port = serve(identity.clone()).await.port();
    tokio::spawn(identity.clone().keep_fresh());
    let connector = Connector::to_nodes(scene.stranger());
    let first = shown(&connector, port).await;
    let mut open = connect(&connector, "127.0.0.1", port).await.unwrap();
    found(&mut open).await;

    mounted.show("..2", &scene.issue(Role::Node(1), "second"));
    while shown(&connector, port).await == first {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(identity.reloads(), (1, 0));
    let second = shown(&connector, port).await;
    // the connection from before goes on
    open.write_all(b"x").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'x');

    // a certificate of another role, one that has expired, and a broken one are each refused, once
    mounted.show("..3", &scene.issue(Role::Node(2), "another-role"));
    mounted_refused(&identity, 1).await;
    mounted.show("..4", &scene.expired(Role::Node(1), "expired"));
    mounted_refused(&identity, 2).await;
    fs::write(mounted.directory.join("broken"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    fs::rename(mounted.directory.join("broken"), mounted.directory.join("..4/tls.crt")).unwrap();
    mounted_refused(&identity, 3).await;
    fs::remove_file(mounted.directory.join("..4/tls.crt")).unwrap();
    mounted_refused(&identity, 4).await;
    assert!(identity.refresh().is_ok(), "what is no good is told once");
    assert_eq!(shown(&connector, port).await, second);

    mounted.swap("..1");
    while shown(&connector, port).await != first {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(identity.reloads(), (2, 4));
    open.write_all(b"y").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'y');
}

async fn mounted_refused(identity: &Identity, times: u64) {
    while identity.reloads().1 < times {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
