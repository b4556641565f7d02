//! Plain atomic counters that stand inside live state, and how they are written out.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Histogram;

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Answers by the first digit of their status.
#[derive(Debug, Default)]
pub struct ByClass([Count; 6]);

impl ByClass {
    const NAMES: [&'static str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts an answer; 0 for none.
    pub fn inc(&self, status: u16) {
        let class = usize::from(status / 100).min(5);
        self.0[class].inc();
    }

    /// The number of answers of the class that `status` belongs to.
    #[must_use]
    pub fn get(&self, status: u16) -> u64 {
        self.0[usize::from(status / 100).min(5)].get()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.0.iter().map(Count::get))
    }
}

/// Answers by gRPC status.
#[derive(Debug, Default)]
pub struct ByGrpcStatus([Count; 18]);

impl ByGrpcStatus {
    const NAMES: [&'static str; 18] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "other",
    ];

    /// Counts an answer; codes that gRPC does not have are counted together.
    pub fn inc(&self, code: u32) {
        let index = usize::try_from(code).unwrap_or(usize::MAX).min(17);
        self.0[index].inc();
    }

    /// The number of answers with `code`.
    #[must_use]
    pub fn get(&self, code: u32) -> u64 {
        self.0[usize::try_from(code).unwrap_or(usize::MAX).min(17)].get()
    }

    pub(super) fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.0.iter().map(Count::get))
    }
}

pub(super) type Labels<'a> = [(&'static str, &'a str)];

/// Writes one family whose members are found at scrape time.
pub(super) struct FamilyWriter<'a, 'b> {
    encoder: &'a mut DescriptorEncoder<'b>,
}

impl<'a, 'b> FamilyWriter<'a, 'b> {
    pub(super) fn new(encoder: &'a mut DescriptorEncoder<'b>) -> Self {
        Self { encoder }
    }

    pub(super) fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        members: impl Iterator<Item = (Vec<(&'static str, &'l str)>, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in members {
            let labels: &Labels<'_> = &labels;
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
        Ok(())
    }

    pub(super) fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        members: impl Iterator<Item = (Vec<(&'static str, &'l str)>, i64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in members {
            let labels: &Labels<'_> = &labels;
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(super) fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        members: impl Iterator<Item = (Vec<(&'static str, &'l str)>, &'l Histogram)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, histogram) in members {
            let labels: &Labels<'_> = &labels;
            histogram.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
