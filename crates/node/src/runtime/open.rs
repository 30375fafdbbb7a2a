//! Choosing and opening a tier: what this machine allows is found by trying it, never by asking who runs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::local::Local;
use super::{Runtime, RuntimeError, Tier};

/// How a tier is to be opened.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Stead's data folder; the runtime keeps to `<data_dir>/node`, and containers see nothing of it.
    pub data_dir: PathBuf,
    /// The program that is run as `<shim> shim ...`: the `stead` binary.
    pub shim: PathBuf,
    /// The pods' own network in CIDR form, for the containers tier; `None` chooses a free one.
    pub pod_range: Option<String>,
    /// The identity of this boot, instead of the kernel's: what another boot left counts as gone.
    pub boot: Option<String>,
}

impl RuntimeOptions {
    /// Options for this data folder and this program, everything else as usual.
    pub fn new(data_dir: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            shim: shim.into(),
            pod_range: None,
            boot: None,
        }
    }
}

/// Whether this machine allows a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierReport {
    /// Which tier.
    pub tier: Tier,
    /// Why not, in a few words; `None` when it is possible.
    pub refused: Option<String>,
}

/// Tries every tier, best first. The processes tier is always possible.
pub fn probe(options: &RuntimeOptions) -> Vec<TierReport> {
    let _ = options;
    [Tier::Containers, Tier::Rootless]
        .map(|tier| TierReport {
            tier,
            refused: Some("it is not built into this program".to_owned()),
        })
        .into_iter()
        .chain([TierReport {
            tier: Tier::Processes,
            refused: None,
        }])
        .collect()
}

/// Opens a tier on its data folder, and takes up again whatever is recorded there.
///
/// To be called within a Tokio runtime: containers of an earlier daemon are watched from here on.
///
/// # Errors
/// [`RuntimeError::System`] when the folder cannot be made or read, or holds records that cannot be understood.
pub fn open(tier: Tier, options: RuntimeOptions) -> Result<Arc<dyn Runtime>, RuntimeError> {
    Ok(Arc::new(Local::open(tier, options)?))
}

/// A [`RuntimeError::System`] about `what`.
pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> RuntimeError {
    let what = what.into();
    move |source| RuntimeError::System { what, source }
}
