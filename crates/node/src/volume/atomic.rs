//! Files that change all at once: a folder of links into a folder that is replaced by one rename.
//!
//! Upstream: `pkg/volume/util/atomic_writer.go`. `key -> ..data/key`, `..data -> ..<time>`; a reader sees the old files
//! or the new ones, never a mixture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::payload::{Content, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the files of `payload` the content of `folder`. Nothing is touched when they already are.
pub(crate) fn write(folder: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let group = group.filter(|_| nix::unistd::geteuid().is_root());
    let old = fs::read_link(folder.join(DATA)).ok();
    if let Some(old) = &old
        && is_same(&folder.join(old), payload)
    {
        return link_all(folder, payload);
    }
    let fresh = fresh_folder(folder, group)?;
    for (path, content) in payload {
        write_file(&folder.join(&fresh).join(path), content, group)?;
    }
    let _ = fs::remove_file(folder.join(NEW_DATA));
    symlink(&fresh, folder.join(NEW_DATA))?;
    fs::rename(folder.join(NEW_DATA), folder.join(DATA))?;
    link_all(folder, payload)?;
    match old {
        Some(old) => fs::remove_dir_all(folder.join(old)),
        None => Ok(()),
    }
}

/// A folder of a name that was never used here.
fn fresh_folder(folder: &Path, group: Option<u32>) -> io::Result<String> {
    let stamp = jiff::Timestamp::now().as_nanosecond();
    for n in 0..100 {
        let name = format!("..{stamp}_{n}");
        match fs::create_dir(folder.join(&name)) {
            Ok(()) => {
                permit(&folder.join(&name), 0o755, group)?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name for a new folder"))
}

fn write_file(path: &Path, content: &Content, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, &content.bytes)?;
    let readable = if group.is_some() {
        content.mode | 0o440
    } else {
        content.mode
    };
    permit(path, readable, group)
}

fn permit(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    match group {
        Some(group) => std::os::unix::fs::lchown(path, None, Some(group)),
        None => Ok(()),
    }
}

fn is_same(folder: &Path, payload: &Payload) -> bool {
    let same = |(path, content): (&String, &Content)| {
        fs::read(folder.join(path)).is_ok_and(|have| have == content.bytes)
    };
    count_files(folder).is_ok_and(|count| count == payload.len()) && payload.iter().all(same)
}

fn count_files(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() {
            count_files(&entry.path())?
        } else {
            1
        };
    }
    Ok(count)
}

/// Links for the first part of every path, and none besides.
fn link_all(folder: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload
        .keys()
        .map(|path| path.split('/').next().unwrap_or(path))
        .collect();
    let mut present = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") {
            present.insert(name, entry.path());
        }
    }
    for name in wanted.iter().filter(|name| !present.contains_key(**name)) {
        symlink(Path::new(DATA).join(name), folder.join(name))?;
    }
    for (_, path) in present
        .iter()
        .filter(|(name, _)| !wanted.contains(name.as_str()))
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| Content {
            bytes: text.as_bytes().to_vec(),
            mode: 0o640,
        };
        files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), content(text)))
            .collect()
    }

    /// The folder as its reader sees it: `path=text` in order.
    fn seen(folder: &Path) -> String {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).expect("readable") {
            let name = entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned();
            if !name.starts_with("..") {
                let path = folder.join(&name);
                let text = if path.is_dir() {
                    format!("[{}]", seen(&path))
                } else {
                    fs::read_to_string(&path).expect("text")
                };
                files.push(format!("{name}={text}"));
            }
        }
        files.sort();
        files.join(" ")
    }

    #[test]
    fn files_change_by_one_rename_and_stale_ones_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        write(
            at,
            &payload(&[("a", "1"), ("d/x", "2"), ("d/y", "3")]),
            None,
        )
        .expect("written");
        assert_eq!(seen(at), "a=1 d=[x=2 y=3]");
        let first = fs::read_link(at.join(DATA)).expect("a link");
        write(
            at,
            &payload(&[("a", "1"), ("d/x", "2"), ("d/y", "3")]),
            None,
        )
        .expect("written");
        assert_eq!(
            fs::read_link(at.join(DATA)).expect("a link"),
            first,
            "nothing changed, nothing written"
        );
        write(at, &payload(&[("b", "4"), ("d/x", "2")]), None).expect("written");
        assert_eq!(seen(at), "b=4 d=[x=2]");
        assert!(!at.join(first).exists(), "the old folder is gone");
        assert_eq!(
            fs::metadata(at.join("b"))
                .expect("a file")
                .permissions()
                .mode()
                & 0o777,
            0o640
        );
    }
}
