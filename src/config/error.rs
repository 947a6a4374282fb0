//! Errors of the configuration.

use std::fmt;

use super::values::Invalid;

/// A value for an error: its first 80 characters, with line breaks and control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Why a configuration is not valid. As text it is one line: the setting, where its value comes from, what is wrong, and
/// what is allowed. It contains no secret.
///
/// `threadq serve` shows it and exits with 2.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(String);

impl ConfigError {
    pub(super) fn new(setting: &str, origin: &str, subject: &str, why: Invalid) -> ConfigError {
        let line = format!("{setting} ({origin}): {subject} {}; allowed: {}", why.problem, why.allowed);
        ConfigError(line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}
