//! The node's images: what is here, and what a container of it is started from.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use stead_image::store::{Hold, StoreError};
use stead_image::{Image, ImageName, Store};

use crate::pod::{Presence, signal_number};
use crate::runtime;

/// Images in the node's folder.
#[derive(Debug)]
pub(crate) struct Images {
    store: Store,
}

impl Images {
    /// Opens the folder, and sweeps what a crash left in it.
    pub(crate) fn open(node: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            store: Store::open(&folder(node))?,
        })
    }

    /// What is true of an image now.
    pub(crate) fn presence(&self, name: &str) -> Presence {
        let Ok(name) = ImageName::parse(name) else {
            return Presence::Absent;
        };
        match self.store.find(&name) {
            Ok(Some(image)) => Presence::Present {
                has_command: !image.config.entrypoint.is_empty() || !image.config.cmd.is_empty(),
                stop_signal: signal_number(&image.config.stop_signal),
            },
            Ok(None) => Presence::Absent,
            Err(error) => Presence::Unreadable(error.to_string()),
        }
    }

    /// An image to start a container from. Nobody removes it before the answer is dropped; from then on the record of
    /// the container keeps it.
    pub(crate) fn take(&self, name: &str) -> Result<(Image, Hold), String> {
        let parsed = ImageName::parse(name).map_err(|error| error.to_string())?;
        let hold = self.store.hold().map_err(|error| error.to_string())?;
        match self.store.find(&parsed) {
            Ok(Some(image)) => Ok((image, hold)),
            Ok(None) => Err(format!("image \"{name}\" is not on this machine any more")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Where the node of a data folder keeps its images.
pub fn folder_of(data_dir: &Path) -> PathBuf {
    folder(&data_dir.join("node"))
}

/// Folders of layers that containers of a data folder use, running or to be started again.
///
/// # Errors
/// When the records of containers cannot be read: nothing should be removed then.
pub fn layers_in_use(data_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    runtime::layers::in_use(data_dir)
}

fn folder(node: &Path) -> PathBuf {
    node.join("images")
}
