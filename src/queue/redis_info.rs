//! What Redis says of itself: the reply to INFO.

use super::Queue;
use super::error::Error;

/// Product, version and role of a Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisInfo {
    /// `Redis` or `Valkey`.
    pub product: &'static str,
    /// `unknown` if the user of Redis may not run INFO.
    pub version: String,
    /// The first two numbers of the version; zeros if it is unknown.
    pub major_minor: (u32, u32),
    /// `standalone`, `cluster`, `sentinel` or `unknown`.
    pub mode: String,
    /// Whether this Redis is a replica; `false` if that is unknown.
    pub is_replica: bool,
    /// What Redis does when it reaches `maxmemory`.
    pub maxmemory_policy: String,
    /// Whether Redis stores data on disk; `None` if the user of Redis may not read the setting.
    pub persistent: Option<bool>,
}

impl RedisInfo {
    /// Whether the queue's scripts run on this version: Redis from 7.0, Valkey from 7.2. An unknown version passes.
    pub fn is_supported(&self) -> bool {
        self.version == "unknown"
            || self.major_minor >= if self.product == "Valkey" { (7, 2) } else { (7, 0) }
    }
}

/// The fields of a reply to INFO. It has none if the user of Redis may not run INFO, as with managed services.
pub(super) struct InfoFields(String);

impl InfoFields {
    pub(super) fn new(reply: impl Into<String>) -> InfoFields {
        InfoFields(reply.into())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// A number; 0 if it is missing.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.text(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether a field with the result of the last background save or rewrite is `err`.
    pub(super) fn failed(&self, name: &str) -> bool {
        self.text(name) == Some("err")
    }
}

impl Queue {
    /// Product, version and role of this Redis.
    pub fn redis_info(&self) -> Result<RedisInfo, Error> {
        let fields = self.info_fields()?;
        let (product, version) = match fields.text("valkey_version") {
            Some(version) => ("Valkey", version),
            None => ("Redis", fields.text("redis_version").unwrap_or("unknown")),
        };
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let snapshots = self.redis_setting("save").map(|rule| !rule.is_empty());
        let appends = fields.text("aof_enabled") == Some("1");
        let mode = fields.text("redis_mode").or(fields.text("server_mode")).unwrap_or("unknown");
        Ok(RedisInfo {
            product,
            version: version.to_owned(),
            major_minor: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            mode: mode.to_owned(),
            is_replica: fields.text("role") == Some("slave"),
            maxmemory_policy: fields.text("maxmemory_policy").unwrap_or("unknown").to_owned(),
            persistent: if appends { Some(true) } else { snapshots },
        })
    }

    pub(super) fn info_fields(&self) -> Result<InfoFields, Error> {
        match self.connections.query(&redis::cmd("INFO")) {
            Err(Error::Denied(_)) => Ok(InfoFields(String::new())),
            text => Ok(InfoFields(text?)),
        }
    }

    /// A setting of Redis; `None` if the user of Redis may not read it.
    pub(super) fn redis_setting(&self, name: &str) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        self.connections.query::<Vec<String>>(&command).ok()?.into_iter().nth(1)
    }
}
