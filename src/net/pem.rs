//! Files in PEM: text with certificates and private keys.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The largest file that is read: larger than any collection of authorities.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the text of a file of at most 8 MiB.
pub(super) fn read_file(path: &Path) -> Result<String, InvalidPem> {
    let mut pem = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut pem));
    read.map_err(InvalidPem::Unreadable)?;
    if pem.len() as u64 > MAX_BYTES {
        return Err(InvalidPem::TooLong);
    }
    // Text between the certificates may be in any encoding.
    Ok(String::from_utf8_lossy(&pem).into_owned())
}

/// The text without a byte order mark, if the text holds a certificate.
pub(super) fn with_certificate(pem: String) -> Result<String, InvalidPem> {
    let pem = pem.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(pem);
    if pem.contains("-----BEGIN CERTIFICATE-----") { Ok(pem) } else { Err(InvalidPem::NoCertificate) }
}

/// The certificates of a text for rustls.
#[cfg(feature = "tls")]
pub(super) fn certificates(pem: &str) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, InvalidPem> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate();
    certificates.map(|(index, found)| found.map_err(|error| InvalidPem::certificate(index, &error))).collect()
}

/// Why a file or a text does not hold what was asked for. As text it completes a sentence that begins with the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum InvalidPem {
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file has more than 8 MiB.
    TooLong,
    /// There is no certificate.
    NoCertificate,
    /// A certificate is damaged, or cannot be one of an authority.
    Certificate {
        /// The position of the certificate, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no private key.
    NoKey,
    /// The private key is encrypted.
    EncryptedKey,
    /// The private key is damaged, or of an unknown kind.
    Key,
    /// The private key is not the one of the certificate.
    OtherKey,
}

impl InvalidPem {
    #[cfg(feature = "tls")]
    pub(super) fn certificate(index: usize, problem: &dyn fmt::Display) -> InvalidPem {
        InvalidPem::Certificate { number: index + 1, problem: problem.to_string() }
    }
}

impl fmt::Display for InvalidPem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            InvalidPem::Unreadable(error) => write!(f, "cannot be read: {error}"),
            InvalidPem::TooLong => write!(f, "is longer than {MAX_BYTES} bytes"),
            InvalidPem::NoCertificate => f.write_str("holds no certificate"),
            InvalidPem::Certificate { number, problem } => {
                write!(f, "holds a certificate that cannot be read, number {number}: {problem}")
            }
            InvalidPem::NoKey => f.write_str("holds no private key"),
            InvalidPem::EncryptedKey => {
                f.write_str("holds an encrypted private key; openssl pkey decrypts the key")
            }
            InvalidPem::Key => {
                f.write_str("holds a private key that cannot be read, or is not an RSA, ECDSA or Ed25519 key")
            }
            InvalidPem::OtherKey => {
                f.write_str("holds a private key that does not belong to the certificate")
            }
        }
    }
}

impl std::error::Error for InvalidPem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            InvalidPem::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}
