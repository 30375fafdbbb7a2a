//! Processes of containers whose shim has died: found by the records of a data folder, and ended.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::local::{end_orphans, record_folders};
use super::marks::{self, Marks};
use super::{ContainerId, First, Holder, RecordDir, Tier};

/// A container that no shim holds any more and that has, or may have, processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Orphan {
    id: ContainerId,
    tier: Tier,
    first: Option<First>,
}

impl Orphan {
    /// Its processes that live; in the upper two tiers only the first, with which the kernel ends all others.
    pub(crate) fn processes(&self, boot: &str) -> io::Result<BTreeSet<u32>> {
        let mut pids: BTreeSet<u32> = self
            .first
            .iter()
            .filter(|first| first.process.is_alive(boot))
            .map(|first| first.process.pid)
            .collect();
        if self.tier == Tier::Processes {
            let found = marks::find(&Marks::of_container(&self.id), boot)?;
            pids.extend(found.iter().map(|process| process.pid));
        }
        Ok(pids)
    }

    /// Ends them; returns when none is left.
    pub(crate) fn end(&self, boot: &str) -> io::Result<()> {
        end_orphans(self.tier, boot, &self.id, self.first.as_ref())
    }
}

/// Every orphan of a data folder. A container whose shim lives, or that none has taken yet, is none.
pub(crate) fn of(data_dir: &Path, boot: &str) -> io::Result<Vec<Orphan>> {
    let containers = data_dir.join("node/containers");
    if !containers.exists() {
        return Ok(Vec::new());
    }
    let mut orphans = Vec::new();
    for folder in record_folders(&containers)? {
        let dir = RecordDir::at(folder);
        let (Some(order), Some(Holder::Shim(shim))) = (dir.order()?, dir.holder()?) else {
            continue;
        };
        if order.boot == boot && !shim.is_alive(boot) {
            orphans.push(Orphan {
                id: order.spec.id,
                tier: order.tier,
                first: dir.first()?,
            });
        }
    }
    Ok(orphans)
}
