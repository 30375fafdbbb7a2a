//! The container's log in CRI format: `<time> <stream> <F|P> <line>`, written by the shim and by nobody else.
//!
//! A line longer than [`LONGEST_LINE`] is cut into parts marked `P`, as is a last line without its newline.
//! A log that cannot be written loses lines; it never holds up the container.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// upstream: containerd's `max_container_log_line_size`.
const LONGEST_LINE: usize = 16 * 1024;

/// Which of the two outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
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
pub(super) struct Lines {
    stream: Stream,
    held: Vec<u8>,
}

impl Lines {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            held: Vec::new(),
        }
    }

    /// Adds bytes that were read at `time`, and appends every line that is complete to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], time: &str, out: &mut Vec<u8>) {
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
    pub(super) fn finish(&mut self, time: &str, out: &mut Vec<u8>) {
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

/// The log file of one attempt.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl LogFile {
    /// Opens it for appending, with the folders above it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: Some(open_file(path)?),
            buffer: Vec::new(),
        })
    }

    /// Writes what `lines` makes of these bytes.
    pub(super) fn push(&mut self, lines: &mut Lines, bytes: &[u8]) {
        lines.push(bytes, &now(), &mut self.buffer);
        self.flush();
    }

    /// Writes the last line of a stream that has ended.
    pub(super) fn finish(&mut self, lines: &mut Lines) {
        lines.finish(&now(), &mut self.buffer);
        self.flush();
    }

    /// Goes on in a new file of the same name: the old one was renamed.
    pub(super) fn reopen(&mut self) {
        // Without a new file the old one is better than none.
        if let Ok(file) = open_file(&self.path) {
            self.file = Some(file);
        }
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            // A full disk must not stop the container: these lines are lost, the next may fit.
            let _ = file.write_all(&self.buffer);
        }
        self.buffer.clear();
    }
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
