//! Mounting things at places inside a root that a container's own files may have filled with links.
//!
//! A place is opened with the root as the end of every way out (`RESOLVE_IN_ROOT`), made where it is missing, and
//! mounted on by its descriptor: what a link says in between does not matter.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat};
use rustix::io::Errno;

use crate::sys::Without;

use super::mounts;

/// As many links as the kernel would follow.
const MOST_LINKS: usize = 40;

/// Shows `source` at `target` below `root`; the place is made where it is missing and can be made.
pub(super) fn bind(
    root: &Path,
    source: &Path,
    target: &Path,
    without: &[Without],
) -> io::Result<()> {
    let is_dir = std::fs::metadata(source)?.is_dir();
    let place = place(&File::open(root)?.into(), target, is_dir)?;
    mounts::bind(source, &by_descriptor(&place), &[])?;
    if without.is_empty() {
        return Ok(());
    }
    // Opened anew: the descriptor is of what is below the mount.
    let mounted = self::place(&File::open(root)?.into(), target, is_dir)?;
    crate::sys::restrict(&by_descriptor(&mounted), without)
}

/// Shows a place of a volume at `target` below `root`. The place is opened from the volume, which no link leads out
/// of, and what was opened is what is mounted: whatever became of its path meanwhile.
pub(super) fn bind_within(
    root: &Path,
    volume: &Path,
    source: &Path,
    target: &Path,
    without: &[Without],
) -> io::Result<()> {
    let below = source.strip_prefix(volume).map_err(io::Error::other)?;
    let volume = rustix::fs::open(
        volume,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let place = openat2(
        &volume,
        if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        },
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
    )?;
    bind(root, &by_descriptor(&place), target, without)
}

/// Makes a folder or an empty file below `root`, where there is nothing yet.
pub(super) fn make(root: &Path, target: &Path, is_dir: bool) -> io::Result<()> {
    place(&File::open(root)?.into(), target, is_dir).map(drop)
}

/// Opens a place below `root`, made where it is missing.
fn place(root: &OwnedFd, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    place_through(root, target, is_dir, MOST_LINKS)
}

fn place_through(root: &OwnedFd, target: &Path, is_dir: bool, links: usize) -> io::Result<OwnedFd> {
    match open(root, target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let parent_fd = place_through(root, parent, true, links)?;
    if let Ok(link) = readlinkat(&parent_fd, name, Vec::new()) {
        // A link that leads nowhere: what it names is made, inside as ever.
        let left = links.checked_sub(1).ok_or(Errno::LOOP)?;
        let link = parent.join(std::ffi::OsStr::from_bytes(link.as_bytes()));
        return place_through(root, &link, is_dir, left);
    }
    let parent = parent_fd;
    if is_dir {
        mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    } else {
        openat(
            &parent,
            name,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )?;
    }
    open(root, target)
}

fn open(root: &OwnedFd, target: &Path) -> io::Result<OwnedFd> {
    Ok(openat2(
        root.as_fd(),
        target,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT,
    )?)
}

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
