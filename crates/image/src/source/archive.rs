//! An archive of an image's files: where in it each of them is, found in one pass.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::compression;
use crate::document::Compression;
use crate::tar::{Archive, Kind};

use super::{Part, SourceError, unread};

/// Files that an archive of images may have.
const MOST_MEMBERS: usize = 100_000;
/// Bytes that a compressed archive may become.
const MOST_BYTES: u64 = 256 << 30;
/// Links from one member to another that are followed.
const MOST_LINKS: usize = 8;

/// The members of an archive that is no longer compressed.
pub(crate) struct Members {
    path: PathBuf,
    places: BTreeMap<String, Place>,
}

enum Place {
    Bytes { offset: u64, size: u64 },
    Link(String),
}

impl Members {
    /// Goes through an archive once. A compressed one is written to `work` first.
    pub(super) fn read(path: &Path, work: &Path) -> Result<Members, SourceError> {
        let plain = decompressed(path, work)?;
        let file = File::open(&plain).map_err(unread(&plain))?;
        let mut archive = Archive::new(BufReader::with_capacity(1 << 16, file), 1 << 20);
        let mut places = BTreeMap::new();
        loop {
            let entry = match archive.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(_) if places.is_empty() => return Err(SourceError::NoImage(path.to_owned())),
                Err(error) => return Err(unread(path)(io::Error::other(error))),
            };
            if places.len() >= MOST_MEMBERS {
                return Err(unread(path)(io::Error::other(
                    "too many files in the archive",
                )));
            }
            let Some(name) = clean(&entry.path) else {
                continue;
            };
            let place = match entry.kind {
                Kind::File if entry.segments.is_none() => Place::Bytes {
                    offset: archive.position(),
                    size: entry.size,
                },
                // Older engines write a layer once and link to it.
                Kind::Symlink => match linked(&name, &entry.link) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                Kind::HardLink => match clean(&entry.link) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            places.insert(name, place);
        }
        Ok(Members {
            path: plain,
            places,
        })
    }

    pub(super) fn part(&self, name: &str) -> Result<Option<Part>, SourceError> {
        let mut name = name;
        for _ in 0..MOST_LINKS {
            match self.places.get(name) {
                None => return Ok(None),
                Some(Place::Link(target)) => name = target,
                Some(Place::Bytes { offset, size }) => {
                    let mut file = File::open(&self.path).map_err(unread(&self.path))?;
                    file.seek(SeekFrom::Start(*offset))
                        .map_err(unread(&self.path))?;
                    return Ok(Some(Part {
                        bytes: file.take(*size),
                        size: *size,
                    }));
                }
            }
        }
        Ok(None)
    }
}

fn decompressed(path: &Path, work: &Path) -> Result<PathBuf, SourceError> {
    let mut input = BufReader::new(File::open(path).map_err(unread(path))?);
    let first = io::BufRead::fill_buf(&mut input).map_err(unread(path))?;
    if compression::detect(first) == Compression::None {
        return Ok(path.to_owned());
    }
    let plain = work.join("archive.tar");
    let mut out = File::create(&plain).map_err(unread(&plain))?;
    let reader = compression::decompress(input).map_err(unread(path))?;
    let copied = io::copy(&mut reader.take(MOST_BYTES + 1), &mut out).map_err(unread(path))?;
    if copied > MOST_BYTES {
        return Err(SourceError::TooLarge {
            what: path.display().to_string(),
            found: copied,
            most: MOST_BYTES,
        });
    }
    Ok(plain)
}

/// A member's path without `.` and slashes at its ends; what leads up is no member of a layout.
pub(super) fn clean(path: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(path).ok()?;
    let names: Vec<&str> = text
        .split('/')
        .filter(|name| !matches!(*name, "" | "."))
        .collect();
    (!names.is_empty() && !names.contains(&"..")).then(|| names.join("/"))
}

/// Where a link beside a member leads, `..` resolved by name: there are no folders to follow.
fn linked(name: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok()?;
    let mut names: Vec<&str> = name.split('/').collect();
    names.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                names.pop()?;
            }
            part => names.push(part),
        }
    }
    (!names.is_empty()).then(|| names.join("/"))
}
