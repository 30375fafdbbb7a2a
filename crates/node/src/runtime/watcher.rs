//! Waiting without polling: for the end of a process, and for the file that shims touch.

use std::fs::OpenOptions;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::process::ProcessMark;
use crate::sys;

/// Returns when this very process has ended; at once when it is gone already.
pub(super) async fn ended(process: &ProcessMark, boot: &str) -> io::Result<()> {
    let Some(fd) = process.open(boot)? else {
        return Ok(());
    };
    let fd = sys::watched(fd, Interest::READABLE)?;
    fd.readable().await?.retain_ready();
    Ok(())
}

/// A task that counts `changes` up each time that a shim touches the file at `path`.
pub(super) fn count_changes(
    path: &Path,
    changes: watch::Sender<u64>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    OpenOptions::new().create(true).append(true).open(path)?;
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&fd, path, inotify::WatchFlags::CLOSE_WRITE)?;
    let fd = sys::watched(fd, Interest::READABLE)?;
    Ok(async move {
        while wait_for_events(&fd).await.is_ok() {
            changes.send_modify(|count| *count += 1);
        }
    })
}

/// Waits for events and takes them all: what they say is only that there were some.
async fn wait_for_events(fd: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = fd.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        match rustix::io::read(fd.get_ref(), &mut buffer) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(rustix::io::Errno::INTR) => {}
            Err(other) => return Err(other.into()),
        }
    }
}
