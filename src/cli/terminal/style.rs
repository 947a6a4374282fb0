//! The colours of a terminal.

use crate::job::Status;

/// The style of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A title.
    Bold,
    /// An error.
    Red,
    /// Success.
    Green,
    /// Waiting or stopped.
    Yellow,
    /// In progress.
    Cyan,
}

impl Style {
    /// The text in this style.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Style::Bold => 1,
            Style::Red => 31,
            Style::Green => 32,
            Style::Yellow => 33,
            Style::Cyan => 36,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The style of the status of a job.
pub(crate) fn of_status(text: &str) -> Option<Style> {
    match text.parse().ok()? {
        Status::Completed => Some(Style::Green),
        Status::Failed => Some(Style::Red),
        Status::Retrying | Status::Cancelled => Some(Style::Yellow),
        Status::Processing => Some(Style::Cyan),
        Status::Scheduled | Status::Queued => None,
    }
}

/// The style of the state of a queue.
pub(crate) fn of_state(text: &str) -> Option<Style> {
    match text {
        "running" | "running, strict" | "running, pulled" => None,
        "paused" | "paused, strict" => Some(Style::Yellow),
        // No server takes jobs from the queue.
        _ => Some(Style::Red),
    }
}
