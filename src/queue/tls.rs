//! The TLS configuration of connections to Redis: host name and trusted certificate authorities.

#[cfg(feature = "tls")]
pub(super) use with::Tls;

/// No value: this program was built without TLS.
#[cfg(not(feature = "tls"))]
pub(super) enum Tls {}

#[cfg(not(feature = "tls"))]
impl Tls {
    /// # Errors
    /// Always.
    pub(super) fn new(
        _: &str,
        _: Option<&crate::net::authorities::Authorities>,
    ) -> Result<Tls, crate::queue::error::SettingsError> {
        let cause = "the value asks for TLS, and this program was built without the feature tls";
        Err(crate::queue::error::SettingsError::Tls(cause.into()))
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use crate::net::authorities::Authorities;
    use crate::queue::error::{ConnectError, SettingsError};

    /// The TLS configuration for one host.
    pub(in crate::queue) struct Tls {
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    }

    impl Tls {
        /// One of the authorities of `ca` must have signed the host's certificate; without `ca` one of the authorities
        /// that browsers trust.
        pub(in crate::queue) fn new(host: &str, ca: Option<&Authorities>) -> Result<Tls, SettingsError> {
            let host = ServerName::try_from(host.to_owned())
                .map_err(|_| SettingsError::Tls("its host cannot be the name in a certificate".into()))?;
            let roots = match ca {
                None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                Some(ca) => ca.roots().map_err(|cause| SettingsError::Authorities(cause.into()))?,
            };
            // The provider is named, since a program that uses the crate may contain another one too.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| SettingsError::Tls(error.into()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
            Ok(Tls { config: Arc::new(config), host })
        }

        /// A connection that has sent nothing yet.
        pub(in crate::queue) fn begin(&self) -> Result<ClientConnection, ConnectError> {
            ClientConnection::new(self.config.clone(), self.host.clone())
                .map_err(|error| ConnectError(format!("the TLS handshake failed: {error}")))
        }
    }
}
