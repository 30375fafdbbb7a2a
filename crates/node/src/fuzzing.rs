//! Entries for the fuzz targets: each takes bytes that others wrote, and panics where a promise about them is broken.

use jiff::Timestamp;

use crate::logs::{Files, Reader, Wanted};

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
    assert!(
        file.ends_with(&from_the_tail(file, &wanted)),
        "what is read of a file is not its end"
    );
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

/// What is read of a log file where this is wanted of it.
fn from_the_tail(file: &[u8], wanted: &Wanted) -> Vec<u8> {
    let name = format!("stead-fuzz-{}.log", std::process::id());
    let path = std::env::temp_dir().join(name);
    let read = || -> std::io::Result<Vec<u8>> {
        std::fs::write(&path, file)?;
        let mut files = Files::open(&path, wanted)?;
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match files.read(&mut buffer)? {
                0 => break,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
        std::fs::remove_file(&path)?;
        Ok(all)
    };
    read().expect("a temporary folder can be used")
}
