//! What TLS connections to Redis are made with: the host's name and the authorities that are trusted.

#[cfg(feature = "tls")]
pub(super) use with::Tls;

/// Nothing: this program was built without TLS.
#[cfg(not(feature = "tls"))]
pub(super) enum Tls {}

#[cfg(not(feature = "tls"))]
impl Tls {
    /// # Errors
    /// Always.
    pub(super) fn new(_: &str, _: Option<&super::Authorities>) -> Result<Tls, String> {
        Err("redis-url: it asks for TLS, and this program was built without the feature tls".to_owned())
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::super::connection::ConnectError;
    use crate::net::authorities::Authorities;

    /// How TLS is spoken with one host.
    pub(in super::super) struct Tls {
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    }

    impl Tls {
        /// With `ca` the host must have a certificate of one of these authorities; otherwise of one
        /// that the web trusts.
        ///
        /// # Errors
        /// A sentence that begins with the setting that is wrong.
        pub(in super::super) fn new(host: &str, ca: Option<&Authorities>) -> Result<Tls, String> {
            let host = ServerName::try_from(host.to_owned())
                .map_err(|_| "redis-url: its host cannot be the name in a certificate".to_owned())?;
            let roots = match ca {
                None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                Some(ca) => ca.roots().map_err(|why| format!("the authorities for Redis: the file {why}"))?,
            };
            // Named, since a program that uses the library may be built with another provider besides.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("redis-url: no TLS: {error}"))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Tls { config: Arc::new(config), host })
        }

        /// A connection that has not sent anything yet.
        pub(in super::super) fn begin(&self) -> Result<ClientConnection, ConnectError> {
            ClientConnection::new(self.config.clone(), self.host.clone())
                .map_err(|error| ConnectError(format!("the TLS handshake failed: {error}")))
        }
    }
}
