//! A trouble that lasts is said once, not at every try.

use std::fmt::Display;

/// What was last complained of, by somebody who tries the same again and again.
#[derive(Default)]
pub struct LogOnce {
    said: Option<String>,
}

impl LogOnce {
    /// Logs an error, unless it is the one that was logged last.
    pub fn log(&mut self, what: &str, reason: &dyn Display) {
        let line = format!("{what}: {reason}");
        if self.is_new(&line) {
            log::error!("{line}");
            self.said = Some(line);
        }
    }

    /// It works again; from now on the same trouble is a new one.
    pub fn recovered(&mut self) {
        self.said = None;
    }

    fn is_new(&self, line: &str) -> bool {
        self.said.as_deref() != Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_new_only_after_another_one_or_an_end() {
        let mut log_once = LogOnce::default();
        for (reason, is_new) in [("a", true), ("a", false), ("b", true), ("b", false), ("a", true)] {
            assert_eq!(log_once.is_new(&format!("cannot: {reason}")), is_new, "{reason}");
            log_once.log("cannot", &reason);
        }
        log_once.recovered();
        assert!(log_once.is_new("cannot: a"));
    }
}
