//! What the log orders: certified bundles and changes of the replicated configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::certificate::{Certificate, ValidatorSet};
use crate::identifier::{Party, append_canonical_bytes};
use crate::quantity::LogTime;

/// First byte of every entry, so that a later version can change the rest.
const VERSION: u8 = 1;
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
}

/// A bundle and the validators' word on it. Weaker than it sounds: whoever receives it checks the certificates.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct CertifiedBundle {
    /// The bundle's bytes ([`crate::bundle`]).
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
}

/// What the replicas agree on besides the ledger itself.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Configuration {
    /// The validators; their epoch is the configuration's.
    pub validators: ValidatorSet,
    /// The keys that sign heads, by node.
    pub nodes: BTreeMap<u64, Party>,
}

impl Configuration {
    /// Before the first change: no validators, one certificate required.
    #[must_use]
    pub fn genesis() -> Self {
        Self { validators: ValidatorSet { epoch: 0, required: 1, keys: BTreeSet::new() }, nodes: BTreeMap::new() }
    }

    /// The configuration after a change; `None` where the change alters nothing or must not be made (a node's key
    /// never changes, and validators can never be fewer than a bundle needs).
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
        }
        let required = usize::from(next.validators.required);
        if next == *self || required == 0 || required > next.validators.keys.len() {
            return None;
        }
        next.validators.epoch = self.validators.epoch.checked_add(1)?;
        Some(next)
    }
}

impl LogEntry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bundle_bytes = match &self.payload {
            LogPayload::Bundle(certified) => certified.bundle.len(),
            LogPayload::Configure(_) => 0,
        };
        let mut bytes = Vec::with_capacity(bundle_bytes.saturating_add(HEADER_BYTES));
        bytes.push(VERSION);
        append_canonical_bytes(&mut bytes, self);
        bytes
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Where the bytes are not an entry of this version, whole and nothing more.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Self::try_from_slice(rest),
            Some((version, _)) => {
                let message = format!("log entry of version {version}; this program knows version {VERSION}");
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "empty log entry")),
        }
    }
}
