//! The heads that nodes sign, compared with what was proved: a node that signs another one is named.

use std::sync::Arc;
use std::time::Duration;

use client::Consistency;
use tokio::time::sleep;

use crate::Node;
use crate::figures::Shared;

/// Between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks every node for its newest head again and again.
pub(crate) async fn compare(nodes: Vec<Node>, shared: Arc<Shared>) {
    loop {
        for node in &nodes {
            match node.client.head(Consistency::Local).await {
                Ok(signed) => {
                    let head = signed.head;
                    shared.change(|figures| figures.newest_batch = figures.newest_batch.max(head.batch));
                    let differs = shared.proved_head(head.batch).filter(|proved| *proved != head);
                    if let Some(proved) = differs {
                        let what = format!(
                            "it signs head {} of batch {}, whose evidence leads to {}",
                            head.hash(),
                            head.batch,
                            proved.hash()
                        );
                        if shared.blame(&node.address, what.clone()) {
                            tracing::error!(
                                node = node.address,
                                what,
                                "ALARM: a node signs another head than was proved"
                            );
                        }
                    }
                }
                Err(problem) => tracing::debug!(%problem, node = node.address, "a node does not tell its head"),
            }
        }
        sleep(INTERVAL).await;
    }
}
