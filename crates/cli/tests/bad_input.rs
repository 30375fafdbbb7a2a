//! What is wrong is told with its name, its cause and the next step, and nothing is begun.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on tells so by its panic"
)]

mod stead;

use std::net::TcpListener;

use stead::{STAYS, Stead, set};

/// The command refuses, with this exit code and all of these words.
#[track_caller]
fn refuses(said: &stead::Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, code, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "no {word:?} in: {}", said.err);
    }
}

#[test]
fn a_manifest_that_is_not_yaml_starts_nothing() {
    let stead = Stead::new();
    refuses(
        &stead.feed(&["up", "-f", "-"], "kind: [\n"),
        2,
        &["standard input", "not YAML"],
    );
    assert!(
        !stead.data_dir.exists(),
        "a data folder was made for nothing"
    );
}

#[test]
fn a_missing_file_is_named() {
    refuses(
        &Stead::new().run(&["up", "-f", "/nowhere/x.yaml"]),
        2,
        &["/nowhere/x.yaml"],
    );
}

#[test]
fn an_unknown_kind_is_named_with_its_group() {
    let manifest = "{apiVersion: example.com/v1, kind: Castle, metadata: {name: a}}";
    refuses(
        &Stead::new().feed(&["up", "-f", "-"], manifest),
        2,
        &[
            "Castle",
            "example.com/v1",
            "document 1",
            "it serves",
            "StatefulSet",
        ],
    );
}

#[test]
fn an_unknown_field_is_named_with_its_path_and_the_objects_before_it_are_not_made() {
    let stead = Stead::new();
    stead.up();
    let good = "{apiVersion: v1, kind: ConfigMap, metadata: {name: good}}\n---\n";
    let bad = set("bad", 1, STAYS).replace("replicas: 1", "replicsa: 1");
    refuses(
        &stead.feed(&["apply", "-f", "-"], &format!("{good}{bad}")),
        2,
        &["document 2", "bad", "replicsa"],
    );
    assert!(
        stead
            .ok(&["get", "configmaps", "-o", "name"])
            .lines()
            .all(|line| line != "configmap/good")
    );
}

#[test]
fn what_the_server_refuses_is_told_in_its_own_words() {
    let stead = Stead::new();
    stead.up();
    let bad = set("web", 1, STAYS).replace("matchLabels: {app: web}", "matchLabels: {app: other}");
    refuses(
        &stead.feed(&["apply", "-f", "-"], &bad),
        1,
        &["statefulset.apps/web", "spec.template.metadata.labels"],
    );
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(
        &Stead::new().run(&["up", "--listen", &address]),
        1,
        &[&address, "--listen"],
    );
}

#[test]
fn a_data_folder_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let stead = Stead::on(&file.path().join("data"));
    refuses(
        &stead.run(&["up", "-d"]),
        1,
        &[&stead.data_dir.display().to_string()],
    );
}

#[test]
fn a_data_folder_of_a_newer_version_is_left_alone() {
    let stead = Stead::new();
    std::fs::create_dir(&stead.data_dir).unwrap();
    std::fs::write(stead.data_dir.join("version"), "99\n").unwrap();
    refuses(
        &stead.run(&["up", "--listen", "127.0.0.1:0"]),
        1,
        &["format 99", "--data-dir"],
    );
    assert!(!stead.data_dir.join("store.redb").exists());
}

#[test]
fn a_folder_that_another_stead_holds_is_refused_with_its_process() {
    let stead = Stead::new();
    let pid = stead.up().daemon().to_string();
    refuses(
        &stead.run(&["apiserver", "--listen", "127.0.0.1:0"]),
        1,
        &["process", &pid],
    );
}

#[test]
fn commands_without_a_daemon_say_how_to_start_one() {
    refuses(
        &Stead::new().run(&["status"]),
        3,
        &["no Stead runs", "stead up"],
    );
}

#[test]
fn volumes_are_not_deleted_where_nobody_can_be_asked() {
    let stead = Stead::new();
    stead.up();
    let said = stead.feed(&["down", "--delete-volumes"], "yes\n");
    refuses(&said, 2, &["--yes"]);
    stead.ok(&["status"]);
}
