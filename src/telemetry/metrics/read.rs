//! Numbers that other parts of the gateway keep, read for each scrape.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, core::Describer};
use std::fmt;

use super::families::{Family, Kind};

/// One series of a family: the values of its labels, in the order of the family's label names, and the number.
pub type Sample = (Vec<String>, u64);

/// The source of a family's numbers. It must not block.
pub(super) type Source = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// A family whose numbers are read for each scrape.
pub(super) struct Read {
    family: &'static Family,
    desc: Desc,
    source: Source,
}

impl Read {
    pub(super) fn new(family: &'static Family, source: Source) -> prometheus::Result<Self> {
        let options = Opts::new(family.name, family.help).namespace(super::families::NAMESPACE);
        let options = options.variable_labels(family.labels.iter().map(|&label| label.to_owned()).collect());
        Ok(Self { family, desc: options.describe()?, source })
    }

    fn metric(&self, values: Vec<String>, number: u64) -> Metric {
        let mut metric = Metric::default();
        let pair = |(name, value): (&&str, String)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value);
            pair
        };
        let mut pairs: Vec<LabelPair> = self.family.labels.iter().zip(values).map(pair).collect();
        // The registry orders the labels of its own families in this way too.
        pairs.sort();
        metric.set_label(pairs);
        // The number is exact up to 2^53, which no counter here reaches.
        let number = number as f64;
        match self.family.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(number);
                metric.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(number);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}

impl Collector for Read {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(match self.family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge | Kind::Histogram => MetricType::GAUGE,
        });
        family.set_metric((self.source)().into_iter().map(|(values, number)| self.metric(values, number)).collect());
        vec![family]
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Read").field("family", &self.family.name).finish_non_exhaustive()
    }
}
