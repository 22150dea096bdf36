//! What every process shows, whatever its role.

use std::fmt;
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use tls::Identity;

use super::writer::{Writer, count};
use crate::telemetry::{SpanCounts, span_counts};

/// What was read off a process.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    role: &'static str,
    spans: SpanCounts,
    /// When its certificate expires, in Unix time; zero where nothing secures its connections.
    certificate_expiry: Duration,
    /// How often other files of certificates came into use, and how often they were no good.
    certificate_reloads: (u64, u64),
}

impl ProcessMetrics {
    pub(super) fn read(role: &'static str, identity: Option<&Identity>) -> Self {
        let expires = identity.and_then(Identity::expires);
        let expires = expires.and_then(|expires| expires.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self {
            role,
            spans: span_counts(),
            certificate_expiry: expires.unwrap_or_default(),
            certificate_reloads: identity.map(Identity::reloads).unwrap_or_default(),
        }
    }
}

impl Collector for ProcessMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer::new(encoder);
        let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("role", self.role.to_owned())];
        writer.gauges("build_info", "The program, as labels; always 1", &[(labels, 1)])?;

        let SpanCounts { queued, sent, failed, dropped } = self.spans;
        writer.gauge("trace_spans_queued", "Spans that wait or are being sent", count(queued))?;
        let fates = [("sent", sent), ("failed", failed), ("dropped", dropped)];
        let fates = fates.map(|(fate, value)| (vec![("fate", fate.to_owned())], value));
        let help = "Spans that were sent, could not be sent, or found no room in the queue";
        writer.counters("trace_spans", help, &fates)?;

        let help = "When this process's certificate expires, in Unix time; 0 where connections are not secured";
        writer.seconds_gauge("certificate_expiry_timestamp", help, self.certificate_expiry)?;
        let (used, refused) = self.certificate_reloads;
        let results = [("used", used), ("refused", refused)];
        let results = results.map(|(result, value)| (vec![("result", result.to_owned())], value));
        writer.counters("certificate_reloads", "Changes of the files of certificates, by what came of them", &results)
    }
}
