//! Choosing and opening a tier: what this machine allows is found by trying it, never by asking who runs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use super::local::Local;
use super::record::remove_discarded;
use super::{LogLimits, Runtime, RuntimeError, Tier};

/// How a tier is to be opened.
#[derive(Debug, Clone)]
pub struct RuntimeOptions {
    /// Stead's data folder; the runtime keeps to `<data_dir>/node`, and containers see nothing of it.
    pub data_dir: PathBuf,
    /// The program that is run as `<shim> shim ...`: the `stead` binary.
    pub shim: PathBuf,
    /// The pods' own network in CIDR form, for the containers tier; `None` chooses a free one.
    pub pod_range: Option<String>,
    /// The Services' addresses in CIDR form, as the API gives them out; for the containers tier.
    pub service_range: String,
    /// The identity of this boot, instead of the kernel's: what another boot left counts as gone.
    pub boot: Option<String>,
    /// How large the log of a container may grow.
    pub log: LogLimits,
}

impl RuntimeOptions {
    /// Options for this data folder and this program, everything else as usual.
    pub fn new(data_dir: impl Into<PathBuf>, shim: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            shim: shim.into(),
            pod_range: None,
            service_range: "10.96.0.0/16".to_owned(),
            boot: None,
            log: LogLimits::default(),
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

/// Tries every tier, best first, by going the way of a container as far as its program. The processes tier is always
/// possible. Takes some hundredths of a second; the folder for it is made below `<data_dir>/node` and removed.
pub fn probe(options: &RuntimeOptions) -> Vec<TierReport> {
    let tried = [Tier::Containers, Tier::Rootless].map(|tier| (tier, Trial::start(tier, options)));
    tried
        .into_iter()
        .map(|(tier, trial)| TierReport {
            tier,
            refused: trial
                .and_then(Trial::finish)
                .err()
                .map(|error| error.to_string()),
        })
        .chain([TierReport {
            tier: Tier::Processes,
            refused: None,
        }])
        .collect()
}

/// The tier to use, with the sentence that says so at the start: which tier, and why not a better one.
///
/// # Errors
/// The sentence that says why the tier that was asked for is not possible here.
pub fn choose(reports: &[TierReport], asked: Option<Tier>) -> Result<(Tier, String), String> {
    let refused = |tier: Tier| {
        reports
            .iter()
            .find(|report| report.tier == tier)
            .and_then(|report| report.refused.clone())
    };
    if let Some(tier) = asked {
        return match refused(tier) {
            None => Ok((tier, format!("{}, as asked", describe(tier)))),
            Some(why) => Err(format!(
                "the {} tier is not possible on this machine: {why}",
                name(tier)
            )),
        };
    }
    let tier = [Tier::Containers, Tier::Rootless]
        .into_iter()
        .find(|tier| refused(*tier).is_none())
        .unwrap_or(Tier::Processes);
    let mut sentence = describe(tier).to_owned();
    let better = [Tier::Containers, Tier::Rootless]
        .into_iter()
        .filter(|other| *other > tier);
    for (number, (other, why)) in better
        .filter_map(|other| Some((other, refused(other)?)))
        .enumerate()
    {
        sentence.push_str(if number == 0 { "; not " } else { ", nor " });
        sentence.push_str(&format!("{}, for {why}", name(other)));
    }
    Ok((tier, sentence))
}

fn name(tier: Tier) -> &'static str {
    match tier {
        Tier::Containers => "containers",
        Tier::Rootless => "rootless",
        Tier::Processes => "processes",
    }
}

fn describe(tier: Tier) -> &'static str {
    match tier {
        Tier::Containers => "containers: own namespaces, cgroups and network",
        Tier::Rootless => {
            "rootless: own mounts and processes, the machine's network, no limits on memory or CPU"
        }
        Tier::Processes => "processes: plain processes, nothing is isolated",
    }
}

/// A tier being tried out by a helper process.
struct Trial {
    folder: PathBuf,
    helper: Child,
}

impl Trial {
    fn start(tier: Tier, options: &RuntimeOptions) -> io::Result<Self> {
        let folder = options.data_dir.join("node").join(format!(
            "probe-{}-{}",
            name(tier),
            std::process::id()
        ));
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let helper = Command::new(&options.shim)
            .args(["shim", "probe", name(tier)])
            .arg(&folder)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { folder, helper })
    }

    fn finish(self) -> io::Result<()> {
        let output = self.helper.wait_with_output()?;
        if let Err(error) = remove_discarded(&self.folder) {
            // What is left says nothing about the tier.
            tracing::warn!(path = %self.folder.display(), %error, "could not remove the folder of a trial");
        }
        if output.status.success() {
            return Ok(());
        }
        let sentence = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Err(io::Error::other(if sentence.is_empty() {
            format!("its trial ended with {}", output.status)
        } else {
            sentence
        }))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn reports(containers: Option<&str>, rootless: Option<&str>) -> Vec<TierReport> {
        [
            (Tier::Containers, containers),
            (Tier::Rootless, rootless),
            (Tier::Processes, None),
        ]
        .map(|(tier, refused)| TierReport {
            tier,
            refused: refused.map(str::to_owned),
        })
        .to_vec()
    }

    fn check(reports: &[TierReport], asked: Option<Tier>, want: &str) {
        let told = match choose(reports, asked) {
            Ok((_, sentence)) | Err(sentence) => sentence,
        };
        assert_eq!(told, want);
    }

    #[test]
    fn the_best_possible_tier_is_chosen_and_says_why_it_is_not_a_better_one() {
        check(
            &reports(None, None),
            None,
            "containers: own namespaces, cgroups and network",
        );
        check(
            &reports(Some("no"), None),
            None,
            "rootless: own mounts and processes, the machine's network, no limits on memory or CPU; not containers, for no",
        );
        check(
            &reports(Some("no"), Some("never")),
            None,
            "processes: plain processes, nothing is isolated; not containers, for no, nor rootless, for never",
        );
    }

    #[test]
    fn a_tier_that_was_asked_for_is_refused_rather_than_replaced() {
        check(
            &reports(Some("no"), None),
            Some(Tier::Containers),
            "the containers tier is not possible on this machine: no",
        );
        check(
            &reports(None, None),
            Some(Tier::Processes),
            "processes: plain processes, nothing is isolated, as asked",
        );
    }
}
