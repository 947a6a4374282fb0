//! A progress bar in one line of a terminal.

use crate::cli::terminal::table::truncate;

/// The width of the bar on a wide terminal.
const MAX_CELLS: usize = 30;

/// The progress of a command.
pub(crate) struct Bar<'a> {
    /// The activity, such as `submitting`.
    pub what: &'a str,
    /// The part of `total` that is done.
    pub done: u64,
    /// The total; 0 if it is unknown.
    pub total: u64,
    /// The result so far, such as `17 jobs`.
    pub result: String,
}

impl Bar<'_> {
    /// The bar as a line of at most this width.
    pub(crate) fn line(&self, width: usize) -> String {
        let Bar { what, result, .. } = self;
        if self.total == 0 {
            return truncate(&format!("{what}  {result}"), width);
        }
        let share = self.done.min(self.total) as f64 / self.total as f64;
        let percent = (share * 100.0) as u64;
        let around = format!("{what} []  {percent:3} %  {result}").chars().count();
        let cells = MAX_CELLS.min(width.saturating_sub(around));
        truncate(&format!("{what} {}  {percent:3} %  {result}", gauge(share, cells)), width)
    }
}

/// A share from 0 to 1 as `[####----]` with this number of cells.
pub(crate) fn gauge(share: f64, cells: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * cells as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(cells - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(done: u64, total: u64, width: usize) -> String {
        Bar { what: "submitting", done, total, result: "7 jobs".to_owned() }.line(width)
    }

    #[test]
    fn a_bar_grows_with_the_progress_and_fits_the_line() {
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
