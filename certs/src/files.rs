use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};

use crate::certificate::Facts;

/// How often the files are looked at. Renewal tools leave weeks; half a minute is what a person who waits for it bears.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A certificate chain and key of the user's own, in PEM files, taken up anew when the files change. A cheap handle.
///
/// The files' *contents* are compared every 30 s: it needs no signal, works through the symbolic links that certbot and
/// Kubernetes swap, and does not trust time stamps. While chain and key do not fit each other, as between the two writes
/// of a renewal, the old pair stays in use.
#[derive(Clone)]
pub struct FileCertificates {
    shared: Arc<Shared>,
}

/// Why a chain and key cannot be used. One line each, with the path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("the {what} {} cannot be read: {error}", path.display())]
    Read {
        /// "certificate" or "key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("the {what} {} cannot be used: {reason}", path.display())]
    Content {
        /// "certificate" or "key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The key is another certificate's.
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    Mismatch {
        /// The file with the chain.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
}

impl FileCertificates {
    /// Reads a chain (the server's own certificate first) and its key (PKCS #8, SEC 1 or PKCS #1). Both may be in one file.
    pub fn open(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, FileError> {
        let (certificate, key) = (certificate.into(), key.into());
        let contents = Contents::read(&certificate, &key)?;
        let in_use = contents.parse(&certificate, &key)?;
        let seen = contents.fingerprint();
        let shared = Shared { certificate, key, state: RwLock::new(State { in_use, seen }) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves the pair that was read last.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.shared.clone()
    }

    /// The last moment of the certificate's validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.shared.state.read().in_use.not_after
    }

    /// Looks at the files, and takes them up if they changed; `Ok(true)` says so. On an error the old pair stays in use,
    /// and the same bad contents are not complained of again. Reads files: not for an async task.
    pub fn reload(&self) -> Result<bool, FileError> {
        let contents = Contents::read(&self.shared.certificate, &self.shared.key)?;
        let seen = contents.fingerprint();
        if self.shared.state.read().seen == seen {
            return Ok(false);
        }
        let parsed = contents.parse(&self.shared.certificate, &self.shared.key);
        let mut state = self.shared.state.write();
        state.seen = seen;
        state.in_use = parsed?;
        Ok(true)
    }

    /// Reloads whenever the files change. Never completes; dropping the future ends it. Must be polled inside a tokio runtime.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.reload()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => {
                    tracing::info!(expires = crate::rfc3339(self.not_after()), "the certificate was read anew");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the changed certificate is not taken up; the old one stays")
                }
                Err(error) => tracing::error!(%error, "reading the certificate failed"),
            }
        }
    }
}

impl fmt::Debug for FileCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

#[derive(Debug)]
struct Shared {
    certificate: PathBuf,
    key: PathBuf,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    in_use: Pair,
    /// Of the contents that were looked at last, good or bad.
    seen: [u8; 32],
}

#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.state.read().in_use.certified.clone())
    }
}

struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    fn read(certificate: &Path, key: &Path) -> Result<Self, FileError> {
        let read =
            |what, path: &Path| fs::read(path).map_err(|error| FileError::Read { what, path: path.to_owned(), error });
        Ok(Self { certificate: read("certificate", certificate)?, key: read("key", key)? })
    }

    fn fingerprint(&self) -> [u8; 32] {
        let lengths = (self.certificate.len() as u64).to_be_bytes();
        Sha256::new().chain_update(lengths).chain_update(&self.certificate).chain_update(&self.key).finalize().into()
    }

    fn parse(&self, certificate: &Path, key: &Path) -> Result<Pair, FileError> {
        let bad_certificate =
            |reason: String| FileError::Content { what: "certificate", path: certificate.to_owned(), reason };
        let bad_key = |reason: String| FileError::Content { what: "key", path: key.to_owned(), reason };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad_certificate(format!("it is not PEM ({error})")))?;
        let Some(own) = chain.first() else {
            return Err(bad_certificate("it holds no certificate in PEM form".to_owned()));
        };
        let facts = Facts::read(own).map_err(bad_certificate)?;
        if facts.not_after < SystemTime::now() {
            // It is served all the same: the files may be renewed at any moment, and are watched.
            tracing::warn!(file = %certificate.display(), expired = crate::rfc3339(facts.not_after), "the certificate has expired");
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| {
            let encrypted = self.key.windows(9).any(|window| window == b"ENCRYPTED");
            bad_key(
                if encrypted {
                    "it is encrypted; store it without a password"
                } else {
                    "it holds no private key in PEM form"
                }
                .to_owned(),
            )
        })?;
        let certified =
            CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    FileError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() }
                }
                other => bad_key(other.to_string()),
            })?;
        Ok(Pair { certified: Arc::new(certified), not_after: facts.not_after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Certificate, VALIDITY};

    struct Files {
        _folder: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    fn pem() -> (String, String) {
        let made = Certificate::mint(&[], SystemTime::now(), VALIDITY).unwrap();
        let (certificate, key) = made.pem().split_at(made.pem().find("-----BEGIN PRIVATE").unwrap());
        (certificate.to_owned(), key.to_owned())
    }

    fn files((certificate_pem, key_pem): (&str, &str)) -> Files {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        fs::write(&certificate, certificate_pem).unwrap();
        fs::write(&key, key_pem).unwrap();
        Files { _folder: folder, certificate, key }
    }

    #[test]
    fn each_mistake_is_named_with_its_file() {
        let (certificate, key) = pem();
        let (_, other_key) = pem();
        let broken = certificate.replace("MII", "AAA");
        for ((certificate, key), wanted) in [
            ((&*certificate, "text"), "key.pem cannot be used: it holds no private key"),
            (
                (&*certificate, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n"),
                "encrypted",
            ),
            (("text", &*key), "chain.pem cannot be used: it holds no certificate"),
            ((&*broken, &*key), "chain.pem cannot be used: it cannot be parsed"),
            ((&*certificate, &*other_key), "does not belong to the certificate"),
        ] {
            let files = files((certificate, key));
            let error = FileCertificates::open(&files.certificate, &files.key).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let files = files((&certificate, &key));
        let missing = FileCertificates::open(&files.certificate, "/nowhere/key.pem").unwrap_err().to_string();
        assert!(missing.contains("key /nowhere/key.pem cannot be read"), "{missing}");
    }

    #[test]
    fn one_file_may_hold_both() {
        let (certificate, key) = pem();
        let files = files((&format!("{certificate}{key}"), ""));
        assert!(FileCertificates::open(&files.certificate, &files.certificate).is_ok());
    }

    #[test]
    fn a_renewal_is_taken_up_once_both_files_fit() {
        let (certificate, key) = pem();
        let files = files((&certificate, &key));
        let certs = FileCertificates::open(&files.certificate, &files.key).unwrap();
        let served = || certs.shared.state.read().in_use.certified.cert[0].clone();
        let old = served();
        assert!(!certs.reload().unwrap());

        let (certificate, key) = pem();
        fs::write(&files.certificate, certificate).unwrap();
        assert!(matches!(certs.reload(), Err(FileError::Mismatch { .. })));
        assert!(!certs.reload().unwrap(), "the same mistake is reported once");
        assert_eq!(served(), old);
        fs::write(&files.key, key).unwrap();
        assert!(certs.reload().unwrap());
        assert_ne!(served(), old);
    }
}
