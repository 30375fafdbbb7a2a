//! The files that limits become, in folders that look like the kernel's.

use super::*;
use crate::runtime::Root;

fn spec() -> ContainerSpec {
    ContainerSpec {
        id: ContainerId {
            pod_uid: "uid".to_owned(),
            container: "db".to_owned(),
            attempt: 2,
        },
        pod: "default/db-0".to_owned(),
        root: Root::Host,
        argv: Vec::new(),
        env: Vec::new(),
        cwd: None,
        user: None,
        group: None,
        groups: Vec::new(),
        mounts: Vec::new(),
        read_only_root: false,
        privileged: false,
        add_capabilities: Vec::new(),
        drop_capabilities: Vec::new(),
        no_new_privileges: false,
        memory_limit: Some(64 * 1024 * 1024),
        cpu_limit_millis: Some(250),
        cpu_request_millis: Some(100),
        stdin: false,
        tty: false,
        log_path: PathBuf::new(),
        termination_message: None,
    }
}

/// Every file that is written, with its content, below a root that has these files.
fn check(root_files: &[&str], want: &str) {
    let root = tempfile::tempdir().expect("a folder");
    for file in root_files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, "").expect("a file");
    }
    let spec = spec();
    let cgroup = Cgroup::at(root.path(), "stead/1/uid", &spec.id).expect("there are cgroups");
    cgroup.make(&spec).expect("it is made");
    cgroup.add(42).expect("a process goes in");
    let mut told = Vec::new();
    tell(root.path(), root.path(), &mut told);
    told.sort();
    assert_eq!(told.join("\n"), want);
}

fn tell(root: &Path, folder: &Path, told: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            tell(root, &path, told);
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        if !text.is_empty() {
            let name = path.strip_prefix(root).expect("below the root");
            told.push(format!("{} = {text}", name.display()));
        }
    }
}

#[test]
fn version_two_has_one_folder_and_hands_controllers_down() {
    check(
        &["cgroup.controllers"],
        "cgroup.subtree_control = +memory +cpu +pids
stead/1/cgroup.subtree_control = +memory +cpu +pids
stead/1/uid/cgroup.subtree_control = +memory +cpu +pids
stead/1/uid/db.2/cgroup.procs = 42
stead/1/uid/db.2/cpu.max = 25000 100000
stead/1/uid/db.2/cpu.weight = 4
stead/1/uid/db.2/memory.max = 67108864
stead/1/uid/db.2/memory.oom.group = 1
stead/cgroup.subtree_control = +memory +cpu +pids",
    );
}

#[test]
fn version_one_has_a_folder_for_each_controller_that_is_there() {
    check(
        &[
            "memory/cgroup.procs",
            "cpu/cgroup.procs",
            "unified/cgroup.procs",
        ],
        "cpu/stead/1/uid/db.2/cgroup.procs = 42
cpu/stead/1/uid/db.2/cpu.cfs_period_us = 100000
cpu/stead/1/uid/db.2/cpu.cfs_quota_us = 25000
cpu/stead/1/uid/db.2/cpu.shares = 102
memory/stead/1/uid/db.2/cgroup.procs = 42
memory/stead/1/uid/db.2/memory.limit_in_bytes = 67108864",
    );
}
