use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{Certificate, generations::Generations};

/// A development certificate is below 2 KiB; what is larger is something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The folder that keeps development certificates: `current.pem` and, at times, `next.pem`, each with
/// certificate **and** key, so that no crash can pair one with the other's key.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

/// Why the folder cannot be used. Each message names the path and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be {action}: {error} (fix its permissions, delete it, or name another folder)", path.display())]
pub struct FolderError {
    path: PathBuf,
    action: &'static str,
    #[source]
    error: io::Error,
}

/// There is no folder to keep certificates in by default.
#[derive(Debug, thiserror::Error)]
#[error("no folder for the development certificate: neither XDG_STATE_HOME nor HOME is set; name a folder")]
pub struct NoDefaultFolder;

/// Where development certificates are kept when no folder is named: `certs/dev` inside a checkout of
/// Throughline (git-ignored), otherwise `throughline/certificates` in the user's state folder
/// (`$XDG_STATE_HOME`, `~/.local/state`, on Windows `%LOCALAPPDATA%`).
pub fn default_folder() -> Result<PathBuf, NoDefaultFolder> {
    default_folder_from(env::current_dir().ok().as_deref(), |name| env::var_os(name))
}

impl Folder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn current_path(&self) -> PathBuf {
        self.path.join("current.pem")
    }

    pub(crate) fn next_path(&self) -> PathBuf {
        self.path.join("next.pem")
    }

    /// Waits until no other process reads or changes the folder; until the guard is dropped none will.
    /// Held for milliseconds, by whoever makes, renews or reads certificates.
    pub(crate) fn lock(&self) -> Result<FolderLock, FolderError> {
        let failed = |action, error| FolderError { path: self.path.clone(), action, error };
        create_private_dir(&self.path).map_err(|error| failed("created", error))?;
        let opened = OpenOptions::new().create(true).append(true).open(self.path.join("lock"));
        match opened.and_then(|file| file.lock().map(|()| file)) {
            Ok(file) => Ok(FolderLock(Some(file))),
            // A read-only folder may hold a certificate that is still good, and some network file systems
            // know no locks. If something has to be written after all, writing says what is wrong.
            Err(error) if is_harmless_without_lock(&error) => Ok(FolderLock(None)),
            Err(error) => Err(failed("locked", error)),
        }
    }

    /// Current and next as they are on disk. A file that is not what we wrote is put aside with a warning,
    /// and counts as missing: a development certificate is cheap, a start that fails is not.
    pub(crate) fn load(&self, _lock: &FolderLock) -> Result<(Option<Certificate>, Option<Certificate>), FolderError> {
        Ok((read(&self.current_path())?, read(&self.next_path())?))
    }

    /// Writes what changed since `before`.
    pub(crate) fn save(
        &self,
        _lock: &FolderLock,
        before: (Option<&Certificate>, Option<&Certificate>),
        after: &Generations,
    ) -> Result<(), FolderError> {
        // The current one first: a crash in between leaves the same certificate in both files, and the
        // copy in `next.pem` is ignored.
        if before.0 != Some(&after.current) {
            replace(&self.current_path(), after.current.pem())?;
        }
        match &after.next {
            next if before.1 == next.as_ref() => Ok(()),
            Some(next) => replace(&self.next_path(), next.pem()),
            None => remove(&self.next_path()),
        }
    }
}

/// The folder is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock(#[expect(dead_code, reason = "held for its drop, which unlocks")] Option<File>);

fn read(path: &Path) -> Result<Option<Certificate>, FolderError> {
    let failed = |error| FolderError { path: path.to_owned(), action: "read", error };
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > MAX_FILE_BYTES => Err("it is too large".to_owned()),
        Ok(_) => Ok(fs::read(path).map_err(failed)?),
    };
    let certificate = text
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not text".to_owned()))
        .and_then(|text| Certificate::from_pem(&text));
    match certificate {
        Ok(certificate) => Ok(Some(certificate)),
        Err(reason) => {
            let aside = path.with_extension("pem.unusable");
            tracing::warn!(file = %path.display(), moved_to = %aside.display(), reason,
                "this is not a development certificate of ours; it is put aside and a new one made");
            fs::rename(path, &aside).map_err(|error| FolderError {
                path: path.to_owned(),
                action: "put aside",
                error,
            })?;
            Ok(None)
        }
    }
}

/// Puts `text` in the place of `path` in one step, readable by its owner only. The caller holds the lock.
fn replace(path: &Path, text: &str) -> Result<(), FolderError> {
    let temporary = path.with_extension("pem.new");
    let write = || {
        remove_if_there(&temporary)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| FolderError { path: path.to_owned(), action: "written", error })
}

fn remove(path: &Path) -> Result<(), FolderError> {
    remove_if_there(path).map_err(|error| FolderError { path: path.to_owned(), action: "removed", error })
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn is_harmless_without_lock(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

fn default_folder_from(
    working_folder: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, NoDefaultFolder> {
    if let Some(checkout) = working_folder.into_iter().flat_map(Path::ancestors).find(|folder| is_checkout(folder)) {
        return Ok(checkout.join("certs").join("dev"));
    }
    // An empty or relative XDG variable is to be ignored (XDG Base Directory Specification).
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("LOCALAPPDATA"))
        .or_else(|| absolute("HOME").map(|home| home.join(".local").join("state")));
    Ok(state.ok_or(NoDefaultFolder)?.join("throughline").join("certificates"))
}

fn is_checkout(folder: &Path) -> bool {
    fs::read_to_string(folder.join("certs").join("Cargo.toml"))
        .is_ok_and(|manifest| manifest.contains("name = \"throughline-certs\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_a_checkout_it_is_certs_dev() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = default_folder_from(Some(&here.join("src")), |_| None).unwrap();
        assert_eq!(found, here.join("dev"));
    }

    #[test]
    fn elsewhere_it_is_the_users_state_folder() {
        let elsewhere = tempfile::tempdir().unwrap();
        let with = |set: &'static [(&str, &str)]| {
            default_folder_from(Some(elsewhere.path()), move |name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        let text = |path: Result<PathBuf, _>| path.unwrap().display().to_string();
        assert_eq!(text(with(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/s")])), "/s/throughline/certificates");
        assert_eq!(
            text(with(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "")])),
            "/home/a/.local/state/throughline/certificates"
        );
        assert!(with(&[]).is_err());
    }
}
