//! What a certificate says of its owner: a URI among its alternative names.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// What a process or a person is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The member with this number.
    Node(u64),
    /// A validator.
    Validator,
    /// A prover.
    Prover,
    /// Who looks at the cluster and changes it.
    Operator,
    /// Who submits and reads.
    Client,
}

/// A text that names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no role: it is node/NUMBER, validator, prover, operator or client")]
pub struct RoleSyntax(String);

impl Role {
    /// What every role's URI begins with.
    pub const URI_PREFIX: &'static str = "seriatim://role/";

    /// The URI in a certificate.
    #[must_use]
    pub fn uri(self) -> String {
        match self {
            Self::Node(number) => format!("{}node/{number}", Self::URI_PREFIX),
            Self::Validator => format!("{}validator", Self::URI_PREFIX),
            Self::Prover => format!("{}prover", Self::URI_PREFIX),
            Self::Operator => format!("{}operator", Self::URI_PREFIX),
            Self::Client => format!("{}client", Self::URI_PREFIX),
        }
    }

    /// Whether it is any of the nodes.
    #[must_use]
    pub const fn is_node(self) -> bool {
        matches!(self, Self::Node(_))
    }

    /// The role in a certificate, of which the signature is somebody else's matter. None where it names no role, one
    /// that does not exist, or several.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let mut found = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(Self::URI_PREFIX));
        let role = found.next()?;
        if found.next().is_some() {
            return None;
        }
        role.parse().ok()
    }
}

impl FromStr for Role {
    type Err = RoleSyntax;

    /// As in the URI, behind its beginning.
    fn from_str(text: &str) -> Result<Self, RoleSyntax> {
        let role = match text.split_once('/') {
            // as a number is written, so that one role has one text
            Some(("node", number)) => {
                number.parse().ok().filter(|parsed: &u64| *parsed > 0 && parsed.to_string() == number).map(Self::Node)
            }
            None if text == "validator" => Some(Self::Validator),
            None if text == "prover" => Some(Self::Prover),
            None if text == "operator" => Some(Self::Operator),
            None if text == "client" => Some(Self::Client),
            Some(_) | None => None,
        };
        role.ok_or_else(|| RoleSyntax(text.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(number) => write!(formatter, "node {number}"),
            Self::Validator => formatter.write_str("a validator"),
            Self::Prover => formatter.write_str("a prover"),
            Self::Operator => formatter.write_str("an operator"),
            Self::Client => formatter.write_str("a client"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_role_is_what_its_text_says_and_nothing_else_is_one() {
        for (text, role) in [
            ("node/3", Role::Node(3)),
            ("validator", Role::Validator),
            ("prover", Role::Prover),
            ("operator", Role::Operator),
            ("client", Role::Client),
        ] {
            assert_eq!(text.parse::<Role>().unwrap(), role);
            assert_eq!(role.uri(), format!("seriatim://role/{text}"));
        }
        for text in ["", "node", "node/", "node/0", "node/03", "node/+3", "node/3/", "validator/1", "Client", "admin"] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
    }
}
