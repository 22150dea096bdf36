//! What clients submit: they trade, race each other for positions, group, command, and sign falsely.

mod market;
mod trade;

pub use market::Market;
pub use trade::Kind;
