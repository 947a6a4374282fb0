//! Settings as flags and environment variables give them: name, text and origin, not yet read.

use std::ffi::OsString;

use lexopt::{Arg, Parser};

use super::ConfigError;
use super::settings::{self, SETTINGS, Set, Setting};
use super::values::Invalid;

/// A setting's text, and where it was found.
pub(super) struct Given {
    pub setting: &'static Setting,
    pub set: Set,
    pub text: String,
    pub origin: String,
}

impl Given {
    pub fn new(setting: &'static Setting, text: String, origin: String) -> Given {
        Given { setting, set: setting.set, text, origin }
    }
}

/// What the command line says.
#[derive(Default)]
pub(super) struct Flags {
    /// The value of `--config`.
    pub config: Option<String>,
    /// In the order of the command line; a later one of the same name wins.
    pub given: Vec<Given>,
}

/// Takes the command line apart.
///
/// # Errors
/// An unknown flag, one without its value, a word that is no flag, or bytes that are no UTF-8.
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
        flags.given.push(Given::new(setting, text, flag_origin(&name)));
    }
    Ok(flags)
}

fn next_flag(parser: &mut Parser) -> Result<Option<String>, ConfigError> {
    // The only error that `next` knows is a value left over from a flag before, and each flag takes its value.
    match parser.next().map_err(|_| stray_word())? {
        None => Ok(None),
        Some(Arg::Long(name)) => Ok(Some(name.to_owned())),
        Some(Arg::Short(letter)) => Err(unknown_flag(&format!("-{letter}"))),
        Some(Arg::Value(_)) => Err(stray_word()),
    }
}

/// The value after `=`, or the next word unless it looks like a flag.
fn flag_value(parser: &mut Parser, name: &str) -> Result<String, ConfigError> {
    if let Some(value) = parser.optional_value() {
        return utf8(value, name);
    }
    let no_value = || flag_error(name, "it", "has no value", &format!("--{name} VALUE or --{name}=VALUE"));
    let value = utf8(parser.value().map_err(|_| no_value())?, name)?;
    if value.starts_with("--") { Err(no_value()) } else { Ok(value) }
}

fn switch_value(parser: &mut Parser, name: &str) -> Result<String, ConfigError> {
    parser.optional_value().map_or_else(|| Ok("true".to_owned()), |value| utf8(value, name))
}

fn utf8(value: OsString, name: &str) -> Result<String, ConfigError> {
    value.into_string().map_err(|_| flag_error(name, "the value", "is no UTF-8", "text in UTF-8"))
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
    ConfigError::new(flag, "command line", "it", Invalid::new("is no flag of this command", allowed))
}

/// The word itself may be a secret that lost its flag.
fn stray_word() -> ConfigError {
    let why = Invalid::new(
        "has a word that belongs to no flag",
        "--NAME VALUE, --NAME=VALUE, --demo, --insecure-no-token",
    );
    ConfigError::new("arguments", "command line", "it", why)
}

/// What the environment says; an empty variable is one that is not set.
pub(super) fn environment(env: impl Fn(&str) -> Option<String>) -> Vec<Given> {
    SETTINGS.iter().filter_map(|setting| from_environment(setting, &env)).collect()
}

fn from_environment(setting: &'static Setting, env: impl Fn(&str) -> Option<String>) -> Option<Given> {
    let own = setting.env_name();
    if let Some(text) = env(&own) {
        return Some(Given::new(setting, text, env_origin(&own)));
    }
    let (other, set) = setting.other_env?;
    Some(Given { set, ..Given::new(setting, env(other)?, env_origin(other)) })
}

pub(super) fn env_origin(name: &str) -> String {
    format!("environment variable {name}")
}
