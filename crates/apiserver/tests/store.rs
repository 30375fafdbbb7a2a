//! What becomes of a server whose disk or folder is not as it should be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use http::StatusCode;
use serde_json::{Value, json};
use stead_apiserver::{
    ApiServer, Backend, BackendError, Contents, OpenError, Options, Put, lock_holder,
};

mod support;
use support::{MAPS, config_map, ready, revision, send, send_as};

/// A disk that can be full. What a failed commit wrote of its batch stays, as on a disk that failed half-way.
#[derive(Clone, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    full: bool,
    entries: BTreeMap<String, Vec<u8>>,
    reserved: u64,
}

impl Disk {
    fn set_full(&self, full: bool) {
        self.0.lock().expect("the disk").full = full;
    }

    fn contents(&self) -> Contents {
        let disk = self.0.lock().expect("the disk");
        Contents {
            reserved: disk.reserved,
            entries: disk.entries.clone().into_iter().collect(),
        }
    }

    async fn server(&self) -> ApiServer {
        let server =
            ApiServer::open_on(Options::default(), Box::new(self.clone()), self.contents())
                .expect("a server");
        ready(server).await
    }
}

impl Backend for Disk {
    fn commit(&mut self, puts: &[Put], reserved: u64) -> Result<(), BackendError> {
        let mut disk = self.0.lock().expect("the disk");
        for (key, value) in puts {
            match value {
                Some(value) => disk.entries.insert(key.clone(), value.clone()),
                None => disk.entries.remove(key),
            };
        }
        if disk.full {
            return Err(BackendError {
                what: "writing".to_owned(),
                cause: "no space left on device".to_owned(),
            });
        }
        disk.reserved = reserved;
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_recovers() {
    let disk = Disk::default();
    let server = disk.server().await;
    let (code, before) = send(&server, "POST", MAPS, config_map("a", "1")).await;
    assert_eq!(code, StatusCode::CREATED);

    disk.set_full(true);
    let (code, refused) = send(&server, "POST", MAPS, config_map("b", "1")).await;
    assert_eq!(
        (code, &refused["reason"]),
        (
            StatusCode::INSUFFICIENT_STORAGE,
            &json!("InsufficientStorage")
        )
    );
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|words| words.contains("no space left")),
        "{refused}"
    );
    let (code, _) = send_as(
        &server,
        "PATCH",
        &format!("{MAPS}/a"),
        "application/merge-patch+json",
        json!({"data": {"k": "2"}}),
    )
    .await;
    assert_eq!(code, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(
        send(&server, "GET", &format!("{MAPS}/b"), Value::Null)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(&server, "GET", &format!("{MAPS}/a"), Value::Null)
            .await
            .1,
        before,
        "reads go on, nothing was applied"
    );

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let beat = json!({"metadata": {"name": "node"}, "spec": {"holderIdentity": "node"}});
    let (code, _) = send(&server, "POST", leases, beat).await;
    assert_eq!(code, StatusCode::CREATED, "heartbeats need no disk");

    disk.set_full(false);
    let (code, after) = send(&server, "POST", MAPS, config_map("c", "1")).await;
    assert_eq!(code, StatusCode::CREATED);
    assert!(revision(&after) > revision(&before));

    let again = disk.server().await;
    assert_eq!(
        send(&again, "GET", &format!("{MAPS}/b"), Value::Null)
            .await
            .0,
        StatusCode::NOT_FOUND,
        "what was refused does not come back"
    );
    assert_eq!(
        send(&again, "GET", &format!("{MAPS}/a"), Value::Null)
            .await
            .1["data"]["k"],
        "1"
    );
    assert_eq!(
        send(&again, "GET", &format!("{MAPS}/c"), Value::Null)
            .await
            .0,
        StatusCode::OK
    );
}

fn at(dir: &std::path::Path) -> Options {
    Options {
        data_dir: Some(dir.to_owned()),
        ..Options::default()
    }
}

/// Opens a server that must be refused, and gives the words.
fn refusal(dir: &std::path::Path) -> (OpenError, String) {
    let error = ApiServer::open(at(dir)).err().expect("a refusal");
    let words = error.to_string();
    (error, words)
}

#[tokio::test]
async fn objects_and_revisions_outlive_the_server() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = ready(ApiServer::open(at(dir.path())).expect("a server")).await;
    let (_, before) = send(&first, "POST", MAPS, config_map("a", "1")).await;
    assert_eq!(lock_holder(dir.path()), Some(std::process::id()));
    first.shutdown().await;
    assert_eq!(lock_holder(dir.path()), None);
    assert_eq!(
        send(&first, "POST", MAPS, config_map("late", "1")).await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let second = ApiServer::open(at(dir.path())).expect("the folder is free");
    assert_eq!(
        send(&second, "GET", &format!("{MAPS}/a"), Value::Null)
            .await
            .1,
        before
    );
    let (_, after) = send(&second, "POST", MAPS, config_map("b", "1")).await;
    assert!(revision(&after) > revision(&before));
    let (code, expired) = send(
        &second,
        "GET",
        &format!(
            "{MAPS}?resourceVersion={}&resourceVersionMatch=Exact",
            revision(&before)
        ),
        Value::Null,
    )
    .await;
    assert_eq!(
        (code, &expired["reason"]),
        (StatusCode::GONE, &json!("Expired"))
    );
}

#[tokio::test]
async fn a_folder_in_use_names_the_process() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(lock_holder(dir.path()), None);
    let _server = ApiServer::open(at(dir.path())).expect("a server");
    let (error, words) = refusal(dir.path());
    assert!(
        matches!(error, OpenError::Locked { pid: Some(pid), .. } if pid == std::process::id()),
        "{words}"
    );
    assert!(
        words.contains(&format!("process {}", std::process::id())),
        "{words}"
    );
}

#[test]
fn a_newer_folder_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("version"), "2\n").expect("a version");
    let (error, words) = refusal(dir.path());
    assert!(matches!(error, OpenError::Newer { .. }), "{words}");
    assert!(words.contains("format 2"), "{words}");
    assert!(!dir.path().join("store.redb").exists(), "nothing was made");
}

#[test]
fn a_folder_that_cannot_be_made_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("a file");
    let (error, words) = refusal(&file.join("data"));
    assert!(matches!(error, OpenError::Io { .. }), "{words}");
    assert!(
        words.contains("making the data folder") && words.contains("--data-dir"),
        "{words}"
    );
}

#[test]
fn secrets_are_for_their_owner_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let _server = ApiServer::open(at(dir.path())).expect("a server");
    let mode = |name: &str| {
        fs::metadata(dir.path().join(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("pki/tokens.p8"), 0o600);
    assert_eq!(mode("lock"), 0o600);
    assert_eq!(mode("store.redb"), 0o600);
}
