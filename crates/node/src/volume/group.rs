//! `fsGroup`: a volume belongs to a group of the pod. Every file is reached by its own descriptor, from the folder that
//! holds it: what containers of other pods make into links meanwhile is changed itself, not what it leads to.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat};

/// How a volume is given to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// Its number.
    pub(crate) id: u32,
    /// Nothing is done where the volume's own folder is right already (`fsGroupChangePolicy: OnRootMismatch`).
    pub(crate) unless_root_fits: bool,
}

/// upstream: `SetVolumeOwnership`: everything in it belongs to the group, which may do what its owner may.
pub(super) fn give(root: &Path, group: Group) -> io::Result<()> {
    let root = rustix::fs::open(
        root,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let about = rustix::fs::fstat(&root)?;
    if group.unless_root_fits && fits(&about, group.id) {
        return Ok(());
    }
    give_below(&root, &about, group.id)
}

/// Whether a folder is as it would be left.
fn fits(about: &Stat, group: u32) -> bool {
    about.st_gid == group && about.st_mode & 0o2770 == 0o2770
}

/// What is in a folder first, then the folder: one that is found right was gone through to its end.
fn give_below(file: &OwnedFd, about: &Stat, group: u32) -> io::Result<()> {
    let kind = FileType::from_raw_mode(about.st_mode);
    if kind == FileType::Directory {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(file, ".", flags, Mode::empty())?;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let inner = match rustix::fs::openat(
                &folder,
                name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                // Gone since it was listed.
                Err(rustix::io::Errno::NOENT) => continue,
                other => other?,
            };
            let about = rustix::fs::fstat(&inner)?;
            give_below(&inner, &about, group)?;
        }
    }
    rustix::fs::chownat(
        file,
        "",
        None,
        Some(Gid::from_raw(group)),
        AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
    )?;
    let wanted = match kind {
        FileType::Symlink => return Ok(()),
        FileType::Directory => about.st_mode | 0o2770,
        FileType::RegularFile
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => about.st_mode | 0o660,
    };
    Ok(rustix::fs::chmod(
        by_descriptor(file.as_fd()),
        Mode::from_raw_mode(wanted & 0o7777),
    )?)
}

/// The kernel's own path to what a descriptor holds: no name in it can be changed.
fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    /// As the group that the caller has, which anybody may give files to.
    #[test]
    fn files_and_folders_are_opened_to_the_group_and_links_are_not_followed() {
        let all = tempfile::tempdir().expect("a folder");
        let (volume, outside) = (all.path().join("volume"), all.path().join("outside"));
        fs::create_dir_all(volume.join("deep")).expect("folders");
        for file in [&outside, &volume.join("deep/file")] {
            fs::write(file, "").expect("a file");
            fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        symlink(&outside, volume.join("link")).expect("a link");
        symlink("nowhere", volume.join("broken")).expect("a link");
        let id = fs::metadata(&volume).expect("about").gid();
        let mode = |path: &Path| fs::metadata(path).expect("about").mode() & 0o7777;
        let always = Group {
            id,
            unless_root_fits: false,
        };
        give(&volume, always).expect("given");
        assert_eq!(mode(&volume) & 0o2770, 0o2770);
        assert_eq!(mode(&volume.join("deep")) & 0o2770, 0o2770);
        assert_eq!(mode(&volume.join("deep/file")), 0o660);
        assert_eq!(mode(&outside), 0o600, "a link was followed");
        let file = volume.join("deep/file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("a mode");
        give(
            &volume,
            Group {
                id,
                unless_root_fits: true,
            },
        )
        .expect("given");
        assert_eq!(mode(&file), 0o600, "the volume's own folder fits");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o755)).expect("a mode");
        give(
            &volume,
            Group {
                id,
                unless_root_fits: true,
            },
        )
        .expect("given");
        assert_eq!(mode(&file), 0o660);
    }
}
