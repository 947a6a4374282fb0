//! Secrets in places where others can read them. They work, so they are warned of, not refused.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Secret;
use super::sources::Given;

/// Of secrets among the flags: for as long as the program runs, `ps` shows them to every user of the machine.
pub(super) fn of_flags(flags: &[Given]) -> Vec<String> {
    let secret = flags.iter().filter(|given| holds_secret(given));
    let warning = |given: &Given| {
        let file =
            if given.setting.name == "api-token" { "api-token-file" } else { "the configuration file" };
        format!(
            "{} ({}): every user of this machine can see it in the list of processes; better give it in the \
             environment ({}) or by {file}",
            given.setting.name,
            given.origin,
            given.setting.env_name()
        )
    };
    secret.map(warning).collect()
}

/// Of a configuration file that holds secrets and can be read by others.
pub(super) fn of_config_file(path: &str, given: &[Given]) -> Option<String> {
    let secret = given.iter().find(|given| holds_secret(given))?;
    of_file(secret.setting.name, path)
}

/// Of a file with a secret that can be read by others.
pub(super) fn of_file(setting: &str, path: &str) -> Option<String> {
    let mode = Path::new(path).metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then(|| {
        format!(
            "{setting} (file {path:?}): other users can read it, its mode is {mode:04o}; better: chmod 600"
        )
    })
}

/// Whether the value is secret, or a URL with something secret in it.
fn holds_secret(given: &Given) -> bool {
    given.setting.is_secret
        && (!given.text.contains("://") || Secret::new(given.text.as_str()).redacted() != given.text)
}
