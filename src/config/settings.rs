//! The only list of settings: name, default, help, and how a text becomes the value.
//!
//! Flags, environment, file, help and `docs/configuration.md` are all made from this list. To add a setting, add a field to
//! [`Config`] and an entry here.

use std::time::Duration;

use log::LevelFilter;

use super::types::{Config, Fsync};
use super::values::{self, Invalid, MAX_COUNT, MAX_DURATION, size_text};
use crate::job::duration::to_text;
use crate::logging::LogFormat;

/// Reads a text and puts its value into the configuration.
pub(super) type Apply = fn(&mut Config, &str) -> Result<(), Invalid>;

/// A setting of `threadq serve`.
pub(super) struct Setting {
    /// The name of the flag (after `--`), and the key in the file.
    pub name: &'static str,
    /// The placeholder for its value in the help; empty for a switch.
    pub value: &'static str,
    pub help: &'static str,
    pub apply: Apply,
    /// The text of its value in a configuration; `None` for a setting without a default.
    text_in: Option<fn(&Config) -> String>,
    /// An environment variable that is read if the setting's own variable is not set, and how its text is read.
    pub other_env: Option<(&'static str, Apply)>,
    pub secrecy: Secrecy,
}

/// Whether a setting has to do with a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// It has not.
    Public,
    /// Its value may hold a secret, so no error shows the value.
    Secret,
    /// Its value is the path of a file that holds a secret.
    NamesSecretFile,
}

impl Setting {
    const fn new(name: &'static str, value: &'static str, help: &'static str, apply: Apply) -> Setting {
        Setting { name, value, help, apply, text_in: None, other_env: None, secrecy: Secrecy::Public }
    }

    const fn default(self, text_in: fn(&Config) -> String) -> Setting {
        Setting { text_in: Some(text_in), ..self }
    }

    const fn or_env(self, name: &'static str, apply: Apply) -> Setting {
        Setting { other_env: Some((name, apply)), ..self }
    }

    const fn secrecy(self, secrecy: Secrecy) -> Setting {
        Setting { secrecy, ..self }
    }

    /// Whether the setting is true or false, and true if its flag has no value.
    pub fn is_switch(&self) -> bool {
        self.value.is_empty()
    }

    /// Whether its value may hold a secret.
    pub fn is_secret(&self) -> bool {
        self.secrecy == Secrecy::Secret
    }

    /// The name of its environment variable.
    pub fn env_name(&self) -> String {
        format!("THREADQ_{}", self.name.replace('-', "_").to_ascii_uppercase())
    }

    /// The text of its default, if it has one.
    pub fn default_text(&self) -> Option<String> {
        self.text_in.map(|text_in| text_in(&Config::default()))
    }
}

/// The setting with this name.
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

fn put<T>(field: &mut T, value: Result<T, Invalid>) -> Result<(), Invalid> {
    *field = value?;
    Ok(())
}

/// The help of the flag `--config`, which is not a setting: it names the file.
const CONFIG_HELP: &str = "TOML file with any of these settings, and handlers";

/// Any duration, also zero.
fn any_duration(text: &str) -> Result<Duration, Invalid> {
    values::duration(text, Duration::ZERO..=MAX_DURATION)
}

const FSYNC: [(&str, Fsync); 2] = [("everysec", Fsync::EverySec), ("always", Fsync::Always)];
const LOG_FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LOG_LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// The word for a value, as [`values::choice`] reads it.
fn word_for<T: PartialEq>(value: &T, words: &[(&str, T)]) -> String {
    words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word).to_owned()
}

fn queues_text(config: &Config) -> String {
    let entry = |queue: &super::types::QueueShare| match queue.weight {
        _ if queue.strict => format!("{}!", queue.name),
        1 => queue.name.clone(),
        weight => format!("{}={weight}", queue.name),
    };
    config.queues.iter().map(entry).collect::<Vec<_>>().join(",")
}

/// All settings, in the order of the help.
pub(super) static SETTINGS: &[Setting] = &[
    Setting::new(
        "listen",
        "ADDR:PORT",
        "address and port for HTTP requests; port 0 takes a free port (also: PORT)",
        |config, text| put(&mut config.listen, values::address(text)),
    )
    .default(|config| config.listen.to_string())
    .or_env("PORT", |config, text| put(&mut config.listen, values::local_port(text))),
    Setting::new(
        "redis-url",
        "URL",
        "URL of Redis, of Sentinels or of a Cluster; without it a private Redis is started (also: REDIS_URL)",
        set_redis_url,
    )
    .or_env("REDIS_URL", set_redis_url)
    .secrecy(Secrecy::Secret),
    Setting::new(
        "ca-file",
        "FILE",
        "authorities (PEM) for all TLS connections, in place of the public ones (also: SSL_CERT_FILE)",
        |config, text| put(&mut config.ca, values::ca_file(text).map(Some)),
    ),
    Setting::new(
        "redis-ca-file",
        "FILE",
        "authorities (PEM) for a redis-url with TLS, in place of ca-file",
        |config, text| put(&mut config.redis_ca, values::ca_file(text).map(Some)),
    ),
    Setting::new(
        "redis-cert-file",
        "FILE",
        "certificate (PEM) of this program, for a Redis that asks its clients for one",
        |config, text| put(&mut config.redis_cert, values::cert_file(text).map(Some)),
    ),
    Setting::new("redis-key-file", "FILE", "private key (PEM) of redis-cert-file", |config, text| {
        put(&mut config.redis_key, values::key_file(text).map(Some))
    })
    .secrecy(Secrecy::NamesSecretFile),
    Setting::new(
        "redis-replicas",
        "N",
        "replicas of Redis that must have a job before it is acknowledged, 0 to 5",
        |config, text| put(&mut config.redis_replicas, values::number(text, 0..=5)),
    )
    .default(|config| config.redis_replicas.to_string()),
    Setting::new("data-dir", "DIR", "folder for the data of the private Redis", |config, text| {
        put(&mut config.data_dir, values::path(text))
    })
    .default(|config| config.data_dir.display().to_string()),
    Setting::new(
        "fsync",
        "everysec|always",
        "how often the private Redis flushes its writes to the disk",
        |config, text| put(&mut config.fsync, values::choice(text, &FSYNC)),
    )
    .default(|config| word_for(&config.fsync, &FSYNC)),
    Setting::new("namespace", "NAME", "prefix of all keys in Redis", |config, text| {
        put(&mut config.namespace, values::namespace(text))
    })
    .default(|config| config.namespace.clone()),
    Setting::new(
        "queues",
        "NAME[=WEIGHT],...",
        "queues to take jobs from, and their shares of the workers; NAME! comes first",
        |config, text| put(&mut config.queues, values::queues(text)),
    )
    .default(queues_text),
    Setting::new("workers", "N", "threads that run jobs, 0 to 1000; with 0 none run here", |config, text| {
        put(&mut config.workers, values::number(text, 0..=1000))
    })
    .default(|config| config.workers.to_string()),
    Setting::new(
        "fetchers",
        "N",
        "threads per queue that take jobs, 1 to 16; only with 1 do jobs start strictly in order",
        |config, text| put(&mut config.fetchers, values::number(text, 1..=16)),
    )
    .default(|config| config.fetchers.to_string()),
    Setting::new(
        "drain-timeout",
        "DURATION",
        "time that running jobs may take to end when the server stops",
        |config, text| put(&mut config.drain_timeout, any_duration(text)),
    )
    .default(|config| to_text(config.drain_timeout)),
    Setting::new(
        "lease-timeout",
        "DURATION",
        "time without a heartbeat after which a server's jobs are reclaimed, at least 1s",
        |config, text| {
            put(&mut config.lease_timeout, values::duration(text, Duration::from_secs(1)..=MAX_DURATION))
        },
    )
    .default(|config| to_text(config.lease_timeout)),
    Setting::new(
        "max-connections",
        "N",
        "largest number of open HTTP connections, 1 to 65536",
        |config, text| put(&mut config.max_connections, values::number(text, 1..=65_536)),
    )
    .default(|config| config.max_connections.to_string()),
    Setting::new(
        "max-waiting",
        "N",
        "largest number of HTTP requests that wait at a time, 1 to 32768",
        |config, text| put(&mut config.max_waiting, values::number(text, 1..=32_768)),
    )
    .default(|config| config.max_waiting.to_string()),
    Setting::new("max-body", "SIZE", "largest request body, 1KiB to 64MiB", |config, text| {
        put(&mut config.max_body, values::size(text, 1 << 10..=64 << 20))
    })
    .default(|config| size_text(config.max_body as u64)),
    Setting::new(
        "max-queue-length",
        "N",
        "number of queued jobs at which a queue refuses more",
        |config, text| put(&mut config.max_queue_length, values::number(text, 1..=MAX_COUNT)),
    )
    .default(|config| config.max_queue_length.to_string()),
    Setting::new(
        "retain-completed",
        "DURATION",
        "how long completed and cancelled jobs are kept",
        |config, text| put(&mut config.retain_completed, any_duration(text)),
    )
    .default(|config| to_text(config.retain_completed)),
    Setting::new(
        "retain-completed-max",
        "N",
        "how many completed and cancelled jobs are kept",
        |config, text| put(&mut config.retain_completed_max, values::number(text, 0..=MAX_COUNT)),
    )
    .default(|config| config.retain_completed_max.to_string()),
    Setting::new("retain-failed", "DURATION", "how long failed jobs are kept", |config, text| {
        put(&mut config.retain_failed, any_duration(text))
    })
    .default(|config| to_text(config.retain_failed)),
    Setting::new("retain-failed-max", "N", "how many failed jobs are kept", |config, text| {
        put(&mut config.retain_failed_max, values::number(text, 0..=MAX_COUNT))
    })
    .default(|config| config.retain_failed_max.to_string()),
    Setting::new(
        "max-crashes",
        "N",
        "server crashes that a job may cause before it goes to the dead letter queue, 1 to 100",
        |config, text| put(&mut config.max_crashes, values::number(text, 1..=100)),
    )
    .default(|config| config.max_crashes.to_string()),
    Setting::new(
        "inline-backoff",
        "DURATION",
        "longest backoff that a worker waits out itself; with 0 every job waits in Redis",
        |config, text| put(&mut config.inline_backoff, any_duration(text)),
    )
    .default(|config| to_text(config.inline_backoff)),
    Setting::new(
        "api-token",
        "TOKEN",
        "bearer token that requests must have; better set it by environment or file",
        |config, text| put(&mut config.api_token, values::token(text).map(Some)),
    )
    .secrecy(Secrecy::Secret),
    Setting::new("api-token-file", "FILE", "file that holds the api-token", |config, text| {
        put(&mut config.api_token, values::token_file(text).map(Some))
    })
    .secrecy(Secrecy::NamesSecretFile),
    Setting::new(
        "worker-token",
        "TOKEN",
        "bearer token with which pull workers can take and settle jobs, and nothing else",
        |config, text| put(&mut config.worker_token, values::token(text).map(Some)),
    )
    .secrecy(Secrecy::Secret),
    Setting::new("worker-token-file", "FILE", "file that holds the worker-token", |config, text| {
        put(&mut config.worker_token, values::token_file(text).map(Some))
    })
    .secrecy(Secrecy::NamesSecretFile),
    Setting::new(
        "insecure-no-token",
        "",
        "accept requests from other machines, and for any Host, without a token",
        |config, text| put(&mut config.insecure_no_token, values::boolean(text)),
    )
    .default(|config| config.insecure_no_token.to_string()),
    Setting::new("log-format", "text|json", "format of the log lines on stderr", |config, text| {
        put(&mut config.log_format, values::choice(text, &LOG_FORMATS))
    })
    .default(|config| word_for(&config.log_format, &LOG_FORMATS)),
    Setting::new(
        "log-level",
        "LEVEL",
        "lowest level that is logged: off, error, warn, info, debug or trace",
        |config, text| put(&mut config.log_level, values::choice(text, &LOG_LEVELS)),
    )
    .default(|config| word_for(&config.log_level, &LOG_LEVELS)),
    Setting::new("demo", "", "add the handlers echo, sleep, fail, panic, exit, hang", |config, text| {
        put(&mut config.demo, values::boolean(text))
    })
    .default(|config| config.demo.to_string()),
];

fn set_redis_url(config: &mut Config, text: &str) -> Result<(), Invalid> {
    put(&mut config.redis_url, values::redis_url(text).map(Some))
}

/// The flags of `threadq serve`: name, placeholder for its value (empty for a switch), and help of each.
pub(crate) fn setting_flags() -> impl Iterator<Item = [&'static str; 3]> {
    let config_file = ["config", "FILE", CONFIG_HELP];
    let settings = SETTINGS.iter().map(|setting| [setting.name, setting.value, setting.help]);
    std::iter::once(config_file).chain(settings)
}

/// The table of settings for `threadq serve --help`: one line per flag, with its default.
pub(crate) fn help_settings() -> String {
    let config_file = ("--config FILE".to_owned(), CONFIG_HELP.to_owned());
    let rows: Vec<(String, String)> =
        std::iter::once(config_file).chain(SETTINGS.iter().map(help_row)).collect();
    let width = rows.iter().map(|(flag, _)| flag.len()).max().unwrap_or_default();
    rows.iter().map(|(flag, help)| format!("  {flag:width$}  {help}\n")).collect()
}

fn help_row(setting: &Setting) -> (String, String) {
    let flag = format!("--{} {}", setting.name, setting.value);
    let default = setting.default_text().filter(|_| !setting.is_switch());
    let default = default.map_or(String::new(), |text| format!(" [{text}]"));
    (flag.trim_end().to_owned(), format!("{}{default}", setting.help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_each_default_is_read_as_the_default() {
        // No field has its default here, so that a setting that changes no field would be noticed.
        let mut config = Config {
            listen: ([1, 2, 3, 4], 5).into(),
            data_dir: "elsewhere".into(),
            redis_replicas: 9,
            fsync: Fsync::Always,
            namespace: String::new(),
            queues: Vec::new(),
            workers: 1,
            fetchers: 0,
            drain_timeout: Duration::MAX,
            lease_timeout: Duration::MAX,
            max_connections: 0,
            max_waiting: 0,
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
        for setting in SETTINGS {
            if let Some(text) = setting.default_text() {
                (setting.apply)(&mut config, &text).unwrap();
            }
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
    fn the_texts_of_queues_and_words_are_read_as_their_values() {
        let mut config = Config::default();
        for (name, texts) in [
            ("queues", vec!["a=3,b,c-1=100", "b=2,a!,c!"]),
            ("fsync", vec!["everysec", "always"]),
            ("log-format", vec!["text", "json"]),
            ("log-level", vec!["off", "error", "warn", "info", "debug", "trace"]),
        ] {
            let setting = find(name).unwrap();
            for text in texts {
                (setting.apply)(&mut config, text).unwrap();
                assert_eq!(setting.text_in.unwrap()(&config), text);
            }
        }
    }

    #[test]
    fn a_range_in_a_help_text_is_the_one_that_is_checked() {
        for setting in SETTINGS {
            let words: Vec<&str> = setting.help.split([' ', ',', ';']).collect();
            for range in
                words.windows(3).filter(|words| words[1] == "to" && words[0].starts_with(char::is_numeric))
            {
                let range = range.join(" ");
                let error = (setting.apply)(&mut Config::default(), "\0").unwrap_err();
                assert!(error.allowed.contains(&range), "{}: {range}, but {}", setting.name, error.allowed);
            }
        }
        assert!(help_settings().contains("1KiB to 64MiB"));
    }

    #[test]
    fn names_are_distinct() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            assert!(SETTINGS[..index].iter().all(|other| other.name != setting.name), "{}", setting.name);
        }
    }
}
