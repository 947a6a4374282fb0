//! The pauses between attempts to take jobs while none can be taken: Redis is away or full, or a queue is paused.

use std::time::Duration;

/// The time between two checks of a queue from which no job may be taken now.
pub const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The time between attempts while Redis is full and refuses BRPOPLPUSH.
pub const FULL_RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// The longest pause during an outage; the first pause is about a tenth of it.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses during an outage, which grow with the number of failures in a row.
#[derive(Default)]
pub struct OutagePause {
    failures: u32,
}

impl OutagePause {
    pub fn next(&mut self) -> Duration {
        self.failures = (self.failures + 1).min(10);
        // With jitter, so that several servers do not all return at the same moment.
        LONGEST / 10 * self.failures / 2 + LONGEST.mul_f64(fastrand::f64() * 0.05)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_one() {
        let mut pause = OutagePause::default();
        let pauses: Vec<Duration> = (0..50).map(|_| pause.next()).collect();
        assert!(pauses[0] <= LONGEST / 5, "{:?}", pauses[0]);
        assert!(pauses[9] > pauses[0] && pauses.iter().all(|pause| *pause <= LONGEST), "{pauses:?}");
    }
}
