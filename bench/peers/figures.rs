//! The figures of a run, and their spread over the rounds.

use std::collections::BTreeMap;

/// A load whose rate and CPU time are measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Load {
    /// All jobs, from the first job taken to the last job done.
    Drain,
    /// Submissions by one caller.
    One,
    /// Submissions by 32 callers at a time.
    Concurrent,
    /// Submissions by one caller, 100 jobs per call.
    Bulk,
}

/// The processes that share the work of a load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    Redis,
    /// The processes that run jobs; for threadq the server, which also receives the submissions.
    Worker,
    /// The process that submits.
    Caller,
}

/// A quantity that is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Figure {
    /// Jobs per second.
    Rate(Load),
    /// CPU time per job, in µs.
    Cpu(Load, Part),
    /// 99th percentile of the latency of submissions by 32 callers, in ms.
    ConcurrentP99,
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

    /// Jobs per second.
    pub fn rate(&self, load: Load) -> Option<f64> {
        self.get(Figure::Rate(load))
    }

    /// CPU time per job of all processes together, in µs.
    pub fn cpu(&self, load: Load) -> Option<f64> {
        let parts = [Part::Redis, Part::Worker, Part::Caller];
        parts.into_iter().filter_map(|part| self.get(Figure::Cpu(load, part))).reduce(|sum, part| sum + part)
    }

    /// The load with the higher rate; the first one if the second was not measured.
    pub fn faster(&self, one: Load, other: Load) -> Load {
        if self.rate(other) > self.rate(one) { other } else { one }
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
