//! What the log orders: certified bundles, changes of the replicated configuration, and the provers' words on both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::certificate::{Certificate, ValidatorSet};
use crate::identifier::{Party, append_canonical_bytes};
use crate::limits::Limits;
use crate::protocol::Protocol;
use crate::quantity::LogTime;

/// The shortest time that history may be kept, in milliseconds: transactions may be valid for no longer.
pub const KEEP_HISTORY_MS_MIN: u64 = 10_000;
/// What an entry holds besides its bundle with a few certificates, about.
const HEADER_BYTES: usize = 1024;

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogEntry {
    /// The leader's clock when it proposed the entry. What counts is the largest so far.
    pub log_time: LogTime,
    /// What is ordered.
    pub payload: LogPayload,
}

/// What an entry orders.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum LogPayload {
    /// Transactions.
    Bundle(CertifiedBundle),
    /// A change of the replicated configuration.
    Configure(ConfigurationChange),
    /// A prover's attestation, as bytes (crate `checker`). It is kept and changes nothing else.
    Attest(Vec<u8>),
}

/// A bundle and the validators' word on it. Weaker than it sounds: whoever receives it checks the certificates.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CertifiedBundle {
    /// The bundle's bytes ([`crate::bundle`]).
    #[borsh(deserialize_with = "crate::identifier::read_bytes")]
    pub bundle: Vec<u8>,
    /// The certificates.
    pub certificates: Vec<Certificate>,
}

/// A change of the replicated configuration. Every change that alters anything begins a new epoch.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum ConfigurationChange {
    /// Admits validators.
    AddValidators(Vec<Party>),
    /// Dismisses validators.
    RemoveValidators(Vec<Party>),
    /// How many certificates a bundle needs.
    RequireCertificates(u16),
    /// Binds a node's number to the key that signs its heads, for ever, and admits the key as a validator.
    RegisterNode {
        /// The node's number.
        node: u64,
        /// Its key.
        key: Party,
    },
    /// How long history is kept, in milliseconds of log time, at least [`KEEP_HISTORY_MS_MIN`]; `None` for ever. No
    /// transaction may be valid for longer ([`crate::history`]).
    KeepHistory(Option<u64>),
    /// Lets provers count.
    AddProvers(Vec<Party>),
    /// Lets provers count no longer.
    RemoveProvers(Vec<Party>),
    /// How many provers have to prove a batch before it counts as attested.
    RequireProvers(u16),
    /// Puts the version after the present one in force. From version 2 on.
    RaiseProtocol(Protocol),
}

/// Whose attestations are kept, and how many of them make a batch an attested one.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ProverSet {
    /// Provers that have to agree on a batch.
    pub required: u16,
    /// The provers' keys.
    pub keys: BTreeSet<Party>,
}

impl ProverSet {
    /// No provers; one would do.
    #[must_use]
    pub const fn genesis() -> Self {
        Self { required: 1, keys: BTreeSet::new() }
    }

    fn is_sound(&self) -> bool {
        self.required > 0 && usize::from(self.required) <= self.keys.len().max(1)
    }
}

/// What the replicas agree on besides the ledger itself.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Configuration {
    /// The validators; their epoch is the configuration's.
    pub validators: ValidatorSet,
    /// The keys that sign heads, by node.
    pub nodes: BTreeMap<u64, Party>,
    /// How long history is kept, in milliseconds of log time; `None` for ever.
    pub keep_history_ms: Option<u64>,
    /// The provers.
    pub provers: ProverSet,
    /// The version in force. Not among the bytes of the rest, which are as they were in the first version.
    #[borsh(skip)]
    pub protocol: Protocol,
}

impl Configuration {
    /// Before the first change: no validators, one certificate required, all history kept, no provers.
    #[must_use]
    pub fn genesis() -> Self {
        let validators = ValidatorSet { epoch: 0, required: 1, keys: BTreeSet::new() };
        Self {
            validators,
            nodes: BTreeMap::new(),
            keep_history_ms: None,
            provers: ProverSet::genesis(),
            protocol: Protocol::FIRST,
        }
    }

    /// The configuration after a change; `None` where the change alters nothing or must not be made (a node's key
    /// never changes, validators can never be fewer than a bundle needs, nor provers than have to agree, and the version is raised by one).
    #[must_use]
    pub fn after(&self, change: &ConfigurationChange) -> Option<Self> {
        let mut next = self.clone();
        match change {
            ConfigurationChange::AddValidators(keys) => next.validators.keys.extend(keys),
            ConfigurationChange::RemoveValidators(keys) => {
                next.validators.keys.retain(|key| !keys.contains(key));
            }
            ConfigurationChange::RequireCertificates(required) => next.validators.required = *required,
            ConfigurationChange::RegisterNode { node, key } => {
                if next.nodes.insert(*node, *key).is_some_and(|before| before != *key) {
                    return None;
                }
                next.validators.keys.insert(*key);
            }
            ConfigurationChange::KeepHistory(Some(millis)) if *millis < KEEP_HISTORY_MS_MIN => return None,
            ConfigurationChange::KeepHistory(millis) => next.keep_history_ms = *millis,
            ConfigurationChange::AddProvers(keys) => next.provers.keys.extend(keys),
            ConfigurationChange::RemoveProvers(keys) => next.provers.keys.retain(|key| !keys.contains(key)),
            ConfigurationChange::RequireProvers(required) => next.provers.required = *required,
            ConfigurationChange::RaiseProtocol(raised) if Some(*raised) == self.protocol.next() => {
                next.protocol = *raised;
            }
            ConfigurationChange::RaiseProtocol(_) => return None,
        }
        let required = usize::from(next.validators.required);
        let is_certified =
            next.validators == self.validators || (required > 0 && required <= next.validators.keys.len());
        if next == *self || !is_certified || !next.provers.is_sound() {
            return None;
        }
        next.validators.epoch = self.validators.epoch.checked_add(1)?;
        Some(next)
    }
}

impl Configuration {
    /// How long a transaction may be valid, in milliseconds: never longer than the history that would know it is kept.
    #[must_use]
    pub fn validity_ms_max(&self, limits: &Limits) -> u64 {
        limits.validity_ms_max.min(self.keep_history_ms.unwrap_or(u64::MAX))
    }
}

impl LogEntry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bundle_bytes = match &self.payload {
            LogPayload::Bundle(certified) => certified.bundle.len(),
            LogPayload::Configure(_) => 0,
            LogPayload::Attest(attestation) => attestation.len(),
        };
        let mut bytes = Vec::with_capacity(bundle_bytes.saturating_add(HEADER_BYTES));
        bytes.push(self.protocol().number());
        append_canonical_bytes(&mut bytes, self);
        bytes
    }

    /// The first version that has such an entry. It is the entry's first byte.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match &self.payload {
            LogPayload::Configure(ConfigurationChange::RaiseProtocol(raised)) => *raised,
            LogPayload::Bundle(_) | LogPayload::Configure(_) | LogPayload::Attest(_) => Protocol::FIRST,
        }
    }

    /// Reads an entry, as a program that knows the versions up to `newest`.
    ///
    /// # Errors
    /// Where the bytes are not an entry of such a version, whole and nothing more.
    pub fn decode(bytes: &[u8], newest: Protocol) -> io::Result<Self> {
        let fault = |message: String| Err(io::Error::new(io::ErrorKind::InvalidData, message));
        let Some((version, rest)) = bytes.split_first() else { return fault("empty log entry".to_owned()) };
        if *version > newest.number() {
            return fault(format!("log entry of version {version}; this program knows version {newest}"));
        }
        let entry = Self::try_from_slice(rest)?;
        if entry.protocol().number() != *version {
            return fault(format!("log entry of version {version}, which is not the version of such an entry"));
        }
        Ok(entry)
    }
}
