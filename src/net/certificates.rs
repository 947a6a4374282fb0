//! The certificates for TLS connections to Redis: those of the authorities, and the one by which this program proves who it
//! is.

use std::fmt;
use std::path::Path;

use super::authorities::Authorities;
use super::pem::{self, InvalidPem};

/// What a TLS connection to Redis needs.
#[derive(Clone, Default)]
pub struct Certificates {
    /// One of these authorities must have signed the certificate of Redis. `None`: one of the authorities that
    /// browsers trust has signed it.
    pub ca: Option<Authorities>,
    /// The certificate that a Redis gets if it asks for one, and its key.
    pub client: Option<(ClientCertificate, ClientKey)>,
}

/// A client's certificate, and after it the certificates that lead to its authority.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// In PEM.
    pem: String,
}

/// Leaves out the certificates, which are long.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads the certificates of a file of at most 8 MiB. Private keys in the file are skipped.
    ///
    /// # Errors
    /// The file cannot be read or is longer, or as for [`ClientCertificate::from_pem`].
    pub fn from_file(path: &Path) -> Result<ClientCertificate, InvalidPem> {
        ClientCertificate::from_pem(pem::read_file(path)?)
    }

    /// Reads certificates in PEM.
    ///
    /// # Errors
    /// The text has no certificate, or one that is damaged.
    pub fn from_pem(pem: impl Into<String>) -> Result<ClientCertificate, InvalidPem> {
        let certificate = ClientCertificate { pem: pem::with_certificate(pem.into())? };
        #[cfg(feature = "tls")]
        pem::certificates(&certificate.pem)?;
        Ok(certificate)
    }

    /// Checks that the key is the one of this certificate.
    ///
    /// # Errors
    /// The key belongs to another certificate.
    pub fn check_key(&self, key: &ClientKey) -> Result<(), InvalidPem> {
        #[cfg(feature = "tls")]
        self.certified(key)?;
        #[cfg(not(feature = "tls"))]
        let _ = key;
        Ok(())
    }

    /// Certificate and key for rustls.
    #[cfg(feature = "tls")]
    pub(crate) fn certified(&self, key: &ClientKey) -> Result<rustls::sign::CertifiedKey, InvalidPem> {
        let certificates = pem::certificates(&self.pem)?;
        let key = key.signing_key()?;
        // Not `CertifiedKey::keys_match`, which refuses certificates of version 1, as `openssl x509 -req` makes them.
        let first = certificates.first().ok_or(InvalidPem::NoCertificate)?;
        let is_in_first = |public: &[u8]| first.windows(public.len()).any(|part| part == public);
        if key.public_key().is_some_and(|public| !is_in_first(&public)) {
            return Err(InvalidPem::OtherKey);
        }
        Ok(rustls::sign::CertifiedKey::new(certificates, key))
    }
}

/// The private key of a [`ClientCertificate`].
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// In PEM.
    pem: String,
}

/// Shows nothing of the key.
impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("***")
    }
}

impl ClientKey {
    /// Reads the private key of a file of at most 8 MiB. Certificates in the file are skipped.
    ///
    /// # Errors
    /// The file cannot be read or is longer, or as for [`ClientKey::from_pem`].
    pub fn from_file(path: &Path) -> Result<ClientKey, InvalidPem> {
        ClientKey::from_pem(pem::read_file(path)?)
    }

    /// Reads the first private key in PEM: PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// The text has no key, or a key that is encrypted, damaged, or neither RSA, ECDSA nor Ed25519.
    pub fn from_pem(pem: impl Into<String>) -> Result<ClientKey, InvalidPem> {
        let key = ClientKey { pem: pem.into() };
        let has = |line: &str| key.pem.contains(line);
        if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
            return Err(InvalidPem::EncryptedKey);
        }
        if !has("PRIVATE KEY-----") {
            return Err(InvalidPem::NoKey);
        }
        #[cfg(feature = "tls")]
        key.signing_key()?;
        Ok(key)
    }

    /// The key for rustls. An error shows nothing of the key.
    #[cfg(feature = "tls")]
    fn signing_key(&self) -> Result<std::sync::Arc<dyn rustls::sign::SigningKey>, InvalidPem> {
        use rustls::pki_types::PrivateKeyDer;
        use rustls::pki_types::pem::PemObject;

        let key = PrivateKeyDer::from_pem_slice(self.pem.as_bytes()).map_err(|_| InvalidPem::Key)?;
        rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| InvalidPem::Key)
    }
}
