//! Who a container of an image runs as: the image's own /etc/passwd and /etc/group, read as its layers show them.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// No list of users that people write is longer.
const LIST_MOST: u64 = 4 << 20;
/// As many links as the kernel would follow.
const MOST_LINKS: usize = 40;

/// A user, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Main group.
    pub gid: u32,
    /// Further groups that name the user, in ascending order.
    pub groups: Vec<u32>,
    /// Home folder.
    pub home: String,
}

/// Why a user of an image is nobody.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A name that the image's list does not have.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// As above, of a group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The list cannot be read.
    #[error("could not read {path} of the image: {source}")]
    Read {
        /// The path in the image.
        path: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The user that an image's config or a pod asks for: empty, `name`, `uid`, `name:group`, `uid:gid`. `layers`: lowest first.
/// A number that no list has is itself, with group 0, as container engines do.
///
/// # Errors
/// When a name is in no list.
pub fn account(layers: &[PathBuf], user: &str) -> Result<Account, UserError> {
    let passwd = list(layers, "/etc/passwd")?;
    let group = list(layers, "/etc/group")?;
    find(user, &passwd, &group)
}

fn list(layers: &[PathBuf], path: &'static str) -> Result<String, UserError> {
    let read = read_file(layers, Path::new(path), LIST_MOST);
    let bytes = read.map_err(|source| UserError::Read { path, source })?;
    Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
}

fn find(user: &str, passwd: &str, group: &str) -> Result<Account, UserError> {
    let (user, named_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let entry = passwd
        .lines()
        .filter_map(Entry::parse)
        .find(|entry| entry.name == user || number == Some(entry.uid));
    let (uid, gid, home, name) = match (entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid, entry.home, Some(entry.name)),
        (None, Some(uid)) => (uid, 0, "/", None),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let (gid, groups) = match named_group {
        Some(named) => (group_number(named, group)?, Vec::new()),
        None => (
            gid,
            name.map(|name| groups_of(name, group)).unwrap_or_default(),
        ),
    };
    Ok(Account {
        uid,
        gid,
        groups,
        home: if home.is_empty() { "/" } else { home }.to_owned(),
    })
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Entry<'_> {
    fn parse(line: &str) -> Option<Entry<'_>> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Entry {
            name,
            uid,
            gid,
            home,
        })
    }
}

fn group_number(named: &str, group: &str) -> Result<u32, UserError> {
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        (name == named).then_some(gid)
    });
    found
        .or_else(|| named.parse().ok())
        .ok_or_else(|| UserError::NoGroup(named.to_owned()))
}

fn groups_of(name: &str, group: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let gid = fields.nth(2)?.parse().ok()?;
            let members = fields.next()?;
            members
                .split(',')
                .any(|member| member.trim() == name)
                .then_some(gid)
        })
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// A file as the layers show it one over another, links followed inside; `None` when there is none.
///
/// # Errors
/// When it is larger than `most` bytes, or cannot be read.
pub fn read_file(layers: &[PathBuf], path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = locate(layers, path)? else {
        return Ok(None);
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(&file)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// What one name shows in folders that lie one over another, the topmost first.
enum Shown {
    Nothing,
    Folders(Vec<PathBuf>),
    Link(PathBuf),
    File(PathBuf),
}

fn locate(layers: &[PathBuf], path: &Path) -> io::Result<Option<PathBuf>> {
    let top: Vec<PathBuf> = layers.iter().rev().cloned().collect();
    let mut todo = names(path);
    let mut way: Vec<Vec<PathBuf>> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            way.pop();
            continue;
        }
        match look(way.last().unwrap_or(&top), &name)? {
            Shown::Nothing => return Ok(None),
            Shown::Folders(folders) => way.push(folders),
            Shown::File(file) => return Ok(todo.is_empty().then_some(file)),
            Shown::Link(target) => {
                links += 1;
                if links > MOST_LINKS {
                    return Ok(None);
                }
                if target.is_absolute() {
                    way.clear();
                }
                for name in names(&target).into_iter().rev() {
                    todo.push_front(name);
                }
            }
        }
    }
    Ok(None)
}

fn look(folders: &[PathBuf], name: &str) -> io::Result<Shown> {
    let mut found = Vec::new();
    for folder in folders {
        let path = folder.join(name);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let kind = metadata.file_type();
        if kind.is_dir() {
            let opaque = is_opaque(&path);
            found.push(path);
            if opaque {
                break;
            }
        } else if !found.is_empty() || (kind.is_char_device() && metadata.rdev() == 0) {
            break;
        } else if kind.is_symlink() {
            return Ok(Shown::Link(fs::read_link(&path)?));
        } else if kind.is_file() {
            return Ok(Shown::File(path));
        } else {
            break;
        }
    }
    Ok(if found.is_empty() {
        Shown::Nothing
    } else {
        Shown::Folders(found)
    })
}

fn is_opaque(folder: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .iter()
        .any(|name| {
            let mut value = [0_u8; 4];
            rustix::fs::lgetxattr(folder, *name, &mut value[..])
                .is_ok_and(|length| value.get(..length) == Some(b"y"))
        })
}

fn names(path: &Path) -> VecDeque<String> {
    path.components()
        .filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => Some("..".to_owned()),
            std::path::Component::RootDir
            | std::path::Component::CurDir
            | std::path::Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34:web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:web,other\ntls:x:7:web\n";

    fn check(user: &str, expected: &str) {
        let said = match find(user, PASSWD, GROUP) {
            Ok(Account {
                uid,
                gid,
                groups,
                home,
            }) => format!("{uid}:{gid} {groups:?} {home}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected, "{user:?}");
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        check("", "0:0 [] /root");
        check("web", "33:34 [4, 7] /var/www");
        check("33", "33:34 [4, 7] /var/www");
        check("web:log", "33:4 [] /var/www");
        check("web:99", "33:99 [] /var/www");
        check("1000", "1000:0 [] /");
        check("1000:1000", "1000:1000 [] /");
        check(
            "nobody",
            "unable to find user nobody: no matching entries in passwd file",
        );
        check(
            "web:none",
            "unable to find group none: no matching entries in group file",
        );
    }

    #[test]
    fn a_file_is_read_as_the_layers_show_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let layer = |name: &str| folder.path().join(name);
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("low/etc/passwd", "low");
        write("low/etc/only-low", "low");
        write("low/usr/lib/list", "linked");
        write("high/etc/passwd", "high");
        std::os::unix::fs::symlink("/usr/lib/../lib/list", layer("high").join("etc/group"))
            .expect("linked");
        std::os::unix::fs::symlink("loop", layer("high").join("etc/loop")).expect("linked");
        std::os::unix::fs::symlink(
            "../../../../../../etc/passwd",
            layer("high").join("etc/out"),
        )
        .expect("linked");
        let layers = [layer("low"), layer("high")];
        let read = |path: &str| {
            let bytes = read_file(&layers, Path::new(path), 100).expect("it can be read");
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        assert_eq!(read("/etc/passwd").as_deref(), Some("high"));
        assert_eq!(read("/etc/only-low").as_deref(), Some("low"));
        assert_eq!(read("/etc/group").as_deref(), Some("linked"));
        assert_eq!(
            read("/etc/out").as_deref(),
            Some("high"),
            "links end at the root"
        );
        assert_eq!(read("/etc/loop"), None);
        assert_eq!(read("/etc"), None);
        assert_eq!(read("/etc/passwd/x"), None);
        assert!(read_file(&layers, Path::new("/etc/passwd"), 2).is_err());
    }
}
