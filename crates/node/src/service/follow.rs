//! A log as a body: what is there, and with `follow` what comes until the container has ended.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::watching::{Folders, Watched};
use crate::logs::{Files, Reader, Wanted};
use crate::node::{Body, BoxError};

/// How much is read at once.
const PIECE: usize = 64 * 1_024;

/// A log while it is read.
struct Following {
    log: Log,
    /// Whom to wait for when there is no more now; nobody when the log is not followed.
    more: Option<More>,
}

struct More {
    folder: Watched,
    /// The container's end; `None` when that has come, so that what is there now is all.
    ended: Option<BoxFuture<'static, ()>>,
}

/// The part that reads files, on a thread where that may take its time.
struct Log {
    files: Files,
    reader: Reader,
}

/// The body of a log request. `ended` is the end of the container whose log it is.
pub(super) async fn body(
    folders: &Folders,
    path: PathBuf,
    wanted: Wanted,
    ended: BoxFuture<'static, ()>,
) -> std::io::Result<Body> {
    // Before the first look: what comes after that is told.
    let more = match wanted.follow {
        true => Some(More {
            folder: folders.watch(path.parent().unwrap_or(Path::new("/")))?,
            ended: Some(ended),
        }),
        false => None,
    };
    let log = blocking(move || {
        Ok(Log {
            files: Files::open(&path, &wanted)?,
            reader: Reader::new(wanted),
        })
    })
    .await?;
    let pieces = stream::unfold(Some(Following { log, more }), |following| async move {
        match following?.next().await {
            Ok(Some((bytes, following))) => Some((Ok(Frame::data(bytes)), Some(following))),
            Ok(None) => None,
            Err(error) => Some((Err(BoxError::from(error)), None)),
        }
    });
    Ok(StreamBody::new(pieces).boxed_unsync())
}

impl Following {
    /// What is shown next, or nothing more ever.
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Self)>> {
        loop {
            let Self { log, more } = self;
            let (shown, log) = blocking(move || log.read()).await?;
            self = Self { log, more };
            if !shown.is_empty() {
                return Ok(Some((Bytes::from(shown), self)));
            }
            if self.log.reader.is_full() {
                return Ok(None);
            }
            match &mut self.more {
                Some(more) if more.ended.is_some() => more.come().await,
                Some(_) | None => return Ok(None),
            }
        }
    }
}

impl More {
    /// Waits for more, or for the end, after which one more look finds what came before it.
    async fn come(&mut self) {
        let Some(ended) = &mut self.ended else { return };
        tokio::select! {
            () = self.folder.changed() => {}
            () = ended => self.ended = None,
        }
    }
}

impl Log {
    /// Reads until there is something to show, or there is no more now.
    fn read(mut self) -> std::io::Result<(Vec<u8>, Self)> {
        let mut piece = vec![0; PIECE];
        while !self.reader.is_full() {
            let count = self.files.read(&mut piece)?;
            if count == 0 {
                break;
            }
            let shown = self.reader.push(&piece[..count]);
            if !shown.is_empty() {
                return Ok((shown, self));
            }
        }
        Ok((Vec::new(), self))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)),
    }
}
