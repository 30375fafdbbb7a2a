//! The Stead that a workload runs on: its commands as a user types them, its processes as an accident finds them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for anything to be whole again; only a failing run waits that long.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at a state that nothing tells of.
const LOOK: Duration = Duration::from_millis(50);

/// A data folder of its own and the commands on it. Dropped, everything is stopped and its volumes are deleted.
pub(super) struct Place {
    stead: PathBuf,
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn new(stead: &Path) -> Result<Place, String> {
        let folder =
            tempfile::tempdir().map_err(|error| format!("could not make a folder: {error}"))?;
        Ok(Place {
            stead: stead.to_owned(),
            folder,
        })
    }

    /// Starts it in the background with an example, and waits until all of it is ready.
    pub(super) fn up(&self, example: &str) -> Result<(), String> {
        let manifest = example_path(example);
        self.run(&[
            "up",
            "-d",
            "--tier",
            "containers",
            "--wait",
            "-f",
            &manifest.to_string_lossy(),
        ])
        .map(drop)
    }

    /// One command; what it printed.
    pub(super) fn run(&self, args: &[&str]) -> Result<String, String> {
        self.run_with(args, "")
    }

    /// Applies a manifest's text.
    pub(super) fn apply(&self, manifest: &str) -> Result<(), String> {
        self.run_with(&["apply", "-f", "-"], manifest).map(drop)
    }

    fn run_with(&self, args: &[&str], input: &str) -> Result<String, String> {
        let tried = format!("stead {}", args.join(" "));
        let failed = |error: std::io::Error| format!("{tried}: {error}");
        let mut child = Command::new(&self.stead)
            .arg("--data-dir")
            .arg(self.folder.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{tried}: {said}"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An object, as JSON.
    pub(super) fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        let text = self.run(&["get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("get {kind} {name}: {error}"))
    }

    /// The address of a pod, while it has one.
    pub(super) fn address(&self, pod: &str) -> Option<String> {
        let pod = self.get("pod", pod).ok()?;
        let address = pod["status"]["podIP"].as_str()?.to_owned();
        pod["metadata"]["deletionTimestamp"]
            .is_null()
            .then_some(address)
    }

    /// `2/3`, and whether the set is at rest: every ordinal ready, of the template wanted, none too many.
    pub(super) fn progress(&self, set: &str) -> Result<(String, bool), String> {
        let text = self.run(&["status", set, "-o", "json"])?;
        let sets: Value =
            serde_json::from_str(&text).map_err(|error| format!("status {set}: {error}"))?;
        let own = &sets[0];
        let ordinals = own["ordinals"].as_array().map_or(0, Vec::len);
        let ready = own["ordinals"]
            .as_array()
            .is_some_and(|all| all.iter().all(|ordinal| ordinal["phase"] == "ready"));
        let rest = own["updating"] == false
            && own["ready"] == own["wanted"]
            && own["wanted"] == ordinals
            && ready;
        Ok((format!("{}/{}", own["ready"], own["wanted"]), rest))
    }

    /// Waits until the set is at rest.
    pub(super) fn until_rest(&self, set: &str) -> Result<(), String> {
        until(&format!("{set} is whole again"), || {
            self.progress(set).is_ok_and(|(_, rest)| rest)
        })
    }

    /// UID and restarts of each pod of a set: what an accident to the daemon must not change.
    pub(super) fn identities(&self, set: &str, replicas: usize) -> Result<Vec<String>, String> {
        (0..replicas)
            .map(|ordinal| {
                let pod = self.get("pod", &format!("{set}-{ordinal}"))?;
                Ok(format!(
                    "{} {}",
                    pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]
                ))
            })
            .collect()
    }

    /// Deletes a pod and waits until another one has its place.
    pub(super) fn delete_pod(&self, pod: &str) -> Result<(), String> {
        let before = self.get("pod", pod)?["metadata"]["uid"].clone();
        self.run(&["delete", "pod", pod])?;
        until(&format!("another {pod} is there"), || {
            self.get("pod", pod)
                .is_ok_and(|after| after["metadata"]["uid"] != before)
        })
    }

    /// `kill -9` of the first process of a pod's container, and waits until it is started again.
    pub(super) fn kill_container(&self, pod: &str) -> Result<(), String> {
        let object = self.get("pod", pod)?;
        let restarts = object["status"]["containerStatuses"][0]["restartCount"].clone();
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        kill(first_process(uid).ok_or_else(|| format!("no process of {pod} was found"))?)?;
        until(&format!("{pod} is started again"), || {
            self.get("pod", pod).is_ok_and(|after| {
                after["status"]["containerStatuses"][0]["restartCount"] != restarts
            })
        })
    }

    /// `kill -9` of the daemon, and starts it again.
    pub(super) fn kill_daemon(&self) -> Result<(), String> {
        let path = self.folder.path().join("daemon.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let daemon: Value =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let pid = daemon["pid"]
            .as_u64()
            .ok_or_else(|| format!("{}: no pid", path.display()))?;
        kill(pid)?;
        until("the daemon is gone", || {
            !Path::new(&format!("/proc/{pid}/cmdline")).exists() || is_zombie(pid)
        })?;
        self.run(&["up", "-d", "--tier", "containers"]).map(drop)
    }
}

impl Place {
    /// `kill -9` of the daemon; no pod may be replaced and no container restarted by it.
    pub(super) fn kill_daemon_alone(&self, set: &str, replicas: usize) -> Result<(), String> {
        let before = self.identities(set, replicas)?;
        self.kill_daemon()?;
        let after = self.identities(set, replicas)?;
        (before == after)
            .then_some(())
            .ok_or_else(|| format!("pods changed from {before:?} to {after:?}"))
    }

    /// Gives a set of an example another template, and waits until it is rolled out.
    pub(super) fn roll(&self, example: &str, set: &str) -> Result<(), String> {
        let labels = format!("    metadata:\n      labels:\n        app: {set}\n");
        let annotated = format!("{labels}      annotations:\n        release: second\n");
        self.apply(&example_with(example, &labels, &annotated)?)?;
        self.until_rest(set)?;
        let status = self.get("statefulset", set)?["status"].clone();
        (status["updatedReplicas"] == status["replicas"])
            .then_some(())
            .ok_or_else(|| format!("{set} is not rolled out: {status}"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A run that failed may have left no daemon, and pods that still run: somebody has to stop them.
        let ended = self
            .run(&["up", "-d", "--tier", "containers"])
            .and_then(|_| self.run(&["down", "--delete-volumes", "--yes", "--timeout", "120s"]));
        // The run is over whatever this says; what it says is shown.
        if let Err(error) = ended {
            eprintln!("{error}");
        }
    }
}

/// The manifest of an example.
pub(super) fn example_path(example: &str) -> PathBuf {
    crate::root().join("examples").join(example)
}

/// The text of an example, with one part of it replaced that must be there exactly once.
pub(super) fn example_with(example: &str, old: &str, new: &str) -> Result<String, String> {
    let path = example_path(example);
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if text.matches(old).count() != 1 {
        return Err(format!(
            "{} does not hold {old:?} exactly once",
            path.display()
        ));
    }
    Ok(text.replace(old, new))
}

/// Looks until something is so, or gives up with its name.
pub(super) fn until(what: &str, so: impl Fn() -> bool) -> Result<(), String> {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > PATIENCE {
            return Err(format!("waited in vain until {what}"));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The process that is number 1 in the PID namespace of a pod's container.
fn first_process(uid: &str) -> Option<u64> {
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u64>().ok());
    pids.find(|pid| {
        let read =
            |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let numbers = read("status")
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:").map(str::to_owned))
            .unwrap_or_default();
        let mut numbers = numbers.split_whitespace();
        numbers.clone().count() > 1
            && numbers.next_back() == Some("1")
            && read("cgroup").contains(uid)
    })
}

fn is_zombie(pid: u64) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    })
}

fn kill(pid: u64) -> Result<(), String> {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    match killed {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(format!("could not kill process {pid}")),
    }
}
