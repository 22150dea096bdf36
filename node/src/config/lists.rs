//! Lists as one text: `1=host:port,2=host:port` and `host:port,host:port`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use seams::Address;
use serde::{Deserialize, Serialize};

/// Nodes by number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberList(BTreeMap<u64, Address>);

/// Addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressList(Vec<Address>);

impl MemberList {
    /// True where nobody is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A node's address.
    #[must_use]
    pub fn get(&self, node: u64) -> Option<&Address> {
        self.0.get(&node)
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Address)> {
        self.0.iter().map(|(node, address)| (*node, address))
    }

    /// The nodes as a map.
    #[must_use]
    pub const fn as_map(&self) -> &BTreeMap<u64, Address> {
        &self.0
    }
}

impl FromIterator<(u64, Address)> for MemberList {
    fn from_iter<I: IntoIterator<Item = (u64, Address)>>(members: I) -> Self {
        Self(members.into_iter().collect())
    }
}

impl FromIterator<Address> for AddressList {
    fn from_iter<I: IntoIterator<Item = Address>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl AddressList {
    /// The addresses in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Address] {
        &self.0
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// `host:port` with a port above 0.
fn address(text: &str) -> Result<Address, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(port)) if port > 0 => Ok(Address::new(text)),
        _ => Err(format!("{text:?} is not HOST:PORT")),
    }
}

impl FromStr for MemberList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut members = BTreeMap::new();
        for item in items(text) {
            let (number, place) = item.split_once('=').ok_or_else(|| format!("{item:?} is not NUMBER=HOST:PORT"))?;
            let number = number.trim().parse().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| format!("{item:?} does not begin with a node's number, from 1"))?;
            if members.insert(number, address(place.trim())?).is_some() {
                return Err(format!("node {number} is listed twice"));
            }
        }
        Ok(Self(members))
    }
}

impl FromStr for AddressList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        items(text).map(address).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for MemberList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<String> = self.0.iter().map(|(node, address)| format!("{node}={address}")).collect();
        formatter.write_str(&listed.join(","))
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<&str> = self.0.iter().map(Address::as_str).collect();
        formatter.write_str(&listed.join(","))
    }
}

macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(list: $name) -> Self {
                list.to_string()
            }
        }
    )+};
}

as_text!(MemberList, AddressList);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let members: MemberList = " 2=b:2, 1=a:1,".parse().unwrap();
        assert_eq!(members.to_string(), "1=a:1,2=b:2");
        assert_eq!("c:3,d:4".parse::<AddressList>().unwrap().as_slice().len(), 2);
        assert!("".parse::<MemberList>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["1", "0=a:1", "1=a", "1=a:0", "1=:5", "1=a:1,1=b:2", "x=a:1"] {
            assert!(text.parse::<MemberList>().is_err(), "{text}");
        }
        for text in ["a", "a:99999", ":1"] {
            assert!(text.parse::<AddressList>().is_err(), "{text}");
        }
    }
}
