//! Bytes, owners, modes, times and attributes of what is unpacked.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::tar::{Entry, Segment};

use super::Policy;

/// The part of a file that becomes a hole when all of it is zero.
const HOLE: usize = 4_096;
/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

/// What an entry is to have besides its bytes.
pub(super) struct Meta {
    owner: Option<(Uid, Gid)>,
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meta {
    pub(super) fn of(entry: &Entry, policy: Policy) -> Meta {
        let owner = policy
            .owners
            .then(|| (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid)));
        let mode = if policy.owners {
            entry.mode
        } else {
            // The rights of an owner that it does not have are nobody's.
            entry.mode & !SET_ID
        };
        let (seconds, nanoseconds) = entry.mtime;
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let xattrs = entry
            .xattrs
            .iter()
            .filter(|(name, _)| is_taken(name, policy));
        Meta {
            owner,
            mode: Mode::from_raw_mode(mode),
            times: Timestamps {
                last_access: time,
                last_modification: time,
            },
            xattrs: xattrs.cloned().collect(),
        }
    }

    /// In the one order that works: a change of owner takes privileges away.
    pub(super) fn apply(&self, file: impl AsFd) -> Result<(), Errno> {
        let file = file.as_fd();
        if let Some((uid, gid)) = self.owner {
            fs::fchown(file, Some(uid), Some(gid))?;
        }
        fs::fchmod(file, self.mode)?;
        self.attributes(file)?;
        fs::futimens(file, &self.times)
    }

    /// A folder has its attributes already.
    pub(super) fn apply_to_folder(&self, folder: impl AsFd, root: bool) -> Result<(), Errno> {
        let folder = folder.as_fd();
        if let Some((uid, gid)) = self.owner {
            fs::fchown(folder, Some(uid), Some(gid))?;
        }
        if root {
            self.attributes(folder)?;
        }
        fs::fchmod(folder, self.mode)?;
        fs::futimens(folder, &self.times)
    }

    /// Links have no mode.
    pub(super) fn apply_to_link(&self, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let parent = parent.as_fd();
        self.chown(parent, name)?;
        fs::utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Devices and pipes are not opened: that may wait for ever, or do something.
    pub(super) fn apply_to_node(&self, parent: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let parent = parent.as_fd();
        self.chown(parent, name)?;
        // What stands here was just made, by us: no link.
        fs::chmodat(parent, name, self.mode, AtFlags::empty())?;
        fs::utimensat(parent, name, &self.times, AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(super) fn attributes(&self, file: impl AsFd) -> Result<(), Errno> {
        for (name, value) in &self.xattrs {
            match fs::fsetxattr(&file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                // A file system without them: the layer is of use all the same, but no right may be lost in silence.
                Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn chown(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        match self.owner {
            Some((uid, gid)) => fs::chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            ),
            None => Ok(()),
        }
    }
}

/// Attributes that a layer may set. The overlay's own would let it reach into other layers; the rest is the machine's
/// business (labels of its security modules, access lists).
fn is_taken(name: &[u8], policy: Policy) -> bool {
    match name {
        b"security.capability" => policy.owners,
        name => {
            name.starts_with(b"user.")
                && !name.starts_with(b"user.overlay.")
                && name.len() <= 255
                && !name.contains(&0)
        }
    }
}

/// Marks a folder so that an overlay shows nothing of the layers below it in it: for root's overlays and for those of
/// ordinary users, as far as this process may.
pub(super) fn mark_opaque(folder: impl AsFd) -> Result<(), Errno> {
    let set = |name: &str| fs::fsetxattr(&folder, name, b"y", XattrFlags::empty());
    match (set("trusted.overlay.opaque"), set("user.overlay.opaque")) {
        (Err(_), Err(errno)) => Err(errno),
        (_, _) => Ok(()),
    }
}

/// Writes a file's bytes, with holes where it has nothing but zeros; how many bytes were written.
pub(super) fn write(file: &File, entry: &Entry, bytes: &mut impl Read) -> io::Result<u64> {
    let whole = [Segment {
        offset: 0,
        length: entry.size,
    }];
    let mut written = 0;
    for segment in entry.segments.as_deref().unwrap_or(&whole) {
        written += write_segment(file, *segment, bytes)?;
    }
    file.set_len(entry.size)?;
    Ok(written)
}

fn write_segment(file: &File, segment: Segment, bytes: &mut impl Read) -> io::Result<u64> {
    let mut buffer = vec![
        0;
        usize::try_from(segment.length)
            .unwrap_or(usize::MAX)
            .clamp(1, 256 << 10)
    ];
    let (mut offset, mut left, mut written) = (segment.offset, segment.length, 0);
    while left > 0 {
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        bytes.read_exact(part)?;
        written += write_part(file, part, offset)?;
        offset += part.len() as u64;
        left -= part.len() as u64;
    }
    Ok(written)
}

/// Runs of blocks with something in them are written in one go.
fn write_part(file: &File, part: &[u8], offset: u64) -> io::Result<u64> {
    let mut written = 0;
    let mut from = 0;
    for (block, at) in part.chunks(HOLE).zip((0..).step_by(HOLE)) {
        if block.iter().any(|byte| *byte != 0) {
            continue;
        }
        written += write_run(file, part, from..at, offset)?;
        from = at + block.len();
    }
    written += write_run(file, part, from..part.len(), offset)?;
    Ok(written)
}

fn write_run(
    file: &File,
    part: &[u8],
    run: std::ops::Range<usize>,
    offset: u64,
) -> io::Result<u64> {
    let start = run.start as u64;
    let Some(run) = part.get(run).filter(|run| !run.is_empty()) else {
        return Ok(0);
    };
    file.write_all_at(run, offset + start)?;
    Ok(run.len() as u64)
}
