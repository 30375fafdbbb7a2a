//! Which layers of images containers use, told by their records alone: the daemon need not run.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::local::record_folders;
use super::{RecordDir, Root};

/// Folders of the layers that any container of a data folder was started from and may be again.
pub(crate) fn in_use(data_dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let containers = data_dir.join("node/containers");
    if !containers.exists() {
        return Ok(BTreeSet::new());
    }
    let mut layers = BTreeSet::new();
    for folder in record_folders(&containers)? {
        match RecordDir::at(folder).order()?.map(|order| order.spec.root) {
            Some(Root::Layers(used)) => layers.extend(used),
            Some(Root::Host) | None => {}
        }
    }
    Ok(layers)
}
