//! The description of a cluster.

use ledger::check::LedgerIdentity;
use ledger::{ClusterId, Limits, Party};

use super::fields::{identifier, named, narrow, present};
use super::{ConversionFault, Doubt};
use crate::wire;

/// What clients need to know of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The ledger's identity, which transactions carry.
    pub identity: LedgerIdentity,
    /// The ledger's name.
    pub name: String,
    /// The limits in force.
    pub limits: Limits,
    /// The nodes.
    pub members: Vec<Member>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub node: u64,
    /// Where it serves gRPC.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// The key that signs its heads, where known.
    pub key: Option<Party>,
    /// Where it serves HTTP, where known.
    pub http_address: Option<String>,
}

impl TryFrom<&wire::ClusterInfo> for Cluster {
    type Error = ConversionFault;

    fn try_from(wire: &wire::ClusterInfo) -> Result<Self, ConversionFault> {
        let cluster: ClusterId = identifier("cluster", &wire.cluster)?;
        if cluster != ClusterId::of_name(&wire.cluster_name) {
            return Err(ConversionFault::new("cluster", Doubt::Contradicts("cluster_name")));
        }
        Ok(Self {
            identity: LedgerIdentity { cluster, group: narrow("group", u64::from(wire.group))? },
            name: wire.cluster_name.clone(),
            limits: limits(present("limits", wire.limits.as_ref())?)?,
            members: wire.members.iter().map(Member::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&wire::Member> for Member {
    type Error = ConversionFault;

    fn try_from(wire: &wire::Member) -> Result<Self, ConversionFault> {
        let key = if wire.key.is_empty() { None } else { Some(identifier("key", &wire.key)?) };
        Ok(Self {
            node: wire.node,
            address: wire.address.clone(),
            voter: wire.voter,
            key,
            http_address: Some(wire.http_address.clone()).filter(|address| !address.is_empty()),
        })
    }
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self {
            node: member.node,
            address: member.address.clone(),
            voter: member.voter,
            key: member.key.as_ref().map(named).unwrap_or_default(),
            http_address: member.http_address.clone().unwrap_or_default(),
        }
    }
}

macro_rules! limit_fields {
    ($($field:ident),+) => {
        /// Reads limits. All must be there: zero is no limit of this protocol.
        ///
        /// # Errors
        /// Where one is missing or beyond this machine's numbers.
        pub fn limits(wire: &wire::Limits) -> Result<Limits, ConversionFault> {
            Ok(Limits { $($field: limit(stringify!($field), wire.$field)?,)+ })
        }

        /// Limits as they travel.
        #[must_use]
        pub fn limits_to_wire(limits: &Limits) -> wire::Limits {
            wire::Limits { $($field: u64::try_from(limits.$field).unwrap_or(u64::MAX),)+ }
        }
    };
}

limit_fields!(
    transaction_bytes_max,
    signers_max,
    inputs_max,
    references_max,
    outputs_max,
    supply_max,
    terms_max,
    legs_max,
    group_members_max,
    validity_ms_max,
    command_inputs_max,
    bundle_transactions_max,
    bundle_bytes_max
);

fn limit<T: TryFrom<u64>>(field: &'static str, number: u64) -> Result<T, ConversionFault> {
    if number == 0 {
        return Err(ConversionFault::missing(field));
    }
    narrow(field, number)
}
