//! Images from files: OCI layout folders, archives of them, and what `docker save` writes.

mod archive;
mod load;

use std::fs::File;
use std::io::{self, Read, Take};
use std::path::{Path, PathBuf};

use crate::digest::{Digest, DigestError};
use crate::document::DocumentError;
use crate::reference::NameError;
use crate::store::StoreError;

pub use load::{Loaded, load};

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system said no.
    #[error("could not read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Neither a layout nor an archive of one.
    #[error(
        "{0} is no image: neither an OCI layout (oci-layout, index.json), nor an archive of one, nor one that `docker save` wrote"
    )]
    NoImage(PathBuf),
    /// Something that the documents name is not there.
    #[error("{what} is missing")]
    Missing {
        /// What.
        what: String,
    },
    /// Bytes that are not what they are said to be.
    #[error("{what} is not what its digest says: wanted {wanted}, found {found}")]
    Digest {
        /// What.
        what: &'static str,
        /// Said.
        wanted: Digest,
        /// Found.
        found: Digest,
    },
    /// As above, told by the size alone.
    #[error("{what} {digest} has {found} bytes where {wanted} are said")]
    Size {
        /// What.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Said.
        wanted: u64,
        /// Found.
        found: u64,
    },
    /// A document is larger than allowed.
    #[error("{what} has {found} bytes; at most {most} are taken")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// A document makes no sense.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A digest makes no sense.
    #[error(transparent)]
    BadDigest(#[from] DigestError),
    /// The name of the image makes no sense.
    #[error("{name:?} is no name of an image: {source}")]
    Name {
        /// The text.
        name: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// Nothing says what the image is called.
    #[error("{0} does not say what its image is called; give it a name with --name")]
    Nameless(PathBuf),
    /// One name for several images.
    #[error("{path} holds {count} images; --name can name one only")]
    Several {
        /// The file.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A file among those of an image, to be read.
pub(crate) struct Part {
    pub(crate) bytes: Take<File>,
    pub(crate) size: u64,
}

/// The files of an image, by their paths in the layout.
pub(crate) enum Files {
    Folder(PathBuf),
    Archive(archive::Members),
}

impl Files {
    pub(crate) fn open(path: &Path, work: &Path) -> Result<Files, SourceError> {
        let metadata = std::fs::metadata(path).map_err(unread(path))?;
        if metadata.is_dir() {
            return Ok(Files::Folder(path.to_owned()));
        }
        archive::Members::read(path, work).map(Files::Archive)
    }

    /// A file, if it is there. A path that leads up is none of a layout's.
    pub(crate) fn part(&self, name: &str) -> Result<Option<Part>, SourceError> {
        let Some(name) = archive::clean(name.as_bytes()) else {
            return Ok(None);
        };
        match self {
            Files::Folder(folder) => part_of_folder(&folder.join(name)),
            Files::Archive(members) => members.part(&name),
        }
    }

    /// A small file as a whole.
    pub(crate) fn document(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(mut part) = self.part(name)? else {
            return Ok(None);
        };
        if part.size > most {
            return Err(SourceError::TooLarge {
                what: name.to_owned(),
                found: part.size,
                most,
            });
        }
        let mut bytes = Vec::new();
        part.bytes
            .read_to_end(&mut bytes)
            .map_err(unread(Path::new(name)))?;
        Ok(Some(bytes))
    }
}

fn part_of_folder(path: &Path) -> Result<Option<Part>, SourceError> {
    // Looked at first: to open a pipe is to wait for its other end.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unread(path)(source)),
    }
    let file = File::open(path).map_err(unread(path))?;
    let size = file.metadata().map_err(unread(path))?.len();
    Ok(Some(Part {
        bytes: file.take(size),
        size,
    }))
}

pub(crate) fn unread(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    move |source| SourceError::Read { path, source }
}
