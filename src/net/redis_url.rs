//! Reads the URL of a Redis: a server, a unix socket, the Sentinels of a master, or the nodes of a Cluster.

use super::http_url::{read, split_port};

/// The default port of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// The default port of a node of a Cluster.
const CLUSTER_PORT: u16 = 6379;

const UNESCAPED: &str = "has a / or a ? in its user or password, which must be written as %2F or %3F";

/// What a URL leads to. Each URL in it names one host, as `redis://` or `rediss://`, or a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RedisUrl {
    /// A Redis.
    Server(String),
    /// Sentinels. Each URL has the address of a Sentinel, and login and database of the master.
    Sentinels {
        urls: Vec<String>,
        /// The name by which the Sentinels know the master.
        name: String,
        /// The user of the Sentinels; `None` is their user `default`.
        user: Option<String>,
        password: Option<String>,
    },
    /// Nodes of a Cluster. All have the same login.
    Cluster(Vec<String>),
}

/// Reads the URL of a Redis. The error is the end of a sentence that begins with the URL, and shows no part of the URL,
/// which may hold a password.
///
/// An `@` or a `%` in the password is allowed unescaped: many configurations have one, and the Redis client accepts it.
pub(crate) fn parse(text: &str) -> Result<RedisUrl, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("is not a valid URL")?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme.starts_with("rediss") && !cfg!(feature = "tls") {
        return Err("asks for TLS, and this program was built without the feature tls");
    }
    // For the client, #insecure means that it checks no certificate.
    if scheme.starts_with("rediss") && rest.contains('#') {
        return Err("has a # in it; certificates are always checked, see redis-ca-file");
    }
    match &*scheme {
        "unix" | "redis+unix" => check_socket(text, rest)?,
        "redis+sentinel" | "redis-sentinel" => return sentinels("redis", rest),
        "rediss+sentinel" | "rediss-sentinel" => return sentinels("rediss", rest),
        "redis+cluster" => return cluster("redis", rest),
        "rediss+cluster" => return cluster("rediss", rest),
        _ => check_server(text)?,
    }
    Ok(RedisUrl::Server(text.to_owned()))
}

fn check_socket(text: &str, rest: &str) -> Result<(), &'static str> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("has a space or a control character in it");
    }
    if !rest.starts_with('/') {
        return Err("does not name the absolute path of a socket");
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    parameters(query, &["db", "user", "pass", "protocol"]).map(drop)
}

fn check_server(text: &str) -> Result<(), &'static str> {
    // Behind the host no @ is allowed, so the @ ends a password.
    if text.splitn(4, ['/', '?']).nth(3).is_some_and(|rest| rest.contains('@')) {
        return Err(UNESCAPED);
    }
    let url = read(text, &["redis", "rediss"])?;
    check_database(url.path().trim_matches('/'))?;
    parameters(url.query().unwrap_or_default(), &["protocol"]).map(drop)
}

fn check_database(database: &str) -> Result<(), &'static str> {
    match database.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(()),
        false => Err("has a path that is not a database number"),
    }
}

/// The parameters of a query. The client ignores parameters that it does not know, so `?db=3` after a host would mean
/// database 0.
fn parameters(query: &str, known: &[&str]) -> Result<Vec<(String, String)>, &'static str> {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !known.contains(&&*name) {
            return Err("has an unknown parameter in its query");
        }
        if name == "db" && (value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err("has a db in its query that is not a database number");
        }
        if seen.iter().any(|(other, _)| *other == name) {
            return Err("has a parameter twice in its query");
        }
        seen.push((name.into_owned(), value.into_owned()));
    }
    Ok(seen)
}

fn sentinels(scheme: &str, rest: &str) -> Result<RedisUrl, &'static str> {
    let SeveralHosts { login, hosts, path, query } = SeveralHosts::split(rest)?;
    let (name, database) = path.split_once('/').unwrap_or((path, ""));
    if name.is_empty() {
        return Err("does not name the master that the Sentinels monitor");
    }
    // What a Sentinel accepts as the name of a master.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        return Err("has a name of the master with other characters than letters, digits, '.', '-' and '_'");
    }
    let mut known = parameters(query, &["sentinel_username", "sentinel_password", "protocol"])?;
    let mut take = |wanted: &str| {
        let at = known.iter().position(|(name, value)| name == wanted && !value.is_empty())?;
        Some(known.swap_remove(at).1)
    };
    let (user, password) = (take("sentinel_username"), take("sentinel_password"));
    if user.is_some() && password.is_none() {
        return Err("has a sentinel_username without a sentinel_password in its query");
    }
    let urls = urls(scheme, login, hosts, SENTINEL_PORT, database.trim_end_matches('/'))?;
    Ok(RedisUrl::Sentinels { urls, name: name.to_owned(), user, password })
}

fn cluster(scheme: &str, rest: &str) -> Result<RedisUrl, &'static str> {
    let SeveralHosts { login, hosts, path, query } = SeveralHosts::split(rest)?;
    if !matches!(path.trim_end_matches('/'), "" | "0") {
        return Err("has a path, but a Cluster has only the database 0");
    }
    parameters(query, &["protocol"])?;
    Ok(RedisUrl::Cluster(urls(scheme, login, hosts, CLUSTER_PORT, "")?))
}

/// The parts of a URL after its scheme.
struct SeveralHosts<'a> {
    /// With an `@` at the end, or empty.
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl SeveralHosts<'_> {
    fn split(rest: &str) -> Result<SeveralHosts<'_>, &'static str> {
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        // A path has no @, and the password of Sentinels, which may have an @, comes after a path.
        if path.contains('@') || path.is_empty() && query.contains('@') {
            return Err(UNESCAPED);
        }
        // The last @ ends the password, which may have an unescaped @.
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Ok(SeveralHosts { login, hosts, path, query })
    }
}

/// One URL for each host of a list with commas.
fn urls(
    scheme: &str,
    login: &str,
    hosts: &str,
    default_port: u16,
    database: &str,
) -> Result<Vec<String>, &'static str> {
    let url = |host: &str| {
        let port = if split_port(host).1.is_some() { String::new() } else { format!(":{default_port}") };
        let url = format!("{scheme}://{login}{host}{port}/{database}");
        check_server(&url).map(|()| url)
    };
    hosts.split(',').map(url).collect()
}

#[cfg(test)]
mod tests {
    use super::super::http_url::{BAD_HOST, BAD_PORT};
    use super::*;

    #[test]
    fn the_url_of_a_server_is_kept_as_it_is() {
        for text in [
            "redis://h",
            "rediss://u:p%40w@h:1/2",
            "redis://[::1]:6379/",
            "redis://:p@w%@127.0.0.1/0?protocol=resp3",
        ] {
            assert_eq!(parse(text), Ok(RedisUrl::Server(text.to_owned())), "{text}");
        }
        for (text, wanted) in [
            ("redis://h:99999", BAD_PORT),
            ("redis://h:0/1", BAD_PORT),
            ("redis://h:6379abc", BAD_PORT),
            ("redis://u:p@h:", BAD_PORT),
            ("redis://u:p/w@h:6379", UNESCAPED),
            ("redis://u:p?w@h:6379", UNESCAPED),
            ("redis://u:p/w@h:6379/1", UNESCAPED),
            ("redis://h:6379/one", "has a path that is not a database number"),
            ("redis://h:6379/1/2", "has a path that is not a database number"),
            ("redis://:6379", "names no host"),
            ("redis://a%20b:6379", BAD_HOST),
            ("redis://u:p#w@h", "has a # in it, which must be written as %23"),
            ("http://h", "has an unknown scheme"),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
    }

    fn sentinels_at(urls: &[&str], login: Option<(Option<&str>, &str)>) -> RedisUrl {
        RedisUrl::Sentinels {
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            name: "mymaster".to_owned(),
            user: login.and_then(|(user, _)| user).map(str::to_owned),
            password: login.map(|(_, password)| password.to_owned()),
        }
    }

    #[test]
    fn a_url_may_name_several_sentinels() {
        for (text, wanted) in [
            ("redis+sentinel://h/mymaster", sentinels_at(&["redis://h:26379/"], None)),
            ("redis-sentinel://h/mymaster/", sentinels_at(&["redis://h:26379/"], None)),
            (
                "redis+sentinel://u:p@w@h1,h2:1,[::1],[::2]:3/mymaster/5",
                sentinels_at(
                    &[
                        "redis://u:p@w@h1:26379/5",
                        "redis://u:p@w@h2:1/5",
                        "redis://u:p@w@[::1]:26379/5",
                        "redis://u:p@w@[::2]:3/5",
                    ],
                    None,
                ),
            ),
            (
                "redis+sentinel://h/mymaster?sentinel_username=ann&sentinel_password=a%26b",
                sentinels_at(&["redis://h:26379/"], Some((Some("ann"), "a&b"))),
            ),
            (
                "redis+sentinel://h/mymaster?sentinel_password=x@y",
                sentinels_at(&["redis://h:26379/"], Some((None, "x@y"))),
            ),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        for (text, wanted) in [
            ("redis+sentinel://u:p/w@h/m", UNESCAPED),
            ("redis+sentinel://u:p?w@h/m", UNESCAPED),
            ("redis+sentinel://h", "does not name the master that the Sentinels monitor"),
            ("redis+sentinel://h/", "does not name the master that the Sentinels monitor"),
            ("redis+sentinel://h//1", "does not name the master that the Sentinels monitor"),
            ("redis+sentinel://h/a/b", "has a path that is not a database number"),
            ("redis+sentinel://h/a/1/2", "has a path that is not a database number"),
            (
                "redis+sentinel://h/my%20master",
                "has a name of the master with other characters than letters, digits, '.', '-' and '_'",
            ),
            ("redis+sentinel:///mymaster", "names no host"),
            ("redis+sentinel://h1,,h2/mymaster", "names no host"),
            ("redis+sentinel://h1,/mymaster", "names no host"),
            ("redis+sentinel://h1,h2:0/mymaster", BAD_PORT),
            ("redis+sentinel://h1,h 2/mymaster", "has a space or a control character in it"),
            ("redis+sentinel://h1/mymaster?db=1", "has an unknown parameter in its query"),
            (
                "redis+sentinel://h1/mymaster?sentinel_username=ann",
                "has a sentinel_username without a sentinel_password in its query",
            ),
            (
                "redis+sentinel://h1/a?sentinel_password=1&sentinel_password=2",
                "has a parameter twice in its query",
            ),
            ("redis+sentinel://u:p#w@h1/mymaster", "has a # in it, which must be written as %23"),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
    }

    #[test]
    fn a_url_may_name_several_nodes_of_a_cluster() {
        let nodes = |urls: &[&str]| RedisUrl::Cluster(urls.iter().map(|url| (*url).to_owned()).collect());
        for (text, wanted) in [
            ("redis+cluster://h", nodes(&["redis://h:6379/"])),
            ("redis+cluster://h/0", nodes(&["redis://h:6379/"])),
            ("redis+cluster://:p@h1:7,h2", nodes(&["redis://:p@h1:7/", "redis://:p@h2:6379/"])),
        ] {
            assert_eq!(parse(text), Ok(wanted), "{text}");
        }
        for (text, wanted) in [
            ("redis+cluster://:p/w@h", UNESCAPED),
            ("redis+cluster://:p?w@h", UNESCAPED),
            ("redis+cluster://h/1", "has a path, but a Cluster has only the database 0"),
            ("redis+cluster://h?db=1", "has an unknown parameter in its query"),
            ("redis+cluster://a%20b", BAD_HOST),
            ("redis+cluster://", "names no host"),
        ] {
            assert_eq!(parse(text), Err(wanted), "{text}");
        }
    }

    #[test]
    fn every_form_has_a_form_with_tls() {
        for text in ["rediss://h", "rediss+sentinel://h/m", "rediss-sentinel://h/m", "rediss+cluster://h"] {
            assert_eq!(parse(text).is_ok(), cfg!(feature = "tls"), "{text}");
            assert!(parse(&format!("{text}#insecure")).is_err(), "{text}");
        }
    }
}
