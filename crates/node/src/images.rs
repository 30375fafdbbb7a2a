//! The node's images: what is here, and what a container of it is started from.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stead_image::registry::credentials::Credentials;
use stead_image::registry::mirrors::Registries;
use stead_image::registry::{Access, Patience, Progress, Puller};
use stead_image::store::{Hold, StoreError};
use stead_image::{Image, ImageName, Store};

use crate::pod::{Presence, signal_number};
use crate::runtime;

/// Images in the node's folder.
pub(crate) struct Images {
    store: Store,
    puller: Puller,
    /// What the user has set for registries; read before each pull.
    registries: PathBuf,
}

impl Images {
    /// Opens the folder, and sweeps what a crash left in it.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let store = Store::open(&folder_of(data_dir))?;
        Ok(Self {
            puller: Puller::new(store.clone(), Patience::default()),
            store,
            registries: registries_of(data_dir),
        })
    }

    /// Gets an image from its registry, with these credentials and the user's own; the sentence tells of it.
    pub(crate) async fn pull(&self, name: &str, secrets: Credentials) -> Result<String, String> {
        let began = std::time::Instant::now();
        let parsed = ImageName::parse(name).map_err(|error| error.to_string())?;
        let access = Access {
            credentials: secrets.and(Credentials::of_user()),
            registries: Registries::read(&self.registries).map_err(|error| error.to_string())?,
        };
        let progress = Progress::default();
        let pulled = self.puller.pull(&parsed, &access, &progress).await;
        let image = pulled.map_err(|error| error.to_string())?;
        Ok(format!(
            "Successfully pulled image \"{name}\" in {:?}. Image size: {} bytes.",
            Duration::from_millis(began.elapsed().as_millis().try_into().unwrap_or(u64::MAX)),
            image.size
        ))
    }

    /// All images, for the status of the node.
    pub(crate) fn list(&self) -> Vec<Image> {
        self.store.list().unwrap_or_default()
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
    data_dir.join("node/images")
}

/// The file with mirrors of registries and those that are spoken to without TLS, in a data folder.
pub fn registries_of(data_dir: &Path) -> PathBuf {
    data_dir.join("registries.json")
}

/// Folders of layers that containers of a data folder use, running or to be started again.
///
/// # Errors
/// When the records of containers cannot be read: nothing should be removed then.
pub fn layers_in_use(data_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    runtime::layers::in_use(data_dir)
}
