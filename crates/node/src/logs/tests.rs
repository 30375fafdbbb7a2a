//! What a reader is shown of a log, whole and while it is written and rotated.

use proptest::prelude::*;

use crate::runtime::LogLimits;
use crate::shim::log::{Lines, LogFile, Stream as Written};

use super::*;

const LOG: &str = "\
2026-01-01T00:00:01.5Z stdout F one
2026-01-01T00:00:02Z stderr P two-
2026-01-01T00:00:02Z stderr F two
2026-01-01T00:00:03Z stdout F 
2026-01-01T00:00:04Z stdout F four
";

fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What is shown of `LOG` for a query, wherever it was rotated and in whatever pieces it is read.
fn check(query: &str, expected: &str) {
    let now: Timestamp = "2026-01-01T00:00:05Z".parse().expect("a time");
    let wanted = Wanted::parse(&pairs(query), now).expect("a query");
    let lines: Vec<&str> = LOG.split_inclusive('\n').collect();
    for cut in 0..=lines.len() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        let (before, after) = lines.split_at(cut);
        if !before.is_empty() {
            std::fs::write(numbered(&path, 3), before.concat()).expect("a file");
        }
        std::fs::write(&path, after.concat()).expect("a file");
        for piece in [1, 7, LOG.len()] {
            let mut files = Files::open(&path, &wanted).expect("a log");
            let shown = read_all(&mut files, &mut Reader::new(wanted.clone()), piece);
            let shown = String::from_utf8_lossy(&shown);
            assert_eq!(
                shown, expected,
                "{query:?} in pieces of {piece}, cut after {cut}"
            );
        }
    }
}

fn read_all(files: &mut Files, reader: &mut Reader, piece: usize) -> Vec<u8> {
    let mut shown = Vec::new();
    let mut buffer = vec![0; piece];
    while !reader.is_full() {
        match files.read(&mut buffer).expect("a file can be read") {
            0 => break,
            count => shown.extend(reader.push(&buffer[..count])),
        }
    }
    shown
}

#[test]
fn a_log_is_shown_as_it_is_asked_for() {
    check("", "one\ntwo-two\n\nfour\n");
    check("tailLines=1", "four\n");
    check("tailLines=2", "\nfour\n");
    check("tailLines=3", "two-two\n\nfour\n");
    check("tailLines=0", "");
    check("tailLines=99", "one\ntwo-two\n\nfour\n");
    check("sinceSeconds=2", "\nfour\n");
    check("sinceTime=2026-01-01T00:00:02Z", "two-two\n\nfour\n");
    check("sinceTime=2026-01-01T00:00:03.000000001Z", "four\n");
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
fn the_last_words_are_the_end_across_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("0.log");
    std::fs::write(numbered(&path, 1), "T stdout F one\nT stdout F two\n").expect("a file");
    std::fs::write(&path, "T stderr F three\n").expect("a file");
    assert_eq!(last_words(&path, 2, 100).as_deref(), Some("two\nthree\n"));
    assert_eq!(last_words(&path, 9, 4).as_deref(), Some("ree\n"));
}

/// One thing that happens to a log.
#[derive(Debug, Clone)]
enum Event {
    Write(Vec<u8>),
    Read(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let byte = prop_oneof![3 => any::<u8>(), 1 => Just(b'\n')];
    prop_oneof![
        prop::collection::vec(byte, 1..120).prop_map(Event::Write),
        // Longer than a line of the format may be.
        (16_000usize..40_000).prop_map(|length| Event::Write(vec![b'x'; length])),
        (1usize..4_000).prop_map(Event::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any interleaving of writes, rotations and reads gives exactly what was written, once, in order, as long as no
    /// file is too old to be kept.
    #[test]
    fn a_follower_is_shown_exactly_what_was_written(
        events in prop::collection::vec(event(), 1..60),
        max_bytes in 40u64..3_000,
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        let limits = LogLimits { max_bytes, max_files: u32::MAX };
        let mut log = LogFile::open(&path, limits).expect("a log");
        let mut lines = Lines::new(Written::Stdout);
        let mut files = Files::open(&path, &Wanted::default()).expect("a log");
        let mut reader = Reader::new(Wanted::default());
        let (mut written, mut shown) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Write(bytes) => {
                    log.push(&mut lines, &bytes);
                    written.extend(bytes);
                }
                Event::Read(size) => {
                    let mut buffer = vec![0; size];
                    let count = files.read(&mut buffer).expect("a file can be read");
                    shown.extend(reader.push(&buffer[..count]));
                }
            }
        }
        log.finish(&mut lines);
        shown.extend(read_all(&mut files, &mut reader, 4_096));
        prop_assert!(shown == written, "a follower missed or doubled something");
        let late = Files::open(&path, &Wanted::default()).expect("a log");
        let late = read_all(&mut { late }, &mut Reader::new(Wanted::default()), 4_096);
        prop_assert!(late == written, "a late reader missed or doubled something");
    }

    /// Files that are too old go, the rest stays whole and in order.
    #[test]
    fn what_is_kept_is_the_end(count in 1usize..400, max_bytes in 60u64..600, max_files in 2u32..6) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("0.log");
        let mut log = LogFile::open(&path, LogLimits { max_bytes, max_files }).expect("a log");
        let mut lines = Lines::new(Written::Stderr);
        let mut written = String::new();
        for n in 0..count {
            let line = format!("line {n}\n");
            log.push(&mut lines, line.as_bytes());
            written.push_str(&line);
        }
        let kept = rotated(&path);
        prop_assert!(kept.len() < max_files as usize);
        for (_, file) in &kept {
            prop_assert!(file.metadata().expect("a file").len() <= max_bytes);
        }
        let mut files = Files::open(&path, &Wanted::default()).expect("a log");
        let shown = read_all(&mut files, &mut Reader::new(Wanted::default()), 512);
        let shown = String::from_utf8(shown).expect("lines");
        prop_assert!(!shown.is_empty() && written.ends_with(&shown));
        prop_assert!(written.len() == shown.len() || kept.len() + 1 == max_files as usize);
        let wanted = Wanted { tail: Some(3), ..Wanted::default() };
        let mut files = Files::open(&path, &wanted).expect("a log");
        let tail = read_all(&mut files, &mut Reader::new(wanted), 512);
        let from = shown.lines().count().saturating_sub(3);
        let want: String = shown.split_inclusive('\n').skip(from).collect();
        prop_assert_eq!(String::from_utf8(tail).expect("lines"), want);
    }

    #[test]
    fn no_bytes_are_too_strange_for_a_reader(bytes in prop::collection::vec(any::<u8>(), 0..500), cut in 1usize..50) {
        let mut reader = Reader::new(Wanted { timestamps: true, since: Some(Timestamp::UNIX_EPOCH), ..Wanted::default() });
        let mut shown = 0;
        for piece in bytes.chunks(cut) {
            shown += reader.push(piece).len();
        }
        prop_assert!(shown <= bytes.len());
    }

    #[test]
    fn no_query_is_too_strange(query in prop::collection::vec((".{0,12}", ".{0,12}"), 0..6)) {
        if let Ok(wanted) = Wanted::parse(&query, Timestamp::UNIX_EPOCH) {
            prop_assert!(wanted.since.is_none_or(|since| since <= Timestamp::MAX));
        }
    }
}
