//! The machine's mounts as the caller sees them, and the few ways in which a container's root uses them.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive};

use crate::sys::{self, Without};

/// Kinds of file systems that the kernel makes up: nothing of them belongs into a container as files.
const MADE_UP: [&str; 25] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fuse.lxcfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// One mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    pub(super) path: PathBuf,
    kind: String,
}

impl MountPoint {
    /// Whether files of people live there, rather than the kernel's.
    pub(super) fn holds_files(&self) -> bool {
        !MADE_UP.contains(&self.kind.as_str())
    }
}

/// Every mount point that the calling process can see.
pub(super) fn mount_points() -> io::Result<Vec<MountPoint>> {
    Ok(fs::read("/proc/self/mountinfo")?
        .split(|byte| *byte == b'\n')
        .filter_map(parse)
        .collect())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw`; blanks in paths are `\040`.
fn parse(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = unescape(fields.nth(4)?);
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(MountPoint {
        path: PathBuf::from(std::ffi::OsString::from_vec(path)),
        kind: String::from_utf8_lossy(kind).into_owned(),
    })
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = after
            .get(..3)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// The layers of one overlay.
pub(super) struct Overlay<'a> {
    /// Read-only layers, topmost first.
    pub(super) lower: &'a [&'a Path],
    /// The private layer and its work folder; `None` makes it read-only.
    pub(super) upper: Option<(&'a Path, &'a Path)>,
    /// In a user namespace the overlay keeps its notes in `user.` attributes.
    pub(super) unprivileged: bool,
}

impl Overlay<'_> {
    pub(super) fn mount(&self, target: &Path) -> io::Result<()> {
        let lower: Vec<Vec<u8>> = self.lower.iter().map(|path| escape(path, true)).collect();
        let mut data = b"lowerdir=".to_vec();
        data.extend_from_slice(&lower.join(&b':'));
        if let Some((upper, work)) = self.upper {
            data.extend_from_slice(b",upperdir=");
            data.extend_from_slice(&escape(upper, false));
            data.extend_from_slice(b",workdir=");
            data.extend_from_slice(&escape(work, false));
            // The layer ends with its container: nothing of it is worth a sync of the whole disk when it is let go.
            data.extend_from_slice(b",volatile");
        }
        if self.unprivileged {
            data.extend_from_slice(b",userxattr");
        }
        let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
        Ok(mount(
            "overlay",
            target,
            "overlay",
            MountFlags::empty(),
            Some(data.as_c_str()),
        )?)
    }
}

/// Mount options are split at commas, lower layers at colons too.
fn escape(path: &Path, colons: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') || (colons && *byte == b':') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out
}

/// Shows a folder or file of the machine at another place, with everything mounted below it.
pub(super) fn bind(source: &Path, target: &Path, without: &[Without]) -> io::Result<()> {
    mount_bind_recursive(source, target)?;
    if without.is_empty() {
        return Ok(());
    }
    sys::restrict(target, without)
}

/// Makes a folder a mount point of its own.
pub(super) fn bind_onto_itself(path: &Path) -> io::Result<()> {
    Ok(mount_bind(path, path)?)
}

/// Mounts a file system that the kernel makes up.
pub(super) fn make_up(kind: &str, target: &Path, flags: MountFlags, data: &str) -> io::Result<()> {
    let data = std::ffi::CString::new(data).map_err(io::Error::other)?;
    Ok(mount(kind, target, kind, flags, Some(data.as_c_str()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_blank_is_read() {
        let line = b"36 35 98:0 / /with\\040blank rw master:1 shared:2 - ext4 /dev/root rw";
        let want = MountPoint {
            path: PathBuf::from("/with blank"),
            kind: "ext4".to_owned(),
        };
        assert_eq!(parse(line), Some(want));
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn what_splits_options_is_escaped() {
        let path = Path::new("/a,b:c\\d");
        assert_eq!(escape(path, true), b"/a\\,b\\:c\\\\d");
        assert_eq!(escape(path, false), b"/a\\,b:c\\\\d");
    }
}
