//! Writing metrics one family after another.

use std::fmt;
use std::time::Duration;

use meters::{BOUNDS, Distribution};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Labels of one series, with their values.
pub(super) type Labels<'a> = Vec<(&'a str, String)>;

/// Series of one family.
pub(super) type Series<'a, T> = [(Labels<'a>, T)];

/// Writes metrics.
pub(super) struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder }
    }

    fn family<'b>(
        &'b mut self,
        name: &'b str,
        unit: Option<&'b Unit>,
        help: &str,
        of: MetricType,
    ) -> Result<MetricEncoder<'b>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, unit, of)
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, None, help, MetricType::Counter)?)
    }

    pub(super) fn bytes_counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.family(name, Some(&Unit::Bytes), help, MetricType::Counter)?)
    }

    pub(super) fn seconds_counter(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let family = self.family(name, Some(&Unit::Seconds), help, MetricType::Counter)?;
        ConstCounter::new(value.as_secs_f64()).encode(family)
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, values: &Series<'_, u64>) -> fmt::Result {
        let mut family = self.family(name, None, help, MetricType::Counter)?;
        for (labels, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        gauge(value).encode(self.family(name, None, help, MetricType::Gauge)?)
    }

    pub(super) fn bytes_gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        gauge(value).encode(self.family(name, Some(&Unit::Bytes), help, MetricType::Gauge)?)
    }

    pub(super) fn ratio_gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        // "ratio", as Prometheus names it; the crate's own unit is a plural
        let unit = Unit::Other("ratio".to_owned());
        ConstGauge::new(value).encode(self.family(name, Some(&unit), help, MetricType::Gauge)?)
    }

    pub(super) fn seconds_gauge(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let family = self.family(name, Some(&Unit::Seconds), help, MetricType::Gauge)?;
        ConstGauge::new(value.as_secs_f64()).encode(family)
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, values: &Series<'_, u64>) -> fmt::Result {
        self.gauges_in(None, name, help, values)
    }

    pub(super) fn bytes_gauges(&mut self, name: &str, help: &str, values: &Series<'_, u64>) -> fmt::Result {
        self.gauges_in(Some(&Unit::Bytes), name, help, values)
    }

    fn gauges_in(&mut self, unit: Option<&Unit>, name: &str, help: &str, values: &Series<'_, u64>) -> fmt::Result {
        let mut family = self.family(name, unit, help, MetricType::Gauge)?;
        for (labels, value) in values {
            gauge(*value).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    pub(super) fn seconds_gauges(&mut self, name: &str, help: &str, values: &Series<'_, Duration>) -> fmt::Result {
        let mut family = self.family(name, Some(&Unit::Seconds), help, MetricType::Gauge)?;
        for (labels, value) in values {
            ConstGauge::new(value.as_secs_f64()).encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, values: &Distribution) -> fmt::Result {
        distribution(self.family(name, Some(&Unit::Seconds), help, MetricType::Histogram)?, values)
    }

    pub(super) fn histograms(&mut self, name: &str, help: &str, values: &Series<'_, Distribution>) -> fmt::Result {
        let mut family = self.family(name, Some(&Unit::Seconds), help, MetricType::Histogram)?;
        for (labels, value) in values {
            distribution(family.encode_family(labels)?, value)?;
        }
        Ok(())
    }
}

fn distribution(mut metric: MetricEncoder<'_>, values: &Distribution) -> fmt::Result {
    // the last bucket, of what is longer than every bound, is the one without an end
    let bounds = BOUNDS.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(values.buckets().iter().copied()).collect();
    metric.encode_histogram::<NoLabelSet>(values.sum().as_secs_f64(), values.count(), &buckets, None)
}

/// Gauges are signed 64-bit numbers; nothing here comes near their end.
fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
