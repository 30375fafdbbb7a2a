//! The cgroup of a container: limits, who is in it, and whether it ran out of memory. Version 1, 2 and both at once.
//!
//! A pod has a folder, `stead/<instance>/<pod UID>`, in each hierarchy that matters, and each container one in it.
//! Only the containers tier has them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::runtime::{ContainerId, ContainerSpec, ProcessMark};

/// Where the hierarchies are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The controllers that are used in version 1, each a hierarchy of its own.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuacct", "pids", "freezer"];
/// upstream: the kubelet's smallest CPU shares, and those of a container that asks for nothing.
const LEAST_SHARES: u64 = 2;
/// The length of a CPU period in microseconds.
const PERIOD: u64 = 100_000;
/// upstream: the smallest quota that the kernel takes, in microseconds.
const LEAST_QUOTA: u64 = 1_000;

/// How long a process that was killed is waited for before all are looked for again.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the cgroups of an instance are tried to be removed, and how long is waited in between.
const REMOVE_TRIES: usize = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Which kind of cgroups this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// A hierarchy for each controller. A unified one beside them has no controllers.
    One,
    /// One hierarchy for all.
    Two,
}

/// The cgroup of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    version: Version,
    root: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup of this container below the pod's, whether it exists or not; `None` on a machine without cgroups.
    pub(crate) fn of(pod: &str, id: &ContainerId) -> Option<Self> {
        Self::at(Path::new(MOUNT), pod, id)
    }

    fn at(root: &Path, pod: &str, id: &ContainerId) -> Option<Self> {
        let version = if root.join("memory/cgroup.procs").exists() {
            Version::One
        } else if root.join("cgroup.controllers").exists() {
            Version::Two
        } else {
            return None;
        };
        Some(Self {
            version,
            root: root.to_owned(),
            path: Path::new(pod).join(format!("{}.{}", id.container, id.attempt)),
        })
    }

    /// Makes it, with the limits of the container, and of its pod: so many processes and threads at once.
    pub(crate) fn make(&self, spec: &ContainerSpec, pids: Option<u64>) -> io::Result<()> {
        if self.version == Version::Two {
            self.hand_down_controllers()?;
        }
        for folder in self.folders() {
            fs::create_dir_all(folder)?;
        }
        for (file, value) in self.limits(spec) {
            write(&self.folder(file).join(file), &value)?;
        }
        match (pids, self.pod_pids()) {
            (Some(limit), Some(file)) => write(&file, &limit.to_string()),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The file that limits the processes of the whole pod; `None` on a machine that cannot.
    fn pod_pids(&self) -> Option<PathBuf> {
        let folder = self.folder("pids");
        let pod = folder.parent()?;
        pod.is_dir().then(|| pod.join("pids.max"))
    }

    /// Puts a process in.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        for folder in self.folders() {
            write(&folder.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Ends every process in it; returns when none is left.
    pub(crate) fn end(&self, boot: &str) -> io::Result<()> {
        loop {
            if self.version == Version::Two && self.kill_whole()? {
                return Ok(());
            }
            // Frozen, nobody in it makes another while they are counted.
            self.freeze(true)?;
            let processes: Vec<ProcessMark> = self
                .pids()?
                .into_iter()
                .filter_map(|pid| ProcessMark::of(pid, boot).ok())
                .filter(|process| process.is_alive(boot))
                .collect();
            for process in &processes {
                process.signal(boot, Signal::KILL)?;
            }
            self.freeze(false)?;
            if processes.is_empty() {
                return Ok(());
            }
            for process in &processes {
                process.wait(boot, PATIENCE)?;
            }
        }
    }

    /// Ends all of them in one step, where the kernel can; `false` where it cannot.
    fn kill_whole(&self) -> io::Result<bool> {
        match fs::write(self.folder("cgroup").join("cgroup.kill"), "1") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.is_gone()),
            Err(error) => return Err(error),
        }
        let events = self.folder("cgroup").join("cgroup.events");
        while fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1")) {
            // The kernel tells of the last process a moment after its end.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(true)
    }

    fn is_gone(&self) -> bool {
        !self.folder("cgroup").exists()
    }

    /// Stops every process in it where it stands, or lets them go on. Where there is nothing to freeze, nothing is.
    pub(crate) fn freeze(&self, still: bool) -> io::Result<()> {
        let (file, value, done) = match (self.version, still) {
            (Version::One, true) => ("freezer.state", "FROZEN", "FROZEN"),
            (Version::One, false) => ("freezer.state", "THAWED", "THAWED"),
            (Version::Two, true) => ("cgroup.freeze", "1", "frozen 1"),
            (Version::Two, false) => ("cgroup.freeze", "0", "frozen 0"),
        };
        let folder = self.folder(file);
        match fs::write(folder.join(file), value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let told = match self.version {
            Version::One => folder.join(file),
            Version::Two => folder.join("cgroup.events"),
        };
        // A process that hangs in the kernel freezes only when it comes back; nobody waits for that for ever.
        for _ in 0..1_000 {
            if fs::read_to_string(&told).is_ok_and(|text| text.contains(done)) {
                break;
            }
            if self.version == Version::One {
                // upstream: runc too: in version 1 it must be asked again while processes come and go.
                fs::write(folder.join(file), value)?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        let file = self.folder("memory").join("cgroup.procs");
        match fs::read_to_string(file) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel ended a process in it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        fs::read_to_string(self.folder(file).join(file)).is_ok_and(|text| {
            text.lines().any(|line| {
                line.strip_prefix("oom_kill ")
                    .is_some_and(|count| count.trim() != "0")
            })
        })
    }

    /// Removes it, when it is empty. What cannot be removed now is swept at the next start.
    pub(crate) fn remove(&self) {
        for folder in self.folders() {
            // The kernel lets go of the last process a moment after it was reaped.
            for _ in 0..50 {
                match fs::remove_dir(&folder) {
                    Err(error)
                        if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) =>
                    {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }

    /// Where it is, with the place below /sys/fs/cgroup at which the container is to see it.
    pub(crate) fn places(&self) -> Vec<(PathBuf, PathBuf)> {
        match self.version {
            Version::One => CONTROLLERS
                .into_iter()
                .filter(|name| self.root.join(name).is_dir())
                .map(|name| (self.root.join(name).join(&self.path), PathBuf::from(name)))
                .collect(),
            Version::Two => vec![(self.root.join(&self.path), PathBuf::new())],
        }
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.places()
            .into_iter()
            .map(|(folder, _)| folder)
            .collect()
    }

    /// The folder that has this file: `memory.max` is the memory controller's.
    fn folder(&self, file: &str) -> PathBuf {
        let controller = file.split('.').next().unwrap_or(file);
        match self.version {
            Version::One => self.root.join(controller).join(&self.path),
            Version::Two => self.root.join(&self.path),
        }
    }

    /// In version 2 a folder has only the controllers that the folder above hands down.
    fn hand_down_controllers(&self) -> io::Result<()> {
        let mut folder = self.root.clone();
        let parents = self.path.parent().unwrap_or(Path::new(""));
        let wanted = "+memory +cpu +pids";
        write(&folder.join("cgroup.subtree_control"), wanted)?;
        for name in parents.components() {
            folder.push(name);
            fs::create_dir_all(&folder)?;
            write(&folder.join("cgroup.subtree_control"), wanted)?;
        }
        Ok(())
    }

    /// upstream: the kubelet's conversions of requests and limits.
    fn limits(&self, spec: &ContainerSpec) -> Vec<(&'static str, String)> {
        let mut files = Vec::new();
        let shares = spec.cpu_request_millis.map_or(LEAST_SHARES, |millis| {
            (millis * 1024 / 1000).clamp(LEAST_SHARES, 262_144)
        });
        let quota = spec
            .cpu_limit_millis
            .map(|millis| (millis * PERIOD / 1000).max(LEAST_QUOTA));
        match self.version {
            Version::One => {
                files.push(("cpu.shares", shares.to_string()));
                if let Some(quota) = quota {
                    files.push(("cpu.cfs_period_us", PERIOD.to_string()));
                    files.push(("cpu.cfs_quota_us", quota.to_string()));
                }
                if let Some(bytes) = spec.memory_limit {
                    files.push(("memory.limit_in_bytes", bytes.to_string()));
                }
            }
            Version::Two => {
                let weight = 1 + ((shares - 2) * 9999) / 262_142;
                files.push(("cpu.weight", weight.to_string()));
                if let Some(quota) = quota {
                    files.push(("cpu.max", format!("{quota} {PERIOD}")));
                }
                if let Some(bytes) = spec.memory_limit {
                    files.push(("memory.max", bytes.to_string()));
                    files.push(("memory.oom.group", "1".to_owned()));
                }
            }
        }
        files
    }
}

/// Removes the folders of a pod, and those above that have become empty; what is not empty stays.
pub(crate) fn remove_pod(pod: &str) {
    for hierarchy in hierarchies() {
        remove_below(&hierarchy.join(pod));
        for folder in Path::new(pod).ancestors() {
            if folder.as_os_str().is_empty() || fs::remove_dir(hierarchy.join(folder)).is_err() {
                break;
            }
        }
    }
}

/// Removes the folders in `parent` that have none of these names: what is left of pods that nobody knows any more.
pub(crate) fn sweep(parent: &str, known: &BTreeSet<String>) {
    for hierarchy in hierarchies() {
        for pod in folders_in(&hierarchy.join(parent)) {
            let name = pod.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(|name| known.contains(name)) {
                remove_below(&pod);
                // One that still has processes stays, and is tried again at the next start.
                let _ = fs::remove_dir(pod);
            }
        }
    }
}

/// Removes all cgroups of an instance, in which nothing runs any more. A process that has just ended still keeps its
/// cgroup for a moment, which is waited for.
pub(crate) fn remove_instance(instance: &str) {
    let parent = format!("stead/{instance}");
    for _ in 0..REMOVE_TRIES {
        sweep(&parent, &BTreeSet::new());
        remove_pod(&parent);
        if of_instance(instance).is_empty() {
            return;
        }
        std::thread::sleep(REMOVE_PAUSE);
    }
}

/// The instances that have a cgroup.
pub(crate) fn instances() -> BTreeSet<String> {
    hierarchies()
        .flat_map(|hierarchy| folders_in(&hierarchy.join("stead")))
        .filter_map(|folder| folder.file_name()?.to_str().map(str::to_owned))
        .collect()
}

/// The cgroups of an instance, each once, whatever number of hierarchies it is in; relative to them.
pub(crate) fn of_instance(instance: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies() {
        let below = folders_of(&hierarchy, instance);
        found.extend(
            below
                .iter()
                .filter_map(|path| path.strip_prefix(&hierarchy).ok())
                .map(Path::to_owned),
        );
    }
    found
}

/// The processes in any cgroup of an instance.
pub(crate) fn processes_of(instance: &str) -> BTreeSet<u32> {
    hierarchies()
        .flat_map(|hierarchy| folders_of(&hierarchy, instance))
        .filter_map(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

fn folders_of(hierarchy: &Path, instance: &str) -> Vec<PathBuf> {
    let own = hierarchy.join("stead").join(instance);
    let mut found = Vec::new();
    for pod in folders_in(&own) {
        found.extend(folders_in(&pod));
        found.push(pod);
    }
    found.extend(own.exists().then_some(own));
    found
}

fn remove_below(folder: &Path) {
    for container in folders_in(folder) {
        let _ = fs::remove_dir(container);
    }
}

fn folders_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

fn hierarchies() -> impl Iterator<Item = PathBuf> {
    CONTROLLERS
        .iter()
        .map(|name| Path::new(MOUNT).join(name))
        .chain([PathBuf::from(MOUNT)])
}

/// A file of the kernel takes a value in one write.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("write {value} to {}: {error}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests;
