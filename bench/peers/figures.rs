//! The figures of a run, and their spread over the rounds.

use std::collections::BTreeMap;

/// A quantity that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Figure {
    /// Jobs per second, from the first job taken to the last job done.
    Drain,
    /// Submissions per second by one caller.
    One,
    /// Submissions per second by 32 callers at a time.
    Concurrent,
    /// 99th percentile of the latency of these submissions, in ms.
    ConcurrentP99,
    /// Jobs submitted per second, 100 per call.
    Bulk,
    /// Time from just before a lone job is submitted to the start of its handler, in ms.
    LoneP50,
    LoneP99,
    /// Memory of the worker's processes, in MB.
    RssIdle,
    PssIdle,
    RssBusy,
    /// Redis's memory per waiting job, in bytes.
    Bytes,
    /// Commands per second that an idle worker sends to Redis.
    IdleSent,
    /// The same, plus the commands inside its scripts.
    IdleCommands,
    /// CPU time of an idle worker, in percent of a core.
    IdleCpu,
}

/// The figures of one run; a figure is missing where its phase failed.
#[derive(Clone, Default)]
pub struct Figures(BTreeMap<Figure, f64>);

impl Figures {
    pub fn set(&mut self, figure: Figure, value: f64) {
        self.0.insert(figure, value);
    }

    pub fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(&figure).copied()
    }

    /// The higher of two figures.
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
