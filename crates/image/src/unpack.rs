//! From the archive of a layer to a folder that an overlay can use, without ever leaving that folder.
//!
//! Every entry is made by a descriptor of its parent, which is found one name at a time from the folder's root: links of
//! the layer are followed as a container would follow them, inside. What a layer removes of those below it becomes the
//! overlay's own marks. The folder must be new and seen by nobody else until this is done.

mod meta;
mod place;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::limits::Limits;
use crate::tar::{Archive, Entry, Kind, TarError};
use meta::Meta;
use place::Places;

/// The prefix that says: this name of the layers below is gone.
const WHITEOUT: &[u8] = b".wh.";
/// The name that says: whatever the layers below have in this folder is gone.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of an old engine's own notes.
const NOTES: &[u8] = b".wh..wh.";
/// Paths of folders whose modes and times wait for the end may take so many bytes together.
const WAITING_MOST: usize = 64 << 20;

/// How the layer's owners, devices and privileges are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// As the layer has them; else everything belongs to whoever unpacks, and no program gets another's rights.
    pub owners: bool,
    /// Device nodes are made; else they are left out. They open no device of the machine: containers mount their layers
    /// without devices.
    pub devices: bool,
}

impl Policy {
    /// What this process may do.
    pub fn of_this_process() -> Policy {
        let root = rustix::process::geteuid().is_root();
        Policy {
            owners: root,
            devices: root,
        }
    }
}

/// Why a layer was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive cannot be read on.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// An entry that would leave the layer, or that makes no sense.
    #[error("entry {path}: {why}")]
    Refused {
        /// The entry's path, as far as it can be shown.
        path: Shown,
        /// What is wrong with it.
        why: String,
    },
    /// The machine said no.
    #[error("could not {what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The entry.
        path: Shown,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A path from an archive, made fit for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    fn of(path: &[u8]) -> Shown {
        let text: String = String::from_utf8_lossy(path).chars().take(200).collect();
        Shown(format!("{text:?}"))
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a layer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unpacked {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of files, without holes.
    pub bytes: u64,
    /// Device nodes that the policy left out.
    pub devices_left: u64,
}

/// Unpacks an archive into an empty folder. `entries`: as many are taken.
///
/// # Errors
/// See [`UnpackError`]. The folder is then of no use and should be removed.
pub fn unpack(
    archive: impl Read,
    folder: &Path,
    policy: Policy,
    limits: &Limits,
    entries: u64,
) -> Result<Unpacked, UnpackError> {
    let system = |source: Errno| UnpackError::System {
        what: "open",
        path: Shown::of(folder.as_os_str().as_bytes()),
        source: source.into(),
    };
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::open(folder, flags, Mode::empty()).map_err(system)?;
    let mut unpacker = Unpacker {
        places: Places::new(root, limits.depth).map_err(system)?,
        policy,
        folders: BTreeMap::new(),
        waiting: 0,
        done: Unpacked::default(),
        replaced: 0,
    };
    let mut archive = Archive::new(archive, limits.extension_bytes);
    while let Some(entry) = archive.next()? {
        unpacker.done.entries += 1;
        if unpacker.done.entries > entries {
            return Err(refused(
                &entry.path,
                format!("more than {entries} entries; a layer of this size has no more"),
            ));
        }
        unpacker.entry(&entry, &mut archive)?;
    }
    archive.finish()?;
    unpacker.finish()
}

struct Unpacker {
    places: Places,
    policy: Policy,
    /// Modes and times of folders, which unpacking into them would change: applied at the end.
    folders: BTreeMap<Vec<u8>, Meta>,
    waiting: usize,
    done: Unpacked,
    replaced: u64,
}

/// Where an entry goes: its parent, opened, and its name there.
struct Spot<'a> {
    parent: OwnedFd,
    name: &'a OsStr,
    path: &'a [u8],
}

impl Unpacker {
    fn entry<R: Read>(
        &mut self,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let names = names(&entry.path)?;
        let Some((name, above)) = names.split_last() else {
            return self.root(entry);
        };
        if let Kind::Other(_) = entry.kind {
            // upstream: kinds that only the tool that made the archive knows are passed over.
            return Ok(());
        }
        let parent = self
            .places
            .folder(above)
            .map_err(|trouble| trouble.of(&entry.path, "make the folder of"))?;
        let spot = Spot {
            parent,
            name: OsStr::from_bytes(name),
            path: &entry.path,
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&spot, name);
        }
        match entry.kind {
            Kind::Folder => self.folder(&spot, entry, &names),
            Kind::File => self.file(&spot, entry, archive),
            Kind::HardLink => self.hard_link(&spot, entry),
            Kind::Symlink => self.symlink(&spot, entry),
            Kind::CharDevice => self.device(&spot, entry, FileType::CharacterDevice),
            Kind::BlockDevice => self.device(&spot, entry, FileType::BlockDevice),
            Kind::Fifo => self.fifo(&spot, entry),
            Kind::Other(_) => Ok(()),
        }
    }

    /// `./`: the root folder's own owner and mode.
    fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Folder {
            return Err(refused(&entry.path, "the root of a layer is a folder"));
        }
        self.wait(&[], Meta::of(entry, self.policy))
    }

    fn folder(
        &mut self,
        spot: &Spot<'_>,
        entry: &Entry,
        names: &[&[u8]],
    ) -> Result<(), UnpackError> {
        let mut hides = false;
        match self.kind_at(spot)? {
            Some(FileType::Directory) => {}
            Some(found) => {
                // A folder in the place of a whiteout shows nothing of what was below.
                hides = found == FileType::CharacterDevice;
                self.remove(spot)?;
                self.make_folder(spot)?;
            }
            None => self.make_folder(spot)?,
        }
        let folder = self.open(spot, OFlags::DIRECTORY)?;
        if hides {
            self.mark_opaque(&folder, spot.path)?;
        }
        let meta = Meta::of(entry, self.policy);
        meta.attributes(&folder)
            .map_err(spot.system("set the attributes of"))?;
        self.wait(names, meta)
    }

    fn make_folder(&self, spot: &Spot<'_>) -> Result<(), UnpackError> {
        // Wide open to its maker until the end, when it gets its mode.
        fs::mkdirat(
            &spot.parent,
            spot.name,
            Mode::RWXU | Mode::from_raw_mode(0o055),
        )
        .map_err(spot.system("make folder"))
    }

    fn file<R: Read>(
        &mut self,
        spot: &Spot<'_>,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        self.clear(spot)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&spot.parent, spot.name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(spot.system("make file"))?;
        let file = std::fs::File::from(file);
        let told = |source| UnpackError::System {
            what: "write",
            path: Shown::of(spot.path),
            source,
        };
        self.done.bytes += meta::write(&file, entry, archive).map_err(told)?;
        Meta::of(entry, self.policy)
            .apply(&file)
            .map_err(spot.system("set owner, mode and attributes of"))
    }

    fn hard_link(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), UnpackError> {
        let target = names(&entry.link)?;
        let Some((name, above)) = target.split_last() else {
            return Err(refused(&entry.path, "a link to the root"));
        };
        let lost = || {
            let shown = Shown::of(&entry.link);
            refused(
                &entry.path,
                format!("a hard link to {shown}, which this layer does not have"),
            )
        };
        let parent = self
            .places
            .existing(above)
            .map_err(|trouble| trouble.of(&entry.path, "find what it links to for"))?
            .ok_or_else(lost)?;
        let from = Spot {
            parent,
            name: OsStr::from_bytes(name),
            path: &entry.link,
        };
        match self.kind_at(&from)? {
            None => return Err(lost()),
            Some(FileType::Directory) => {
                return Err(refused(&entry.path, "a hard link to a folder"));
            }
            Some(_) => {}
        }
        if self.same(&from, spot) {
            // It is its own link already.
            return Ok(());
        }
        self.clear(spot)?;
        fs::linkat(
            &from.parent,
            from.name,
            &spot.parent,
            spot.name,
            AtFlags::empty(),
        )
        .map_err(spot.system("link"))
    }

    fn symlink(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(refused(&entry.path, "a link that leads nowhere"));
        }
        self.clear(spot)?;
        let target = OsStr::from_bytes(&entry.link);
        fs::symlinkat(target, &spot.parent, spot.name).map_err(spot.system("make link"))?;
        Meta::of(entry, self.policy)
            .apply_to_link(&spot.parent, spot.name)
            .map_err(spot.system("set the owner of"))
    }

    fn device(
        &mut self,
        spot: &Spot<'_>,
        entry: &Entry,
        kind: FileType,
    ) -> Result<(), UnpackError> {
        if entry.device == (0, 0) && kind == FileType::CharacterDevice {
            return Err(refused(
                &entry.path,
                "a device 0:0, which is the overlay's mark for a removed file",
            ));
        }
        self.clear(spot)?;
        if !self.policy.devices {
            self.done.devices_left += 1;
            return Ok(());
        }
        let (major, minor) = entry.device;
        self.node(spot, kind, fs::makedev(major, minor))?;
        Meta::of(entry, self.policy)
            .apply_to_node(&spot.parent, spot.name)
            .map_err(spot.system("set owner and mode of"))
    }

    fn fifo(&mut self, spot: &Spot<'_>, entry: &Entry) -> Result<(), UnpackError> {
        self.clear(spot)?;
        self.node(spot, FileType::Fifo, 0)?;
        Meta::of(entry, self.policy)
            .apply_to_node(&spot.parent, spot.name)
            .map_err(spot.system("set owner and mode of"))
    }

    fn node(&self, spot: &Spot<'_>, kind: FileType, device: u64) -> Result<(), UnpackError> {
        fs::mknodat(
            &spot.parent,
            spot.name,
            kind,
            Mode::RUSR | Mode::WUSR,
            device,
        )
        .map_err(spot.system("make node"))
    }

    /// upstream: image-spec, "Whiteouts": they hide what the layers below have, never what this one has.
    fn whiteout(&mut self, spot: &Spot<'_>, name: &[u8]) -> Result<(), UnpackError> {
        if name == OPAQUE {
            return self.mark_opaque(&spot.parent, spot.path);
        }
        if name.starts_with(NOTES) {
            return Ok(());
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused(spot.path, "a whiteout of no name"));
        }
        let hidden = Spot {
            parent: spot.parent.as_fd().try_clone_to_owned().map_err(|source| {
                UnpackError::System {
                    what: "hold the folder of",
                    path: Shown::of(spot.path),
                    source,
                }
            })?,
            name: OsStr::from_bytes(hidden),
            path: spot.path,
        };
        match self.kind_at(&hidden)? {
            // This layer has a folder of its own there: of those below nothing shows through.
            Some(FileType::Directory) => {
                let folder = self.open(&hidden, OFlags::DIRECTORY)?;
                self.mark_opaque(&folder, spot.path)
            }
            Some(_) => Ok(()),
            None => self.node(&hidden, FileType::CharacterDevice, 0),
        }
    }

    fn mark_opaque(&self, folder: impl AsFd, path: &[u8]) -> Result<(), UnpackError> {
        meta::mark_opaque(folder).map_err(|errno| UnpackError::System {
            what: "mark as opaque",
            path: Shown::of(path),
            source: errno.into(),
        })
    }

    fn kind_at(&self, spot: &Spot<'_>) -> Result<Option<FileType>, UnpackError> {
        match fs::statat(&spot.parent, spot.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(spot.system("look at")(errno)),
        }
    }

    fn same(&self, one: &Spot<'_>, other: &Spot<'_>) -> bool {
        let stat =
            |spot: &Spot<'_>| fs::statat(&spot.parent, spot.name, AtFlags::SYMLINK_NOFOLLOW).ok();
        match (stat(one), stat(other)) {
            (Some(one), Some(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
            (_, _) => false,
        }
    }

    /// Makes room for an entry: a later one of the same path wins.
    fn clear(&mut self, spot: &Spot<'_>) -> Result<(), UnpackError> {
        match self.kind_at(spot)? {
            Some(_) => self.remove(spot),
            None => Ok(()),
        }
    }

    /// Moves what is there out of the way: a folder may hold more than can be removed in one go.
    fn remove(&mut self, spot: &Spot<'_>) -> Result<(), UnpackError> {
        self.places.forget();
        match fs::unlinkat(&spot.parent, spot.name, AtFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(spot.system("replace")(errno)),
        }
        self.replaced += 1;
        let aside = format!("replaced-{}", self.replaced);
        let trash = self.places.trash().map_err(spot.system("make room for"))?;
        fs::renameat(&spot.parent, spot.name, trash, aside).map_err(spot.system("replace"))
    }

    fn open(&self, spot: &Spot<'_>, flags: OFlags) -> Result<OwnedFd, UnpackError> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(&spot.parent, spot.name, flags, Mode::empty()).map_err(spot.system("open"))
    }

    /// Notes what a folder is to have at the end.
    fn wait(&mut self, names: &[&[u8]], meta: Meta) -> Result<(), UnpackError> {
        let path = names.join(&b'/');
        self.waiting += path.len();
        if self.waiting > WAITING_MOST {
            return Err(refused(
                &path,
                "the paths of the layer's folders are too long together",
            ));
        }
        self.folders.insert(path, meta);
        Ok(())
    }

    /// Deepest folders first: one without the right to enter it is closed last.
    fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let folders = std::mem::take(&mut self.folders);
        for (path, meta) in folders.iter().rev() {
            let names: Vec<&[u8]> = path
                .split(|byte| *byte == b'/')
                .filter(|name| !name.is_empty())
                .collect();
            let found = self
                .places
                .existing_here(&names)
                .map_err(|trouble| trouble.of(path, "find again"))?;
            // Something else took its place since.
            let Some(folder) = found else { continue };
            let root = names.is_empty();
            meta.apply_to_folder(&folder, root)
                .map_err(|errno| UnpackError::System {
                    what: "set owner and mode of folder",
                    path: Shown::of(path),
                    source: errno.into(),
                })?;
        }
        Ok(self.done)
    }
}

impl Spot<'_> {
    fn system(&self, what: &'static str) -> impl FnOnce(Errno) -> UnpackError {
        let path = Shown::of(self.path);
        move |errno| UnpackError::System {
            what,
            path,
            source: errno.into(),
        }
    }
}

fn refused(path: &[u8], why: impl Into<String>) -> UnpackError {
    UnpackError::Refused {
        path: Shown::of(path),
        why: why.into(),
    }
}

/// The names of a path. A leading slash means nothing; a name that leads up is refused, wherever it would lead.
fn names(path: &[u8]) -> Result<Vec<&[u8]>, UnpackError> {
    if path.len() > 4_096 || path.contains(&0) {
        return Err(refused(path, "no path of a file system"));
    }
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
        .collect();
    if names.contains(&b"..".as_slice()) {
        return Err(refused(path, "its path leads out of its folder"));
    }
    if let Some(long) = names.iter().find(|name| name.len() > 255) {
        return Err(refused(long, "a name of more than 255 bytes"));
    }
    Ok(names)
}

/// Removes a folder with all that is in it, also where folders of it may not be written or entered.
///
/// # Errors
/// When something in it cannot be removed.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            open_up(folder)?;
            std::fs::remove_dir_all(folder)
        }
    }
}

/// Gives this user back the right to enter and write every folder.
fn open_up(folder: &Path) -> io::Result<()> {
    let mut todo: Vec<OsString> = vec![folder.as_os_str().to_owned()];
    while let Some(next) = todo.pop() {
        fs::chmodat(CWD, &next, Mode::RWXU, AtFlags::empty())?;
        for entry in std::fs::read_dir(&next)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(OsString::from_vec(entry.path().into_os_string().into_vec()));
            }
        }
    }
    Ok(())
}
