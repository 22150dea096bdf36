//! The live view of a cluster: one line for the whole, one per node, redrawn in place.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::local::{NodeView, status_of};
use ::bench::meter::Meter;
use borsh::BorshDeserialize;
use client::Access;
use ledger::Head;
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};

/// Time between two frames.
const FRAME: Duration = Duration::from_secs(1);

/// Draws until dropped or aborted. Where standard error is no terminal it draws nothing.
pub(crate) async fn draw(nodes: Access, meter: Arc<Meter>, length: Option<Duration>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let begun = Instant::now();
    let mut ticks = interval(FRAME);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (Instant::now(), 0_u64, 0_u64);
    let mut drawn = 0;
    loop {
        ticks.tick().await;
        let views = status_of(&nodes).await;
        let size = views.iter().filter_map(head_of).map(|head| head.size.get()).max().unwrap_or_default();
        let settled = meter.settlements.load(Ordering::Relaxed);
        let seconds = before.0.elapsed().as_secs_f64().max(0.001);
        let rates = (rate(size, before.1, seconds), rate(settled, before.2, seconds));
        before = (Instant::now(), size, settled);
        let frame = frame(&views, size, rates, &meter, begun.elapsed(), length);
        let up = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
        drawn = frame.lines().count();
        let text: String = frame.lines().fold(up, |mut text, line| {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push('\n');
            text
        });
        let mut screen = std::io::stderr().lock();
        if screen.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

fn rate(now: u64, before: u64, seconds: f64) -> f64 {
    f64::from(u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)) / seconds
}

fn head_of(view: &NodeView) -> Option<Head> {
    Head::try_from_slice(&view.status.as_ref()?.head).ok()
}

fn frame(
    views: &[NodeView],
    size: u64,
    (transactions, settlements): (f64, f64),
    meter: &Meter,
    elapsed: Duration,
    length: Option<Duration>,
) -> String {
    let mut text = String::new();
    let of = length.map(|length| format!(" of {} s", length.as_secs())).unwrap_or_default();
    let latency = meter.settlement_latency();
    let busy = if meter.settlements.load(Ordering::Relaxed) > 0 {
        format!("   {settlements:.0} settlements/s   p50 {:.1} ms   p99 {:.1} ms", latency.p50, latency.p99)
    } else {
        String::new()
    };
    let seconds = elapsed.as_secs();
    let mut line = |line: String| writeln!(text, "{line}").expect("writing to memory cannot fail");
    line(format!("{seconds:>4} s{of}   {size} transactions   {transactions:.0} transactions/s{busy}"));
    line(format!(
        "  {:<5} {:<10} {:>5} {:>10} {:>9}  {:<18} health",
        "node", "role", "term", "applied", "batch", "head"
    ));
    for view in views {
        let head = head_of(view);
        let batch = head.map_or_else(String::new, |head| head.batch.to_string());
        let hash = head.map_or_else(String::new, |head| head.hash().to_string().chars().take(16).collect());
        match &view.status {
            Some(status) => line(format!(
                "  {:<5} {:<10} {:>5} {:>10} {batch:>9}  {hash:<18} {}",
                view.node, status.role, status.term, status.applied_index, status.health
            )),
            None => line(format!("  {:<5} {:<10}", view.node, "down")),
        }
    }
    text
}
