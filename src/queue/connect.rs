//! Reads the URL of a Redis: address, login, and TLS.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use super::connection::{Place, Target};
use super::error::SettingsError;
use super::tls::Tls;
use crate::net::authorities::Authorities;

/// Reads the URL. One of the authorities of `ca` must have signed the certificate of a `rediss://` server; without `ca`
/// one of the authorities that browsers trust. Certificates are always checked.
pub(super) fn target(url: &str, ca: Option<&Authorities>) -> Result<Target, SettingsError> {
    let wrong_url = |why: &str| SettingsError::Url(why.into());
    let info: ConnectionInfo =
        url.into_connection_info().map_err(|error: RedisError| SettingsError::Url(error.into()))?;
    let (place, tls) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (Place::Tcp(host.clone(), *port), None),
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            return Err(wrong_url("#insecure is not allowed, certificates are always checked"));
        }
        ConnectionAddr::TcpTls { host, port, .. } => {
            (Place::Tcp(host.clone(), *port), Some(Tls::new(host, ca)?))
        }
        ConnectionAddr::Unix(path) => (Place::Unix(path.clone()), None),
        _ => return Err(wrong_url("this kind of address is not supported")),
    };
    let login = info.redis_settings();
    Ok(Target {
        place,
        tls,
        user: login.username().map(str::to_owned),
        password: login.password().map(str::to_owned),
        database: login.db(),
    })
}
