//! Container logs: the CRI format, and what a reader may ask of it. Pure but for reading files.
//!
//! A line is `<time> <stdout|stderr> <F|P> <text>`; a `P` line goes on in the next one of its stream. The shim alone writes.

mod files;

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

pub(crate) use files::{Files, numbered, rotated};

/// What of a log is asked for, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Go on until the container has ended.
    pub(crate) follow: bool,
    /// The life before the present one.
    pub(crate) previous: bool,
    /// The last so many lines.
    pub(crate) tail: Option<u64>,
    /// Lines from this time on.
    pub(crate) since: Option<Timestamp>,
    /// Each line begins with its time.
    pub(crate) timestamps: bool,
    /// At most so many bytes.
    pub(crate) limit_bytes: Option<u64>,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
}

/// Which stream a line was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Wanted {
    /// Reads the query of a log request; the error is a sentence for the asker.
    pub(crate) fn parse(query: &[(String, String)], now: Timestamp) -> Result<Self, String> {
        let mut wanted = Self::default();
        let number = |name: &str, text: &str| {
            text.parse::<u64>()
                .map_err(|_| format!("{name} must be a number of at least 0, not {text:?}"))
        };
        for (name, value) in query {
            match name.as_str() {
                "follow" => wanted.follow = is_true(value),
                "previous" => wanted.previous = is_true(value),
                "timestamps" => wanted.timestamps = is_true(value),
                "tailLines" => wanted.tail = Some(number(name, value)?),
                "limitBytes" => wanted.limit_bytes = Some(number(name, value)?),
                "sinceSeconds" => {
                    let seconds = i64::try_from(number(name, value)?).unwrap_or(i64::MAX);
                    let since = now.saturating_sub(SignedDuration::from_secs(seconds));
                    wanted.since = Some(since.unwrap_or(Timestamp::MIN));
                }
                "sinceTime" => {
                    let since = value.parse().map_err(|_| {
                        format!("sinceTime must be a time in RFC 3339, not {value:?}")
                    })?;
                    wanted.since = Some(since);
                }
                "stream" => {
                    wanted.stream = match value.as_str() {
                        "Stdout" => Some(Stream::Stdout),
                        "Stderr" => Some(Stream::Stderr),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        Ok(wanted)
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1" | "True" | "TRUE" | "t" | "T")
}

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: Stream,
    /// It is whole: the text ends with a new line.
    full: bool,
    text: &'a [u8],
}

/// Reads one line without its end; `None` when it is no line of the format.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let full = match parts.next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line {
        time,
        stream,
        full,
        text: parts.next().unwrap_or_default(),
    })
}

/// Turns the bytes of a log into what a reader is shown, piece by piece.
#[derive(Debug)]
pub(crate) struct Reader {
    wanted: Wanted,
    /// What is left of the limit.
    left: Option<u64>,
    /// The end of the last piece, which is no whole line yet.
    rest: Vec<u8>,
    stdout: Course,
    stderr: Course,
}

/// What the last line of a stream means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// It was whole.
    Between,
    /// It goes on, and is shown.
    Shown,
    /// It goes on, and is not.
    Hidden,
}

impl Reader {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            left: wanted.limit_bytes,
            wanted,
            rest: Vec::new(),
            stdout: Course::Between,
            stderr: Course::Between,
        }
    }

    /// The limit is reached: there is no more to show.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// What is shown of the next bytes of the log.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        let Some(end) = bytes.iter().rposition(|b| *b == b'\n') else {
            self.rest.extend_from_slice(bytes);
            return shown;
        };
        let (whole, rest) = bytes.split_at(end + 1);
        let mut lines = whole.split_inclusive(|b| *b == b'\n');
        if !self.rest.is_empty() {
            let mut first = std::mem::take(&mut self.rest);
            first.extend_from_slice(lines.next().unwrap_or_default());
            self.take(&first, &mut shown);
        }
        for line in lines {
            self.take(line, &mut shown);
        }
        self.rest.extend_from_slice(rest);
        self.limit(shown)
    }

    fn take(&mut self, line: &[u8], shown: &mut Vec<u8>) {
        let Some(line) = parse(line.strip_suffix(b"\n").unwrap_or(line)) else {
            return;
        };
        let before = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        // A line is shown or hidden as a whole: its first part decides.
        let is_shown = match before {
            Course::Between => self.is_wanted(&line),
            Course::Shown => true,
            Course::Hidden => false,
        };
        let after = match (line.full, is_shown) {
            (true, _) => Course::Between,
            (false, true) => Course::Shown,
            (false, false) => Course::Hidden,
        };
        match line.stream {
            Stream::Stdout => self.stdout = after,
            Stream::Stderr => self.stderr = after,
        }
        if is_shown {
            self.show(&line, before, shown);
        }
    }

    fn is_wanted(&self, line: &Line<'_>) -> bool {
        let since = self.wanted.since.is_none_or(|since| {
            line.time
                .parse::<Timestamp>()
                .is_ok_and(|time| time >= since)
        });
        since
            && self
                .wanted
                .stream
                .is_none_or(|stream| stream == line.stream)
    }

    fn show(&self, line: &Line<'_>, before: Course, shown: &mut Vec<u8>) {
        if self.wanted.timestamps && before == Course::Between {
            shown.extend_from_slice(line.time.as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(line.text);
        if line.full {
            shown.push(b'\n');
        }
    }

    fn limit(&mut self, mut shown: Vec<u8>) -> Vec<u8> {
        if let Some(left) = &mut self.left {
            let room = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(shown.len());
            shown.truncate(room);
            *left -= room as u64;
        }
        shown
    }
}

/// Where lines begin that do not go on from the one before. `between`: the bytes begin with a new line, not in the
/// middle of one that is in parts.
fn starts(bytes: &[u8], between: bool) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut place = 0;
    let mut before_is_full = between;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if before_is_full {
            starts.push(place);
        }
        place += line.len();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        before_is_full = parse(text).is_none_or(|line| line.full);
    }
    starts
}

/// The last lines of a log as a termination message.
pub(crate) fn last_words(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let wanted = Wanted {
        tail: Some(lines as u64),
        ..Wanted::default()
    };
    let mut files = Files::open(path, &wanted).ok()?;
    let mut reader = Reader::new(wanted);
    let mut shown = Vec::new();
    let mut piece = vec![0; 64 * 1_024];
    loop {
        match files.read(&mut piece).ok()? {
            0 => break,
            count => shown.extend(reader.push(&piece[..count])),
        }
        // Only the end is told: no more than twice of it is ever held.
        let from = shown.len().saturating_sub(bytes);
        shown.drain(..from);
    }
    Some(String::from_utf8_lossy(&shown).into_owned())
}

/// The logs of a container's lives that are still there, oldest first.
pub(crate) fn lives(folder: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut lives: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path
                .file_name()?
                .to_str()?
                .strip_suffix(".log")?
                .parse()
                .ok()?;
            Some((number, path))
        })
        .collect();
    lives.sort();
    lives
}

#[cfg(test)]
mod tests;
