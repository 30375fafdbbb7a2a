//! A really full disk, which takes root to make: a small tmpfs as data folder. What does not fit is refused, what was
//! acknowledged stays, and with room again the server goes on.

use std::path::Path;
use std::process::Command;

use http::StatusCode;
use serde_json::Value;
use stead_apiserver::{ApiServer, Options};

mod support;
use support::{MAPS, config_map, ready, revision, send};

/// A mounted tmpfs; it goes with the value.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn mount(path: &'a Path, size: &str) -> Self {
        run(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size}"),
            "tmpfs",
            &path.display().to_string(),
        ]);
        Self(path)
    }

    fn resize(&self, size: &str) {
        run(&[
            "mount",
            "-o",
            &format!("remount,size={size}"),
            &self.0.display().to_string(),
        ]);
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        run(&["umount", "--lazy", &self.0.display().to_string()]);
    }
}

fn run(words: &[&str]) {
    let status = Command::new(words[0])
        .args(&words[1..])
        .status()
        .expect(words[0]);
    assert!(
        status.success(),
        "{words:?}: {status}; this test needs root"
    );
}

async fn open(dir: &Path) -> ApiServer {
    let options = Options {
        data_dir: Some(dir.to_owned()),
        ..Options::default()
    };
    ready(ApiServer::open(options).expect("a server")).await
}

/// Writes large maps until one is refused; the names and revisions of those that were not.
async fn fill(server: &ApiServer) -> Vec<(String, u64)> {
    let large = "x".repeat(200 << 10);
    let mut written = Vec::new();
    loop {
        let name = format!("m{}", written.len());
        let (code, answer) = send(server, "POST", MAPS, config_map(&name, &large)).await;
        if code == StatusCode::INSUFFICIENT_STORAGE {
            return written;
        }
        assert_eq!(code, StatusCode::CREATED, "{answer}");
        written.push((name, revision(&answer)));
        assert!(written.len() < 100, "the disk does not get full");
    }
}

async fn check(server: &ApiServer, written: &[(String, u64)]) {
    for (name, at) in written {
        let (code, answer) = send(server, "GET", &format!("{MAPS}/{name}"), Value::Null).await;
        assert_eq!((code, revision(&answer)), (StatusCode::OK, *at), "{name}");
    }
    let (_, list) = send(server, "GET", MAPS, Value::Null).await;
    assert_eq!(
        list["items"].as_array().map(Vec::len),
        Some(written.len()),
        "what was refused is not there"
    );
}

#[tokio::test]
async fn a_full_tmpfs_refuses_and_recovers() {
    let dir = tempfile::tempdir().expect("a folder");
    let disk = Tmpfs::mount(dir.path(), "4m");
    let data = dir.path().join("data");
    let server = open(&data).await;
    let mut written = fill(&server).await;
    assert!(!written.is_empty(), "something fits");
    check(&server, &written).await;

    disk.resize("20m");
    let (code, answer) = send(&server, "POST", MAPS, config_map("after", "v")).await;
    assert_eq!(code, StatusCode::CREATED, "{answer}");
    written.push(("after".to_owned(), revision(&answer)));
    check(&server, &written).await;
    server.shutdown().await;

    let again = open(&data).await;
    check(&again, &written).await;
    again.shutdown().await;
}
