//! What leaves the house in a support bundle.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::support::{CLUSTER, Cluster};

const PASSWORD: &str = "swordfish";
const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----";

/// The files in a bundle.
pub(crate) fn unpacked(bundle: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(bundle).unwrap()));
    let files = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().strip_prefix("seriatim-support").unwrap().to_str().unwrap().to_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        (name, content)
    });
    files.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_support_bundle_has_what_is_needed_and_nothing_secret() {
    let cluster = Cluster::start(3).await;
    let config = cluster.config(1);
    let seed = fs::read_to_string(&config.key_file).unwrap().trim().to_owned();
    assert_eq!(seed.len(), 64);

    // a key wherever one could have gone astray to
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let settings = file("node.toml", format!("id = 1\nkey-file = {:?}\npassword = {PASSWORD:?}\n", config.key_file));
    let log = file("node.log", format!("INFO before\nWARN the key is {seed}, alas\n{PEM}\nINFO after\n"));
    let mistaken = file("other.log", format!("{}\n", seed.replace('0', "1")));
    let out = directory.path().join("bundle.tar.gz");
    let endpoint = cluster.address(2).as_str().to_owned();
    let made = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seriatim"));
        command
            .args(["support-bundle", "--json", "--endpoint", &endpoint, "--http", "127.0.0.1:1"])
            .args(["--config", &settings, "--log", &log, "--log", &mistaken, "--out", out.to_str().unwrap()])
            .env("SERIATIM_CLUSTER", CLUSTER)
            .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={PASSWORD}"));
        tokio::task::block_in_place(|| command.output().unwrap())
    };
    let told = made();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["missing"].as_object().unwrap().keys().collect::<Vec<_>>(), ["metrics/127.0.0.1_1.txt"]);

    let files = unpacked(&out);
    for (name, content) in &files {
        let content = content.to_ascii_lowercase();
        for secret in [&seed, &seed.replace('0', "1"), PASSWORD, "mc4caq"] {
            assert!(!content.contains(&secret.to_ascii_lowercase()), "{name} has {secret}");
        }
    }
    let status: Value = serde_json::from_str(&files["status.json"]).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let metrics = files.iter().filter(|(name, _)| name.starts_with("metrics/"));
    assert_eq!(metrics.filter(|(_, content)| content.contains("seriatim_build_info")).count(), 3);
    let about: Value = serde_json::from_str(&files["about.json"]).unwrap();
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        files["settings/1-node.toml"].starts_with("id = 1\n")
            && files["environment.txt"].contains("SERIATIM_CLUSTER=test\n")
    );
    let log = &files["logs/1-node.log"];
    assert!(
        log.starts_with("INFO before\nWARN the key is [struck out], alas\n") && log.ends_with("\nINFO after\n"),
        "{log}"
    );

    let again = made();
    let refused = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && refused.contains("bundle.tar.gz"), "nothing is overwritten: {refused}");
}
