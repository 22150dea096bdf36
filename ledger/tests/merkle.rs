//! The Merkle log against the recursive definitions of RFC 6962, against mutated proofs, and against
//! roots computed by another program.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use ledger::Hash;
use ledger::merkle::{
    Frontier, LEAVES_MAX, LogFault, MerkleLog, ProofFault, TILE_BYTES, TILE_HASHES, TileId, TileSource, empty_root,
    leaf_hash, node_hash, verify_consistency, verify_inclusion,
};
use proptest::prelude::*;

/// Leaf `n` is the number n, big-endian: no two leaves are equal.
fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

/// RFC 6962, 2.1, word for word, with memory for what was computed before.
struct Model {
    leaves: Vec<Hash>,
    known: RefCell<BTreeMap<(u64, u64), Hash>>,
}

/// One step of a path, from the leaf up: where the hash of the proof goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The path starts from this hash of the proof, not from what the verifier has.
    Start,
    Left,
    Right,
}

impl Model {
    fn new(count: u64) -> Self {
        Self { leaves: leaves(count), known: RefCell::default() }
    }

    /// `MTH(D[start:end])`.
    fn root(&self, start: u64, end: u64) -> Hash {
        if let Some(hash) = self.known.borrow().get(&(start, end)) {
            return *hash;
        }
        let hash = match end - start {
            0 => empty_root(),
            1 => self.leaves[usize::try_from(start).unwrap()],
            count => {
                let middle = start + split(count);
                node_hash(&self.root(start, middle), &self.root(middle, end))
            }
        };
        self.known.borrow_mut().insert((start, end), hash);
        hash
    }

    /// `PATH(index, D[start:end])`.
    fn path(&self, index: u64, start: u64, end: u64) -> Vec<Hash> {
        if end - start == 1 {
            return Vec::new();
        }
        let k = split(end - start);
        let (mut path, sibling) = if index < k {
            (self.path(index, start, start + k), self.root(start + k, end))
        } else {
            (self.path(index - k, start + k, end), self.root(start, start + k))
        };
        path.push(sibling);
        path
    }

    /// `PROOF(old, D[0:new])`; empty for an empty old tree, which the RFC leaves open.
    fn proof(&self, old: u64, new: u64) -> Vec<Hash> {
        if old == 0 { Vec::new() } else { self.subproof(old, 0, new, true) }
    }

    /// `SUBPROOF(m, D[start:end], known)`.
    fn subproof(&self, m: u64, start: u64, end: u64, known: bool) -> Vec<Hash> {
        let count = end - start;
        if m == count {
            return if known { Vec::new() } else { vec![self.root(start, end)] };
        }
        let k = split(count);
        let (mut proof, sibling) = if m <= k {
            (self.subproof(m, start, start + k, known), self.root(start + k, end))
        } else {
            (self.subproof(m - k, start + k, end, false), self.root(start, start + k))
        };
        proof.push(sibling);
        proof
    }
}

/// The largest power of two smaller than `count`.
fn split(count: u64) -> u64 {
    let mut k = 1;
    while k * 2 < count {
        k *= 2;
    }
    k
}

/// How `PATH(index, D[size])` is folded: two claims with one shape cannot be told apart by their root.
fn inclusion_shape(index: u64, size: u64) -> Vec<Step> {
    if size == 1 {
        return Vec::new();
    }
    let k = split(size);
    let (mut shape, step) = if index < k {
        (inclusion_shape(index, k), Step::Right)
    } else {
        (inclusion_shape(index - k, size - k), Step::Left)
    };
    shape.push(step);
    shape
}

/// How `SUBPROOF(m, D[size], known)` is folded.
fn consistency_shape(m: u64, size: u64, known: bool) -> Vec<Step> {
    if m == size {
        return if known { Vec::new() } else { vec![Step::Start] };
    }
    let k = split(size);
    let (mut shape, step) = if m <= k {
        (consistency_shape(m, k, known), Step::Right)
    } else {
        (consistency_shape(m - k, size - k, false), Step::Left)
    };
    shape.push(step);
    shape
}

/// Stored tiles; `broken` ones cannot be read.
#[derive(Debug, Default)]
struct Store {
    tiles: BTreeMap<TileId, Vec<u8>>,
    broken: BTreeSet<TileId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unreadable(TileId);

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "tile {} is unreadable", self.0)
    }
}

impl std::error::Error for Unreadable {}

impl TileSource for Store {
    type Tile = Vec<u8>;
    type Error = Unreadable;

    fn tile(&self, id: TileId) -> Result<Option<Vec<u8>>, Unreadable> {
        if self.broken.contains(&id) {
            return Err(Unreadable(id));
        }
        Ok(self.tiles.get(&id).cloned())
    }
}

impl Store {
    fn append(&mut self, log: &mut MerkleLog, leaves: &[Hash]) {
        for (id, bytes) in log.append_all(leaves) {
            assert_eq!(bytes.len(), TILE_BYTES);
            assert!(self.tiles.insert(id, bytes).is_none(), "tile {id} was written twice");
        }
    }

    fn filled(leaves: &[Hash]) -> (MerkleLog, Self) {
        let (mut log, mut store) = (MerkleLog::new(), Self::default());
        store.append(&mut log, leaves);
        (log, store)
    }
}

fn tile(level: u8, index: u64) -> TileId {
    TileId { level, index }
}

#[test]
fn roots_equal_those_of_an_independent_program() {
    // Computed with Python's blake3 package and the recursion of the RFC; leaf n is n as 8 bytes, big-endian.
    let golden = "
            0 af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
            1 9d15372b1830735a0a2d05214669e3271a754aac46fe303b68bb3046013a0574
            2 f8af613ef7f84f039c0071c876040e7bbb2456fa91439bee31489db095e399d5
            3 3cdefb4599ea7598100c7a7eb55b936ecce99e2b2337ce1a03625fac89271898
            4 6714518f6447b40e82fb438dca7cdc0d527b7c3b8a3a6f1e595b6e410c7d9907
            5 5417b3c04ed7d90f3da437e2092821b778b8963ece12cb36ed01957c2c60808d
            7 22d80d0706e989eeb69d1fcfd7243a9b1fbfabd6eccdc328bf49d15f0a5951d7
            8 56e90897918a1f79a615835abd1e4e436d0cdb6d2cd364e5fe3e0c06aded35cb
          255 7df52516e66dc663c887fcf8930229ee1a2e99047fb5cf22c349a1249cd86fac
          256 6cceb449428abf07d4f82853da41c93eeda7c4961e3a45c7d400b3b9bdeafa31
          257 54b6155a2c89e94b3908a8b749d42706020b70fe77964b0192d9de3ee0cd0be9
         1000 1ddbc1bf45565a2bc8ec277e817b128748539df6dec7b83178de8cc42187333f
        65535 78988bc0bb9c3b0a12955b916cd0204f1a60e9ff96a9ff62282d26bfdae90e18
        65536 e4838f3639c081ddff9713a85b9fc022e063c553c2992eb0e0fb08032586ff3f
        65537 fd6cec1aabb3419d4c521ebc0cc59a6e10e2ebdbab9bf7c2e7f0ad0bd8659094
        70000 847e6130beb703c97f1c0a3f3d7b62995ffbef099cc8a17cb8e5090eb3948b90";
    let (log, store) = Store::filled(&leaves(70_001));
    let mut reader = log.reader(&store);
    for row in golden.trim().lines() {
        let (size, root) = row.trim().split_once(' ').unwrap();
        let (size, root): (u64, Hash) = (size.parse().unwrap(), root.parse().unwrap());
        assert_eq!(reader.root_at(size), Ok(root), "root of {size} leaves");

        let mut frontier = Frontier::new();
        frontier.append_all(&leaves(size));
        assert_eq!((frontier.size(), frontier.root()), (size, root));
    }
}

#[test]
fn every_root_and_proof_up_to_300_leaves_is_that_of_the_rfc() {
    let model = Model::new(300);
    let (log, store) = Store::filled(&model.leaves);
    let mut reader = log.reader(&store);
    let mut growing = MerkleLog::new();
    assert_eq!(growing.root(), model.root(0, 0));
    for size in 1..=300 {
        let leaf = model.leaves[usize::try_from(size - 1).unwrap()];
        drop(growing.append_all(&[leaf]));
        let root = model.root(0, size);
        assert_eq!((growing.size(), growing.root()), (size, root));
        assert_eq!(reader.root_at(size), Ok(root));
        for (leaf, index) in model.leaves.iter().zip(0..size) {
            let proof = reader.inclusion_proof(index, size).unwrap();
            assert_eq!(proof, model.path(index, 0, size), "leaf {index} of {size}");
            assert_eq!(verify_inclusion(leaf, index, size, &proof, &root), Ok(()));
        }
        for old in 0..=size {
            let proof = reader.consistency_proof(old, size).unwrap();
            assert_eq!(proof, model.proof(old, size), "from {old} to {size}");
            let old_root = model.root(0, old);
            assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()));
        }
    }
}

#[test]
fn proofs_are_the_same_whichever_tiles_are_complete() {
    let model = Model::new(70);
    for log_size in 0..=70 {
        let count = usize::try_from(log_size).unwrap();
        let (log, store) = Store::filled(&model.leaves[..count]);
        for size in 0..=log_size {
            assert_eq!(log.root_at(&store, size), Ok(model.root(0, size)));
        }
        for index in 0..log_size {
            let proof = log.inclusion_proof(&store, index, log_size);
            assert_eq!(proof, Ok(model.path(index, 0, log_size)));
            let proof = log.consistency_proof(&store, index, log_size);
            assert_eq!(proof, Ok(model.proof(index, log_size)));
        }
    }
}

#[test]
fn proofs_around_every_tile_boundary_are_those_of_the_rfc() {
    let model = Model::new(66_000);
    let (log, store) = Store::filled(&model.leaves);
    let edges = [1, 255, 256, 257, 511, 512, 513, 32_768, 65_279, 65_280, 65_535, 65_536, 65_537, 66_000];
    for size in edges {
        for smaller in edges.into_iter().filter(|smaller| *smaller <= size) {
            let proof = log.inclusion_proof(&store, smaller - 1, size);
            assert_eq!(proof, Ok(model.path(smaller - 1, 0, size)), "leaf {} of {size}", smaller - 1);
            let proof = log.consistency_proof(&store, smaller, size);
            assert_eq!(proof, Ok(model.proof(smaller, size)), "from {smaller} to {size}");
        }
    }
}

#[test]
fn tiles_hold_256_leaf_hashes_or_256_roots_of_tiles() {
    let model = Model::new(65_536 + 300);
    let (_, store) = Store::filled(&model.leaves);
    let mut expected = BTreeMap::new();
    for (index, hashes) in (0..).zip(model.leaves.chunks_exact(TILE_HASHES)) {
        expected.insert(tile(0, index), hashes.to_vec());
    }
    let roots = (0..256).map(|index| model.root(index * 256, (index + 1) * 256));
    expected.insert(tile(1, 0), roots.collect());
    let expected: BTreeMap<TileId, Vec<u8>> = expected
        .into_iter()
        .map(|(id, hashes)| (id, hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()))
        .collect();
    assert_eq!(store.tiles, expected);
}

#[test]
fn tile_keys_are_nine_bytes_and_sort_as_ids_do() {
    assert_eq!(tile(1, 0x0203).key(), [1, 0, 0, 0, 0, 0, 0, 2, 3]);
    let ids = [tile(0, 0), tile(0, 255), tile(0, 256), tile(0, u64::MAX), tile(1, 0), tile(2, 1)];
    assert!(ids.is_sorted());
    assert!(ids.map(TileId::key).is_sorted());
}

#[test]
fn a_log_reloaded_at_any_point_continues_identically() {
    let all = leaves(66_000);
    let (whole, whole_store) = Store::filled(&all);
    for cut in [0, 1, 100, 255, 256, 257, 300, 65_279, 65_280, 65_535, 65_536, 65_537, 65_999] {
        let (log, mut store) = Store::filled(&all[..cut]);
        let bytes = borsh::to_vec(&log).unwrap();
        let mut reloaded: MerkleLog = borsh::from_slice(&bytes).unwrap();
        assert_eq!(reloaded, log, "reloaded at {cut}");
        store.append(&mut reloaded, &all[cut..]);
        assert_eq!(reloaded, whole, "continued from {cut}");
        assert_eq!(store.tiles, whole_store.tiles, "continued from {cut}");
    }
}

#[test]
fn the_encoding_of_a_log_is_fixed() {
    let (log, _) = Store::filled(&leaves(3));
    let [first, second, third] = [0, 1, 2].map(|index| leaves(3)[index]);
    let mut golden = vec![3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
    golden.extend(node_hash(&first, &second).as_bytes());
    golden.extend(third.as_bytes());
    golden.extend([1, 0, 0, 0, 3, 0, 0, 0]);
    for leaf in [first, second, third] {
        golden.extend(leaf.as_bytes());
    }
    assert_eq!(borsh::to_vec(&log).unwrap(), golden);
    assert_eq!(borsh::to_vec(log.frontier()).unwrap(), golden[..12 + 64]);
}

#[test]
fn a_frontier_with_too_many_or_too_few_peaks_is_refused() {
    let peak = leaf_hash(b"peak");
    let decode = |size: u64, peaks: usize| {
        let bytes = borsh::to_vec(&(size, vec![peak; peaks])).unwrap();
        borsh::from_slice::<Frontier>(&bytes)
    };
    assert_eq!(decode(5, 2).unwrap().size(), 5);
    assert_eq!(decode(LEAVES_MAX, 56).unwrap().size(), LEAVES_MAX);
    for (size, peaks) in [(5, 1), (5, 3), (0, 1), (LEAVES_MAX + 1, 1), (u64::MAX, 64)] {
        let refused = decode(size, peaks).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData, "{size} leaves, {peaks} peaks");
    }
}

#[test]
fn any_damage_to_a_persisted_log_is_refused() {
    let (log, _) = Store::filled(&leaves(600));
    let bytes = borsh::to_vec(&log).unwrap();
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        assert!(borsh::from_slice::<MerkleLog>(&damaged).is_err(), "byte {position}");
    }
    for length in 0..bytes.len() {
        assert!(borsh::from_slice::<MerkleLog>(&bytes[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn a_question_beyond_the_log_is_refused() {
    let (log, store) = Store::filled(&leaves(10));
    let beyond = LogFault::SizeOutOfRange { requested: 11, size: 10 };
    assert_eq!(log.root_at(&store, 11), Err(beyond.clone()));
    assert_eq!(log.inclusion_proof(&store, 0, 11), Err(beyond.clone()));
    assert_eq!(log.consistency_proof(&store, 0, 11), Err(beyond));
    let outside = LogFault::IndexOutOfRange { index: 7, size: 7 };
    assert_eq!(log.inclusion_proof(&store, 7, 7), Err(outside));
    let outside = LogFault::IndexOutOfRange { index: 0, size: 0 };
    assert_eq!(log.inclusion_proof(&store, 0, 0), Err(outside));
    let reversed = LogFault::SizesReversed { old_size: 7, new_size: 6 };
    assert_eq!(log.consistency_proof(&store, 7, 6), Err(reversed));
}

#[test]
fn a_lost_or_damaged_or_unreadable_tile_is_a_fault_that_names_it() {
    let (log, mut store) = Store::filled(&leaves(66_000));
    for id in [tile(0, 3), tile(1, 0)] {
        let intact = store.tiles[&id].clone();
        let ask = |store: &Store| log.inclusion_proof(store, 3 * 256 + 5, 66_000);
        let proof = ask(&store).unwrap();

        store.tiles.remove(&id);
        assert_eq!(ask(&store), Err(LogFault::TileMissing(id)));

        let mut flipped = intact.clone();
        flipped[4_000] ^= 1;
        let longer = [intact.as_slice(), &[0]].concat();
        for damaged in [flipped, intact[1..].to_vec(), longer, Vec::new()] {
            store.tiles.insert(id, damaged);
            assert_eq!(ask(&store), Err(LogFault::TileCorrupt(id)));
        }
        store.tiles.insert(id, intact);

        store.broken.insert(id);
        assert_eq!(ask(&store), Err(LogFault::Source(Unreadable(id))));
        store.broken.clear();
        assert_eq!(ask(&store), Ok(proof));
    }
}

#[test]
fn a_tile_of_another_place_is_not_taken_for_this_one() {
    let (log, mut store) = Store::filled(&leaves(1_000));
    let other = store.tiles[&tile(0, 1)].clone();
    store.tiles.insert(tile(0, 0), other);
    assert_eq!(log.root_at(&store, 100), Err(LogFault::TileCorrupt(tile(0, 0))));
}

#[test]
fn verification_refuses_impossible_claims_of_any_magnitude() {
    let hash = leaf_hash(b"leaf");
    for (index, size) in [(0, 0), (1, 1), (u64::MAX, u64::MAX), (u64::MAX, 0)] {
        let refused = verify_inclusion(&hash, index, size, &[], &hash);
        assert_eq!(refused, Err(ProofFault::IndexOutOfRange { index, size }));
    }
    for (old_size, new_size) in [(1, 0), (u64::MAX, u64::MAX - 1)] {
        let refused = verify_consistency(old_size, &hash, new_size, &hash, &[]);
        assert_eq!(refused, Err(ProofFault::SizesReversed { old_size, new_size }));
    }
    let length = |expected| Err(ProofFault::Length { expected, found: 1 });
    assert_eq!(verify_inclusion(&hash, u64::MAX - 1, u64::MAX, &[hash], &hash), length(63));
    assert_eq!(verify_inclusion(&hash, 0, u64::MAX, &[hash], &hash), length(64));
    assert_eq!(verify_consistency(u64::MAX - 1, &hash, u64::MAX, &hash, &[hash]), length(64));
    assert_eq!(verify_consistency(1 << 63, &hash, u64::MAX, &hash, &[]), {
        Err(ProofFault::Length { expected: 1, found: 0 })
    });
}

#[test]
fn every_tree_extends_the_empty_one_and_only_the_empty_one_has_its_root() {
    let (empty, root) = (empty_root(), leaf_hash(b"leaf"));
    assert_eq!(verify_consistency(0, &empty, 0, &empty, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &empty, 1, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &root, 1, &root, &[]), Err(ProofFault::OldRoot));
    assert_eq!(verify_consistency(0, &empty, 0, &root, &[]), Err(ProofFault::Root));
    let refused = verify_consistency(0, &empty, 1, &root, &[root]);
    assert_eq!(refused, Err(ProofFault::Length { expected: 0, found: 1 }));
}

#[test]
fn a_tree_extends_itself_and_no_other_of_its_size() {
    let (root, other) = (leaf_hash(b"root"), leaf_hash(b"other"));
    assert_eq!(verify_consistency(6, &root, 6, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(6, &root, 6, &other, &[]), Err(ProofFault::Root));
}

#[test]
fn leaves_and_nodes_never_have_the_same_hash() {
    let (left, right) = (leaf_hash(b"left"), leaf_hash(b"right"));
    let children = [*left.as_bytes(), *right.as_bytes()].concat();
    assert_ne!(leaf_hash(&children), node_hash(&left, &right));
    assert_ne!(leaf_hash(b""), empty_root());
    assert_ne!(node_hash(&left, &right), node_hash(&right, &left));
}

#[test]
fn a_claim_with_any_other_index_or_size_is_proved_only_by_a_path_of_the_same_shape() {
    let model = Model::new(40);
    for size in 1..=40 {
        let root = model.root(0, size);
        for (leaf, index) in model.leaves.iter().zip(0..size) {
            let proof = model.path(index, 0, size);
            let shape = inclusion_shape(index, size);
            for claimed_size in 1..=80 {
                for claimed_index in 0..claimed_size {
                    let accepted = verify_inclusion(leaf, claimed_index, claimed_size, &proof, &root).is_ok();
                    let indistinguishable = inclusion_shape(claimed_index, claimed_size) == shape;
                    assert_eq!(accepted, indistinguishable);
                    assert!(claimed_size != size || accepted == (claimed_index == index));
                }
            }
        }
    }
}

#[test]
fn a_claim_of_any_other_sizes_is_proved_only_by_a_path_of_the_same_shape() {
    let model = Model::new(40);
    for new in 2..=40 {
        for old in 1..new {
            let proof = model.proof(old, new);
            let roots = (model.root(0, old), model.root(0, new));
            let shape = consistency_shape(old, new, true);
            for claimed_new in 1..=80 {
                for claimed_old in 1..=claimed_new {
                    let verdict = verify_consistency(claimed_old, &roots.0, claimed_new, &roots.1, &proof);
                    let claimed_shape = consistency_shape(claimed_old, claimed_new, true);
                    assert_eq!(verdict.is_ok(), claimed_shape == shape);
                    assert!(claimed_new != new || verdict.is_ok() == (claimed_old == old));
                }
            }
        }
    }
}

/// A way to falsify a proof, applied at a place that is taken modulo what there is.
#[derive(Debug, Clone)]
enum Mutation {
    FlipBit(prop::sample::Index),
    Drop(prop::sample::Index),
    Repeat(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Append(u64),
}

impl Mutation {
    /// `None` where the proof stays what it was.
    fn of(&self, proof: &[Hash]) -> Option<Vec<Hash>> {
        let mut mutated = proof.to_vec();
        match self {
            Self::Append(number) => mutated.push(leaf_hash(&number.to_le_bytes())),
            _ if proof.is_empty() => return None,
            Self::FlipBit(bit) => {
                let bit = bit.index(proof.len() * 256);
                mutated[bit / 256] = flipped(&proof[bit / 256], bit % 256);
            }
            Self::Drop(place) => drop(mutated.remove(place.index(proof.len()))),
            Self::Repeat(place) => {
                let place = place.index(proof.len());
                mutated.insert(place, proof[place]);
            }
            Self::Swap(one, other) => mutated.swap(one.index(proof.len()), other.index(proof.len())),
        }
        (mutated != proof).then_some(mutated)
    }
}

fn flipped(hash: &Hash, bit: usize) -> Hash {
    let mut bytes = *hash.as_bytes();
    bytes[bit / 8] ^= 1 << (bit % 8);
    Hash::from_bytes(bytes)
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        4 => place().prop_map(Mutation::FlipBit),
        1 => place().prop_map(Mutation::Drop),
        1 => place().prop_map(Mutation::Repeat),
        2 => (place(), place()).prop_map(|(one, other)| Mutation::Swap(one, other)),
        1 => any::<u64>().prop_map(Mutation::Append),
    ]
}

const LARGE: u64 = 70_000;

thread_local! {
    /// A large log, built once per test.
    static WORLD: (Model, MerkleLog, Store) = {
        let model = Model::new(LARGE);
        let (log, store) = Store::filled(&model.leaves);
        (model, log, store)
    };
}

proptest! {
    #[test]
    fn proofs_from_a_large_log_are_those_of_the_rfc(
        size in 1..=LARGE,
        place in any::<prop::sample::Index>(),
    ) {
        WORLD.with(|(model, log, store)| {
            let smaller = u64::try_from(place.index(usize::try_from(size).unwrap())).unwrap();
            let root = model.root(0, size);
            prop_assert_eq!(log.root_at(store, size), Ok(root));

            let proof = log.inclusion_proof(store, smaller, size).unwrap();
            prop_assert_eq!(&proof, &model.path(smaller, 0, size));
            let leaf = model.leaves[usize::try_from(smaller).unwrap()];
            prop_assert_eq!(verify_inclusion(&leaf, smaller, size, &proof, &root), Ok(()));

            let proof = log.consistency_proof(store, smaller, size).unwrap();
            prop_assert_eq!(&proof, &model.proof(smaller, size));
            let old_root = model.root(0, smaller);
            prop_assert_eq!(verify_consistency(smaller, &old_root, size, &root, &proof), Ok(()));
            Ok(())
        })?;
    }

    #[test]
    fn a_mutated_inclusion_proof_is_rejected(
        size in 1..=LARGE,
        place in any::<prop::sample::Index>(),
        mutation in mutation(),
        bit in 0..256_usize,
    ) {
        WORLD.with(|(model, log, store)| {
            let index = u64::try_from(place.index(usize::try_from(size).unwrap())).unwrap();
            let leaf = model.leaves[usize::try_from(index).unwrap()];
            let (proof, root) = (log.inclusion_proof(store, index, size).unwrap(), model.root(0, size));
            if let Some(mutated) = mutation.of(&proof) {
                prop_assert!(verify_inclusion(&leaf, index, size, &mutated, &root).is_err());
            }
            let refused = Err(ProofFault::Root);
            prop_assert_eq!(verify_inclusion(&flipped(&leaf, bit), index, size, &proof, &root), refused);
            prop_assert_eq!(verify_inclusion(&leaf, index, size, &proof, &flipped(&root, bit)), refused);
            for claimed in [index.wrapping_add(1), index.wrapping_sub(1), index ^ (1 << (bit % 64))] {
                prop_assert!(verify_inclusion(&leaf, claimed, size, &proof, &root).is_err());
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_mutated_consistency_proof_is_rejected(
        new in 2..=LARGE,
        place in any::<prop::sample::Index>(),
        mutation in mutation(),
        bit in 0..256_usize,
    ) {
        WORLD.with(|(model, log, store)| {
            let old = 1 + u64::try_from(place.index(usize::try_from(new - 1).unwrap())).unwrap();
            let proof = log.consistency_proof(store, old, new).unwrap();
            let (old_root, new_root) = (model.root(0, old), model.root(0, new));
            if let Some(mutated) = mutation.of(&proof) {
                prop_assert!(verify_consistency(old, &old_root, new, &new_root, &mutated).is_err());
            }
            let other_old = flipped(&old_root, bit);
            prop_assert!(verify_consistency(old, &other_old, new, &new_root, &proof).is_err());
            let other_new = flipped(&new_root, bit);
            let refused = verify_consistency(old, &old_root, new, &other_new, &proof);
            prop_assert_eq!(refused, Err(ProofFault::Root));
            for claimed in [old + 1, old.wrapping_sub(1), old ^ (1 << (bit % 64))] {
                let verdict = verify_consistency(claimed, &old_root, new, &new_root, &proof);
                prop_assert!(verdict.is_err());
            }
            Ok(())
        })?;
    }

    #[test]
    fn a_forked_log_is_not_consistent_with_the_other_branch(
        common in 0..400_u64,
        rest in 1..400_u64,
        more in 0..400_u64,
    ) {
        let old = common + rest;
        let (mut log, mut store) = Store::filled(&leaves(common));
        let mut other = log.clone();
        for index in 0..rest {
            drop(other.append_all(&[leaf_hash(format!("there {index}").as_bytes())]));
        }
        for index in 0..rest + more {
            store.append(&mut log, &[leaf_hash(format!("here {index}").as_bytes())]);
        }
        let proof = log.consistency_proof(&store, old, log.size()).unwrap();
        let verdict = verify_consistency(old, &other.root(), log.size(), &log.root(), &proof);
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn the_root_does_not_depend_on_how_appends_are_grouped(
        groups in prop::collection::vec(0..700_usize, 0..12),
    ) {
        let total: usize = groups.iter().sum();
        let all = leaves(u64::try_from(total).unwrap());
        let (expected, expected_store) = Store::filled(&all);
        let (mut log, mut store, mut frontier) = (MerkleLog::new(), Store::default(), Frontier::new());
        let mut rest = all.as_slice();
        for group in groups {
            let (now, later) = rest.split_at(group);
            store.append(&mut log, now);
            frontier.append_all(now);
            frontier = borsh::from_slice(&borsh::to_vec(&frontier).unwrap()).unwrap();
            log = borsh::from_slice(&borsh::to_vec(&log).unwrap()).unwrap();
            rest = later;
        }
        prop_assert_eq!(log.frontier(), &frontier);
        prop_assert_eq!(&log, &expected);
        prop_assert_eq!(&store.tiles, &expected_store.tiles);
    }
}
