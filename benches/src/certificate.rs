//! The certificate of all subjects.

use std::fs;
use std::path::PathBuf;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use tempfile::TempDir;

use crate::Failure;

/// A self-signed certificate for 127.0.0.1 with a P-256 key, in files that are deleted with it.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// PEM.
    pub(crate) certificate: PathBuf,
    /// PEM, PKCS #8.
    pub(crate) key: PathBuf,
    _folder: TempDir,
}

impl Certificate {
    pub(crate) fn make() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        // Browsers want at most 14 days, and so do some clients that take a certificate by its hash.
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
        params.not_after = params.not_before + time::Duration::days(13);
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        fs::write(&certificate, params.self_signed(&pair)?.pem())?;
        fs::write(&key, pair.serialize_pem())?;
        Ok(Self { certificate, key, _folder: folder })
    }
}
