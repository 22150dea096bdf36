//! The engines on real disks hold what every engine has to hold.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use futures::executor::block_on;
use storage::{KvOptions, KvStore, LogEngine, LogOptions, RocksKv, SegmentLog, conformance};

#[test]
fn the_log_conforms() {
    let place = tempfile::tempdir().unwrap();
    let open = |name: &str| -> Arc<dyn LogEngine> {
        Arc::new(SegmentLog::open(&place.path().join(name), b"test", LogOptions::default()).unwrap())
    };
    block_on(conformance::log_engine(&open));
}

#[test]
fn the_log_conforms_with_a_queue_of_one_and_small_segments() {
    let place = tempfile::tempdir().unwrap();
    let options = LogOptions { segment_bytes: 8192, queue_batches_max: 1, group_bytes_max: 1 };
    let open = |name: &str| -> Arc<dyn LogEngine> {
        Arc::new(SegmentLog::open(&place.path().join(name), b"test", options).unwrap())
    };
    block_on(conformance::log_engine(&open));
}

#[test]
fn the_rocksdb_store_conforms() {
    let place = tempfile::tempdir().unwrap();
    let open = |name: &str| -> Arc<dyn KvStore> {
        Arc::new(RocksKv::open(&place.path().join(name), b"test", KvOptions::default()).unwrap())
    };
    conformance::kv_store(&open);
}
