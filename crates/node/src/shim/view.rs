//! What a container sees: its root, the kernel's folders, the pod's files, its own mounts. Made by its first
//! process, in a mount namespace of its own, before the program runs. The same in both tiers that have namespaces.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::runtime::{Order, Root};
use crate::sys::{self, Without};

use super::inside;
use super::layers::ImageRoot;
use super::mounts;
use super::rootfs::{HostRoot, Target};

/// Devices of the machine that every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links in /dev, as in every container.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// upstream: the paths that containerd hides from a container that is not privileged.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/security",
];
/// upstream: the paths that containerd makes read-only for a container that is not privileged.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What the tier adds.
pub(super) struct View<'a> {
    /// Whether this is in a user namespace.
    pub(super) unprivileged: bool,
    /// Whether every user of the machine is one in here, root among them.
    pub(super) root: bool,
    /// The container's folders in the hierarchies of cgroups, each with the place where programs look for it.
    pub(super) cgroups: &'a [(PathBuf, PathBuf)],
}

impl View<'_> {
    /// Makes it and changes into it. An error is a sentence for the container's status.
    pub(super) fn enter(&self, order: &Order, layer: &Path) -> Result<(), String> {
        let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).map_err(|errno| told("keep mounts private")(errno.into()))?;
        let root = self.make_root(order, layer)?;
        self.make_kernel_folders(order, &root)?;
        mount_files(order, &root)?;
        rustix::system::sethostname(order.place.hostname.as_bytes())
            .map_err(|errno| told("set the host name")(errno.into()))?;
        change_root(&root).map_err(told("change into the root folder"))?;
        if !order.spec.privileged {
            hide_the_kernel().map_err(told("hide parts of /proc and /sys"))?;
        }
        Ok(())
    }

    fn make_root(&self, order: &Order, layer: &Path) -> Result<PathBuf, String> {
        let targets: Vec<Target> = order
            .spec
            .mounts
            .iter()
            .map(|mount| (mount.source.clone(), mount.target.clone()))
            .chain(pod_files(order))
            .map(|(source, path)| Target {
                path,
                is_dir: source.is_dir(),
            })
            // A working folder is made where it is missing, as container engines do.
            .chain(order.spec.cwd.iter().map(|path| Target {
                path: path.clone(),
                is_dir: true,
            }))
            .collect();
        let mut without = Vec::new();
        if !order.spec.privileged {
            // A device node that a container makes is to be of no use.
            without.push(Without::Devices);
        }
        if order.spec.read_only_root {
            without.push(Without::Writing);
        }
        match &order.spec.root {
            Root::Host => HostRoot {
                layer,
                hidden: &order.place.hidden,
                targets: &targets,
                unprivileged: self.unprivileged,
                root: self.root,
                without: &without,
            }
            .make()
            .map_err(|error| format!("make the root folder from the machine's own: {error}")),
            Root::Layers(layers) => ImageRoot {
                layer,
                layers,
                targets: &targets,
                unprivileged: self.unprivileged,
                without: &without,
            }
            .make()
            .map_err(|error| format!("make the root folder from the image: {error}")),
        }
    }

    /// /proc, /sys and /dev.
    fn make_kernel_folders(&self, order: &Order, root: &Path) -> Result<(), String> {
        let safe = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mounts::make_up("proc", &root.join("proc"), safe, "")
            .map_err(|error| format!("mount /proc: {error}"))?;
        self.make_sys(order, &root.join("sys"))
            .map_err(|error| format!("make /sys: {error}"))?;
        make_dev(order, &root.join("dev")).map_err(|error| format!("make /dev: {error}"))
    }

    /// Of the pod's own network where it has one; else the machine's.
    fn make_sys(&self, order: &Order, sys: &Path) -> io::Result<()> {
        if self.unprivileged {
            // Some machines have parts of it covered; then it stays away.
            return mounts::bind(Path::new("/sys"), sys, &[Without::Writing]).or(Ok(()));
        }
        let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if !order.spec.privileged {
            flags |= MountFlags::RDONLY;
        }
        mounts::make_up("sysfs", sys, flags, "")?;
        self.make_cgroups(&sys.join("fs/cgroup"))
    }

    /// A container sees its own cgroup where the machine has the root of all.
    fn make_cgroups(&self, folder: &Path) -> io::Result<()> {
        if self
            .cgroups
            .iter()
            .any(|(_, place)| !place.as_os_str().is_empty())
        {
            mounts::make_up("tmpfs", folder, MountFlags::NOSUID, "mode=755,size=64k")?;
        }
        for (source, place) in self.cgroups {
            let target = folder.join(place);
            fs::create_dir_all(&target)?;
            mounts::bind(source, &target, &[Without::Writing])?;
        }
        Ok(())
    }
}

/// The files of the pod that lie over the machine's: source and place. What the pod mounts itself wins.
fn pod_files(order: &Order) -> Vec<(PathBuf, PathBuf)> {
    let place = &order.place;
    let mut files = vec![
        (place.hosts.clone(), PathBuf::from("/etc/hosts")),
        (place.hostname_file.clone(), PathBuf::from("/etc/hostname")),
    ];
    if let Some(resolv_conf) = &place.resolv_conf {
        files.push((resolv_conf.clone(), PathBuf::from("/etc/resolv.conf")));
    }
    files.retain(|(_, target)| {
        let own = |mount: &crate::runtime::Mount| mount.target == *target;
        !order.spec.mounts.iter().any(own)
    });
    files
}

fn make_dev(order: &Order, dev: &Path) -> io::Result<()> {
    if order.spec.privileged {
        // Every device of the machine, as on a cluster.
        mounts::bind(Path::new("/dev"), dev, &[])?;
    } else {
        mounts::make_up("tmpfs", dev, MountFlags::NOSUID, "mode=755,size=64k")?;
        for name in DEVICES {
            let place = dev.join(name);
            fs::write(&place, b"")?;
            mounts::bind(&Path::new("/dev").join(name), &place, &[])?;
        }
        for (name, target) in DEVICE_LINKS {
            std::os::unix::fs::symlink(target, dev.join(name))?;
        }
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir(dev.join(name))?;
        }
    }
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    let terminals = "newinstance,ptmxmode=0666,mode=0620";
    mounts::make_up("devpts", &dev.join("pts"), quiet, terminals)?;
    let safe = quiet | MountFlags::NODEV;
    mounts::make_up("tmpfs", &dev.join("shm"), safe, "mode=1777,size=64m")?;
    if dev.join("mqueue").is_dir() {
        mounts::make_up("mqueue", &dev.join("mqueue"), safe, "")?;
    }
    Ok(())
}

/// The pod's own files and the container's mounts, in order.
fn mount_files(order: &Order, root: &Path) -> Result<(), String> {
    let devices = [Without::Devices];
    let without: &[Without] = if order.spec.privileged { &[] } else { &devices };
    for (source, target) in pod_files(order) {
        inside::bind(root, &source, &target, without)
            .map_err(|error| format!("mount {}: {error}", target.display()))?;
    }
    for mount in &order.spec.mounts {
        let mut without = without.to_vec();
        if mount.read_only {
            without.push(Without::Writing);
        }
        let bound = match &mount.within {
            Some(volume) => {
                inside::bind_within(root, volume, &mount.source, &mount.target, &without)
            }
            None => inside::bind(root, &mount.source, &mount.target, &without),
        };
        bound.map_err(|error| {
            format!(
                "mount {} at {}: {error}",
                mount.source.display(),
                mount.target.display()
            )
        })?;
    }
    Ok(())
}

/// upstream: pivot_root(2), "pivot_root(".", ".")": the old root lies over the new one until it is let go.
fn change_root(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Covers what tells or changes too much of the machine's kernel. Done from inside: these are no links to follow.
fn hide_the_kernel() -> io::Result<()> {
    for path in MASKED.map(Path::new) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
                mounts::make_up("tmpfs", path, flags, "mode=555,size=0")?;
            }
            Ok(_) => mounts::bind(Path::new("/dev/null"), path, &[])?,
            // This kernel has none.
            Err(_) => {}
        }
    }
    for path in READ_ONLY.map(Path::new) {
        if path.exists() {
            mounts::bind_onto_itself(path)?;
            sys::restrict(path, &[Without::Writing])?;
        }
    }
    Ok(())
}
