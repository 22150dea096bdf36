//! Asset types: who issues, and under which symbol.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::identifier::Party;

/// Longest symbol, in bytes. Long enough for an ISIN (12) or a currency pair with a suffix.
pub const SYMBOL_BYTES_MAX: usize = 16;

/// An asset's short name under its issuer: 1 to [`SYMBOL_BYTES_MAX`] ASCII letters, digits, `.`, `-` or `_`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol {
    // padded with zero bytes, which no symbol contains: the order of the arrays is that of the texts
    bytes: [u8; SYMBOL_BYTES_MAX],
}

/// Text that cannot be a symbol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a symbol is 1 to 16 ASCII letters, digits, '.', '-' or '_', found {found:?}")]
pub struct SymbolSyntax {
    found: String,
}

impl Symbol {
    /// The symbol as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(SYMBOL_BYTES_MAX);
        let text = self.bytes.get(..length).unwrap_or_default();
        // the constructor admits ASCII only
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// The symbol as [`SYMBOL_BYTES_MAX`] bytes, padded with zeros.
    #[must_use]
    pub const fn padded(&self) -> &[u8; SYMBOL_BYTES_MAX] {
        &self.bytes
    }
}

impl FromStr for Symbol {
    type Err = SymbolSyntax;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = (1..=SYMBOL_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !well_formed {
            return Err(SymbolSyntax { found: text.chars().take(40).collect() });
        }
        let mut bytes = [0_u8; SYMBOL_BYTES_MAX];
        for (slot, byte) in bytes.iter_mut().zip(text.bytes()) {
            *slot = byte;
        }
        Ok(Self { bytes })
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

// One length byte, then the text: one symbol has one encoding, and anything else does not decode.
impl BorshSerialize for Symbol {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        let text = self.as_str().as_bytes();
        let length = u8::try_from(text.len()).expect("a symbol has at most 16 bytes");
        writer.write_all(&[length])?;
        writer.write_all(text)
    }
}

impl BorshDeserialize for Symbol {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let length = usize::from(u8::deserialize_reader(reader)?);
        let mut bytes = [0_u8; SYMBOL_BYTES_MAX];
        let text = bytes
            .get_mut(..length)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a symbol has at most 16 bytes"))?;
        reader.read_exact(text)?;
        let text = std::str::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        text.parse().map_err(|error: SymbolSyntax| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// What a quantity counts: the issuer's promise of that symbol. Two issuers' `USD` are two asset types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct AssetType {
    /// Who issues and redeems it.
    pub issuer: Party,
    /// Its name under that issuer.
    pub symbol: Symbol,
}

impl fmt::Display for AssetType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.symbol, self.issuer)
    }
}
