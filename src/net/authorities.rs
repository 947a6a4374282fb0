//! The certificate authorities that TLS connections trust: those of a file, or the public ones that browsers trust.

use std::fmt;
use std::path::Path;

use super::pem::{self, InvalidPem};

/// The environment variable that names a file of authorities, as for OpenSSL.
pub const ENVIRONMENT: &str = "SSL_CERT_FILE";

/// Certificates of authorities. The certificate of a server must be issued by one of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// In PEM.
    pem: String,
}

/// Leaves out the certificates, which are long.
impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Authorities").finish_non_exhaustive()
    }
}

impl Authorities {
    /// Reads the certificates of a file of at most 8 MiB.
    ///
    /// # Errors
    /// The file cannot be read or is longer, or as for [`Authorities::from_pem`].
    pub fn from_file(path: &Path) -> Result<Authorities, InvalidPem> {
        Authorities::from_pem(pem::read_file(path)?)
    }

    /// Reads certificates in PEM. A byte order mark, and text between the certificates, are skipped.
    ///
    /// # Errors
    /// The text has no certificate, or one that is not a certificate of an authority.
    pub fn from_pem(pem: impl Into<String>) -> Result<Authorities, InvalidPem> {
        let authorities = Authorities { pem: pem::with_certificate(pem.into())? };
        #[cfg(feature = "tls")]
        authorities.roots()?;
        Ok(authorities)
    }

    /// The certificates for rustls.
    #[cfg(feature = "tls")]
    pub(crate) fn roots(&self) -> Result<rustls::RootCertStore, InvalidPem> {
        let mut roots = rustls::RootCertStore::empty();
        for (index, certificate) in pem::certificates(&self.pem)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| InvalidPem::certificate(index, &error))?;
        }
        Ok(roots)
    }

    /// The TLS configuration of an HTTP client that trusts these authorities; `None`: the public ones.
    #[cfg(feature = "tls")]
    pub(crate) fn for_http(authorities: Option<&Authorities>) -> ureq::tls::TlsConfig {
        use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

        let certificates = authorities.map(|authorities| {
            parse_pem(authorities.pem.as_bytes()).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
        });
        let roots = certificates.map_or(RootCerts::WebPki, RootCerts::from);
        TlsConfig::builder().root_certs(roots).build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdDCCARugAwIBAgIUYfwtBkpQUBkqbOuLcCPbFFUVx3swCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjcxNzEyMzJaGA8yMTI2MTEwMzE3MTIz\n\
MlowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABBf4\n\
cQZuPoj+2dH+Ju+ouiDbPOzq8QRoVaoK3D9S7kyFCdSqKCp5fuHCnU75NLEdLSmC\n\
NEsY3mQ6ZWQM0AVnTOKjUzBRMB0GA1UdDgQWBBTY/hBORmVdDkwO2mPI3a94xDz0\n\
UzAfBgNVHSMEGDAWgBTY/hBORmVdDkwO2mPI3a94xDz0UzAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0cAMEQCIB+ew6P+RamGlGnxDgoOIK8XC0efIF8wUYfn\n\
U4sM674GAiBOMtc/UwXXGmfeYP4PJ0H5Yw5hwjU6IFc6xubUlNZk6g==\n\
-----END CERTIFICATE-----\n\
";

    #[test]
    fn only_valid_certificates_are_accepted() {
        for pem in [
            CERTIFICATE.to_owned(),
            format!("\u{feff}{CERTIFICATE}"),
            format!("# ours\n{CERTIFICATE}\n# and theirs\n{CERTIFICATE}"),
            CERTIFICATE.replace('\n', "\r\n"),
        ] {
            assert!(Authorities::from_pem(pem.clone()).is_ok(), "{pem}");
        }
        for pem in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(Authorities::from_pem(pem).unwrap_err().to_string(), "holds no certificate", "{pem}");
        }
        if cfg!(feature = "tls") {
            let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            let problem = Authorities::from_pem(format!("{CERTIFICATE}{broken}")).unwrap_err().to_string();
            assert!(problem.starts_with("holds a certificate that cannot be read, number 2: "), "{problem}");
        }
        let problem = Authorities::from_file(Path::new("/no/such.pem")).unwrap_err().to_string();
        assert!(problem.starts_with("cannot be read: No such file"), "{problem}");
    }
}
