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
        confinement: crate::runtime::Confinement::default(),
        memory_limit: Some(64 * 1024 * 1024),
        cpu_limit_millis: Some(250),
        cpu_request_millis: Some(100),
        stdin: false,
        stdin_once: false,
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
    cgroup.make(&spec, Some(500)).expect("it is made");
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
stead/1/uid/pids.max = 500
stead/cgroup.subtree_control = +memory +cpu +pids",
    );
}

#[test]
fn version_one_has_a_folder_for_each_controller_that_is_there() {
    check(
        &[
            "memory/cgroup.procs",
            "cpu/cgroup.procs",
            "pids/cgroup.procs",
            "unified/cgroup.procs",
        ],
        "cpu/stead/1/uid/db.2/cgroup.procs = 42
cpu/stead/1/uid/db.2/cpu.cfs_period_us = 100000
cpu/stead/1/uid/db.2/cpu.cfs_quota_us = 25000
cpu/stead/1/uid/db.2/cpu.shares = 102
memory/stead/1/uid/db.2/cgroup.procs = 42
memory/stead/1/uid/db.2/memory.limit_in_bytes = 67108864
pids/stead/1/uid/db.2/cgroup.procs = 42
pids/stead/1/uid/pids.max = 500",
    );
}

/// A process that does nothing, in this cgroup; ended and reaped when dropped.
#[cfg(feature = "root-tests")]
struct Idle(std::process::Child);

#[cfg(feature = "root-tests")]
impl Idle {
    fn within(cgroup: &Cgroup) -> Self {
        let child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .expect("it starts");
        cgroup.add(child.id()).expect("it goes in");
        Self(child)
    }
}

#[cfg(feature = "root-tests")]
impl Drop for Idle {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Freezes, thaws and ends a process for real, in the hierarchy at `root`.
#[cfg(feature = "root-tests")]
fn freeze_and_end(root: &Path) {
    let pod = format!("stead/test-{}", std::process::id());
    let id = ContainerId {
        container: format!("c{}", root.display()).replace('/', "-"),
        ..spec().id
    };
    let cgroup = Cgroup::at(root, &pod, &id).expect("there are cgroups");
    for folder in cgroup.folders() {
        fs::create_dir_all(folder).expect("made");
    }
    let mut idle = Idle::within(&cgroup);
    cgroup.freeze(true).expect("frozen");
    let file = match cgroup.version {
        Version::One => cgroup.folder("freezer").join("freezer.state"),
        Version::Two => cgroup.folder("cgroup").join("cgroup.freeze"),
    };
    let state = fs::read_to_string(&file).expect("a state");
    assert!(["FROZEN", "1"].contains(&state.trim()), "{state}");
    cgroup.freeze(false).expect("thawed");
    let reaped = std::thread::spawn(move || idle.0.wait().expect("an end"));
    cgroup
        .end(&crate::runtime::boot_id().expect("a boot"))
        .expect("ended");
    let end = reaped.join().expect("reaped");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&end), Some(9));
    cgroup.remove();
    remove_pod(&pod);
    for folder in [root.join(&pod), root.join("stead")] {
        // Others' pods may be in the second.
        let _ = fs::remove_dir(folder);
    }
}

#[test]
#[cfg(feature = "root-tests")]
fn processes_are_frozen_thawed_and_ended_for_real() {
    let roots = [MOUNT, "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let usable: Vec<_> = roots
        .iter()
        .filter(|root| {
            ["memory/cgroup.procs", "cgroup.controllers"]
                .iter()
                .any(|file| root.join(file).exists())
        })
        .collect();
    assert!(!usable.is_empty(), "this machine has no cgroups");
    usable.into_iter().for_each(|root| freeze_and_end(root));
}
