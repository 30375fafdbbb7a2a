//! `subPath`: a place below a volume that no link can lead out of.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// The path of `sub_path` below `volume`, made if it is not there. Every link on the way is resolved within the volume
/// or refused, so the answer names a place of the volume.
pub(crate) fn resolve(volume: &Path, sub_path: &str) -> io::Result<PathBuf> {
    let parts = parts(sub_path)?;
    let root = rustix::fs::open(
        volume,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode & 0o7777);
    let mut walked = PathBuf::new();
    let mut here = root.try_clone()?;
    for part in parts {
        let parent = here;
        walked.push(part);
        here = match beneath(&root, &walked) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(&parent, part, mode)?;
                beneath(&root, &walked)?
            }
            other => other?,
        };
    }
    std::fs::read_link(format!("/proc/self/fd/{}", here.as_raw_fd()))
}

fn beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        root,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        how,
    )?)
}

/// upstream: `SafeMakeDir`, with the permissions of the volume itself, which the umask does not narrow.
fn make(parent: &OwnedFd, name: &str, mode: Mode) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        other => other?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(&made, mode)?)
}

fn parts(sub_path: &str) -> io::Result<Vec<&str>> {
    Path::new(sub_path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(name) => name.to_str().ok_or_else(leads_out),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => Err(leads_out()),
        })
        .collect()
}

fn leads_out() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the path leads out of the volume",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_place_is_made_or_found_and_no_link_leads_out() {
        let all = tempfile::tempdir().expect("a folder");
        let at = all.path().join("volume");
        fs::create_dir(&at).expect("made");
        fs::set_permissions(&at, fs::Permissions::from_mode(0o777)).expect("permitted");
        let made = resolve(&at, "a/b").expect("made");
        assert_eq!(made, at.join("a/b"));
        assert_eq!(
            fs::metadata(&made).expect("a folder").permissions().mode() & 0o777,
            0o777
        );
        fs::write(at.join("file"), "").expect("written");
        assert_eq!(resolve(&at, "file").expect("found"), at.join("file"));
        symlink("a", at.join("inside")).expect("linked");
        assert_eq!(resolve(&at, "inside/b").expect("found"), at.join("a/b"));
        for (link, target) in [("abs", "/etc"), ("up", ".."), ("deep", "a/../../x")] {
            symlink(target, at.join(link)).expect("linked");
            assert!(resolve(&at, link).is_err(), "{link}");
            assert!(resolve(&at, &format!("{link}/y")).is_err(), "{link}/y");
        }
        for path in ["..", "a/../..", "/etc"] {
            assert!(resolve(&at, path).is_err(), "{path}");
        }
        assert!(!all.path().join("x").exists());
    }
}
