//! How far something has come that takes longer than a glance. Where standard error is no terminal, a line says that it
//! begins, and no more.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of what is counted; `what` is in progress.
pub(crate) fn bar(what: &'static str, unit: &'static str) -> ProgressBar {
    let template = format!("{{msg}}  {{wide_bar}}  {{human_pos}} of {{human_len}} {unit}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is a constant");
    let bar = ProgressBar::no_length().with_style(style).with_message(what);
    if bar.is_hidden() {
        eprintln!("{what}");
    }
    bar
}

/// What a verification of proofs calls with batches replayed, of so many.
pub(crate) fn proofs() -> impl Fn(u64, u64) + Sync {
    let bar = bar("Replaying the evidence and verifying every attestation", "batches");
    move |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    }
}

/// What is called with bytes of a backup done, of so many.
pub(crate) fn backup(what: &'static str) -> impl Fn(u64, u64) + Send + Sync {
    let bar = bar(what, "bytes");
    move |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    }
}

/// What an audit calls with outcomes read, of so many.
pub(crate) fn audit() -> impl Fn(u64, u64) + Sync {
    let bar = bar("Reading every node's history and proving the end state", "outcomes");
    move |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    }
}
