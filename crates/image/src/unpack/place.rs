//! Where an entry goes: folders found from the layer's root one name at a time, by descriptors, links followed inside.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Shown, UnpackError, refused};

/// As many links as the kernel would follow.
const MOST_LINKS: usize = 40;
/// Where replaced folders are moved: beside the root, so that no layer can name it.
const TRASH: &str = "replaced";

/// Why a folder was not found or made.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The path makes no sense in this layer.
    Refused(&'static str),
    /// The system said no.
    System(Errno),
}

impl Trouble {
    pub(super) fn of(self, path: &[u8], what: &'static str) -> UnpackError {
        match self {
            Trouble::Refused(why) => refused(path, why),
            Trouble::System(errno) => UnpackError::System {
                what,
                path: Shown::of(path),
                source: errno.into(),
            },
        }
    }
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Trouble::System(errno)
    }
}

/// What to do with a name that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Tell,
}

/// What to do with a link on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Follow,
    Refuse,
}

/// The folders of one layer.
pub(super) struct Places {
    root: OwnedFd,
    depth: usize,
    /// The folder that was looked for last: entries of an archive stand together.
    last: Option<(Vec<u8>, OwnedFd)>,
    trash: Option<OwnedFd>,
}

impl Places {
    pub(super) fn new(root: OwnedFd, depth: usize) -> Result<Places, Errno> {
        Ok(Places {
            root,
            depth,
            last: None,
            trash: None,
        })
    }

    /// The folder at these names, made where it is missing.
    pub(super) fn folder(&mut self, names: &[&[u8]]) -> Result<OwnedFd, Trouble> {
        let path = names.join(&b'/');
        if let Some((known, folder)) = &self.last
            && *known == path
        {
            return Ok(fs_dup(folder)?);
        }
        let folder = self
            .walk(names, Missing::Make, Links::Follow)?
            .ok_or(Trouble::System(Errno::NOENT))?;
        self.last = Some((path, fs_dup(&folder)?));
        Ok(folder)
    }

    /// The folder at these names, if it is there.
    pub(super) fn existing(&self, names: &[&[u8]]) -> Result<Option<OwnedFd>, Trouble> {
        self.walk(names, Missing::Tell, Links::Follow)
    }

    /// The folder at these very names: no link stands between.
    pub(super) fn existing_here(&self, names: &[&[u8]]) -> Result<Option<OwnedFd>, Trouble> {
        self.walk(names, Missing::Tell, Links::Refuse)
    }

    /// Something was removed: what was found before may be elsewhere now.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// The folder for what was replaced.
    pub(super) fn trash(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.trash.is_none() {
            match fs::mkdirat(&self.root, format!("../{TRASH}"), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            self.trash = Some(fs::openat(
                &self.root,
                format!("../{TRASH}"),
                flags,
                Mode::empty(),
            )?);
        }
        self.trash.as_ref().map(AsFd::as_fd).ok_or(Errno::NOENT)
    }

    /// Goes from the root, one name at a time. `None`: something on the way is not there.
    fn walk(
        &self,
        names: &[&[u8]],
        missing: Missing,
        links: Links,
    ) -> Result<Option<OwnedFd>, Trouble> {
        let mut todo: VecDeque<OsString> = names.iter().map(|name| os(name)).collect();
        let mut way: Vec<OwnedFd> = Vec::new();
        let mut followed = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            if way.len() >= self.depth {
                return Err(Trouble::Refused("too deep in folders"));
            }
            let here = way.last().unwrap_or(&self.root).as_fd();
            match self.step(here, &name, missing)? {
                Found::Nothing => return Ok(None),
                Found::Folder(folder) => way.push(folder),
                Found::Link(_) if links == Links::Refuse => return Ok(None),
                Found::Link(target) => {
                    followed += 1;
                    if followed > MOST_LINKS {
                        return Err(Trouble::Refused("its path goes round in links"));
                    }
                    if target.first() == Some(&b'/') {
                        way.clear();
                    }
                    prepend(&mut todo, &target);
                }
                Found::Other if missing == Missing::Tell => return Ok(None),
                Found::Other => {
                    return Err(Trouble::Refused(
                        "its path leads through something that is no folder",
                    ));
                }
            }
        }
        match way.pop() {
            Some(folder) => Ok(Some(folder)),
            None => Ok(Some(fs_dup(&self.root)?)),
        }
    }

    fn step(&self, here: BorrowedFd<'_>, name: &OsStr, missing: Missing) -> Result<Found, Trouble> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(here, name, flags, Mode::empty()) {
            Ok(folder) => return Ok(Found::Folder(folder)),
            Err(Errno::NOENT) if missing == Missing::Make => {
                fs::mkdirat(here, name, Mode::RWXU | Mode::from_raw_mode(0o055))?;
                return Ok(Found::Folder(fs::openat(here, name, flags, Mode::empty())?));
            }
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
        let stat = fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = fs::readlinkat(here, name, Vec::new())?;
                Ok(Found::Link(target.into_bytes()))
            }
            // Hidden of the layers below, and now there again.
            FileType::CharacterDevice if missing == Missing::Make && stat.st_rdev == 0 => {
                fs::unlinkat(here, name, AtFlags::empty())?;
                fs::mkdirat(here, name, Mode::RWXU | Mode::from_raw_mode(0o055))?;
                let folder = fs::openat(here, name, flags, Mode::empty())?;
                super::meta::mark_opaque(&folder)?;
                Ok(Found::Folder(folder))
            }
            _ => Ok(Found::Other),
        }
    }
}

enum Found {
    Folder(OwnedFd),
    Link(Vec<u8>),
    Other,
    Nothing,
}

fn prepend(todo: &mut VecDeque<OsString>, target: &[u8]) {
    for name in target.split(|byte| *byte == b'/').rev() {
        if !matches!(name, b"" | b".") {
            todo.push_front(os(name));
        }
    }
}

fn os(name: &[u8]) -> OsString {
    OsString::from_vec(OsStr::from_bytes(name).as_bytes().to_vec())
}

fn fs_dup(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(fd, 0)
}
