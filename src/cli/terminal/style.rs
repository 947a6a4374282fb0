//! Colours of a terminal, by its own palette.

use crate::job::Status;

/// How a text stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// A title.
    Bold,
    /// Something is wrong.
    Red,
    /// It went well.
    Green,
    /// It is held up.
    Yellow,
    /// It goes on now.
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

/// The style of a job's status.
pub(crate) fn of_status(text: &str) -> Option<Style> {
    match text.parse().ok()? {
        Status::Completed => Some(Style::Green),
        Status::Failed => Some(Style::Red),
        Status::Retrying | Status::Cancelled => Some(Style::Yellow),
        Status::Processing => Some(Style::Cyan),
        Status::Scheduled | Status::Queued => None,
    }
}

/// The style of a queue's state.
pub(crate) fn of_state(text: &str) -> Option<Style> {
    match text {
        "running" => None,
        "paused" => Some(Style::Yellow),
        // No server takes from it.
        _ => Some(Style::Red),
    }
}
