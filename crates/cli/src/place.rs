//! Where this Stead lives: the data folder, and the daemon on it if one runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::api::Api;
use crate::failure::Failure;

/// A data folder. Nothing is created by naming it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The folder, absolute.
    pub(crate) dir: PathBuf,
}

impl Place {
    /// The folder that was asked for, or the default of this user.
    pub(crate) fn choose(asked: Option<PathBuf>) -> Result<Place, Failure> {
        let dir = match asked {
            Some(dir) => dir,
            None => default_dir()?,
        };
        let dir = std::path::absolute(&dir).map_err(|source| {
            Failure::system(
                &format!("make sense of the data folder {}", dir.display()),
                source,
            )
        })?;
        Ok(Place { dir })
    }

    /// The kubeconfig that the daemon writes.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// Where a detached daemon writes its log.
    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// Whether this user finds the folder without naming it.
    pub(crate) fn is_default(&self) -> bool {
        std::env::var_os("STEAD_DATA_DIR").is_some()
            || default_dir().is_ok_and(|dir| dir == self.dir)
    }

    /// What the daemon here says of itself: `pid`, `api`, `tier`, `dns`.
    pub(crate) fn about(&self) -> Result<serde_json::Value, Failure> {
        let file = self.dir.join("daemon.json");
        let read = || serde_json::from_slice(&fs::read(&file)?).map_err(io::Error::from);
        read().map_err(|source: io::Error| {
            Failure::system(&format!("read {}", file.display()), source)
        })
    }

    /// The process that holds the folder now, if any.
    pub(crate) fn holder(&self) -> Option<Pid> {
        stead_apiserver::lock_holder(&self.dir)
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw)
    }

    /// A client for the daemon that runs here.
    ///
    /// # Errors
    /// Says that none runs, and how to start one.
    pub(crate) async fn connect(&self) -> Result<Api, Failure> {
        if self.holder().is_none() {
            return Err(Failure::not_running(format!(
                "no Stead runs on {}; start one with `stead up`, or name another folder with --data-dir",
                self.dir.display()
            )));
        }
        Api::from_kubeconfig(&self.kubeconfig()).await
    }

    /// Asks the daemon to stop, as Ctrl-C does.
    pub(crate) fn interrupt(&self, daemon: Pid) -> Result<(), Failure> {
        kill(daemon, Signal::SIGINT).map_err(|errno| {
            Failure::system(
                &format!("ask process {daemon} to stop"),
                io::Error::from(errno),
            )
        })
    }

    /// Makes the folder, for this user alone.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        use std::os::unix::fs::DirBuilderExt;
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.dir);
        made.map_err(|source| {
            Failure::system(
                &format!("make the data folder {}", self.dir.display()),
                source,
            )
        })
    }
}

/// `/var/lib/stead` where this user may write there, as root may; else the user's own data folder.
fn default_dir() -> Result<PathBuf, Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/stead"));
    }
    if let Some(dir) = absolute_from("XDG_DATA_HOME") {
        return Ok(dir.join("stead"));
    }
    absolute_from("HOME")
        .map(|home| home.join(".local/share/stead"))
        .ok_or_else(|| {
            Failure::input(
                "neither XDG_DATA_HOME nor HOME is set; name a data folder with --data-dir"
                    .to_owned(),
            )
        })
}

fn absolute_from(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|path| Path::is_absolute(path))
}
