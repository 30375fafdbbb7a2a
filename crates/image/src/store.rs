//! The images of this machine: names, documents and unpacked layers in one folder, shared between processes.
//!
//! ```text
//! lock                     held shared by whoever reads or adds, alone by whoever removes
//! names/<hash>.json        one file a name: which image it is
//! documents/<digest>       manifests and configs, as they came
//! layers/<diff id>/tree    a layer, unpacked once for all images that have it
//! downloads/<digest>       layers on their way
//! work/                    what is not finished; swept by the next that finds nobody at work
//! ```
//!
//! Everything is made beside its place, synced and renamed: a name exists only when all that it needs does.

mod layers;
mod lock;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::document::{self, DocumentError, ImageConfig};
use crate::limits::Limits;
use crate::reference::ImageName;
use crate::unpack::{Policy, UnpackError, remove_tree};

pub use layers::Layer;
pub use lock::Hold;

/// Why something of the store could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system said no.
    #[error("could not {what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the store is not what it was when it was written.
    #[error("{path} is damaged ({why}); remove the image with `stead image rm` and get it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another process holds the store.
    #[error("another process uses the images in {0}; try again when its pull has ended")]
    Busy(PathBuf),
    /// A layer is not what the config says.
    #[error("layer {layer} unpacks to {has}, but the config says {wanted}")]
    DiffId {
        /// The layer as it came.
        layer: Digest,
        /// What it unpacks to.
        has: Digest,
        /// What it is to unpack to.
        wanted: Digest,
    },
    /// A layer is larger than the limits allow once it is unpacked.
    #[error(
        "layer {layer} of {size} bytes unpacks to more than {most} bytes; it is refused as a bomb"
    )]
    Bomb {
        /// The layer.
        layer: Digest,
        /// Its size as it came.
        size: u64,
        /// What it may become.
        most: u64,
    },
    /// A layer cannot be unpacked.
    #[error("layer {layer}: {source}")]
    Unpack {
        /// The layer.
        layer: Digest,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// A document of an image makes no sense.
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// One folder of images.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    limits: Limits,
    policy: Policy,
}

/// An image that is here, all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name in full.
    pub name: String,
    /// The digest of its config: the same bytes everywhere are the same image.
    pub id: Digest,
    /// What its name pointed at: an index or a manifest.
    pub digest: Digest,
    /// Whether it came from a registry, where the digest can be asked for.
    pub pulled: bool,
    /// What a container of it runs.
    pub config: ImageConfig,
    /// Folders of its unpacked layers, lowest first; none twice.
    pub layers: Vec<PathBuf>,
    /// Bytes of its layers and documents as they came.
    pub size: u64,
    /// When it came, as RFC 3339.
    pub at: String,
}

impl Image {
    /// `registry/repository@digest` where a registry has it, else the digest of its config. upstream: `imageID`.
    pub fn image_id(&self) -> String {
        let repository = ImageName::parse(&self.name).map(|name| name.full_repository());
        match repository {
            Ok(repository) if self.pulled => format!("{repository}@{}", self.digest),
            Ok(_) | Err(_) => self.id.to_string(),
        }
    }
}

/// The file of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameRecord {
    pub(crate) name: String,
    /// What the name pointed at.
    pub(crate) digest: Digest,
    pub(crate) manifest: Digest,
    pub(crate) config: Digest,
    /// Diff ids, lowest first.
    pub(crate) layers: Vec<Digest>,
    pub(crate) size: u64,
    pub(crate) pulled: bool,
    pub(crate) at: String,
}

/// How the removal of a name went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// A container uses a layer of it.
    InUse,
    /// There is no image of this name.
    Unknown,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names.
    pub names: Vec<String>,
    /// Layers, by their diff ids.
    pub layers: Vec<Digest>,
    /// Bytes of the disk that were given back.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in a folder, which is made where it is missing, and sweeps what a crash left there.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let store = Store {
            folder: folder.to_owned(),
            limits: Limits::default(),
            policy: Policy::of_this_process(),
        };
        for part in ["", "names", "documents", "layers", "downloads", "work"] {
            let path = store.folder.join(part);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(system("make", &path))?;
        }
        store.sweep()?;
        Ok(store)
    }

    /// The same store with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Store {
        self.limits = limits;
        self
    }

    /// What it takes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps every image here until the answer is dropped. Waits for a removal that is under way.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn hold(&self) -> Result<Hold, StoreError> {
        Hold::shared(&self.folder.join("lock"))
    }

    /// The image of a name, if all of it is here.
    ///
    /// # Errors
    /// When a file of it is damaged or cannot be read.
    pub fn find(&self, name: &ImageName) -> Result<Option<Image>, StoreError> {
        if let Some(record) = self.record(&self.name_file(&name.to_string()))? {
            return self.image(record);
        }
        let Some(digest) = &name.digest else {
            return Ok(None);
        };
        // What was pulled by its tag is the same thing.
        let repository = format!("{}:", name.full_repository());
        let same = |record: &NameRecord| {
            record.name.starts_with(&repository)
                && (record.digest == *digest || record.manifest == *digest)
        };
        match self.records()?.into_iter().find(same) {
            Some(record) => self.image(record),
            None => Ok(None),
        }
    }

    /// Every image, by name.
    ///
    /// # Errors
    /// When the store cannot be read. An image that is damaged is left out.
    pub fn list(&self) -> Result<Vec<Image>, StoreError> {
        let mut images = Vec::new();
        for record in self.records()? {
            match self.image(record) {
                Ok(found) => images.extend(found),
                Err(error) => tracing::warn!(%error, "an image is left out"),
            }
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }

    /// Takes a name away, unless a layer of it is in use; what it alone needed goes with [`Store::prune`].
    ///
    /// # Errors
    /// When another process works on the store, or a file cannot be removed.
    pub fn remove(
        &self,
        name: &ImageName,
        in_use: impl FnOnce() -> io::Result<BTreeSet<PathBuf>>,
    ) -> Result<Removal, StoreError> {
        let _alone = Hold::alone(&self.folder.join("lock"))?;
        let file = self.name_file(&name.to_string());
        let Some(record) = self.record(&file)? else {
            return Ok(Removal::Unknown);
        };
        if self.is_used(
            &record,
            &in_use().map_err(system("look for users of", &file))?,
        ) {
            return Ok(Removal::InUse);
        }
        fs::remove_file(&file).map_err(system("remove", &file))?;
        Ok(Removal::Done)
    }

    /// Removes layers and documents that no name needs, and, when asked, every name first. What is in use stays: a
    /// layer whose folder `in_use` holds, and, as long as one of its layers is in use, its image's name.
    ///
    /// # Errors
    /// When another process works on the store, or something cannot be removed.
    pub fn prune(
        &self,
        all: bool,
        in_use: impl FnOnce() -> io::Result<BTreeSet<PathBuf>>,
    ) -> Result<Removed, StoreError> {
        let _alone = Hold::alone(&self.folder.join("lock"))?;
        // Asked now that nobody can start anything: what is in use stays so.
        let in_use = &in_use().map_err(system("look for users of", &self.folder))?;
        let mut removed = Removed::default();
        if all {
            self.remove_unused_names(in_use, &mut removed)?;
        }
        let records = self.records()?;
        let mut documents = BTreeSet::new();
        let mut layers = BTreeSet::new();
        for record in &records {
            documents
                .extend([&record.digest, &record.manifest, &record.config].map(Digest::file_name));
            layers.extend(record.layers.iter().map(Digest::file_name));
        }
        self.remove_layers(&layers, in_use, &mut removed)?;
        for part in ["documents", "downloads"] {
            for path in entries(&self.folder.join(part))? {
                if !documents.contains(&file_name(&path)) {
                    removed.bytes += size_of(&path);
                    fs::remove_file(&path).map_err(system("remove", &path))?;
                }
            }
        }
        Ok(removed)
    }

    fn is_used(&self, record: &NameRecord, in_use: &BTreeSet<PathBuf>) -> bool {
        let used = |layer: &Digest| in_use.contains(&self.tree(layer));
        record.layers.iter().any(used)
    }

    fn remove_unused_names(
        &self,
        in_use: &BTreeSet<PathBuf>,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        for record in self.records()? {
            if !self.is_used(&record, in_use) {
                let file = self.name_file(&record.name);
                fs::remove_file(&file).map_err(system("remove", &file))?;
                removed.names.push(record.name);
            }
        }
        Ok(())
    }

    fn remove_layers(
        &self,
        needed: &BTreeSet<String>,
        in_use: &BTreeSet<PathBuf>,
        removed: &mut Removed,
    ) -> Result<(), StoreError> {
        for path in entries(&self.folder.join("layers"))? {
            if needed.contains(&file_name(&path)) || in_use.contains(&path.join("tree")) {
                continue;
            }
            if let Some(layer) = layers::read(&path)? {
                removed.bytes += layer.bytes;
                removed.layers.push(layer.diff_id);
            }
            // Out of its place first: half a layer is never taken for one.
            let aside = self.work_folder()?.join("removed");
            fs::rename(&path, &aside).map_err(system("remove", &path))?;
            remove_work(&aside)?;
        }
        Ok(())
    }

    /// Notes that a name is this image. Its documents and layers must be here.
    pub(crate) fn write_name(&self, record: &NameRecord) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(record)
            .map_err(|error| system("write", &self.folder)(error.into()))?;
        self.write(&self.name_file(&record.name), &text)
    }

    /// Keeps a document whose digest was checked.
    pub(crate) fn write_document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        // One that is damaged is mended.
        if let Ok(Some(_)) = self.read_document(digest) {
            return Ok(());
        }
        self.write(&self.document_file(digest), bytes)
    }

    /// A document that is here, checked again.
    pub(crate) fn read_document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.document_file(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(system("read", &path)(source)),
        };
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        if hasher.finish() == *digest {
            Ok(Some(bytes))
        } else {
            let why = "its digest is another".to_owned();
            Err(StoreError::Damaged { path, why })
        }
    }

    /// Where a layer comes in.
    pub(crate) fn download_file(&self, digest: &Digest) -> PathBuf {
        self.folder.join("downloads").join(digest.file_name())
    }

    fn image(&self, record: NameRecord) -> Result<Option<Image>, StoreError> {
        let Some(bytes) = self.read_document(&record.config)? else {
            return Ok(None);
        };
        let mut layers: Vec<PathBuf> = Vec::new();
        // The same layer twice shows what its upper place shows.
        for diff_id in record.layers.iter().rev() {
            let tree = self.tree(diff_id);
            if !tree.is_dir() {
                return Ok(None);
            }
            if !layers.contains(&tree) {
                layers.push(tree);
            }
        }
        layers.reverse();
        Ok(Some(Image {
            config: document::parse_bare_config(&bytes)?,
            name: record.name,
            id: record.config,
            digest: record.digest,
            pulled: record.pulled,
            layers,
            size: record.size,
            at: record.at,
        }))
    }

    fn records(&self) -> Result<Vec<NameRecord>, StoreError> {
        let mut records = BTreeMap::new();
        for path in entries(&self.folder.join("names"))? {
            match self.record(&path) {
                Ok(found) => records.extend(found.map(|record| (record.name.clone(), record))),
                Err(error) => tracing::warn!(%error, "a name is left out"),
            }
        }
        Ok(records.into_values().collect())
    }

    fn record(&self, path: &Path) -> Result<Option<NameRecord>, StoreError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(system("read", path)(source)),
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| StoreError::Damaged {
                path: path.to_owned(),
                why: error.to_string(),
            })
    }

    fn name_file(&self, name: &str) -> PathBuf {
        let hash = Digest::of(name.as_bytes());
        self.folder
            .join("names")
            .join(format!("{}.json", hash.hex()))
    }

    fn document_file(&self, digest: &Digest) -> PathBuf {
        self.folder.join("documents").join(digest.file_name())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let work = self.work_folder()?;
        let new = work.join("new");
        let written = fs::File::create(&new).and_then(|mut file| {
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        });
        written.map_err(system("write", &new))?;
        fs::rename(&new, path).map_err(system("write", path))?;
        sync_parent(path)?;
        fs::remove_dir(&work).map_err(system("remove", &work))
    }

    /// Removes what nobody works on any more.
    fn sweep(&self) -> Result<(), StoreError> {
        let Some(_alone) = Hold::try_alone(&self.folder.join("lock"))? else {
            return Ok(());
        };
        for path in entries(&self.folder.join("work"))? {
            remove_tree(&path).map_err(system("sweep", &path))?;
        }
        Ok(())
    }
}

fn remove_work(path: &Path) -> Result<(), StoreError> {
    let work = path.parent().unwrap_or(path);
    remove_tree(work).map_err(system("remove", work))
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().unwrap_or(path);
    fs::File::open(parent)
        .and_then(|folder| folder.sync_all())
        .map_err(system("sync", parent))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let read = || {
        fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
    };
    read().map_err(system("read", folder))
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn size_of(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.len())
}

pub(crate) fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::System { what, path, source }
}
