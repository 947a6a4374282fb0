//! The terminal: its width and colours, tables, and a progress bar.

pub(crate) mod console;
pub(crate) mod progress;
pub(crate) mod style;
pub(crate) mod table;
