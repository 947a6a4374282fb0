//! The TLS configuration of connections to Redis.

#[cfg(feature = "tls")]
pub(super) use with::TlsConfig;

/// No value: this program was built without TLS.
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(super) enum TlsConfig {}

#[cfg(not(feature = "tls"))]
impl TlsConfig {
    pub(super) fn check_host(&self, _: &str) -> Result<(), crate::queue::error::SettingsError> {
        match *self {}
    }

    /// # Errors
    /// Always.
    pub(super) fn new(
        _: &crate::net::certificates::Certificates,
    ) -> Result<TlsConfig, crate::queue::error::SettingsError> {
        let cause = "the value asks for TLS, and this program was built without the feature tls";
        Err(crate::queue::error::SettingsError::Tls(cause.into()))
    }
}

#[cfg(feature = "tls")]
mod with {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::sign::SingleCertAndKey;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use crate::net::certificates::Certificates;
    use crate::queue::error::{ConnectError, SettingsError};

    const NO_NAME: &str = "cannot be the name in a certificate";

    /// The TLS configuration of all connections to Redis.
    #[derive(Clone)]
    pub(in crate::queue) struct TlsConfig(Arc<ClientConfig>);

    impl TlsConfig {
        pub(in crate::queue) fn new(certificates: &Certificates) -> Result<TlsConfig, SettingsError> {
            let roots = match &certificates.ca {
                None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
                Some(ca) => ca.roots().map_err(|cause| SettingsError::Authorities(cause.into()))?,
            };
            // The provider is named, since a program that uses the crate may contain another one too.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map_err(|error| SettingsError::Tls(error.into()))?
                .with_root_certificates(roots);
            let config = match &certificates.client {
                None => config.with_no_client_auth(),
                Some((certificate, key)) => {
                    let certified = certificate.certified(key);
                    let certified =
                        certified.map_err(|cause| SettingsError::ClientCertificate(cause.into()))?;
                    config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
                }
            };
            Ok(TlsConfig(Arc::new(config)))
        }

        /// Whether a certificate can have the name of this host.
        pub(in crate::queue) fn check_host(&self, host: &str) -> Result<(), SettingsError> {
            let problem = || SettingsError::Tls(format!("the host {host:?} {NO_NAME}").into());
            ServerName::try_from(host).map(drop).map_err(|_| problem())
        }

        /// A connection to this host that has sent nothing yet. The certificate must be for this host.
        pub(in crate::queue) fn begin(&self, host: &str) -> Result<ClientConnection, ConnectError> {
            let name = ServerName::try_from(host.to_owned());
            let name = name.map_err(|_| ConnectError(format!("the host {host:?} {NO_NAME}")))?;
            ClientConnection::new(self.0.clone(), name)
                .map_err(|error| ConnectError(format!("the TLS handshake failed: {error}")))
        }
    }
}
