//! Container logs: the CRI format, and what a reader may ask of it. Pure but for reading files.
//!
//! A line is `<time> <stdout|stderr> <F|P> <text>`; a `P` line goes on in the next one of its stream. The shim alone writes.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

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

/// Turns the bytes of a log file into what a reader is shown, piece by piece.
#[derive(Debug)]
pub(crate) struct Reader {
    wanted: Wanted,
    /// What is left of the limit.
    left: Option<u64>,
    /// The end of the last piece, which is no whole line yet.
    rest: Vec<u8>,
    /// The last line shown goes on.
    open: bool,
}

impl Reader {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            left: wanted.limit_bytes,
            wanted,
            rest: Vec::new(),
            open: false,
        }
    }

    /// The limit is reached: there is no more to show.
    pub(crate) fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    /// What is shown of the next bytes of the file.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut shown = Vec::new();
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else {
            return shown;
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        for line in whole.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            if let Some(line) = parse(line)
                && self.is_wanted(&line)
            {
                self.show(&line, &mut shown);
            }
        }
        self.limit(shown)
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

    fn show(&mut self, line: &Line<'_>, shown: &mut Vec<u8>) {
        if self.wanted.timestamps && !self.open {
            shown.extend_from_slice(line.time.as_bytes());
            shown.push(b' ');
        }
        shown.extend_from_slice(line.text);
        if line.full {
            shown.push(b'\n');
        }
        self.open = !line.full;
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

/// Where the last `lines` lines of a file begin. A line in pieces counts once. Reads only as much of the end as it needs.
pub(crate) fn tail_offset(file: &mut (impl Read + Seek), lines: u64) -> std::io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    if wanted == 0 {
        return Ok(size);
    }
    let mut window: u64 = 64 * 1_024;
    loop {
        let begin = size.saturating_sub(window);
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(size - begin).read_to_end(&mut bytes)?;
        let starts = starts(&bytes, begin == 0);
        match starts.len().checked_sub(wanted) {
            Some(first) => return Ok(begin + starts[first] as u64),
            None if begin == 0 => return Ok(0),
            None => window = window.saturating_mul(4),
        }
    }
}

/// Where lines begin that do not go on from the one before. `whole`: the bytes are the beginning of the file.
fn starts(bytes: &[u8], whole: bool) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut place = 0;
    let mut before_is_full = whole;
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        if before_is_full {
            starts.push(place);
        }
        place += line.len();
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        // The first line of a window may be half a one, of which nothing can be said.
        before_is_full = parse(text).map_or(whole || place > line.len(), |line| line.full);
    }
    starts
}

/// The last lines of a log as a termination message.
pub(crate) fn last_words(path: &Path, lines: usize, bytes: usize) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let offset = tail_offset(&mut file, lines as u64).ok()?;
    let size = file.metadata().ok()?.len();
    // The times before each line take room too.
    let begin = offset.max(size.saturating_sub(16 * bytes as u64));
    file.seek(SeekFrom::Start(begin)).ok()?;
    let mut raw = Vec::new();
    file.read_to_end(&mut raw).ok()?;
    let shown = Reader::new(Wanted::default()).push(&raw);
    let from = shown.len().saturating_sub(bytes);
    Some(String::from_utf8_lossy(&shown[from..]).into_owned())
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
mod tests {
    use std::io::Cursor;

    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:01.5Z stdout F one
2026-01-01T00:00:02Z stderr P two-
2026-01-01T00:00:02Z stderr F two
2026-01-01T00:00:03Z stdout F 
2026-01-01T00:00:04Z stdout F four
";

    /// What is shown of `LOG` for a query, whatever the pieces in which it is read.
    fn check(query: &str, expected: &str) {
        let query: Vec<_> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let now: Timestamp = "2026-01-01T00:00:05Z".parse().expect("a time");
        let wanted = Wanted::parse(&query, now).expect("a query");
        for piece in [1, 7, LOG.len()] {
            let mut file = Cursor::new(LOG.as_bytes());
            let from = wanted
                .tail
                .map_or(0, |lines| tail_offset(&mut file, lines).expect("an offset"));
            let mut reader = Reader::new(wanted.clone());
            let bytes = &LOG.as_bytes()[usize::try_from(from).expect("small")..];
            let shown: Vec<u8> = bytes
                .chunks(piece)
                .flat_map(|chunk| reader.push(chunk))
                .collect();
            assert_eq!(
                String::from_utf8_lossy(&shown),
                expected,
                "{query:?} in pieces of {piece}"
            );
        }
    }

    #[test]
    fn a_log_is_shown_as_it_is_asked_for() {
        check("", "one\ntwo-two\n\nfour\n");
        check("tailLines=2", "\nfour\n");
        check("tailLines=3", "two-two\n\nfour\n");
        check("tailLines=0", "");
        check("tailLines=99", "one\ntwo-two\n\nfour\n");
        check("sinceSeconds=2", "\nfour\n");
        check("sinceTime=2026-01-01T00:00:02Z", "two-two\n\nfour\n");
        check("limitBytes=6", "one\ntw");
        check("stream=Stderr", "two-two\n");
        check(
            "timestamps=true&tailLines=3",
            "2026-01-01T00:00:02Z two-two\n2026-01-01T00:00:03Z \n2026-01-01T00:00:04Z four\n",
        );
    }

    #[test]
    fn a_query_that_makes_no_sense_is_refused() {
        for (name, value) in [
            ("tailLines", "-1"),
            ("limitBytes", "x"),
            ("sinceTime", "yesterday"),
            ("sinceSeconds", ""),
        ] {
            let query = [(name.to_owned(), value.to_owned())];
            assert!(
                Wanted::parse(&query, Timestamp::UNIX_EPOCH)
                    .expect_err("refused")
                    .contains(name)
            );
        }
    }

    #[test]
    fn the_tail_of_a_long_log_is_found_backwards() {
        let mut text = String::new();
        for n in 0..20_000 {
            text.push_str(&format!("2026-01-01T00:00:00Z stdout F line {n}\n"));
        }
        let offset = tail_offset(&mut Cursor::new(text.as_bytes()), 3).expect("an offset");
        let tail = &text[usize::try_from(offset).expect("small")..];
        assert_eq!(tail.lines().count(), 3);
        assert!(tail.ends_with("line 19999\n") && tail.contains("line 19997\n"));
        let all = tail_offset(&mut Cursor::new(text.as_bytes()), 20_000).expect("an offset");
        assert_eq!(all, 0);
    }
}
