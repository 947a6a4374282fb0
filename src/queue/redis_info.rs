//! What Redis says of itself: the reply to INFO.

use super::Queue;
use super::error::Error;

/// Products that speak the protocol of Redis, and are not Redis: the field of INFO with their version.
const OTHER_PRODUCTS: [(&str, &str); 3] =
    [("Dragonfly", "dragonfly_version"), ("Kvrocks", "kvrocks_version"), ("Garnet", "garnet_version")];

/// Product, version and role of a Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RedisInfo {
    /// `Redis`, `Valkey`, or a product that threadq is not tested with.
    pub product: &'static str,
    /// `unknown` if the user of Redis may not run INFO.
    pub version: String,
    /// The first two numbers of the version, for other products of the version of Redis that they claim to be; zeros if it
    /// is unknown.
    pub major_minor: (u32, u32),
    /// Whether this Redis is a replica; `false` if that is unknown.
    pub is_replica: bool,
    /// What Redis does when it reaches `maxmemory`.
    pub maxmemory_policy: String,
    /// Whether Redis stores data on disk; `None` if the user of Redis may not read the setting.
    pub persistent: Option<bool>,
    /// The number of attached replicas; `None` if Redis does not say.
    pub replicas: Option<u64>,
    /// The number of replicas without which Redis refuses writes; `None` if that is unknown, or if it does not matter.
    pub min_replicas: Option<u64>,
    /// How many replicas must have a submission before it is acknowledged.
    pub wanted_replicas: u32,
    /// Whether a replica takes over when this Redis dies: Sentinels watch it, or it is a node of a Cluster.
    pub fails_over: bool,
    /// What the user of Redis may not ask.
    pub not_allowed: Vec<&'static str>,
}

impl RedisInfo {
    /// Whether threadq is tested with this product.
    pub fn is_tested(&self) -> bool {
        OTHER_PRODUCTS.iter().all(|(product, _)| *product != self.product)
    }

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

    /// `standalone`, `cluster` or `sentinel`.
    pub(super) fn mode(&self) -> Option<&str> {
        self.text("redis_mode").or(self.text("server_mode"))
    }

    pub(super) fn is_replica(&self) -> bool {
        self.text("role") == Some("slave")
    }

    /// Name and version of the product.
    fn product(&self) -> (&'static str, String) {
        let version_of = |field| self.text(field).map(str::to_owned);
        let other = OTHER_PRODUCTS.iter().find_map(|(name, field)| Some((*name, version_of(field)?)));
        let valkey = || version_of("valkey_version").map(|version| ("Valkey", version));
        let redis = || ("Redis", version_of("redis_version").unwrap_or_else(|| "unknown".to_owned()));
        other.or_else(valkey).unwrap_or_else(redis)
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
        let (product, version) = fields.product();
        let claimed = if product == "Valkey" { "valkey_version" } else { "redis_version" };
        let claimed = fields.text(claimed).unwrap_or("unknown");
        let mut numbers = claimed.split('.').map(|part| part.parse().unwrap_or(0));
        let appends = fields.text("aof_enabled") == Some("1");
        let replicas = fields.text("connected_slaves").and_then(|number| number.parse().ok());
        let mut not_allowed = Vec::new();
        if fields.0.is_empty() {
            not_allowed.push("INFO");
        }
        let mut setting = |name: &'static str| {
            let value = self.redis_setting(name);
            if value.is_none() {
                not_allowed.push(name);
            }
            value
        };
        let persistent = if appends { Some(true) } else { setting("save").map(|rule| !rule.is_empty()) };
        let min_replicas = match replicas {
            Some(1..) if self.replicas == 0 => setting("min-replicas-to-write"),
            _ => None,
        };
        Ok(RedisInfo {
            product,
            version,
            major_minor: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)),
            is_replica: fields.is_replica(),
            maxmemory_policy: fields.text("maxmemory_policy").unwrap_or("unknown").to_owned(),
            persistent,
            replicas,
            min_replicas: min_replicas.and_then(|number| number.parse().ok()),
            wanted_replicas: self.replicas,
            fails_over: !self.connections.place().is_fixed(),
            not_allowed,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_read_from_info() {
        for (info, product, version) in [
            ("redis_version:7.0.15\r\nredis_mode:standalone\r\n", "Redis", "7.0.15"),
            ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.1.2\r\n", "Valkey", "9.1.2"),
            ("redis_version:7.4.0\r\ndragonfly_version:df-v1.27.1\r\n", "Dragonfly", "df-v1.27.1"),
            ("redis_version:7.0.0\r\nkvrocks_version:2.11.0\r\n", "Kvrocks", "2.11.0"),
            ("redis_version:7.4.3\r\ngarnet_version:1.0.60\r\n", "Garnet", "1.0.60"),
            ("", "Redis", "unknown"),
        ] {
            assert_eq!(InfoFields::new(info).product(), (product, version.to_owned()), "{info}");
        }
    }
}
