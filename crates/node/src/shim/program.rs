//! Turning a forked child into the container's program: the last steps before exec, the same in every tier.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::process::Signal;
use rustix::thread::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::seccomp::Instruction;
use crate::sys;

/// Where programs are looked for when the environment has no PATH.
pub(super) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program as it is to run, seen from inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) cwd: PathBuf,
    /// User to become; `None` stays who it is.
    pub(crate) user: Option<u32>,
    /// Group to become.
    pub(crate) group: Option<u32>,
    /// Supplementary groups to have, where the process may choose them.
    pub(crate) groups: Option<Vec<u32>>,
    pub(crate) no_new_privileges: bool,
    /// Whether a working folder that is missing is made, as container engines do; never on the machine itself.
    pub(crate) makes_cwd: bool,
    /// The kernel ends it when its parent ends.
    pub(crate) dies_with_parent: bool,
    /// Capabilities to keep, as numbers; `None` keeps what the process has.
    pub(crate) capabilities: Option<Vec<u32>>,
    /// The program of the kernel that decides about its system calls.
    pub(crate) filter: Option<Vec<Instruction>>,
    /// Whether its user has the groups that its `/etc/group` gives it too.
    pub(crate) image_groups: bool,
}

impl Program {
    /// Adds a variable unless there is one of this name.
    pub(super) fn default_variable(&mut self, name: &str, value: &str) {
        if !self.env.iter().any(|(have, _)| have == name) {
            self.env.push((name.to_owned(), value.to_owned()));
        }
    }

    fn path(&self) -> &str {
        self.env
            .iter()
            .rev()
            .find(|(name, _)| name == "PATH")
            .map_or(DEFAULT_PATH, |(_, value)| value)
    }

    /// Becomes the program. Returns only when that fails, with a sentence of the kind runc writes.
    pub(super) fn run(&self) -> String {
        match self.prepare() {
            Ok((file, argv, env)) => match nix::unistd::execve(&file, &argv, &env) {
                Ok(never) => match never {},
                Err(errno) => self.refusal(&io::Error::from(errno)),
            },
            Err(sentence) => sentence,
        }
    }

    fn prepare(&self) -> Result<(CString, Vec<CString>, Vec<CString>), String> {
        self.enter_cwd()?;
        let told = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
        self.take_groups().map_err(told("set groups"))?;
        if !self.no_new_privileges {
            // upstream: runc too. A filter may be set by who holds the right to administrate; the user may not.
            self.set_filter()?;
        }
        self.become_user().map_err(told("set user"))?;
        if self.dies_with_parent {
            // A change of user has undone it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|errno| told("tie to its shim")(errno.into()))?;
        }
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true)
                .map_err(|errno| told("set no_new_privs")(errno.into()))?;
            self.set_filter()?;
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        sys::default_signals().map_err(told("reset signals"))?;
        let file = self.find()?;
        let argv = strings(self.argv.iter().map(String::as_bytes))?;
        let pairs: Vec<String> = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let env = strings(pairs.iter().map(String::as_bytes))?;
        Ok((file, argv, env))
    }

    fn enter_cwd(&self) -> Result<(), String> {
        if self.makes_cwd && !self.cwd.exists() {
            fs::create_dir_all(&self.cwd)
                .map_err(|error| format!("mkdir {:?}: {}", self.cwd, phrase(&error)))?;
        }
        rustix::process::chdir(&self.cwd)
            .map_err(|errno| format!("chdir to cwd {:?}: {}", self.cwd, phrase(&errno.into())))
    }

    fn set_filter(&self) -> Result<(), String> {
        match &self.filter {
            Some(filter) => sys::filter_calls(filter)
                .map_err(|error| format!("set the filter of system calls: {error}")),
            None => Ok(()),
        }
    }

    fn take_groups(&self) -> io::Result<()> {
        let Some(groups) = &self.groups else {
            return Ok(());
        };
        let mut groups = groups.clone();
        if let Some(user) = self.user.filter(|_| self.image_groups) {
            let own = super::users::groups_of(user);
            groups.extend(own.into_iter().filter(|group| Some(*group) != self.group));
            groups.sort_unstable();
            groups.dedup();
        }
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        Ok(rustix::thread::set_thread_groups(&groups)?)
    }

    fn become_user(&self) -> io::Result<()> {
        if let Some(group) = self.group {
            let gid = Gid::from_raw(group);
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        }
        if let Some(keep) = &self.capabilities {
            super::capabilities::limit(keep)?;
        }
        if let Some(user) = self.user {
            let uid = Uid::from_raw(user);
            rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        }
        if let Some(keep) = &self.capabilities {
            super::capabilities::settle(keep)?;
        }
        Ok(())
    }

    /// upstream: runc looks the program up itself, so that it can say why it is none.
    fn find(&self) -> Result<CString, String> {
        let Some(name) = self.argv.first() else {
            return Err("no command is given".to_owned());
        };
        if name.contains('/') {
            let path = self.cwd.join(name);
            return match usable(&path) {
                Ok(()) => c_string(name.as_bytes()),
                Err(error) => Err(self.refusal(&error)),
            };
        }
        let mut refused = None;
        for folder in self.path().split(':') {
            let path = Path::new(folder).join(name);
            match usable(&path) {
                Ok(()) => return c_string(path.as_os_str().as_bytes()),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refused = Some(error);
                }
                Err(_) => {}
            }
        }
        match refused {
            Some(error) => Err(self.refusal(&error)),
            None => Err(format!(
                "exec: {name:?}: executable file not found in $PATH"
            )),
        }
    }

    fn refusal(&self, error: &io::Error) -> String {
        let name = self.argv.first().map_or("", String::as_str);
        if error.kind() == io::ErrorKind::NotFound {
            format!("exec: {name:?}: stat {name}: no such file or directory")
        } else {
            format!("exec: {name:?}: {}", phrase(error))
        }
    }
}

/// Whether this can be run by the caller: a file with the right to be executed.
fn usable(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    Ok(rustix::fs::access(path, Access::EXEC_OK)?)
}

/// What the system says, without its number.
fn phrase(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

fn strings<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<CString>, String> {
    parts.map(c_string).collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|_| {
        format!(
            "{:?} holds a zero byte, which no argument or variable can",
            OsStr::from_bytes(bytes)
        )
    })
}
