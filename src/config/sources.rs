//! Reads flags and environment variables into [`RawSetting`]s, whose texts are not checked yet.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::error::ConfigError;
use super::settings::{self, Apply, SETTINGS, Setting};
use super::values::Invalid;

/// The text of a setting, from one source.
pub(super) struct RawSetting {
    pub setting: &'static Setting,
    pub apply: Apply,
    pub text: String,
    /// Where the text comes from: a flag, a variable or a file, as an error names it.
    pub origin: String,
}

impl RawSetting {
    pub fn new(setting: &'static Setting, text: String, origin: String) -> RawSetting {
        RawSetting { setting, apply: setting.apply, text, origin }
    }
}

/// The flags of the command line.
#[derive(Default)]
pub(super) struct Flags {
    /// The value of `--config`.
    pub config: Option<String>,
    /// In the order of the command line: a later flag overrides an earlier one of the same name.
    pub settings: Vec<RawSetting>,
}

/// Parses the command line.
///
/// # Errors
/// An unknown flag, a flag without its value, a word that belongs to no flag, or a word that is not UTF-8.
pub(super) fn flags<A>(args: A) -> Result<Flags, ConfigError>
where
    A: IntoIterator,
    A::Item: Into<OsString>,
{
    let mut parser = Parser::from_args(args);
    let mut flags = Flags::default();
    while let Some(name) = next_flag(&mut parser)? {
        if name == "config" {
            flags.config = Some(flag_value(&mut parser, &name)?);
            continue;
        }
        let setting = settings::find(&name).ok_or_else(|| unknown_flag(&format!("--{name}")))?;
        let text = match setting.is_switch() {
            true => switch_value(&mut parser, &name)?,
            false => flag_value(&mut parser, &name)?,
        };
        flags.settings.push(RawSetting::new(setting, text, flag_origin(&name)));
    }
    Ok(flags)
}

fn next_flag(parser: &mut Parser) -> Result<Option<String>, ConfigError> {
    // The only error of `next` is an unused value of the flag before, and each flag here uses its value.
    match parser.next().map_err(|_| unexpected_word())? {
        None => Ok(None),
        Some(Arg::Long(name)) => Ok(Some(name.to_owned())),
        Some(Arg::Short(letter)) => Err(unknown_flag(&format!("-{letter}"))),
        Some(Arg::Value(_)) => Err(unexpected_word()),
    }
}

/// The value after `=`, or the next word unless it begins with `--`.
fn flag_value(parser: &mut Parser, name: &str) -> Result<String, ConfigError> {
    if let Some(value) = parser.optional_value() {
        return utf8(value, name);
    }
    let no_value =
        || flag_error(name, "the flag", "has no value", &format!("--{name} VALUE or --{name}=VALUE"));
    let value = utf8(parser.value().map_err(|_| no_value())?, name)?;
    if value.starts_with("--") { Err(no_value()) } else { Ok(value) }
}

fn switch_value(parser: &mut Parser, name: &str) -> Result<String, ConfigError> {
    parser.optional_value().map_or_else(|| Ok("true".to_owned()), |value| utf8(value, name))
}

fn utf8(value: OsString, name: &str) -> Result<String, ConfigError> {
    value.into_string().map_err(|_| flag_error(name, "the value", "is not UTF-8", "text in UTF-8"))
}

fn flag_origin(name: &str) -> String {
    format!("flag --{name}")
}

fn flag_error(name: &str, subject: &str, problem: &str, allowed: &str) -> ConfigError {
    ConfigError::new(name, &flag_origin(name), subject, Invalid::new(problem, allowed))
}

fn unknown_flag(flag: &str) -> ConfigError {
    let allowed: Vec<String> = SETTINGS.iter().map(|setting| format!("--{}", setting.name)).collect();
    let allowed = format!("--config, {}", allowed.join(", "));
    ConfigError::new(flag, "command line", "the name", Invalid::new("is not a flag of this command", allowed))
}

/// Does not show the word, which may be a secret whose flag is missing.
fn unexpected_word() -> ConfigError {
    let why = Invalid::new(
        "has a word that belongs to no flag",
        "--NAME VALUE, --NAME=VALUE, --demo, --insecure-no-token",
    );
    ConfigError::new("arguments", "command line", "the command line", why)
}

/// The settings of the environment. `env` returns the value of a variable.
pub(super) fn environment(env: impl Fn(&str) -> Option<String>) -> Vec<RawSetting> {
    SETTINGS.iter().filter_map(|setting| from_environment(setting, &env)).collect()
}

fn from_environment(setting: &'static Setting, env: impl Fn(&str) -> Option<String>) -> Option<RawSetting> {
    let own = setting.env_name();
    if let Some(text) = env(&own) {
        return Some(RawSetting::new(setting, text, env_origin(&own)));
    }
    let (other, apply) = setting.other_env?;
    Some(RawSetting { apply, ..RawSetting::new(setting, env(other)?, env_origin(other)) })
}

pub(super) fn env_origin(name: &str) -> String {
    format!("environment variable {name}")
}
