//! The heads that nodes sign, compared with what was proved: a node that signs another one is named.

use std::sync::Arc;
use std::time::Duration;

use client::Consistency;
use futures::future::join_all;
use tokio::time::sleep;

use crate::Node;
use crate::figures::Shared;

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks every node for its newest head again and again.
pub(crate) async fn compare(nodes: Vec<Node>, shared: Arc<Shared>) {
    loop {
        // all at once: who is gone for ever keeps nobody waiting for those who answer
        join_all(nodes.iter().map(|node| compare_one(node, &shared))).await;
        sleep(INTERVAL).await;
    }
}

async fn compare_one(node: &Node, shared: &Shared) {
    let told = node.client.head(Consistency::Local).await;
    shared.heard(&node.address, told.is_ok());
    let head = match told {
        Ok(signed) => signed.head,
        Err(problem) => return tracing::debug!(%problem, node = node.address, "a node does not tell its head"),
    };
    shared.change(|figures| figures.newest_batch = figures.newest_batch.max(head.batch));
    let Some(proved) = shared.proved_head(head.batch).filter(|proved| *proved != head) else { return };
    let what =
        format!("it signs head {} of batch {}, whose evidence leads to {}", head.hash(), head.batch, proved.hash());
    if shared.blame(&node.address, what.clone()) {
        tracing::error!(node = node.address, what, "ALARM: a node signs another head than was proved");
    }
}
