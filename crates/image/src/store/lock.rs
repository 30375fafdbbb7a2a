//! The lock between processes: shared while images are read or added, alone while they are removed.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{StoreError, system};

/// A pull may take long; whoever wants to remove something is told so rather than left waiting.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// While this lives, no image is removed (or, held alone, nothing else is done).
#[derive(Debug)]
pub struct Hold {
    /// Closing it lets go.
    _file: File,
}

impl Hold {
    pub(super) fn shared(path: &Path) -> Result<Hold, StoreError> {
        let file = open(path)?;
        file.lock_shared().map_err(system("lock", path))?;
        Ok(Hold { _file: file })
    }

    pub(super) fn alone(path: &Path) -> Result<Hold, StoreError> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(hold) = Self::try_alone(path)? {
                return Ok(hold);
            }
            if Instant::now() >= until {
                let folder = path.parent().unwrap_or(path);
                return Err(StoreError::Busy(folder.to_owned()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    pub(super) fn try_alone(path: &Path) -> Result<Option<Hold>, StoreError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Hold { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(system("lock", path)(source)),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(system("open", path))
}
