//! A container's root folder made of an image: its unpacked layers below, a private layer above.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::sys::Without;

use super::inside;
use super::mounts::Overlay;
use super::rootfs::Target;

/// What the kernel's file systems are mounted on.
const KERNEL: [&str; 3] = ["/dev", "/proc", "/sys"];

/// How to make the root.
pub(super) struct ImageRoot<'a> {
    /// The container's private files: `root`, `upper` and `work` are made in it.
    pub(super) layer: &'a Path,
    /// The image's layers, lowest first.
    pub(super) layers: &'a [PathBuf],
    /// Places that something will be mounted on.
    pub(super) targets: &'a [Target],
    /// Whether this is in a user namespace.
    pub(super) unprivileged: bool,
    /// What the container may not do with its root.
    pub(super) without: &'a [Without],
}

impl ImageRoot<'_> {
    /// Makes it, in the mount namespace of the caller; the folder to change into.
    pub(super) fn make(&self) -> io::Result<PathBuf> {
        let root = self.layer.join("root");
        let upper = self.layer.join("upper");
        let work = self.layer.join("work");
        for folder in [&root, &upper, &work] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(folder)?;
        }
        self.make_like_the_image(&upper)?;
        let layers = self.open_layers()?;
        // By descriptor: the options of a mount must fit into one page, and an image may have 127 layers.
        let lower: Vec<PathBuf> = layers
            .iter()
            .rev()
            .map(|layer| PathBuf::from(format!("/proc/self/fd/{}", layer.as_raw_fd())))
            .collect();
        Overlay {
            lower: &lower.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
            upper: Some((&upper, &work)),
            unprivileged: self.unprivileged,
        }
        .mount(&root)?;
        // Before the root may become read-only.
        for folder in KERNEL {
            inside::make(&root, Path::new(folder), true)?;
        }
        for target in self.targets {
            // What cannot be made is told by what is to be mounted there.
            let _ = inside::make(&root, &target.path, target.is_dir);
        }
        if !self.without.is_empty() {
            crate::sys::restrict(&root, self.without)?;
        }
        Ok(root)
    }

    /// An image of no layers at all is an empty folder.
    fn open_layers(&self) -> io::Result<Vec<File>> {
        let none = self.layer.join("none");
        let empty = [none.clone()];
        let layers = if self.layers.is_empty() {
            fs::create_dir_all(&none)?;
            &empty
        } else {
            self.layers
        };
        layers
            .iter()
            .map(|layer| {
                let opened = fs::OpenOptions::new()
                    .read(true)
                    .custom_flags((OFlags::PATH | OFlags::DIRECTORY).bits().cast_signed())
                    .open(layer);
                opened.map_err(|error| {
                    io::Error::new(error.kind(), format!("layer {}: {error}", layer.display()))
                })
            })
            .collect()
    }

    /// An overlay's root has owner and mode of its upper folder; they are to be those of the image's topmost.
    fn make_like_the_image(&self, upper: &Path) -> io::Result<()> {
        let Some(top) = self.layers.last() else {
            return Ok(());
        };
        let metadata = fs::metadata(top)?;
        fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        if rustix::process::geteuid().is_root() && !self.unprivileged {
            lchown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
        }
        Ok(())
    }
}
