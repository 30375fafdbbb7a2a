//! Entries for the fuzz targets: each takes bytes that others wrote, and panics where a promise about them is broken.

use jiff::Timestamp;

use crate::logs::{Reader, Wanted};

pub use crate::dns::fuzz::{answer as dns_answer, question as dns_question, resolv_conf};

/// The query of a log request, and behind the first new line a log file: read whole and in pieces, it shows the same.
pub fn log(bytes: &[u8]) {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(bytes.len());
    let (query, file) = bytes.split_at(end);
    let query: Vec<(String, String)> = String::from_utf8_lossy(query)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let Ok(wanted) = Wanted::parse(&query, Timestamp::UNIX_EPOCH) else {
        return;
    };
    let limit = wanted.limit_bytes;
    if let Some(lines) = wanted.tail {
        let offset = crate::logs::tail_offset(&mut std::io::Cursor::new(file), lines);
        assert!(
            offset.is_ok_and(|offset| offset <= file.len() as u64),
            "the tail begins behind the end"
        );
    }
    let whole = Reader::new(wanted.clone()).push(file);
    let mut reader = Reader::new(wanted);
    let pieces: Vec<u8> = file
        .chunks(7)
        .flat_map(|piece| reader.push(piece))
        .collect();
    assert_eq!(whole, pieces, "a log read in pieces shows something else");
    assert!(
        limit.is_none_or(|limit| whole.len() as u64 <= limit),
        "more than was asked for"
    );
}
