//! Warns of secrets that other users of the machine can read. The server works with them, so they are not refused.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::secret::Secret;
use super::settings::Secrecy;
use super::sources::RawSetting;

/// Warnings about secrets among the flags: `ps` shows them to every user of the machine while the server runs.
pub(super) fn of_flags(flags: &[RawSetting]) -> Vec<String> {
    let secret = flags.iter().filter(|raw| holds_secret(raw));
    let warning = |raw: &RawSetting| {
        let file = match raw.setting.name {
            "api-token" => "api-token-file",
            "worker-token" => "worker-token-file",
            _ => "the configuration file",
        };
        format!(
            "{} ({}): every user of this machine can see it in the list of processes; better give it in the \
             environment ({}) or by {file}",
            raw.setting.name,
            raw.origin,
            raw.setting.env_name()
        )
    };
    secret.map(warning).collect()
}

/// A warning about a configuration file that holds secrets, if other users can read it.
pub(super) fn of_config_file(path: &str, settings: &[RawSetting]) -> Option<String> {
    let secret = settings.iter().find(|raw| holds_secret(raw))?;
    of_file(secret.setting.name, path)
}

/// A warning about the file that a setting names, if the file holds a secret and other users can read it.
pub(super) fn of_named_file(raw: &RawSetting) -> Option<String> {
    let names_secret = raw.setting.secrecy == Secrecy::NamesSecretFile;
    if names_secret { of_file(raw.setting.name, &raw.text) } else { None }
}

fn of_file(setting: &str, path: &str) -> Option<String> {
    let mode = Path::new(path).metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then(|| {
        format!(
            "{setting}: other users can read the file {path:?} (mode {mode:04o}); run: chmod 600 {path:?}"
        )
    })
}

/// Whether the value is a secret, or a URL that contains one.
fn holds_secret(raw: &RawSetting) -> bool {
    raw.setting.is_secret()
        && (!raw.text.contains("://") || Secret::new(raw.text.as_str()).redacted() != raw.text)
}
