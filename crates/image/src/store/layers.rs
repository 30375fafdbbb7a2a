//! Layers: unpacked beside their place, checked, synced, and only then renamed to it.

use std::fs;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::compression;
use crate::digest::{Digest, HashingReader};
use crate::document::Descriptor;
use crate::tar::TarError;
use crate::unpack::{UnpackError, remove_tree, unpack};

use super::{Hold, Store, StoreError, sync_parent, system};

/// What is known of a layer that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// The digest of its archive before compression.
    pub diff_id: Digest,
    /// Entries of its archive.
    pub entries: u64,
    /// Bytes of its files, without holes.
    pub bytes: u64,
    /// Device nodes that an ordinary user could not make.
    pub devices_left: u64,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Store {
    /// The folder of a layer's files.
    pub(crate) fn tree(&self, diff_id: &Digest) -> PathBuf {
        self.layer_folder(diff_id).join("tree")
    }

    /// Whether a layer is here.
    pub(crate) fn has_layer(&self, diff_id: &Digest) -> bool {
        self.tree(diff_id).is_dir()
    }

    /// Unpacks a layer whose bytes were checked, unless it is here. They are checked again by what they unpack to.
    ///
    /// # Errors
    /// When it is not what the config says, cannot be unpacked, or leaves its limits.
    pub(crate) fn add_layer(
        &self,
        _hold: &Hold,
        layer: &Descriptor,
        diff_id: &Digest,
        bytes: impl BufRead + Send,
    ) -> Result<(), StoreError> {
        if self.has_layer(diff_id) {
            return Ok(());
        }
        let work = self.work_folder()?;
        let made = self.make_layer(&work, layer, diff_id, bytes);
        let placed = made.and_then(|()| self.place_layer(&work, diff_id));
        if placed.is_err() {
            // What cannot be removed now is swept at the next start.
            let _ = remove_tree(&work);
        }
        placed
    }

    /// A new folder for something that is not finished.
    pub(crate) fn work_folder(&self) -> Result<PathBuf, StoreError> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let path = self.folder.join("work").join(name);
        // One of a process that had the same number and crashed.
        remove_tree(&path).map_err(system("sweep", &path))?;
        fs::create_dir(&path).map_err(system("make", &path))?;
        Ok(path)
    }

    fn make_layer(
        &self,
        work: &Path,
        layer: &Descriptor,
        diff_id: &Digest,
        bytes: impl BufRead + Send,
    ) -> Result<(), StoreError> {
        let tree = work.join("tree");
        fs::create_dir(&tree).map_err(system("make", &tree))?;
        let refused = |source| StoreError::Unpack {
            layer: layer.digest.clone(),
            source,
        };
        let most = self.limits.unpacked(layer.size);
        let plain = compression::decompress(bytes)
            .map_err(|error| refused(UnpackError::Archive(TarError::Read(error))))?;
        let mut plain = HashingReader::new(plain, diff_id.algorithm(), most);
        let entries = self.limits.entries_of(layer.size);
        let done = unpack(&mut plain, &tree, self.policy, &self.limits, entries);
        if plain.seen() > most {
            return Err(StoreError::Bomb {
                layer: layer.digest.clone(),
                size: layer.size,
                most,
            });
        }
        let done = done.map_err(refused)?;
        let has = plain.finish();
        if has != *diff_id {
            return Err(StoreError::DiffId {
                layer: layer.digest.clone(),
                has,
                wanted: diff_id.clone(),
            });
        }
        let about = Layer {
            diff_id: has,
            entries: done.entries,
            bytes: done.bytes,
            devices_left: done.devices_left,
        };
        let file = work.join("layer.json");
        let text = serde_json::to_vec_pretty(&about)
            .map_err(|error| system("write", &file)(error.into()))?;
        fs::write(&file, text).map_err(system("write", &file))?;
        let replaced = work.join("replaced");
        remove_tree(&replaced).map_err(system("remove", &replaced))?;
        sync_all(work)
    }

    fn place_layer(&self, work: &Path, diff_id: &Digest) -> Result<(), StoreError> {
        let place = self.layer_folder(diff_id);
        match fs::rename(work, &place) {
            Ok(()) => sync_parent(&place),
            // Another was faster: its layer is the same.
            Err(_) if self.has_layer(diff_id) => remove_tree(work).map_err(system("remove", work)),
            Err(source) => Err(system("make", &place)(source)),
        }
    }

    fn layer_folder(&self, diff_id: &Digest) -> PathBuf {
        self.folder.join("layers").join(diff_id.file_name())
    }
}

/// What is known of the layer in a folder; `None` when its note is missing.
pub(super) fn read(folder: &Path) -> Result<Option<Layer>, StoreError> {
    let file = folder.join("layer.json");
    match fs::read(&file) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| StoreError::Damaged {
                    path: file,
                    why: error.to_string(),
                })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(system("read", &file)(source)),
    }
}

/// One sync of the file system rather than one of each of thousands of files.
fn sync_all(folder: &Path) -> Result<(), StoreError> {
    let synced = fs::File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
    synced.map_err(system("sync", folder))
}
