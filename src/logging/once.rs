//! Logs a persistent error once instead of on every retry.

use std::fmt::Display;

/// Remembers the error that one retry loop logged last.
#[derive(Default)]
pub(crate) struct LogOnce {
    last_line: Option<String>,
}

impl LogOnce {
    /// Logs `WHAT: REASON` as an error, unless the last call logged the same line.
    pub fn log(&mut self, what: &str, reason: &dyn Display) {
        let line = format!("{what}: {reason}");
        if self.is_new(&line) {
            log::error!("{line}");
            self.last_line = Some(line);
        }
    }

    /// Forgets the last error: the next one is logged even if it is the same.
    pub fn recovered(&mut self) {
        self.last_line = None;
    }

    fn is_new(&self, line: &str) -> bool {
        self.last_line.as_deref() != Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_logged_again_only_after_another_error_or_a_recovery() {
        let mut log_once = LogOnce::default();
        for (reason, is_new) in [("a", true), ("a", false), ("b", true), ("b", false), ("a", true)] {
            assert_eq!(log_once.is_new(&format!("cannot: {reason}")), is_new, "{reason}");
            log_once.log("cannot", &reason);
        }
        log_once.recovered();
        assert!(log_once.is_new("cannot: a"));
    }
}
