//! Learning from the kernel that a folder's files changed: one inotify for all followers, however many there are.

use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::sys;

/// What changes a log: it grows, or a file takes another's place.
const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// Every folder that somebody watches. The kernel is asked for its inotify when the first one is.
#[derive(Default)]
pub(super) struct Folders(Mutex<Option<Open>>);

struct Open {
    kernel: Arc<Kernel>,
    telling: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.telling.abort();
    }
}

struct Kernel {
    fd: AsyncFd<OwnedFd>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_path: BTreeMap<PathBuf, (i32, usize)>,
    by_number: BTreeMap<i32, watch::Sender<u64>>,
}

/// A watch of one folder.
pub(super) struct Watched {
    kernel: Arc<Kernel>,
    path: PathBuf,
    changes: watch::Receiver<u64>,
}

impl Folders {
    /// Watches a folder until the answer is dropped.
    pub(super) fn watch(&self, path: &Path) -> io::Result<Watched> {
        let mut open = lock(&self.0);
        let kernel = match open.as_ref() {
            Some(open) => Arc::clone(&open.kernel),
            None => {
                let made = Open::new()?;
                Arc::clone(&open.insert(made).kernel)
            }
        };
        drop(open);
        let changes = kernel.add(path)?;
        Ok(Watched {
            kernel,
            path: path.to_owned(),
            changes,
        })
    }
}

impl Open {
    fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let kernel = Arc::new(Kernel {
            fd: sys::watched(fd, Interest::READABLE)?,
            table: Mutex::default(),
        });
        let telling = tokio::spawn(tell(Arc::clone(&kernel)));
        Ok(Self { kernel, telling })
    }
}

impl Kernel {
    fn add(&self, path: &Path) -> io::Result<watch::Receiver<u64>> {
        let mut table = lock(&self.table);
        // The same folder has the same number, however often it is added.
        let number = inotify::add_watch(self.fd.get_ref(), path, CHANGES)?;
        let (_, count) = table.by_path.entry(path.to_owned()).or_insert((number, 0));
        *count += 1;
        let changes = table.by_number.entry(number).or_default();
        Ok(changes.subscribe())
    }

    fn remove(&self, path: &Path) {
        let mut table = lock(&self.table);
        let Some((number, count)) = table.by_path.get_mut(path) else {
            return;
        };
        let number = *number;
        *count -= 1;
        if *count == 0 {
            table.by_path.remove(path);
            table.by_number.remove(&number);
            // A folder that is gone took its watch along.
            let _ = inotify::remove_watch(self.fd.get_ref(), number);
        }
    }

    /// Takes what the kernel tells now; `false` when that is nothing.
    fn take(&self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(self.fd.get_ref(), &mut space);
        let event = match events.next() {
            Ok(event) => event,
            Err(rustix::io::Errno::AGAIN) => return Ok(false),
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(other) => return Err(other.into()),
        };
        let table = lock(&self.table);
        let wake = |changes: &watch::Sender<u64>| changes.send_modify(|count| *count += 1);
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            table.by_number.values().for_each(wake);
        } else {
            table.by_number.get(&event.wd()).into_iter().for_each(wake);
        }
        while !events.is_buffer_empty() {
            let event = events.next()?;
            table.by_number.get(&event.wd()).into_iter().for_each(wake);
        }
        Ok(true)
    }
}

/// Wakes watchers whenever the kernel says so.
async fn tell(kernel: Arc<Kernel>) {
    loop {
        let told = match kernel.fd.readable().await {
            Ok(mut ready) => kernel.take().map(|more| {
                if !more {
                    ready.clear_ready();
                }
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the kernel's word of changed logs cannot be read; followers see no more");
            return;
        }
    }
}

impl Watched {
    /// Returns when the folder has changed since the last call.
    pub(super) async fn changed(&mut self) {
        // Its sender lives as long as this watch does.
        let _ = self.changes.changed().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.kernel.remove(&self.path);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
