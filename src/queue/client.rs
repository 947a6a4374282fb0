//! From a URL to the client that connections are made with: plain, or with TLS.

use redis::{Client, ConnectionInfo, IntoConnectionInfo, RedisError};

/// A client for this URL. With `ca`, certificates in PEM, a `rediss://` server must have a certificate of one of these
/// authorities; else of one that the web trusts. That is checked in any case.
///
/// # Errors
/// A sentence that begins with the setting that is wrong, and shows nothing of the URL: it may hold a password.
pub(super) fn client(url: &str, ca: Option<&str>) -> Result<Client, String> {
    // The client's errors name the part that is wrong, and show none of it.
    let wrong_url =
        |error: RedisError| format!("redis-url: it cannot be read as the URL of a Redis: {error}");
    let info: ConnectionInfo = url.into_connection_info().map_err(wrong_url)?;
    // Without it Nagle's algorithm holds back the second packet of a large command for 40 ms.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_tcp_settings(tcp);
    match (info.addr(), ca) {
        (redis::ConnectionAddr::TcpTls { .. }, ca) => with_tls(info, ca),
        (_, None) => Client::open(info).map_err(wrong_url),
        (_, Some(_)) => Err("redis-ca-file: it is of use only with a rediss:// URL".to_owned()),
    }
}

#[cfg(feature = "tls")]
fn with_tls(info: ConnectionInfo, ca: Option<&str>) -> Result<Client, String> {
    // rustls picks its cryptography by what the whole program was built with, and panics where that is ambiguous. A
    // program that uses the library may have chosen already: then its choice stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let root_cert = ca.map(|pem| pem.as_bytes().to_vec());
    let certificates = redis::TlsCertificates { client_tls: None, root_cert };
    Client::build_with_tls(info, certificates)
        .map_err(|error| format!("redis-ca-file: it holds no certificates: {error}"))
}

#[cfg(not(feature = "tls"))]
fn with_tls(_: ConnectionInfo, _: Option<&str>) -> Result<Client, String> {
    Err("redis-url: it asks for TLS, and this program was built without the feature tls".to_owned())
}
