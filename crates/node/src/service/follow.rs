//! A log as a body: what is there, and with `follow` what comes until the container has ended.

use std::io::SeekFrom;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::logs::{Reader, Wanted, tail_offset};
use crate::node::{Body, BoxError};
use crate::runtime::{ContainerId, ContainerState, Runtime};

/// How often a followed log is looked at. A file tells no one when it grows without a watch of the kernel's.
const LOOK: Duration = Duration::from_millis(100);
/// How much is read at once.
const PIECE: usize = 64 * 1_024;

struct Following {
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    path: PathBuf,
    follow: bool,
    tail: Option<u64>,
    reader: Reader,
    file: Option<tokio::fs::File>,
    /// The container had ended before the last look, so that nothing more will come.
    ended: bool,
}

/// The body of a log request.
pub(super) fn body(
    runtime: Arc<dyn Runtime>,
    id: ContainerId,
    path: PathBuf,
    wanted: Wanted,
) -> Body {
    let following = Following {
        runtime,
        id,
        path,
        follow: wanted.follow,
        tail: wanted.tail,
        reader: Reader::new(wanted),
        file: None,
        ended: false,
    };
    let pieces = stream::unfold(following, |mut following| async move {
        match following.next().await {
            Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), following)),
            Ok(None) => None,
            Err(error) => Some((Err(BoxError::from(error)), following)),
        }
    });
    StreamBody::new(pieces).boxed_unsync()
}

impl Following {
    async fn next(&mut self) -> std::io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE];
        while !self.reader.is_full() {
            let file = match self.file.take() {
                Some(file) => self.file.insert(file),
                None => {
                    let opened = self.open().await?;
                    self.file.insert(opened)
                }
            };
            let count = file.read(&mut piece).await?;
            if count > 0 {
                let shown = self.reader.push(&piece[..count]);
                if !shown.is_empty() {
                    return Ok(Some(Bytes::from(shown)));
                }
            } else if !self.follow || self.ended {
                return Ok(None);
            } else if self.has_ended() {
                // Once more: what was written between the last look and the end.
                self.ended = true;
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(None)
    }

    async fn open(&self) -> std::io::Result<tokio::fs::File> {
        let mut file = std::fs::File::open(&self.path)?;
        let from = match self.tail {
            Some(lines) => tail_offset(&mut file, lines)?,
            None => 0,
        };
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(from)).await?;
        Ok(file)
    }

    /// The life is over, or the runtime has forgotten it.
    fn has_ended(&self) -> bool {
        let Ok(records) = self.runtime.list() else {
            return true;
        };
        let record = records.into_iter().find(|record| record.id == self.id);
        !record.is_some_and(|record| {
            matches!(
                record.state,
                ContainerState::Created | ContainerState::Running { .. }
            )
        })
    }
}
