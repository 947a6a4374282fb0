//! Loads the configuration: merges the sources, and checks settings that depend on each other.

use std::ffi::OsString;
use std::path::{Path, PathBuf, absolute};

use super::error::{ConfigError, quoted};
use super::file;
use super::secret::Secret;
use super::secret_exposure;
use super::sources::{self, RawSetting};
use super::types::{Config, Run};
use super::values::{self, Invalid};
use crate::net::authorities;

impl Config {
    /// Reads and checks the configuration: flags, environment variables, and the files that they name.
    ///
    /// `args` are the words after `threadq serve`. `env` returns the value of an environment variable; an empty value counts
    /// as not set.
    ///
    /// ```
    /// use threadq::config::Config;
    ///
    /// let env = |name: &str| (name == "THREADQ_WORKERS").then(|| "8".to_owned());
    /// let config = Config::load(["--lease-timeout", "5s"], env)?;
    /// assert_eq!((config.workers, config.lease_timeout.as_secs()), (8, 5));
    ///
    /// let error = Config::load(["--workers", "1001"], env).unwrap_err().to_string();
    /// assert_eq!(error, r#"workers (flag --workers): "1001" is too large; allowed: a whole number from 0 to 1000"#);
    /// # Ok::<(), threadq::config::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The first flag, variable or key that is unknown or whose value is not allowed, or what [`Config::check`] refuses.
    pub fn load<A>(args: A, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError>
    where
        A: IntoIterator,
        A::Item: Into<OsString>,
    {
        let env = |name: &str| env(name).filter(|text| !text.is_empty());
        let flags = sources::flags(args)?;
        let mut config = Config { config_dir: absolute_folder(Path::new(".")), ..Config::default() };
        if let Some((path, named_by)) = config_file(flags.config, env) {
            let file = file::read(&path, &named_by)?;
            config.config_dir = absolute_folder(Path::new(&path).parent().unwrap_or(Path::new("/")));
            config.handlers = file.handlers;
            config.limits = file.limits;
            config.schedules = file.schedules;
            config.warnings.extend(secret_exposure::of_config_file(&path, &file.settings));
            config.apply(file.settings)?;
        }
        config.apply(sources::environment(env))?;
        config.warnings.extend(secret_exposure::of_flags(&flags.settings));
        config.apply(flags.settings)?;
        config.apply_ssl_cert_file(env)?;
        config.check()?;
        Ok(config)
    }

    /// Without `ca-file`, reads the authorities of the variable SSL_CERT_FILE. A server that uses no TLS ignores the variable,
    /// so that it starts even if the file cannot be read.
    fn apply_ssl_cert_file(&mut self, env: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        let has_https =
            self.handlers.iter().any(|handler| matches!(&handler.run, Some(Run::Http(url)) if is_https(url)));
        let is_needed = has_https || (self.redis_has_tls() && self.redis_ca.is_none());
        if let (None, true, Some(file)) = (&self.ca, is_needed, env(authorities::ENVIRONMENT)) {
            let origin = sources::env_origin(authorities::ENVIRONMENT);
            let read = values::ca_file(&file);
            self.ca = Some(read.map_err(|why| ConfigError::new("ca-file", &origin, &quoted(&file), why))?);
        }
        Ok(())
    }

    fn redis_has_tls(&self) -> bool {
        let is_tls =
            |url: &Secret| url.expose().get(..6).is_some_and(|start| start.eq_ignore_ascii_case("rediss"));
        self.redis_url.as_ref().is_some_and(is_tls)
    }

    /// Applies the settings of one source, over those of earlier sources.
    pub(super) fn apply(&mut self, source: Vec<RawSetting>) -> Result<(), ConfigError> {
        refuse_two_tokens(&source)?;
        for raw in source {
            self.warnings.extend(secret_exposure::of_named_file(&raw));
            (raw.apply)(self, &raw.text).map_err(|why| {
                let subject =
                    if raw.setting.is_secret() { "the value".to_owned() } else { quoted(&raw.text) };
                ConfigError::new(raw.setting.name, &raw.origin, &subject, why)
            })?;
        }
        Ok(())
    }

    /// Checks settings that depend on each other.
    ///
    /// # Errors
    /// Other machines can reach `listen`, but there is neither an `api_token` nor `insecure_no_token`; `redis_ca`,
    /// `redis_cert` or `redis_key` is set, but `redis_url` does not use TLS; `redis_cert` and `redis_key` are not a pair;
    /// `redis_replicas` is set without `redis_url`; or `worker_token` is set without `api_token`.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_redis_tls()?;
        if self.redis_replicas > 0 && self.redis_url.is_none() {
            let why = Invalid::new(
                "is set, but the private Redis has no replicas",
                "redis-replicas only beside a redis-url",
            );
            let value = self.redis_replicas.to_string();
            return Err(ConfigError::new("redis-replicas", "with the other settings", &value, why));
        }
        if self.worker_token.is_some() && self.api_token.is_none() {
            let why = Invalid::new(
                "is set, but without an api-token every request can do everything",
                "worker-token only beside an api-token",
            );
            return Err(ConfigError::new("worker-token", "with the other settings", "the value", why));
        }
        let is_local = self.listen.ip().to_canonical().is_loopback();
        if is_local || self.api_token.is_some() || self.insecure_no_token {
            return Ok(());
        }
        let why = Invalid::new(
            "can be reached from other machines, but no api-token is set",
            "a loopback address such as 127.0.0.1:8080, or an api-token, or --insecure-no-token",
        );
        Err(ConfigError::new("listen", "with the other settings", &self.listen.to_string(), why))
    }

    fn check_redis_tls(&self) -> Result<(), ConfigError> {
        let refused = |name, problem: String, allowed: &str| {
            let why = Invalid::new(problem, allowed);
            Err(ConfigError::new(name, "with the other settings", "the setting", why))
        };
        for (name, is_set) in [
            ("redis-ca-file", self.redis_ca.is_some()),
            ("redis-cert-file", self.redis_cert.is_some()),
            ("redis-key-file", self.redis_key.is_some()),
        ] {
            if is_set && !self.redis_has_tls() {
                let problem = "has a value, but redis-url does not use TLS".to_owned();
                return refused(
                    name,
                    problem,
                    &format!("{name} only beside a redis-url with TLS, such as rediss://"),
                );
            }
        }
        let alone = |name, other| {
            let problem = format!("has a value, but {other} has none");
            refused(name, problem, "both redis-cert-file and redis-key-file, or neither")
        };
        match (&self.redis_cert, &self.redis_key) {
            (None, None) => Ok(()),
            (Some(_), None) => alone("redis-cert-file", "redis-key-file"),
            (None, Some(_)) => alone("redis-key-file", "redis-cert-file"),
            (Some(certificate), Some(key)) => match certificate.check_key(key) {
                Ok(()) => Ok(()),
                Err(error) => {
                    refused("redis-key-file", format!("names a file that {error}"), values::KEY_FILE)
                }
            },
        }
    }
}

fn is_https(url: &str) -> bool {
    url.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"))
}

/// The path of the file, and the flag or variable that names it.
fn config_file(flag: Option<String>, env: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
    let variable = "THREADQ_CONFIG";
    let by_flag = flag.map(|path| (path, "flag --config".to_owned()));
    by_flag.or_else(|| Some((env(variable)?, sources::env_origin(variable))))
}

/// The folder as an absolute path, so that it is valid in a child with another working directory. Symbolic links are not
/// resolved: the folder of a linked file is the folder of the link.
fn absolute_folder(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    absolute(folder).unwrap_or_else(|_| folder.to_owned())
}

/// Reads the token in a file, as the setting `api-token-file` does.
///
/// # Errors
/// The file cannot be read or does not hold a valid token: a clause about the file, with what is allowed.
pub(crate) fn token_in_file(path: &str) -> Result<Secret, String> {
    values::token_file(path).map_err(|why| format!("{}; allowed: {}", why.problem, why.allowed))
}

/// Refuses a token and its file in one source, since neither obviously overrides the other.
fn refuse_two_tokens(source: &[RawSetting]) -> Result<(), ConfigError> {
    let origin = |name| source.iter().find(|raw| raw.setting.name == name).map(|raw| &raw.origin);
    for (token, file) in [("api-token", "api-token-file"), ("worker-token", "worker-token-file")] {
        if let (Some(_), Some(origin)) = (origin(token), origin(file)) {
            let why = Invalid::new(format!("is given beside {token}"), "one of the two");
            return Err(ConfigError::new(file, origin, "the setting", why));
        }
    }
    Ok(())
}
