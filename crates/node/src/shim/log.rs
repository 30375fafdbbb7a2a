//! The container's log in CRI format: `<time> <stream> <F|P> <line>`, written by the shim and by nobody else.
//!
//! A line longer than [`LONGEST_LINE`] is cut into parts marked `P`, as is a last line without its newline.
//! A log that cannot be written loses lines; it never holds up the container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::logs;
use crate::runtime::LogLimits;

/// upstream: containerd's `max_container_log_line_size`.
const LONGEST_LINE: usize = 16 * 1024;

/// Which of the two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Makes CRI lines of the bytes of one stream. Pure.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: Stream,
    held: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
        }
    }

    /// Adds bytes that were read at `time`, and appends every line that is complete to `out`.
    pub(crate) fn push(&mut self, bytes: &[u8], time: &str, out: &mut Vec<u8>) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.held.extend_from_slice(text);
            self.cut_long(time, out);
            if complete {
                let line = std::mem::take(&mut self.held);
                self.write(&line, "F", time, out);
                self.held = line;
                self.held.clear();
            }
        }
    }

    /// The stream ended: what is held is a line without its newline.
    pub(crate) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            let line = std::mem::take(&mut self.held);
            self.write(&line, "P", time, out);
        }
    }

    fn cut_long(&mut self, time: &str, out: &mut Vec<u8>) {
        while self.held.len() > LONGEST_LINE {
            let rest = self.held.split_off(LONGEST_LINE);
            let part = std::mem::replace(&mut self.held, rest);
            self.write(&part, "P", time, out);
        }
    }

    fn write(&self, line: &[u8], tag: &str, time: &str, out: &mut Vec<u8>) {
        for part in [time, " ", self.stream.name(), " ", tag, " "] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(line);
        out.push(b'\n');
    }
}

/// The log of one attempt: the file that is written, and those before it.
///
/// A file that is full is renamed to its name and a number, one more each time, between two lines; the oldest go.
pub(crate) struct LogFile {
    path: PathBuf,
    limits: LogLimits,
    file: Option<File>,
    /// Bytes in the file: whole lines, always.
    size: u64,
    /// What the file is called when it is full.
    number: u32,
    buffer: Vec<u8>,
}

impl LogFile {
    /// Opens it for appending, with the folders above it.
    pub(crate) fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        let file = open_file(path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file: Some(file),
            number: logs::rotated(path).last().map_or(0, |(number, _)| *number) + 1,
            path: path.to_owned(),
            limits,
            buffer: Vec::new(),
        })
    }

    /// Writes what `lines` makes of these bytes.
    pub(crate) fn push(&mut self, lines: &mut Lines, bytes: &[u8]) {
        lines.push(bytes, &now(), &mut self.buffer);
        self.flush();
    }

    /// Writes the last line of a stream that has ended.
    pub(crate) fn finish(&mut self, lines: &mut Lines) {
        lines.finish(&now(), &mut self.buffer);
        self.flush();
    }

    /// Goes on in a new file of the same name: the old one was renamed.
    pub(crate) fn reopen(&mut self) {
        // Without a new file the old one is better than none.
        if let Ok(file) = open_file(&self.path) {
            self.size = file.metadata().map_or(0, |metadata| metadata.len());
            self.file = Some(file);
        }
    }

    fn flush(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let room = self.limits.max_bytes.saturating_sub(self.size);
            let count = match lines_within(rest, room) {
                0 if self.size > 0 && self.rotate().is_ok() => continue,
                // Longer than a file may be, or there can be no next file: better too long than lost.
                0 => first_line(rest),
                count => count,
            };
            let (now, later) = rest.split_at(count);
            self.write(now);
            rest = later;
        }
        self.buffer = buffer;
        self.buffer.clear();
    }

    fn write(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.file else {
            return;
        };
        match file.write_all(lines) {
            Ok(()) => self.size += lines.len() as u64,
            // A full disk must not stop the container: these lines are lost, the next may fit. What of them was
            // written is half a line, and would spoil the next. When that cannot be cut off either, it stays.
            Err(_) => drop(file.set_len(self.size)),
        }
    }

    /// Goes on in the next file, and drops what is too old.
    fn rotate(&mut self) -> io::Result<()> {
        let mut next = self.path.as_os_str().to_owned();
        next.push(".next");
        // Before anything is renamed: without a next file the present one goes on.
        let file = open_file(next.as_ref())?;
        let full = logs::numbered(&self.path, self.number);
        std::fs::rename(&self.path, &full)?;
        if let Err(error) = std::fs::rename(&next, &self.path) {
            std::fs::rename(&full, &self.path)?;
            return Err(error);
        }
        self.number += 1;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        let kept = self.limits.max_files.max(2) as usize - 1;
        let rotated = logs::rotated(&self.path);
        for (_, old) in rotated.iter().take(rotated.len().saturating_sub(kept)) {
            // What stays is removed with the next one.
            let _ = std::fs::remove_file(old);
        }
        Ok(())
    }
}

/// How many of these bytes are whole lines that fit.
fn lines_within(bytes: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
    bytes[..room]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)
}

fn first_line(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |end| end + 1)
}

/// The time of now as logs and records carry it.
pub(super) fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

fn open_file(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]], want: &str) {
        let mut lines = Lines::new(Stream::Stdout);
        let mut out = Vec::new();
        for piece in pieces {
            lines.push(piece, "T", &mut out);
        }
        lines.finish("E", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), want);
    }

    #[test]
    fn each_line_carries_its_time_stream_and_tag() {
        check(&[b"a\nb\n"], "T stdout F a\nT stdout F b\n");
    }

    #[test]
    fn a_line_that_comes_in_pieces_is_one_line() {
        check(
            &[b"one ", b"line\nnext"],
            "T stdout F one line\nE stdout P next\n",
        );
    }

    #[test]
    fn empty_lines_are_lines() {
        check(&[b"\n\n"], "T stdout F \nT stdout F \n");
    }

    #[test]
    fn a_line_over_the_limit_is_cut_into_parts() {
        let long = vec![b'x'; LONGEST_LINE + 3];
        let want = format!("T stdout P {}\nT stdout F xxx\n", "x".repeat(LONGEST_LINE));
        check(&[&long, b"\n"], &want);
    }
}
