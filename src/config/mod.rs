//! The configuration of a server: flags, environment variables and a TOML file, checked and merged into one [`Config`].
//!
//! `settings` is the only list of settings; each setting has one reader, whatever source its text comes from. A flag
//! overrides an environment variable, which overrides the file, which overrides the default. All values are checked, even
//! those that another source overrides. This module starts nothing and knows neither Redis nor HTTP.
//!
//! `docs/configuration.md` describes all settings, and the handlers, limits and schedules of the file.

mod error;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod limits;
mod load;
// The feature `tls` adds schemes to the URLs that are allowed.
#[cfg(test)]
#[cfg(feature = "tls")]
mod reference;
mod schedules;
mod secret;
mod secret_exposure;
mod section;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod types;
mod values;

pub use self::error::ConfigError;
pub(crate) use self::load::token_in_file;
pub use self::secret::Secret;
pub(crate) use self::settings::{help_settings, setting_flags};
pub use self::types::{Config, Fsync, HandlerEntry, QueueShare, Run, ScheduleEntry};
pub use crate::net::authorities::Authorities;
pub use crate::net::certificates::{ClientCertificate, ClientKey};
pub use crate::net::pem::InvalidPem;
pub use crate::schedule::Spec as ScheduleSpec;
