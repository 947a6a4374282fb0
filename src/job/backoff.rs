//! How long a failed job waits for its next attempt.

use std::time::Duration;

/// Exponential backoff with full jitter: before attempt n+1 a job waits a uniform random time in
/// `[0, min(cap, base * 2^(n-1))]`.
///
/// Full jitter spreads the retries of jobs that failed at the same time, for example when a service was unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failed attempt: up to `cap`. Defaults to 1 s.
    pub base: Duration,
    /// The longest wait after any failed attempt: up to 365 days. Defaults to 1 h.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(3600) }
    }
}

impl Backoff {
    /// The longest wait after this number of failed attempts, from 1.
    pub fn ceiling(&self, failed_attempts: u32) -> Duration {
        let doublings = failed_attempts.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }

    /// The wait after this number of failed attempts, for a `random` number in `[0, 1]`.
    pub fn delay(&self, failed_attempts: u32, random: f64) -> Duration {
        self.ceiling(failed_attempts).mul_f64(random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(60) };
        let ceilings: Vec<u64> = (1..=7).map(|n| backoff.ceiling(n).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn no_number_of_attempts_overflows() {
        for attempts in [0, 1, 31, 32, 33, 64, u32::MAX] {
            let backoff = Backoff { base: Duration::MAX, cap: Duration::from_secs(3600) };
            assert!(backoff.ceiling(attempts) <= backoff.cap);
        }
    }

    #[test]
    fn a_delay_lies_between_zero_and_the_ceiling() {
        let backoff = Backoff::default();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let attempts = random.u32(1..200);
            assert!(backoff.delay(attempts, random.f64()) <= backoff.ceiling(attempts));
        }
        assert_eq!(backoff.delay(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.delay(3, 1.0), Duration::from_secs(4));
    }
}
