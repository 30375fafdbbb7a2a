//! The data folder: made, locked by one process, of a version that this program knows.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The version of the folder's format.
const VERSION: u32 = 1;

/// Why a server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on the folder.
    #[error("the data folder {} is in use by process {}; stop that one first, or choose another with --data-dir", .path.display(), .pid.map_or("?".to_owned(), |pid| pid.to_string()))]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, if it says so.
        pid: Option<u32>,
    },
    /// The folder was written by a newer program.
    #[error("the data folder {} has format {found}, this program knows up to {VERSION}; use the newer program, or another folder with --data-dir", .path.display())]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The version that it says.
        found: String,
    },
    /// Something in the folder cannot be made, read or written.
    #[error("{what} {}: {cause}; check the folder's owner and mode, or choose another with --data-dir", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What stood in the way.
        cause: std::io::Error,
    },
    /// The store cannot be read.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] crate::backend::BackendError),
    /// A stored object cannot be understood.
    #[error(
        "the store holds an entry that this program does not understand: {key}; nothing was changed, use the program that wrote it"
    )]
    Entry {
        /// The entry's key.
        key: String,
    },
    /// Keys or certificates cannot be made.
    #[error("certificates: {0}")]
    Pki(String),
    /// The address cannot be listened on.
    #[error("listening on {address}: {cause}; choose another address with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What stood in the way.
        cause: std::io::Error,
    },
    /// The service range is not `A.B.C.D/bits`.
    #[error("the service range {0:?} is not an IPv4 range like 10.96.0.0/16")]
    ServiceRange(String),
}

/// A failed call on a path.
pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |cause| OpenError::Io { what, path, cause }
}

/// A locked data folder. The lock ends with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if needed, locks it, and checks its version.
    ///
    /// # Errors
    /// When it is locked, newer, or cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("making the data folder", path))?;
        let lock = lock(path)?;
        check_version(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let file = path.join("lock");
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&file)
        .map_err(io("opening", &file))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked {
                path: path.to_owned(),
                pid: written_pid(&file),
            });
        }
        Err(TryLockError::Error(cause)) => return Err(io("locking", &file)(cause)),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(io("writing", &file))?;
    Ok(lock)
}

fn written_pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The process that holds a data folder, if any does. Does not take the lock.
pub fn lock_holder(data_dir: &Path) -> Option<u32> {
    let file = data_dir.join("lock");
    let lock = File::open(&file).ok()?;
    match lock.try_lock_shared() {
        Ok(()) => None,
        Err(TryLockError::WouldBlock) => written_pid(&file),
        Err(TryLockError::Error(_)) => None,
    }
}

fn check_version(path: &Path) -> Result<(), OpenError> {
    let file = path.join("version");
    let mut found = String::new();
    match File::open(&file) {
        Ok(mut opened) => opened
            .read_to_string(&mut found)
            .map_err(io("reading", &file))?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return write_atomically(&file, format!("{VERSION}\n").as_bytes(), 0o600);
        }
        Err(cause) => return Err(io("reading", &file)(cause)),
    };
    match found.trim().parse::<u32>() {
        Ok(version) if version <= VERSION => Ok(()),
        Ok(_) | Err(_) => Err(OpenError::Newer {
            path: path.to_owned(),
            found: found.trim().to_owned(),
        }),
    }
}

/// Writes a file by renaming a complete one into its place.
pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), OpenError> {
    let part = path.with_extension("part");
    // A part that a crash left behind may have another mode.
    match fs::remove_file(&part) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
        Err(cause) => return Err(io("removing", &part)(cause)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&part)
        .map_err(io("making", &part))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(io("writing", &part))?;
    fs::rename(&part, path).map_err(io("renaming into", path))
}
