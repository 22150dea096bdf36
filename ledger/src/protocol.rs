//! The version of what the members of a cluster say to each other in the order.
//!
//! A program knows every version up to [`Protocol::NEWEST`]. Which of them is in force is decided by the order: whoever is upgraded
//! goes on in the version in force, so that members of two program versions work side by side, until an operator raises it. The
//! entry that does so is the first one of the new version. A program that does not know it stops there, and has applied nothing that
//! it might have misread.
//!
//! | Version | What it brings |
//! |---|---|
//! | 1 | everything up to the first release |
//! | 2 | the change of the version itself |

use std::fmt;

use borsh::{BorshDeserialize, BorshSerialize};

/// A version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Protocol(u8);

impl Protocol {
    /// What every ledger begins with.
    pub const FIRST: Self = Self(1);
    /// The newest that this program knows.
    pub const NEWEST: Self = Self(2);

    /// The version of this number; `None` for 0.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The one after it, which is the only one that it can be raised to.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
