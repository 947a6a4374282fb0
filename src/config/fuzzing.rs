//! Fuzzing of the configuration file: it gives settings within their ranges, or an error of one line.

use std::time::Duration;

use super::error::ConfigError;
use super::file;
use super::types::{Config, Run};
use crate::job::{is_job_type, is_queue_name};

/// Checks the bytes of a configuration file.
pub fn check(data: &[u8]) {
    // Bytes that are not UTF-8 are refused when the file is read.
    let Ok(text) = std::str::from_utf8(data) else { return };
    match read(text) {
        Ok(config) => check_limits(&config),
        Err(error) => check_error(&error.to_string()),
    }
}

/// As `Config::load`, for the text of a file.
fn read(text: &str) -> Result<Config, ConfigError> {
    let file = file::parse(text, "file \"threadq.toml\"")?;
    let mut config = Config { handlers: file.handlers, limits: file.limits, ..Config::default() };
    // Without the settings that would read other files of this machine.
    let settings = file.settings.into_iter().filter(|raw| !raw.setting.name.ends_with("-file"));
    config.apply(settings.collect())?;
    config.check()?;
    Ok(config)
}

fn check_error(line: &str) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(line.contains("; allowed: "), "{line:?}");
    assert!(line.len() < 2000, "{line:?}");
}

fn check_limits(config: &Config) {
    let day = Duration::from_secs(24 * 3600);
    assert!((0..=1000).contains(&config.workers));
    assert!((1..=32_768).contains(&config.max_waiting));
    assert!((1..=16).contains(&config.fetchers));
    assert!(config.redis_replicas <= 5);
    assert!((1..=65_536).contains(&config.max_connections));
    assert!((1 << 10..=64 << 20).contains(&config.max_body));
    assert!((1..=100).contains(&config.max_crashes));
    assert!(config.max_queue_length >= 1);
    assert!(config.lease_timeout >= Duration::from_secs(1));
    assert!(is_queue_name(&config.namespace));
    assert!(!config.queues.is_empty());
    for share in &config.queues {
        assert!(is_queue_name(&share.name) && (1..=100).contains(&share.weight), "{share:?}");
    }
    for handler in &config.handlers {
        assert!(is_job_type(&handler.job_type), "{handler:?}");
        assert!((Duration::from_millis(1)..=day).contains(&handler.policy.timeout), "{handler:?}");
        assert!((1..=100).contains(&handler.policy.max_attempts), "{handler:?}");
        assert!(handler.all_limits().len() <= 4, "{handler:?}");
        assert!(handler.policy.backoff.base <= handler.policy.backoff.cap, "{handler:?}");
        if let Some(Run::Exec(words)) = &handler.run {
            assert!(words.first().is_some_and(|program| !program.is_empty()), "{handler:?}");
        }
    }
    for (limit, numbers) in config.defined_limits() {
        assert!(is_queue_name(limit.name()), "{limit}");
        assert!(numbers.concurrency.is_some() || numbers.rate.is_some(), "{limit}: {numbers}");
        assert!((1..=1_000_000).contains(&numbers.burst), "{limit}: {numbers}");
    }
    let is_open = !config.listen.ip().to_canonical().is_loopback();
    assert!(!is_open || config.api_token.is_some() || config.insecure_no_token, "{config:?}");
}
