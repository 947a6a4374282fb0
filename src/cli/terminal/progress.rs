//! How far long work is, in a line of a terminal.

use crate::cli::terminal::table::truncate;

/// The longest bar.
const LONGEST: usize = 30;

/// A state of long work.
pub(crate) struct Bar<'a> {
    /// What is done, such as `submitting`.
    pub what: &'a str,
    /// How much is done, of `total`.
    pub done: u64,
    /// How much there is; 0 if nobody knows.
    pub total: u64,
    /// What has come of it so far, such as `17 jobs`.
    pub result: String,
}

impl Bar<'_> {
    /// As a line of at most this width.
    pub(crate) fn line(&self, width: usize) -> String {
        let Bar { what, result, .. } = self;
        if self.total == 0 {
            return truncate(&format!("{what}  {result}"), width);
        }
        let share = self.done.min(self.total) as f64 / self.total as f64;
        let percent = (share * 100.0) as u64;
        let around = format!("{what} []  {percent:3} %  {result}").chars().count();
        let cells = LONGEST.min(width.saturating_sub(around));
        let full = (share * cells as f64) as usize;
        let bar = format!("{}{}", "#".repeat(full), "-".repeat(cells - full));
        truncate(&format!("{what} [{bar}]  {percent:3} %  {result}"), width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, total: u64, width: usize) -> String {
        Bar { what: "submitting", done, total, result: "7 jobs".to_owned() }.line(width)
    }

    #[test]
    fn a_bar_grows_with_what_is_done_and_fits_its_line() {
        assert_eq!(line(0, 10, 80), format!("submitting [{}]    0 %  7 jobs", "-".repeat(30)));
        assert_eq!(
            line(5, 10, 80),
            format!("submitting [{}{}]   50 %  7 jobs", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(line(12, 10, 80), format!("submitting [{}]  100 %  7 jobs", "#".repeat(30)));
        assert_eq!(line(5, 10, 38), "submitting [#####-----]   50 %  7 jobs");
        assert_eq!(line(5, 10, 12), "submitting …");
        assert_eq!(line(5, 0, 80), "submitting  7 jobs");
    }
}
