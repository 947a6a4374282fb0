//! The terminal: its width and colours, tables, and a line that shows progress.

pub(crate) mod console;
pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;
