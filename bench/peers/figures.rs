//! What is measured.

use std::collections::BTreeMap;

/// A figure of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Figure {
    /// Jobs per second, from the first one taken to the last one done.
    Drain,
    /// Submissions per second, one after the other.
    One,
    /// Submissions per second with 32 under way.
    Concurrent,
    /// The 99th percentile of one of these, in milliseconds.
    ConcurrentP99,
    /// Jobs per second, submitted 100 in a call.
    Bulk,
    /// From just before a lone job is submitted to the start of its handler, in milliseconds.
    LoneP50,
    LoneP99,
    /// Memory of the worker's processes in MB.
    RssIdle,
    PssIdle,
    RssBusy,
    /// Redis's memory per waiting job.
    Bytes,
    /// Commands per second that an idle worker sends to Redis.
    IdleSent,
    /// The same with the commands inside its scripts.
    IdleCommands,
    /// Processor time of an idle worker in per cent of a core.
    IdleCpu,
}

/// The figures of one run, as far as it came.
#[derive(Clone, Default)]
pub struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    pub fn set(&mut self, figure: Figure, value: f64) {
        self.0.insert(figure, value);
    }

    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    /// The higher one of two.
    pub fn best(&self, one: Figure, other: Figure) -> Option<f64> {
        self.get(one).into_iter().chain(self.get(other)).reduce(f64::max)
    }
}

/// Least, median and greatest.
#[derive(Clone, Copy)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub greatest: f64,
}

/// `None` without values.
pub fn spread(values: impl IntoIterator<Item = Option<f64>>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().flatten().collect();
    values.sort_by(f64::total_cmp);
    let (least, greatest) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median =
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
    Some(Spread { least, median, greatest })
}
