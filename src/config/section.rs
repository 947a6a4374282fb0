//! Tables of the file, whose keys are removed one by one; and the texts of values.

use toml::{Table, Value};

use super::error::{ConfigError, quoted};
use super::values::Invalid;

/// A table whose known keys are removed one by one. A key that remains is unknown.
pub(super) struct Section<'a> {
    pub name: String,
    pub table: Table,
    pub origin: &'a str,
}

impl<'a> Section<'a> {
    pub fn new(name: String, value: Value, origin: &'a str) -> Result<Section<'a>, ConfigError> {
        match value {
            Value::Table(table) => Ok(Section { name, table, origin }),
            other => {
                let why = Invalid::new(format!("is {}", type_of(&other)), "a table");
                Err(ConfigError::new(&name, origin, "the value", why))
            }
        }
    }

    pub fn error(&self, problem: &str, allowed: &str) -> ConfigError {
        ConfigError::new(&self.name, self.origin, "the entry", Invalid::new(problem, allowed))
    }

    /// Removes a key whose value no error may show: commands and URLs can hold secrets.
    pub fn take<T>(
        &mut self,
        key: &str,
        read: impl Fn(&Value) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        read(&value).map(Some).map_err(|why| self.value_error(key, "the value", why))
    }

    /// Removes a key whose value an error may show.
    pub fn take_text<T>(
        &mut self,
        key: &str,
        read: impl Fn(&str) -> Result<T, Invalid>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.scalar(key)? else { return Ok(None) };
        read(&text).map(Some).map_err(|why| self.value_error(key, &quoted(&text), why))
    }

    // Not inlined: the generic functions above are compiled for each kind of value.
    #[inline(never)]
    fn scalar(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        self.take(key, scalar)
    }

    #[inline(never)]
    fn value_error(&self, key: &str, subject: &str, why: Invalid) -> ConfigError {
        ConfigError::new(&format!("{}.{key}", self.name), self.origin, subject, why)
    }

    /// Checks that no unknown key remains.
    pub fn finish(&self, allowed: &str) -> Result<(), ConfigError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(key) => Err(self.error(&format!("has the unknown key {key:?}"), allowed)),
        }
    }
}

/// The value as the text that a flag would have.
pub(super) fn scalar(value: &Value) -> Result<String, Invalid> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(_) | Value::Table(_) => {
            Err(Invalid::new(format!("is {}", type_of(value)), "a string, a number or true or false"))
        }
        other => Ok(other.to_string()),
    }
}

pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        _ => "a number, a date or true or false",
    }
}
