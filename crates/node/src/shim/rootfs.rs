//! A container's root folder made of the machine's own file system: read-only below, a private layer above.
//!
//! Root's is one overlay on `/`. In a user namespace the root is a folder of the container, and each folder at the
//! machine's `/` appears in it as an overlay of its own, for there `/` itself, with other file systems mounted on it,
//! may not be a layer. A folder with mounts below it is made anew, entry by entry, until nothing is mounted below. What the kernel makes up (`/proc`,
//! `/sys`, `/dev`) is left out, `/tmp`, `/run` and `/var/tmp` start empty, and Stead's own data folder is covered.
//!
//! An overlay may not have its upper layer inside its lower one. Where the data folder lies below, the lower layer is
//! first made an overlay without an upper one: another file system, in the kernel's eyes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::mount::MountFlags;

use crate::sys::Without;

use super::mounts::{self, MountPoint, Overlay};

/// Left empty: made by the kernel, or mounted by whoever uses this root.
const MADE_BY_KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Start empty in every container, as they do in an image.
const FRESH: [(&str, u32); 3] = [("/run", 0o755), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];
/// Folders of the machine that belong to root, with all that is in them.
const SYSTEM: [&str; 12] = [
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/nix",
    "/sbin",
    "/snap",
    "/usr",
];
/// As many links as the kernel would follow.
const MOST_LINKS: usize = 40;

/// How to make the root.
pub(super) struct HostRoot<'a> {
    /// The container's private files: `root`, `upper`, `work`, `fresh` and `stage` are made in it.
    pub(super) layer: &'a Path,
    /// Folders that are not to be seen.
    pub(super) hidden: &'a [PathBuf],
    /// Places that something will be mounted on.
    pub(super) targets: &'a [Target],
    /// Whether this is in a user namespace.
    pub(super) unprivileged: bool,
    /// Whether root makes it, and can give folders the owners that they have on the machine.
    pub(super) root: bool,
    /// What the container may not do with its root.
    pub(super) without: &'a [Without],
}

/// A place inside the container that something will be mounted on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) is_dir: bool,
}

impl HostRoot<'_> {
    /// Makes it, in the mount namespace of the caller; the folder to change into.
    pub(super) fn make(&self) -> io::Result<PathBuf> {
        let root = self.layer.join("root");
        for folder in ["root", "upper", "work", "fresh", "stage"] {
            make_dir(&self.layer.join(folder), 0o755)?;
        }
        let mut maker = Maker {
            how: self,
            // Taken before anything is mounted by us.
            points: mounts::mount_points()?,
            missing: self.missing()?,
            root: root.clone(),
            overlays: 0,
            staged: false,
        };
        if self.unprivileged || maker.show_whole().is_err() {
            mounts::bind_onto_itself(&root)?;
            maker.fill(Path::new("/"))?;
            maker.restrict_root()?;
        }
        for (path, mode) in FRESH {
            maker.refresh(Path::new(path), mode)?;
        }
        for hidden in self.hidden {
            maker.cover(hidden)?;
        }
        Ok(root)
    }

    /// The mount points that the machine does not have, resolved as the container will see them.
    fn missing(&self) -> io::Result<BTreeSet<Target>> {
        let mut missing = BTreeSet::new();
        for target in self.targets {
            let path = resolve(&target.path)?;
            if is_fresh(&path) || !exists(&path) {
                missing.insert(Target {
                    path,
                    is_dir: target.is_dir,
                });
            }
        }
        Ok(missing)
    }
}

struct Maker<'a> {
    how: &'a HostRoot<'a>,
    points: Vec<MountPoint>,
    missing: BTreeSet<Target>,
    root: PathBuf,
    overlays: u32,
    staged: bool,
}

impl Maker<'_> {
    /// Makes the entries of a folder of the machine, one by one.
    fn fill(&mut self, source: &Path) -> io::Result<()> {
        // What cannot be read by this user is empty to it.
        for entry in fs::read_dir(source).into_iter().flatten().flatten() {
            let path = entry.path();
            let target = self.inside(&path);
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                symlink(fs::read_link(&path)?, &target)?;
            } else if kind.is_dir() {
                make_dir(&target, mode_of(&path)?)?;
                self.place(&path, &target)?;
            } else if kind.is_file() {
                fs::write(&target, b"")?;
                // A file that cannot be shown is an empty one to this user.
                let _ = mounts::bind(&path, &target, &[Without::Writing, Without::Devices]);
            }
        }
        self.make_missing(source, &self.inside(source))
    }

    /// Shows one folder of the machine at its place.
    fn place(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        if self.is_left_out(source) {
            return Ok(());
        }
        if self.has_mounts_below(source) {
            return self.fill(source);
        }
        let must_change = self
            .missing
            .iter()
            .any(|missing| missing.path.starts_with(source));
        if !must_change && is_empty(source) {
            // The folder that was just made for it does as well: it is the container's own.
            return Ok(());
        }
        // A folder that this user may not use as a layer is shown as it is, as is one that it could not change.
        let as_it_is = !must_change && self.is_out_of_reach(source);
        if as_it_is || self.overlay(source, target).is_err() {
            return mounts::bind(source, target, &[Without::Writing, Without::Devices]).or(Ok(()));
        }
        Ok(())
    }

    /// Root may use `/` itself as a layer: one overlay, and one more for each other file system with files on it.
    fn show_whole(&mut self) -> io::Result<()> {
        let root = self.root.clone();
        self.overlay(Path::new("/"), &root)?;
        let below = |path: &Path, above: &str| path.starts_with(above);
        let others: BTreeSet<PathBuf> = self
            .points
            .iter()
            .filter(|point| point.holds_files() && point.path != Path::new("/"))
            .map(|point| point.path.clone())
            .filter(|path| !MADE_BY_KERNEL.iter().any(|above| below(path, above)))
            .filter(|path| !is_fresh(path))
            .filter(|path| {
                !self
                    .how
                    .hidden
                    .iter()
                    .any(|hidden| path.starts_with(hidden))
            })
            .collect();
        for path in others {
            let target = self.inside(&path);
            if path.is_dir() && target.is_dir() && self.overlay(&path, &target).is_err() {
                mounts::bind(&path, &target, &[Without::Writing, Without::Devices])?;
            }
        }
        Ok(())
    }

    /// Shows one folder of the machine with a private layer over it.
    fn overlay(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let slot = self.overlays.to_string();
        self.overlays += 1;
        let upper = self.how.layer.join("upper").join(&slot);
        let work = self.how.layer.join("work").join(&slot);
        self.make_like(source, &upper)?;
        make_dir(&work, 0o700)?;
        self.make_missing_above(source, &upper)?;
        let lower = self.lower(source)?;
        let overlay = Overlay {
            lower: &[&lower],
            upper: Some((&upper, &work)),
            unprivileged: self.how.unprivileged,
        };
        overlay.mount(target)?;
        self.restrict(target)
    }

    /// Whether an ordinary user could change nothing in this folder: a private layer would never be written.
    fn is_out_of_reach(&self, source: &Path) -> bool {
        let ordinary = self.how.unprivileged && !self.how.root;
        ordinary && SYSTEM.iter().any(|system| Path::new(system) == source)
    }

    /// Makes a folder of the private layer like the machine's: the overlay shows the upper one's owner and mode.
    fn make_like(&self, source: &Path, folder: &Path) -> io::Result<()> {
        let metadata = fs::symlink_metadata(source)?;
        make_dir(folder, metadata.mode() & 0o7777)?;
        if self.how.root {
            std::os::unix::fs::lchown(folder, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        Ok(())
    }

    fn is_left_out(&self, source: &Path) -> bool {
        MADE_BY_KERNEL.iter().any(|path| Path::new(path) == source)
            || is_fresh_root(source)
            || self.how.hidden.iter().any(|hidden| hidden == source)
            || self
                .points
                .iter()
                .rev()
                .find(|point| point.path == source)
                .is_some_and(|point| !point.holds_files())
    }

    fn has_mounts_below(&self, source: &Path) -> bool {
        self.points
            .iter()
            .any(|point| point.path != source && point.path.starts_with(source))
    }

    /// The lower layer for this folder: itself, or another file system with the same content.
    fn lower(&mut self, source: &Path) -> io::Result<PathBuf> {
        if !self.how.layer.starts_with(source) {
            return Ok(source.to_owned());
        }
        let stage = self.how.layer.join("stage");
        if !self.staged {
            mounts::make_up("tmpfs", &stage, MountFlags::empty(), "mode=700")?;
            self.staged = true;
        }
        let empty = stage.join("empty");
        let lower = stage.join(format!("lower{}", self.overlays));
        make_dir(&empty, 0o700)?;
        make_dir(&lower, 0o700)?;
        Overlay {
            lower: &[source, &empty],
            upper: None,
            unprivileged: self.how.unprivileged,
        }
        .mount(&lower)?;
        Ok(lower)
    }

    /// Makes the missing mount points directly below a folder that is ours.
    fn make_missing(&self, source: &Path, target: &Path) -> io::Result<()> {
        for missing in &self.missing {
            let Ok(rest) = missing.path.strip_prefix(source) else {
                continue;
            };
            // Below an entry that exists it is made where that entry is shown.
            let first: PathBuf = rest.components().take(1).collect();
            if !exists(&source.join(&first)) {
                make_target(target, rest, missing.is_dir)?;
            }
        }
        Ok(())
    }

    /// Makes the missing mount points below a folder in its private layer, before the overlay is mounted. Folders
    /// on the way that the machine has keep their modes; they are the container's then.
    fn make_missing_above(&self, source: &Path, upper: &Path) -> io::Result<()> {
        for missing in &self.missing {
            let Ok(rest) = missing.path.strip_prefix(source) else {
                continue;
            };
            if is_fresh(&missing.path) {
                continue;
            }
            let mut below = source.to_owned();
            let mut above = upper.to_owned();
            let parents = rest.parent().unwrap_or(Path::new(""));
            for name in parents.components() {
                below.push(name);
                above.push(name);
                if below.is_dir() {
                    self.make_like(&below, &above)?;
                } else {
                    make_dir(&above, 0o755)?;
                }
            }
            make_target(upper, rest, missing.is_dir)?;
        }
        Ok(())
    }

    /// Puts an empty folder of the container over this one.
    fn refresh(&self, path: &Path, mode: u32) -> io::Result<()> {
        let target = self.inside(path);
        if !target.is_dir() {
            return Ok(());
        }
        let name: OsString = path.components().skip(1).map(|part| part.as_os_str()).fold(
            OsString::new(),
            |mut all, part| {
                if !all.is_empty() {
                    all.push("-");
                }
                all.push(part);
                all
            },
        );
        let fresh = self.how.layer.join("fresh").join(name);
        make_dir(&fresh, mode)?;
        for missing in &self.missing {
            if let Ok(rest) = missing.path.strip_prefix(path)
                && !rest.as_os_str().is_empty()
            {
                make_target(&fresh, rest, missing.is_dir)?;
            }
        }
        mounts::bind(&fresh, &target, self.how.without)
    }

    /// Covers a folder, where it can be seen at all, with an empty one.
    fn cover(&self, path: &Path) -> io::Result<()> {
        let target = self.inside(path);
        if !target.is_dir() {
            return Ok(());
        }
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        mounts::make_up("tmpfs", &target, flags, "mode=000,size=4k")?;
        crate::sys::restrict(&target, &[Without::Writing])
    }

    /// The root folder itself, not what is mounted in it by now.
    fn restrict_root(&self) -> io::Result<()> {
        let mut flags = MountFlags::BIND;
        for without in self.how.without {
            flags |= match without {
                Without::Writing => MountFlags::RDONLY,
                Without::Devices => MountFlags::NODEV,
            };
        }
        Ok(rustix::mount::mount_remount(&self.root, flags, c"")?)
    }

    fn restrict(&self, target: &Path) -> io::Result<()> {
        if self.how.without.is_empty() {
            return Ok(());
        }
        crate::sys::restrict(target, self.how.without)
    }

    fn inside(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// Where a path leads on the machine, links followed; what starts empty in a container is not looked into.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut todo: Vec<OsString> = names(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        if is_fresh(&done) {
            done = next;
            continue;
        }
        match fs::read_link(&next) {
            Ok(link) => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(io::Error::from(rustix::io::Errno::LOOP));
                }
                if link.is_absolute() {
                    done = PathBuf::from("/");
                }
                todo.extend(names(&link));
            }
            Err(_) => done = next,
        }
    }
    Ok(done)
}

/// The names of a path, last first; `..` stays.
fn names(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        })
        .collect()
}

fn is_fresh(path: &Path) -> bool {
    FRESH.iter().any(|(fresh, _)| path.starts_with(fresh))
}

fn is_fresh_root(path: &Path) -> bool {
    FRESH.iter().any(|(fresh, _)| Path::new(fresh) == path)
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether there is nothing in a folder, or nothing that this user may see.
fn is_empty(path: &Path) -> bool {
    fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}

fn mode_of(path: &Path) -> io::Result<u32> {
    Ok(fs::symlink_metadata(path)?.mode() & 0o7777)
}

/// Makes a folder with exactly this mode; one that exists is left as it is.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a mount point below a folder of ours.
fn make_target(below: &Path, rest: &Path, is_dir: bool) -> io::Result<()> {
    let path = below.join(rest);
    if is_dir {
        return fs::create_dir_all(path);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if !exists(&path) {
        fs::write(path, b"")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_followed_through_links_but_never_into_what_starts_empty() {
        let folder = tempfile::tempdir_in("/usr/local")
            .or_else(|_| tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")));
        let folder = folder.expect("a folder outside /tmp");
        let base = folder.path().canonicalize().expect("a real path");
        symlink("/run", base.join("var-run")).expect("a link");
        symlink("b/../c", base.join("a")).expect("a link");
        symlink("loop", base.join("loop")).expect("a link");
        for (path, want) in [
            ("var-run/secrets/x", PathBuf::from("/run/secrets/x")),
            ("a/d", base.join("c/d")),
            ("none/x", base.join("none/x")),
        ] {
            assert_eq!(resolve(&base.join(path)).expect("a path"), want);
        }
        assert!(resolve(&base.join("loop")).is_err());
    }
}
