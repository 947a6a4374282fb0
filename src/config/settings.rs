//! The one list of settings: name, default, help, and how a text becomes its value.
//!
//! Flags, environment, file and help are all made from it. A new setting is a field of [`Config`] and an entry here.

use std::time::Duration;

use log::LevelFilter;

use super::values::{self, Invalid, MAX_COUNT, MAX_DURATION};
use super::{Config, Fsync, exposure};
use crate::logging::LogFormat;

/// Puts the value of a text into the configuration.
pub(super) type Set = fn(&mut Config, &str) -> Result<(), Invalid>;

/// A setting of `serve`.
pub(super) struct Setting {
    /// As a flag (after `--`) and as a key of the file.
    pub name: &'static str,
    /// What stands for its value in the help; empty for a switch.
    pub value: &'static str,
    /// Its default as a text; empty if it has none.
    pub default: &'static str,
    help: &'static str,
    pub set: Set,
    /// Another environment variable that is read if its own is not set, and how.
    pub other_env: Option<(&'static str, Set)>,
    /// Whether no error may show its value.
    pub is_secret: bool,
}

impl Setting {
    const fn new(
        name: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
        set: Set,
    ) -> Setting {
        Setting { name, value, default, help, set, other_env: None, is_secret: false }
    }

    const fn or_env(self, name: &'static str, set: Set) -> Setting {
        Setting { other_env: Some((name, set)), ..self }
    }

    const fn secret(self) -> Setting {
        Setting { is_secret: true, ..self }
    }

    /// Whether it is on or off, and on when its flag has no value.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Its environment variable.
    pub fn env_name(&self) -> String {
        format!("THREADQ_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }
}

/// The setting of this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn put<T>(field: &mut T, value: Result<T, Invalid>) -> Result<(), Invalid> {
    *field = value?;
    Ok(())
}

/// What the flag is for that names the file.
const CONFIG_HELP: &str = "a TOML file with any of these settings, and handlers";

/// Any duration, from none at all.
fn any_duration(text: &str) -> Result<Duration, Invalid> {
    values::duration(text, Duration::ZERO..=MAX_DURATION)
}

/// All settings, in the order of the help.
pub(super) static SETTINGS: &[Setting] = &[
    Setting::new(
        "listen",
        "ADDR:PORT",
        "127.0.0.1:8080",
        "where HTTP requests are taken; port 0 is a free one (also: PORT)",
        |config, text| put(&mut config.listen, values::address(text)),
    )
    .or_env("PORT", |config, text| put(&mut config.listen, values::local_port(text))),
    Setting::new(
        "redis-url",
        "URL",
        "",
        "the Redis to use, redis(s):// or unix://; without it a private one is started (also: REDIS_URL)",
        set_redis_url,
    )
    .or_env("REDIS_URL", set_redis_url)
    .secret(),
    Setting::new(
        "ca-file",
        "FILE",
        "",
        "authorities (PEM) for every TLS connection, in place of those of the web (also: SSL_CERT_FILE)",
        |config, text| put(&mut config.ca, values::ca_file(text).map(Some)),
    ),
    Setting::new("redis-ca-file", "FILE", "", "the same for rediss:// alone", |config, text| {
        put(&mut config.redis_ca, values::ca_file(text).map(Some))
    }),
    Setting::new(
        "data-dir",
        "DIR",
        "./threadq-data",
        "where the private Redis keeps its data",
        |config, text| put(&mut config.data_dir, values::path(text)),
    ),
    Setting::new(
        "fsync",
        "everysec|always",
        "everysec",
        "how often the private Redis writes through to the disk",
        |config, text| {
            let words = [("everysec", Fsync::EverySec), ("always", Fsync::Always)];
            put(&mut config.fsync, values::choice(text, &words))
        },
    ),
    Setting::new("namespace", "NAME", "threadq", "what the keys in Redis start with", |config, text| {
        put(&mut config.namespace, values::namespace(text))
    }),
    Setting::new(
        "queues",
        "NAME[=WEIGHT],...",
        "default",
        "which queues to take jobs from, and their shares of the workers",
        |config, text| put(&mut config.queues, values::queues(text)),
    ),
    Setting::new("workers", "N", "30", "threads that run jobs, 1 to 1000", |config, text| {
        put(&mut config.workers, values::number(text, 1..=1000))
    }),
    Setting::new(
        "fetchers",
        "N",
        "1",
        "threads that take jobs, for each queue, 1 to 16; with 1 jobs of a queue start in order",
        |config, text| put(&mut config.fetchers, values::number(text, 1..=16)),
    ),
    Setting::new(
        "drain-timeout",
        "DURATION",
        "25s",
        "how long running jobs may take to end when the server stops",
        |config, text| put(&mut config.drain_timeout, any_duration(text)),
    ),
    Setting::new(
        "lease-timeout",
        "DURATION",
        "15s",
        "how long a server may be silent until its jobs are taken over, at least 1s",
        |config, text| {
            let range = Duration::from_secs(1)..=MAX_DURATION;
            put(&mut config.lease_timeout, values::duration(text, range))
        },
    ),
    Setting::new("max-connections", "N", "512", "open HTTP connections, 1 to 65536", |config, text| {
        put(&mut config.max_connections, values::number(text, 1..=65_536))
    }),
    Setting::new("max-body", "SIZE", "1MiB", "the largest request body, 1KiB to 64MiB", |config, text| {
        put(&mut config.max_body, values::size(text, 1 << 10..=64 << 20))
    }),
    Setting::new(
        "max-queue-length",
        "N",
        "1000000",
        "queued jobs from which on a queue takes no more",
        |config, text| put(&mut config.max_queue_length, values::number(text, 1..=MAX_COUNT)),
    ),
    Setting::new(
        "retain-completed",
        "DURATION",
        "24h",
        "how long completed jobs are kept",
        |config, text| put(&mut config.retain_completed, any_duration(text)),
    ),
    Setting::new(
        "retain-completed-max",
        "N",
        "100000",
        "how many completed jobs are kept",
        |config, text| put(&mut config.retain_completed_max, values::number(text, 0..=MAX_COUNT)),
    ),
    Setting::new("retain-failed", "DURATION", "90d", "how long failed jobs are kept", |config, text| {
        put(&mut config.retain_failed, any_duration(text))
    }),
    Setting::new("retain-failed-max", "N", "100000", "how many failed jobs are kept", |config, text| {
        put(&mut config.retain_failed_max, values::number(text, 0..=MAX_COUNT))
    }),
    Setting::new(
        "max-crashes",
        "N",
        "3",
        "servers that a job may bring down before it is a dead letter, 1 to 100",
        |config, text| put(&mut config.max_crashes, values::number(text, 1..=100)),
    ),
    Setting::new(
        "inline-backoff",
        "DURATION",
        "200ms",
        "the longest wait before a retry that is slept on the worker; 0 parks all in Redis",
        |config, text| put(&mut config.inline_backoff, any_duration(text)),
    ),
    Setting::new(
        "api-token",
        "TOKEN",
        "",
        "what requests must carry as a bearer token; better given by environment or file",
        |config, text| put(&mut config.api_token, values::token(text).map(Some)),
    )
    .secret(),
    Setting::new("api-token-file", "FILE", "", "a file that holds the api-token", |config, text| {
        config.warnings.extend(exposure::of_file("api-token-file", text));
        put(&mut config.api_token, values::token_file(text).map(Some))
    }),
    Setting::new(
        "insecure-no-token",
        "",
        "false",
        "take requests from other machines, and for any Host, without a token",
        |config, text| put(&mut config.insecure_no_token, values::boolean(text)),
    ),
    Setting::new("log-format", "text|json", "text", "how log lines on stderr look", |config, text| {
        let words = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        put(&mut config.log_format, values::choice(text, &words))
    }),
    Setting::new("log-level", "LEVEL", "info", "off, error, warn, info, debug or trace", |config, text| {
        let words = [
            ("off", LevelFilter::Off),
            ("error", LevelFilter::Error),
            ("warn", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ];
        put(&mut config.log_level, values::choice(text, &words))
    }),
    Setting::new(
        "demo",
        "",
        "false",
        "add the handlers echo, sleep, fail, panic, exit, hang",
        |config, text| put(&mut config.demo, values::boolean(text)),
    ),
];

fn set_redis_url(config: &mut Config, text: &str) -> Result<(), Invalid> {
    put(&mut config.redis_url, values::redis_url(text).map(Some))
}

/// The flags of `threadq serve`: the name, what stands for its value (empty for a switch), and the help of each.
pub fn setting_flags() -> impl Iterator<Item = [&'static str; 3]> {
    let config_file = ["config", "FILE", CONFIG_HELP];
    let settings = SETTINGS.iter().map(|setting| [setting.name, setting.value, setting.help]);
    std::iter::once(config_file).chain(settings)
}

/// The table of settings for `threadq serve --help`: a line per flag, with its default.
pub fn help_settings() -> String {
    let config_file = ("--config FILE".to_owned(), CONFIG_HELP.to_owned());
    let rows: Vec<(String, String)> =
        std::iter::once(config_file).chain(SETTINGS.iter().map(help_row)).collect();
    let width = rows.iter().map(|(flag, _)| flag.len()).max().unwrap_or_default();
    rows.iter().map(|(flag, help)| format!("  {flag:width$}  {help}\n")).collect()
}

fn help_row(setting: &Setting) -> (String, String) {
    let flag = format!("--{} {}", setting.name, setting.value);
    let has_default = !setting.default.is_empty() && !setting.is_switch();
    let default = if has_default { format!(" [{}]", setting.default) } else { String::new() };
    (flag.trim_end().to_owned(), format!("{}{default}", setting.help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_list_are_those_of_the_configuration() {
        // Start from other values, so that a default that is not set would show.
        let mut config = Config {
            listen: ([1, 2, 3, 4], 5).into(),
            data_dir: "elsewhere".into(),
            fsync: Fsync::Always,
            namespace: String::new(),
            queues: Vec::new(),
            workers: 0,
            fetchers: 0,
            drain_timeout: Duration::MAX,
            lease_timeout: Duration::MAX,
            max_connections: 0,
            max_body: 0,
            max_queue_length: 0,
            retain_completed: Duration::MAX,
            retain_completed_max: 0,
            retain_failed: Duration::MAX,
            retain_failed_max: 0,
            max_crashes: 0,
            inline_backoff: Duration::MAX,
            insecure_no_token: true,
            log_format: LogFormat::Json,
            log_level: LevelFilter::Off,
            demo: true,
            ..Config::default()
        };
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            (setting.set)(&mut config, setting.default).unwrap();
        }
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn every_setting_is_in_the_help_with_its_default() {
        let help = help_settings();
        for setting in SETTINGS {
            let line =
                help.lines().find(|line| line.trim_start().starts_with(&format!("--{}", setting.name)));
            assert!(line.unwrap().contains(setting.help));
        }
        assert!(help.contains("[127.0.0.1:8080]"));
        assert!(help.contains("  --config FILE "));
        assert!(help.lines().all(|line| line.len() <= 130), "{help}");
    }

    #[test]
    fn names_are_distinct() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
