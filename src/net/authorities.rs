//! The certificate authorities that TLS connections trust: those of a file in place of those that the web trusts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The environment variable by which OpenSSL and what follows its example are told of authorities.
pub const ENVIRONMENT: &str = "SSL_CERT_FILE";
/// Longer than any collection of authorities.
const MAX_BYTES: u64 = 8 << 20;

/// Certificates of authorities. A server must have its own certificate from one of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// In PEM.
    pem: String,
}

/// Certificates are long and of no interest in a log.
impl std::fmt::Debug for Authorities {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Authorities").finish_non_exhaustive()
    }
}

impl Authorities {
    /// The certificates that a file holds.
    ///
    /// # Errors
    /// A clause: the file cannot be read, holds no certificate, or one that is none of an authority.
    pub fn from_file(path: &Path) -> Result<Authorities, String> {
        let mut pem = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut pem));
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if pem.len() as u64 > MAX_BYTES {
            return Err(format!("is longer than {MAX_BYTES} bytes"));
        }
        // Text between the certificates may be in any encoding.
        Authorities::from_pem(String::from_utf8_lossy(&pem))
    }

    /// Certificates in PEM; a byte order mark, and what stands between them, are skipped.
    ///
    /// # Errors
    /// A clause: there is no certificate, or one that is none of an authority.
    pub fn from_pem(pem: impl Into<String>) -> Result<Authorities, String> {
        let pem = pem.into();
        let pem = pem.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(pem);
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err("holds no certificate".to_owned());
        }
        let authorities = Authorities { pem };
        #[cfg(feature = "tls")]
        authorities.roots()?;
        Ok(authorities)
    }

    /// As rustls has them.
    #[cfg(feature = "tls")]
    pub(crate) fn roots(&self) -> Result<rustls::RootCertStore, String> {
        use rustls::pki_types::CertificateDer;
        use rustls::pki_types::pem::PemObject;

        let mut roots = rustls::RootCertStore::empty();
        for (index, certificate) in CertificateDer::pem_slice_iter(self.pem.as_bytes()).enumerate() {
            let wrong = |why: &dyn std::fmt::Display| {
                format!("holds a certificate that cannot be read, number {}: {why}", index + 1)
            };
            roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
        }
        Ok(roots)
    }

    /// What an HTTP client is told of the authorities to trust; `None` is those that the web trusts.
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
    fn only_whole_certificates_are_authorities() {
        for pem in [
            CERTIFICATE.to_owned(),
            format!("\u{feff}{CERTIFICATE}"),
            format!("# ours\n{CERTIFICATE}\n# and theirs\n{CERTIFICATE}"),
            CERTIFICATE.replace('\n', "\r\n"),
        ] {
            assert!(Authorities::from_pem(pem.clone()).is_ok(), "{pem}");
        }
        for pem in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert_eq!(Authorities::from_pem(pem).unwrap_err(), "holds no certificate", "{pem}");
        }
        if cfg!(feature = "tls") {
            let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
            let problem = Authorities::from_pem(format!("{CERTIFICATE}{broken}")).unwrap_err();
            assert!(problem.starts_with("holds a certificate that cannot be read, number 2: "), "{problem}");
        }
        let problem = Authorities::from_file(Path::new("/no/such.pem")).unwrap_err();
        assert!(problem.starts_with("cannot be read: No such file"), "{problem}");
    }
}
