//! Maps keyed by names.
//!
//! Whoever writes transactions can search for names that share a bucket, so the map that lives long is seeded by its
//! owner. Maps of one chunk have a fixed seed: a chunk is bounded, and the worst that a search achieves in it is some
//! milliseconds.

use std::collections::HashMap;

pub(crate) use foldhash::fast::FixedState as NameHashing;

/// A map keyed by names.
pub(crate) type NameMap<K, V> = HashMap<K, V, NameHashing>;
