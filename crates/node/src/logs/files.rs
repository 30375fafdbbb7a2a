//! The files of one life's log, read as one: `0.log` is written, `0.log.000001` and so on are what it was before.
//!
//! The writer renames a full file between two lines and never comes back to it, so a reader that holds a file and finds
//! another in its place reads the rest of its own and goes on with the next number.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Wanted, parse, starts};

/// How often a listing may be overtaken by rotations before something is wrong.
const TRIES: u32 = 1_000;

/// What the file at `path` is called when it is full, as the `number`th.
pub(crate) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    PathBuf::from(name)
}

/// The files that the one at `path` was before, oldest first.
pub(crate) fn rotated(path: &Path) -> Vec<(u32, PathBuf)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
    else {
        return Vec::new();
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.path();
            let rest = path.file_name()?.to_str()?.strip_prefix(name)?;
            let number = rest.strip_prefix('.')?.parse().ok()?;
            Some((number, path))
        })
        .collect();
    found.sort();
    found
}

/// One life's log, open for reading.
#[derive(Debug)]
pub(crate) struct Files {
    /// The file that is written.
    path: PathBuf,
    held: Option<Held>,
    /// The number after which the next file is looked for, while none is held.
    after: u32,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// Its number, or the one that it gets when it is full.
    number: u32,
    /// It is not written any more.
    is_final: bool,
}

impl Files {
    /// Opens the log where what is wanted of it begins.
    pub(crate) fn open(path: &Path, wanted: &Wanted) -> io::Result<Self> {
        let mut all = open_all(path)?;
        let (first, offset) = begin(&mut all, wanted)?;
        let mut files = Self {
            path: path.to_owned(),
            held: None,
            after: 0,
        };
        if let Some((number, mut file)) = all.into_iter().nth(first) {
            file.seek(SeekFrom::Start(offset))?;
            files.held = Some(Held {
                file,
                number,
                is_final: false,
            });
        }
        Ok(files)
    }

    /// Reads on; 0 when there is no more now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(held) = &mut self.held {
                match held.file.read(buffer) {
                    Ok(0) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => return other,
                }
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }

    /// Goes on where there is more: in this file, when it was renamed since the last look, or in the next one.
    fn advance(&mut self) -> io::Result<bool> {
        match &mut self.held {
            Some(held) if held.is_final => {
                self.after = held.number;
                self.held = None;
            }
            Some(held) => {
                // Renamed after all was written: what came between the last read and that is there now.
                held.is_final = !is_at(&held.file, &self.path)?;
                return Ok(held.is_final);
            }
            None => {}
        }
        self.held = open_after(&self.path, self.after)?;
        Ok(self.held.is_some())
    }
}

/// Whether this open file is the one at `path`.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first file after this number, if there is one yet.
fn open_after(path: &Path, after: u32) -> io::Result<Option<Held>> {
    for _ in 0..TRIES {
        let next = rotated(path)
            .into_iter()
            .find(|(number, _)| *number > after);
        if let Some((number, path)) = next {
            match open_present(&path)? {
                Some(file) => {
                    return Ok(Some(Held {
                        file,
                        number,
                        is_final: true,
                    }));
                }
                // Too old meanwhile: another is the next.
                None => continue,
            }
        }
        let Some(file) = open_present(path)? else {
            return Ok(None);
        };
        // When it was renamed between the two looks, its number is in the listing.
        if rotated(path).iter().all(|(number, _)| *number <= after) && is_at(&file, path)? {
            return Ok(Some(Held {
                file,
                number: after + 1,
                is_final: false,
            }));
        }
    }
    Err(io::Error::other(
        "the log is rotated faster than it can be listed",
    ))
}

fn open_present(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All files at one moment, oldest first, each with its number; the last one is written.
fn open_all(path: &Path) -> io::Result<Vec<(u32, File)>> {
    for _ in 0..TRIES {
        let listed = rotated(path);
        let last = listed.last().map_or(0, |(number, _)| *number);
        let mut all = Vec::new();
        for (number, path) in &listed {
            all.extend(open_present(path)?.map(|file| (*number, file)));
        }
        let current = open_present(path)?;
        let now_last = rotated(path).last().map_or(0, |(number, _)| *number);
        let stands = match &current {
            Some(file) => is_at(file, path)?,
            // Between a rename and the next file, or nothing was ever written.
            None => listed.is_empty(),
        };
        if now_last == last && stands {
            all.extend(current.map(|file| (last + 1, file)));
            return Ok(all);
        }
    }
    Err(io::Error::other(
        "the log is rotated faster than it can be listed",
    ))
}

/// In which file, and where in it, what is wanted begins.
fn begin(all: &mut [(u32, File)], wanted: &Wanted) -> io::Result<(usize, u64)> {
    match wanted.tail {
        Some(lines) => tail(all, lines),
        None => Ok((first_since(all, wanted.since)?, 0)),
    }
}

/// The first file that may hold a line of this time or later: one whose successor begins before it holds none. A line
/// in parts may begin in a file before; it is hidden or shown by the part that is read first.
fn first_since(all: &mut [(u32, File)], since: Option<Timestamp>) -> io::Result<usize> {
    let Some(since) = since else { return Ok(0) };
    for index in (1..all.len()).rev() {
        let (_, file) = &mut all[index];
        if first_time(file)?.is_some_and(|time| time < since) {
            return Ok(index);
        }
    }
    Ok(0)
}

fn first_time(file: &mut File) -> io::Result<Option<Timestamp>> {
    file.seek(SeekFrom::Start(0))?;
    let mut head = Vec::new();
    file.take(64).read_to_end(&mut head)?;
    let word = head.split(|b| *b == b' ').next().unwrap_or_default();
    Ok(std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse().ok()))
}

/// Where the last `lines` lines begin. A line in parts counts once.
fn tail(all: &mut [(u32, File)], lines: u64) -> io::Result<(usize, u64)> {
    let last = all.len().saturating_sub(1);
    if lines == 0 {
        let end = match all.get_mut(last) {
            Some((_, file)) => file.seek(SeekFrom::End(0))?,
            None => 0,
        };
        return Ok((last, end));
    }
    let mut wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    for index in (0..all.len()).rev() {
        let between = match index.checked_sub(1) {
            Some(before) => ends_whole(&mut all[before].1)?,
            None => true,
        };
        match tail_offset(&mut all[index].1, wanted, between)? {
            Tail::At(offset) => return Ok((index, offset)),
            Tail::Fewer(found) => wanted -= found,
        }
    }
    Ok((0, 0))
}

/// Whether the last line of a file is whole. No line is longer than a window.
fn ends_whole(file: &mut File) -> io::Result<bool> {
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(size.saturating_sub(WINDOW)))?;
    let mut end = Vec::new();
    file.read_to_end(&mut end)?;
    let end = end.strip_suffix(b"\n").unwrap_or(&end);
    let last = end.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    Ok(parse(last).is_none_or(|line| line.full))
}

/// What is read of a file's end at first.
const WINDOW: u64 = 64 * 1_024;

/// Where the last lines of one file begin.
#[derive(Debug, PartialEq, Eq)]
enum Tail {
    At(u64),
    /// There are only so many lines that begin in it.
    Fewer(usize),
}

/// Reads only as much of the end as it needs. `between`: the file begins with a new line, not in the middle of one.
fn tail_offset(file: &mut (impl Read + Seek), wanted: usize, between: bool) -> io::Result<Tail> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut window = WINDOW;
    loop {
        let begin = size.saturating_sub(window);
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(size - begin).read_to_end(&mut bytes)?;
        let cut = match begin {
            0 => 0,
            // The first line of a window may be half a one.
            _ => first_end(&bytes),
        };
        let starts = starts(&bytes[cut..], begin == 0 && between);
        match starts.len().checked_sub(wanted) {
            Some(first) => return Ok(Tail::At(begin + (cut + starts[first]) as u64)),
            None if begin == 0 => return Ok(Tail::Fewer(starts.len())),
            None => window = window.saturating_mul(4),
        }
    }
}

fn first_end(bytes: &[u8]) -> usize {
    let end = bytes.iter().position(|b| *b == b'\n');
    end.map_or(bytes.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_tail_of_a_long_log_is_found_backwards() {
        let mut text = String::new();
        for n in 0..20_000 {
            text.push_str(&format!("2026-01-01T00:00:00Z stdout F line {n}\n"));
        }
        let file = || Cursor::new(text.as_bytes());
        let Tail::At(offset) = tail_offset(&mut file(), 3, true).expect("an offset") else {
            panic!("there are 20,000 lines");
        };
        let tail = &text[usize::try_from(offset).expect("small")..];
        assert_eq!(tail.lines().count(), 3);
        assert!(tail.ends_with("line 19999\n") && tail.contains("line 19997\n"));
        let all = tail_offset(&mut file(), 20_000, true).expect("an offset");
        assert_eq!(all, Tail::At(0));
        let fewer = tail_offset(&mut file(), 20_001, true).expect("an offset");
        assert_eq!(fewer, Tail::Fewer(20_000));
        // The first line goes on from another file.
        let fewer = tail_offset(&mut file(), 20_000, false).expect("an offset");
        assert_eq!(fewer, Tail::Fewer(19_999));
    }
}
