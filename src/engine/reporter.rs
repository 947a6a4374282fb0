//! The reporter: writes to Redis what running attempts report. It starts with the first report of a server.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use crate::engine::reports::Reports;

/// The shortest time between the starts of two calls of Redis. Of several values of progress in this time only the last one
/// is written.
const INTERVAL: Duration = Duration::from_millis(250);

#[derive(Clone)]
pub struct Reporter {
    pub reports: Arc<Reports>,
    /// From attempts that have reported something. Has room for one message.
    pub wake: Receiver<()>,
}

impl Reporter {
    /// Runs until all threads that run attempts have ended.
    pub fn run(&self) {
        let mut has_more = false;
        let mut last_call: Option<Instant> = None;
        loop {
            // An outage leaves reports, which are written again.
            let is_open = match has_more {
                true => self.wake.try_recv() != Err(TryRecvError::Disconnected),
                false => self.wake.recv().is_ok(),
            };
            if !is_open {
                return;
            }
            thread::sleep(last_call.map_or(Duration::ZERO, |at| INTERVAL.saturating_sub(at.elapsed())));
            last_call = Some(Instant::now());
            let reports = self.reports.begin_call();
            let unwritten = if self.reports.write(&reports) { Vec::new() } else { reports };
            has_more = self.reports.end_call(unwritten);
        }
    }
}
