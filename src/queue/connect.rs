//! From the URL of a Redis to the place that new connections lead to.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::connection::{Address, Login};
use super::error::SettingsError;
use super::keys;
use super::place::{Kind, Place};
use super::tls::TlsConfig;
use crate::net::certificates::Certificates;
use crate::net::redis_url::{self, RedisUrl};

/// Reads the URL. The certificates of all servers with TLS are always checked.
pub(super) fn place(
    url: &str,
    certificates: &Certificates,
    namespace: &str,
) -> Result<(Place, Option<String>), SettingsError> {
    let url = redis_url::parse(url).map_err(|problem| SettingsError::Url(problem.into()))?;
    let urls = match &url {
        RedisUrl::Server(url) => std::slice::from_ref(url),
        RedisUrl::Sentinels { urls, .. } | RedisUrl::Cluster(urls) => urls,
    };
    let (mut addresses, mut login) = (Vec::new(), Login::default());
    for url in urls {
        let (address, same_login) = server(url, certificates, login.tls.take())?;
        addresses.push(address);
        login = same_login;
    }
    let kind = match url {
        RedisUrl::Server(_) => Kind::Fixed(addresses.remove(0)),
        RedisUrl::Sentinels { name, user, password, .. } => {
            let sentinel_login = Login { tls: login.tls.clone(), user, password, database: 0 };
            Kind::Sentinels { name, login: sentinel_login }
        }
        RedisUrl::Cluster(_) => Kind::Cluster { key: keys::prefix(namespace) + keys::ABSENT },
    };
    let user = login.user.clone();
    Ok((Place::new(kind, addresses, login), user))
}

/// Reads the URL of one host or socket. `tls` is the configuration of the hosts before it.
fn server(
    url: &str,
    certificates: &Certificates,
    tls: Option<TlsConfig>,
) -> Result<(Address, Login), SettingsError> {
    let wrong_url = |why: &str| SettingsError::Url(why.into());
    let info: ConnectionInfo =
        url.into_connection_info().map_err(|error: RedisError| SettingsError::Url(error.into()))?;
    let (address, tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (Address::Tcp(host.clone(), *port), None),
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            return Err(wrong_url("#insecure is not allowed, certificates are always checked"));
        }
        ConnectionAddr::TcpTls { host, port, .. } => {
            let tls = tls.map_or_else(|| TlsConfig::new(certificates), Ok)?;
            tls.check_host(host)?;
            (Address::Tcp(host.clone(), *port), Some(tls))
        }
        ConnectionAddr::Unix(path) => (Address::Unix(path.clone()), None),
        _ => return Err(wrong_url("this kind of address is not supported")),
    };
    let settings = info.redis_settings();
    let login = Login {
        tls,
        user: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
        database: settings.db(),
    };
    Ok((address, login))
}
