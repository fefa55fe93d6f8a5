use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::RwLock;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    Certificate, FolderError, MintError,
    folder::{Folder, FolderLock},
    generations::Generations,
};

/// How often the wall clock is looked at. Timers stand still while a laptop sleeps, so one long timer would be
/// late by the whole sleep; ten minutes is nothing beside the two days that a switch has to spare.
const CHECK_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The development certificate: kept in a folder, shared by the processes that use the folder, and renewed before it
/// ends while the server runs. A cheap handle; clones see the same certificates.
#[derive(Clone)]
pub struct DevCertificates {
    shared: Arc<Shared>,
}

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The folder, or a file in it, cannot be read or written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A certificate could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
}

/// What [`DevCertificates::rotate`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing was due.
    Unchanged,
    /// The certificates in use or their successor changed: [`DevCertificates::hashes`] has a new answer.
    Changed,
}

impl DevCertificates {
    /// Opens the folder, which is made if it is missing, and sees that it holds a certificate for `localhost`, `127.0.0.1`,
    /// `::1` and `names` that lasts for at least two more days. Reads and writes files: not for an async task.
    pub fn open(folder: impl Into<PathBuf>, names: impl Into<Vec<String>>) -> Result<Self, DevError> {
        Self::open_at(folder, names, SystemTime::now())
    }

    /// [`DevCertificates::open`] at a moment of the caller's choice.
    pub fn open_at(
        folder: impl Into<PathBuf>,
        names: impl Into<Vec<String>>,
        now: SystemTime,
    ) -> Result<Self, DevError> {
        let folder = Folder::new(folder.into());
        let names = names.into();
        let lock = folder.lock()?;
        let generations = bring_up_to_date(&folder, &lock, &names, now)?;
        Ok(Self { shared: Arc::new(Shared { folder, names, generations: RwLock::new(generations) }) })
    }

    /// Serves the certificate that is current at the moment of each handshake, whatever name is asked for.
    #[must_use]
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.shared.clone()
    }

    /// SHA-256 of the current certificate and, from its seventh day on, of the next one: what a page should accept.
    #[must_use]
    pub fn hashes(&self) -> Vec<[u8; 32]> {
        let generations = self.shared.generations.read();
        std::iter::once(&generations.current).chain(&generations.next).map(Certificate::hash).collect()
    }

    /// The certificate in use.
    #[must_use]
    pub fn current(&self) -> Certificate {
        self.shared.generations.read().current.clone()
    }

    /// The certificate to come, if it has been made.
    #[must_use]
    pub fn next(&self) -> Option<Certificate> {
        self.shared.generations.read().next.clone()
    }

    /// The folder that keeps the certificates.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.shared.folder.path()
    }

    /// The file with the current certificate and its key, in PEM form.
    #[must_use]
    pub fn current_path(&self) -> PathBuf {
        self.shared.folder.current_path()
    }

    /// When [`DevCertificates::rotate`] will next have something to do.
    #[must_use]
    pub fn due(&self) -> SystemTime {
        self.shared.generations.read().due()
    }

    /// Makes the next certificate, or makes it the current one, when `now` has come for it. What another process has done
    /// in the folder meanwhile is taken up. If the folder fails, the certificates change in memory alone, with a warning: a
    /// server that runs must not end up with an expired certificate because its disk is full.
    pub fn rotate(&self, now: SystemTime) -> Result<Rotation, MintError> {
        let before = self.shared.generations.read().clone();
        // A clock that was set back behind the certificate's beginning counts, too.
        if now < before.due() && now >= before.current.not_before() {
            return Ok(Rotation::Unchanged);
        }
        let kept = self
            .shared
            .folder
            .lock()
            .map_err(DevError::from)
            .and_then(|lock| bring_up_to_date(&self.shared.folder, &lock, &self.shared.names, now));
        let after = match kept {
            Ok(generations) => generations,
            Err(DevError::Mint(error)) => return Err(error),
            Err(DevError::Folder(error)) => {
                tracing::warn!(%error, "the certificate is renewed in memory only, and a restart will make another one");
                Generations::at(now, Some(before.current.clone()), before.next.clone(), &self.shared.names)?
            }
        };
        if after == before {
            return Ok(Rotation::Unchanged);
        }
        tracing::info!(
            current = crate::base64(&after.current.hash()),
            next = after.next.as_ref().map(|next| crate::base64(&next.hash())),
            expires = crate::rfc3339(after.current.not_after()),
            "development certificate rotated"
        );
        *self.shared.generations.write() = after;
        Ok(Rotation::Changed)
    }

    /// Rotates whenever it is time. Never completes; dropping the future ends it. Must be polled inside a tokio runtime.
    pub async fn keep_fresh(&self) {
        self.keep_fresh_by(SystemTime::now).await;
    }

    async fn keep_fresh_by(&self, clock: impl Fn() -> SystemTime) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let (this, now) = (self.clone(), clock());
            match tokio::task::spawn_blocking(move || this.rotate(now)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "the development certificate was not renewed; trying again")
                }
                Err(error) => {
                    tracing::error!(%error, "renewing the development certificate failed; trying again")
                }
            }
        }
    }
}

impl fmt::Debug for DevCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

#[derive(Debug)]
struct Shared {
    folder: Folder,
    /// What the certificate has to cover beside the usual names.
    names: Vec<String>,
    generations: RwLock<Generations>,
}

impl ResolvesServerCert for Shared {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.generations.read().current.certified_key())
    }
}

fn bring_up_to_date(
    folder: &Folder,
    lock: &FolderLock,
    names: &[String],
    now: SystemTime,
) -> Result<Generations, DevError> {
    let (current, next) = folder.load(lock)?;
    if let Some(ended) = current.as_ref().filter(|current| current.not_after() < now) {
        tracing::warn!(
            expired = crate::rfc3339(ended.not_after()),
            "the development certificate has expired; it is renewed"
        );
    }
    let generations = Generations::at(now, current.clone(), next.clone(), names)?;
    folder.save(lock, (current.as_ref(), next.as_ref()), &generations)?;
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Barrier, thread};

    use super::*;
    use crate::{SWITCH_BEFORE, VALIDITY};

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn open(folder: &Path, now: SystemTime) -> DevCertificates {
        DevCertificates::open_at(folder, [], now).unwrap()
    }

    #[test]
    fn a_certificate_is_kept_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("deep").join("er");
        let first = open(&dir, start());
        assert_eq!(first.hashes().len(), 1);
        assert_eq!(open(&dir, start() + 6 * DAY).hashes(), first.hashes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&first.current_path()), 0o600);
            assert_eq!(mode(&dir), 0o700);
        }
    }

    #[test]
    fn it_rotates_while_it_runs_and_the_folder_follows() {
        let folder = tempfile::tempdir().unwrap();
        let certs = open(folder.path(), start());
        let old = certs.current();
        assert_eq!(certs.rotate(start()).unwrap(), Rotation::Unchanged);

        let seventh_day = certs.due();
        assert_eq!(certs.rotate(seventh_day).unwrap(), Rotation::Changed);
        let next = certs.next().unwrap();
        assert_eq!(certs.hashes(), [old.hash(), next.hash()]);
        assert_eq!(open(folder.path(), seventh_day).hashes(), certs.hashes());

        let switch = certs.due();
        assert_eq!(switch, old.not_after() - SWITCH_BEFORE);
        assert_eq!(certs.rotate(switch).unwrap(), Rotation::Changed);
        assert_eq!(certs.hashes(), [next.hash()]);
        assert_eq!(certs.rotate(switch).unwrap(), Rotation::Unchanged);
        assert_eq!(open(folder.path(), switch).hashes(), certs.hashes());
        assert!(!folder.path().join("next.pem").exists());
    }

    #[test]
    fn two_processes_with_one_folder_agree_through_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (open(folder.path(), start()), open(folder.path(), start()));
        for _ in 0..3 {
            let due = one.due();
            one.rotate(due).unwrap();
            two.rotate(due).unwrap();
            assert_eq!(one.hashes(), two.hashes());
        }
    }

    #[test]
    fn many_at_once_make_one_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let barrier = Barrier::new(8);
        let hashes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        barrier.wait();
                        open(folder.path(), start()).hashes()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(hashes.iter().all(|one| *one == hashes[0]));
    }

    #[test]
    fn an_expired_one_is_renewed() {
        let folder = tempfile::tempdir().unwrap();
        let old = open(folder.path(), start()).hashes();
        assert_ne!(open(folder.path(), start() + VALIDITY).hashes(), old);
    }

    #[test]
    fn rubbish_is_put_aside_and_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("current.pem");
        fs::write(&file, "my notes").unwrap();
        open(folder.path(), start());
        assert_eq!(fs::read_to_string(folder.path().join("current.pem.unusable")).unwrap(), "my notes");
        assert!(Certificate::from_pem(&fs::read_to_string(file).unwrap()).is_ok());
    }

    #[test]
    fn an_unreadable_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("current.pem");
        fs::create_dir(&file).unwrap();
        let error = DevCertificates::open_at(folder.path(), [], start()).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()) && error.contains("delete it"), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn a_folder_that_is_a_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = DevCertificates::open_at(&file, [], start()).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_folder_that_vanished_or_broke_does_not_stop_the_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("certs");
        let certs = open(&dir, start());
        let old = certs.current();
        fs::remove_dir_all(&dir).unwrap();
        fs::write(&dir, "in the way").unwrap();
        certs.rotate(certs.due()).unwrap();
        assert_eq!(certs.current(), old);
        certs.rotate(certs.due()).unwrap();
        assert_ne!(certs.current(), old);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_rotates_when_the_clock_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let certs = open(folder.path(), start());
        let (old, began) = (certs.current(), tokio::time::Instant::now());
        // Each of the task's ten minutes is a day on this clock.
        let clock = || start() + (began.elapsed().as_secs() / CHECK_INTERVAL.as_secs()) as u32 * DAY;
        let watch = async {
            while certs.current() == old {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            () = certs.keep_fresh_by(clock) => unreachable!("it never completes"),
            () = watch => {}
        }
        assert!(certs.current().not_after() > clock() + SWITCH_BEFORE);
    }
}
