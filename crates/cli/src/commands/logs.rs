//! `stead logs`: what a container said.

use std::fmt::Write;
use std::process::ExitCode;

use futures::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::api::{Target, encode, get, kind_named, refused};
use crate::args::Logs;
use crate::failure::Failure;
use crate::place::Place;

/// Copies the log to standard output, as it comes.
pub(crate) async fn run(args: Logs, place: &Place) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let target = Target::all(kind_named("pod")?, Some(&args.namespace.namespace)).named(&args.pod);
    let path = format!("{}/log?{}", target.path(), query(&args));
    let stream = api.client.request_stream(get(path)?).await;
    let mut stream = std::pin::pin!(
        stream.map_err(|error| refused(&format!("read the log of {}", args.pod), &error))?
    );
    let mut out = tokio::io::stdout();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = stream
            .read(&mut buffer)
            .await
            .map_err(|source| Failure::system("read the log", source))?;
        if count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let written = async { out.write_all(&buffer[..count]).await.and(out.flush().await) };
        if written.await.is_err() {
            // Whoever read our output is gone: there is nobody to tell.
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn query(args: &Logs) -> String {
    let mut query = format!(
        "follow={}&previous={}&timestamps={}",
        args.follow, args.previous, args.timestamps
    );
    if let Some(container) = &args.container {
        // Writing to a String cannot fail.
        let _ = write!(query, "&container={}", encode(container));
    }
    if let Some(tail) = args.tail {
        let _ = write!(query, "&tailLines={tail}");
    }
    query
}
