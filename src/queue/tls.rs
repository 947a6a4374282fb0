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
    pub(super) fn new(
        _: &str,
        _: Option<&crate::net::authorities::Authorities>,
    ) -> Result<Tls, super::error::SettingsError> {
        let cause = "it asks for TLS, and this program was built without the feature tls";
        Err(super::error::SettingsError::Tls(cause.into()))
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::super::connection::ConnectError;
    use super::super::error::SettingsError;
    use crate::net::authorities::Authorities;

    /// How TLS is spoken with one host.
    pub(in super::super) struct Tls {
        config: Arc<ClientConfig>,
        host: ServerName<'static>,
    }

    impl Tls {
        /// With `ca` the host must have a certificate of one of these authorities; otherwise of one
        /// that the web trusts.
        pub(in super::super) fn new(host: &str, ca: Option<&Authorities>) -> Result<Tls, SettingsError> {
            let host = ServerName::try_from(host.to_owned())
                .map_err(|_| SettingsError::Tls("its host cannot be the name in a certificate".into()))?;
            let roots = match ca {
                None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                Some(ca) => ca.roots().map_err(|cause| SettingsError::Authorities(cause.into()))?,
            };
            // Named, since a program that uses the library may be built with another provider besides.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| SettingsError::Tls(error.into()))?
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
