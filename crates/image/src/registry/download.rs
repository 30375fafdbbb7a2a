//! A layer on its way: into a file, from where the last attempt stopped, hashed as it comes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use crate::digest::{Digest, Hasher};
use crate::document::Descriptor;
use crate::store::{Hold, Store, StoreError, system};

use super::auth::Session;
use super::http::{HttpError, chain};
use super::{Progress, PullError, blocking};

/// Another pull of the same layer is looked after so often.
const LOOK: Duration = Duration::from_millis(100);

/// A layer that is here, checked, and not unpacked yet; nobody else writes it.
pub(super) struct Arrived {
    file: File,
    path: PathBuf,
}

impl Arrived {
    /// Unpacks it and removes the file.
    pub(super) fn unpack(
        mut self,
        store: &Store,
        hold: &Hold,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<(), StoreError> {
        self.file
            .seek(SeekFrom::Start(0))
            .map_err(system("read", &self.path))?;
        let bytes = BufReader::with_capacity(1 << 16, &self.file);
        let added = store.add_layer(hold, layer, diff_id, bytes);
        // Wrong or right, it has done its work.
        let _ = fs::remove_file(&self.path);
        added
    }
}

/// Gets a layer, whatever it takes of attempts, and checks its size and digest.
pub(super) async fn layer(
    session: &Session<'_>,
    store: &Store,
    layer: &Descriptor,
    progress: &Progress,
) -> Result<Arrived, PullError> {
    let path = store.download_file(&layer.digest);
    let file = take(&path).await?;
    let mut partial = Partial::resume(file, path, layer).await?;
    progress.done.fetch_add(partial.length, Ordering::Relaxed);
    let mut attempt = 0;
    while partial.length < layer.size {
        let before = partial.length;
        let failed = match partial.fetch(session, layer, progress).await {
            Ok(()) => continue,
            Err(PullError::Http(error)) => error,
            Err(error) => {
                partial.discard();
                return Err(error);
            }
        };
        if partial.length > before {
            // It goes on, if slowly.
            attempt = 0;
        }
        session.pause(&mut attempt, failed).await?;
    }
    let found = partial.hasher.clone().finish();
    if found != layer.digest {
        partial.discard();
        return Err(PullError::Digest {
            what: "a layer",
            host: session.host(),
            wanted: layer.digest.clone(),
            found,
        });
    }
    partial.finish().await
}

/// Opens the file of a layer, alone: two pulls of the same layer, here or in another process, go one after the other.
async fn take(path: &Path) -> Result<File, PullError> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(system("open", path))?;
        match file.try_lock() {
            Ok(()) if is_still(&file, path) => return Ok(file),
            // Whoever had it has removed it: what was opened is no more.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
            Err(TryLockError::Error(source)) => return Err(system("lock", path)(source).into()),
        }
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    let (Ok(opened), Ok(named)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (opened.dev(), opened.ino()) == (named.dev(), named.ino())
}

/// The part of a layer that is here.
struct Partial {
    file: tokio::fs::File,
    path: PathBuf,
    hasher: Hasher,
    length: u64,
}

impl Partial {
    /// Takes up what an earlier attempt left: it is hashed like all the rest.
    async fn resume(file: File, path: PathBuf, layer: &Descriptor) -> Result<Partial, PullError> {
        let (hasher, size) = (layer.digest.hasher(), layer.size);
        let of = path.clone();
        let (file, hasher, length) =
            blocking(move || hash_part(file, hasher, size).map_err(system("read", &of))).await?;
        Ok(Partial {
            file: tokio::fs::File::from_std(file),
            path,
            hasher,
            length,
        })
    }

    /// One request for what is missing, as far as it goes.
    async fn fetch(
        &mut self,
        session: &Session<'_>,
        layer: &Descriptor,
        progress: &Progress,
    ) -> Result<(), PullError> {
        let path = format!("blobs/{}", layer.digest);
        let answer = session
            .get(&path, "application/octet-stream, */*", self.length)
            .await?;
        let whole = answer.status() == StatusCode::OK;
        if whole && self.length > 0 {
            // It does not know of parts.
            progress.done.fetch_sub(self.length, Ordering::Relaxed);
            self.restart(layer).await?;
        }
        self.check_head(session, layer, answer.headers(), whole)?;
        let mut body = answer.into_body();
        let cut = |why: String| HttpError::Cut {
            host: session.host(),
            why,
        };
        while self.length < layer.size {
            let next = tokio::time::timeout(session.patience().stall, body.frame()).await;
            let frame = match next {
                Err(_) => return Err(cut("nothing more came".to_owned()).into()),
                Ok(None) => {
                    return Err(cut(format!("{} of {} bytes came", self.length, layer.size)).into());
                }
                Ok(Some(Err(error))) => return Err(cut(chain(&error)).into()),
                Ok(Some(Ok(frame))) => frame,
            };
            let Some(data) = frame.data_ref() else {
                continue;
            };
            let length = self.length + data.len() as u64;
            if length > layer.size {
                return Err(wrong_size(session, layer, length));
            }
            self.file
                .write_all(data)
                .await
                .map_err(system("write", &self.path))?;
            self.hasher.update(data);
            self.length = length;
            progress
                .done
                .fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        self.check_end(session, layer, &mut body).await
    }

    /// What the answer says of itself must be what was asked for.
    fn check_head(
        &self,
        session: &Session<'_>,
        layer: &Descriptor,
        headers: &HeaderMap,
        whole: bool,
    ) -> Result<(), PullError> {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        if !whole {
            let start = format!("bytes {}-", self.length);
            if !text(CONTENT_RANGE).is_some_and(|range| range.starts_with(&start)) {
                let why = "it sent another part than was asked for".to_owned();
                let host = session.host();
                return Err(HttpError::Cut { host, why }.into());
            }
        }
        let said = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        match said.map(|said| said.saturating_add(self.length)) {
            Some(size) if size != layer.size => Err(wrong_size(session, layer, size)),
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing may follow.
    async fn check_end(
        &self,
        session: &Session<'_>,
        layer: &Descriptor,
        body: &mut hyper::body::Incoming,
    ) -> Result<(), PullError> {
        while let Ok(Some(Ok(frame))) =
            tokio::time::timeout(session.patience().stall, body.frame()).await
        {
            let more = frame.data_ref().map_or(0, bytes::Bytes::len) as u64;
            if more > 0 {
                return Err(wrong_size(session, layer, self.length + more));
            }
        }
        Ok(())
    }

    async fn restart(&mut self, layer: &Descriptor) -> Result<(), PullError> {
        let begun = async {
            self.file.set_len(0).await?;
            tokio::io::AsyncSeekExt::rewind(&mut self.file).await
        };
        begun.await.map_err(system("write", &self.path))?;
        self.hasher = layer.digest.hasher();
        self.length = 0;
        Ok(())
    }

    /// What is wrong must not be taken up again.
    fn discard(&self) {
        // If it stays it is found to be wrong again.
        let _ = fs::remove_file(&self.path);
    }

    async fn finish(mut self) -> Result<Arrived, PullError> {
        self.file
            .flush()
            .await
            .map_err(system("write", &self.path))?;
        Ok(Arrived {
            file: self.file.into_std().await,
            path: self.path,
        })
    }
}

fn hash_part(mut file: File, mut hasher: Hasher, size: u64) -> io::Result<(File, Hasher, u64)> {
    if file.metadata()?.len() > size {
        file.set_len(0)?;
    }
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((file, hasher, length));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
        length += count as u64;
    }
}

fn wrong_size(session: &Session<'_>, layer: &Descriptor, found: u64) -> PullError {
    PullError::Size {
        what: "a layer",
        digest: layer.digest.clone(),
        host: session.host(),
        wanted: layer.size,
        found,
    }
}
