//! The recorded oracle: where it is, and its conversations.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The oracle's folder: `STEAD_ORACLE`, or `../shared/oracle` beside the workspace.
pub(crate) fn folder() -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    std::env::var_os("STEAD_ORACLE").map_or(beside, PathBuf::from)
}

/// The conversations of some themes.
pub(crate) fn conversations(themes: &[&str]) -> Vec<Value> {
    let path = folder().join("conversations.jsonl.gz");
    let file = std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; STEAD_ORACLE names the oracle's folder",
            path.display()
        )
    });
    let mut text = String::new();
    flate2::read::GzDecoder::new(&file[..])
        .read_to_string(&mut text)
        .expect("the oracle is gzip");
    let all = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON"));
    all.filter(|conversation| themes.iter().any(|theme| conversation["theme"] == *theme))
        .collect()
}
