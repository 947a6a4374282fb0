//! A trouble that lasts is said once, not at every try.

use std::fmt::Display;

/// What was last complained of, by somebody who tries the same again and again.
#[derive(Default)]
pub struct Complaint {
    said: Option<String>,
}

impl Complaint {
    /// Logs an error, unless it is the one that was logged last.
    pub fn log(&mut self, what: &str, reason: &dyn Display) {
        let line = format!("{what}: {reason}");
        if self.is_new(&line) {
            log::error!("{line}");
            self.said = Some(line);
        }
    }

    /// It works again; from now on the same trouble is a new one.
    pub fn over(&mut self) {
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
        let mut complaint = Complaint::default();
        for (reason, is_new) in [("a", true), ("a", false), ("b", true), ("b", false), ("a", true)] {
            assert_eq!(complaint.is_new(&format!("cannot: {reason}")), is_new, "{reason}");
            complaint.log("cannot", &reason);
        }
        complaint.over();
        assert!(complaint.is_new("cannot: a"));
    }
}
