//! The pauses between attempts during an outage of Redis.

use std::time::Duration;

/// The longest pause; the first pause is about a tenth of it.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses between attempts, which grow with the number of failures in a row.
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
