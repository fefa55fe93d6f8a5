//! The certificates that the configuration asks for.

use std::sync::Arc;

use rustls::server::ResolvesServerCert;
use throughline_certs::{DevCertificates, DevError, FileCertificates, FileError, NoDefaultFolder, default_folder};

use crate::config::CertificateConfig;

/// A server's certificates: made here, or the user's own.
#[derive(Clone)]
pub(crate) enum Certificates {
    Development(DevCertificates),
    Files(FileCertificates),
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is no place for a development certificate.
    #[error(transparent)]
    Folder(#[from] NoDefaultFolder),
    /// The development certificate cannot be read or made.
    #[error(transparent)]
    Development(#[from] DevError),
    /// The configured files cannot be used.
    #[error(transparent)]
    Files(#[from] FileError),
}

impl Certificates {
    /// Reads or makes them. Reads and writes files: not for an async task.
    pub(crate) fn open(config: &CertificateConfig) -> Result<Self, CertificateError> {
        match config {
            CertificateConfig::Development { dir, names } => {
                let dir = match dir {
                    Some(dir) => dir.clone(),
                    None => default_folder()?,
                };
                Ok(Self::Development(DevCertificates::open(dir, names.clone())?))
            }
            CertificateConfig::Files { chain, key } => Ok(Self::Files(FileCertificates::open(chain, key)?)),
        }
    }

    pub(crate) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        match self {
            Self::Development(certificates) => certificates.resolver(),
            Self::Files(certificates) => certificates.resolver(),
        }
    }

    /// The hashes that a browser must be told: current and next. None for certificates that it can check by itself.
    pub(crate) fn hashes(&self) -> Vec<[u8; 32]> {
        match self {
            Self::Development(certificates) => certificates.hashes(),
            Self::Files(_) => Vec::new(),
        }
    }

    /// Renews or reads them anew, while the server runs. Never completes.
    pub(crate) async fn keep_fresh(&self) {
        match self {
            Self::Development(certificates) => certificates.keep_fresh().await,
            Self::Files(certificates) => certificates.keep_fresh().await,
        }
    }
}
