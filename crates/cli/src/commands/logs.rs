//! `stead logs`: what the containers of a pod said.

use std::fmt::Write;
use std::process::ExitCode;

use futures::future::try_join_all;
use futures::io::{AsyncBufRead, AsyncBufReadExt};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::api::{Api, Target, encode, get, kind_named, refused};
use crate::args::Logs;
use crate::failure::Failure;
use crate::place::Place;

/// Copies logs to standard output, as they come.
pub(crate) async fn run(args: Logs, place: &Place) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let target = Target::all(kind_named("pod")?, Some(&args.namespace.namespace)).named(&args.pod);
    let names = if args.all_containers || args.prefix {
        containers(&api, &target, &args).await?
    } else {
        vec![args.container.clone()]
    };
    let copies = names
        .iter()
        .map(|name| copy(&api, &target, &args, name.as_deref()));
    if args.follow {
        try_join_all(copies).await?;
    } else {
        for copy in copies {
            copy.await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The containers whose logs are asked for, by name.
async fn containers(
    api: &Api,
    target: &Target,
    args: &Logs,
) -> Result<Vec<Option<String>>, Failure> {
    if args.container.is_some() {
        return Ok(vec![args.container.clone()]);
    }
    let pod = api.find(target).await?.ok_or_else(|| {
        Failure::failed(format!(
            "there is no {}; `stead get pods` lists them",
            target.display()
        ))
    })?;
    let named = |list: &str| -> Vec<Option<String>> {
        let list = pod["spec"][list].as_array().into_iter().flatten();
        list.filter_map(|one| one["name"].as_str())
            .map(|name| Some(name.to_owned()))
            .collect()
    };
    let main = named("containers");
    if args.all_containers {
        return Ok([named("initContainers"), main, named("ephemeralContainers")].concat());
    }
    let annotations = &pod["metadata"]["annotations"];
    match (
        main.as_slice(),
        &annotations["kubectl.kubernetes.io/default-container"],
    ) {
        ([_], _) => Ok(main),
        (_, Value::String(name)) => Ok(vec![Some(name.clone())]),
        // The server says which there are.
        (_, _) => Ok(vec![None]),
    }
}

async fn copy(
    api: &Api,
    target: &Target,
    args: &Logs,
    container: Option<&str>,
) -> Result<(), Failure> {
    let path = format!("{}/log?{}", target.path(), query(args, container));
    let stream = api.client.request_stream(get(path)?).await;
    let mut stream = std::pin::pin!(
        stream.map_err(|error| refused(&format!("read the log of {}", args.pod), &error))?
    );
    let prefix = match (args.prefix, container) {
        (true, Some(container)) => format!("[pod/{}/{container}] ", args.pod),
        (true, None) => format!("[pod/{}] ", args.pod),
        (false, _) => String::new(),
    };
    // Lines of several containers must not be mixed within.
    let whole_lines = args.prefix || args.all_containers;
    loop {
        let piece = match next(&mut stream, whole_lines).await {
            Ok(piece) if piece.is_empty() => return Ok(()),
            Ok(piece) => piece,
            Err(source) => return Err(Failure::system("read the log", source)),
        };
        let mut out = tokio::io::stdout();
        let written = async {
            let bytes = [prefix.as_bytes(), &piece].concat();
            out.write_all(&bytes).await.and(out.flush().await)
        };
        if written.await.is_err() {
            // Whoever read our output is gone: there is nobody to tell.
            return Ok(());
        }
    }
}

/// What comes next: a line, or as much as there is. Empty at the end.
async fn next(
    stream: &mut (impl AsyncBufRead + Unpin),
    whole_line: bool,
) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    if whole_line {
        stream.read_until(b'\n', &mut piece).await?;
    } else {
        piece.extend_from_slice(stream.fill_buf().await?);
        stream.consume_unpin(piece.len());
    }
    Ok(piece)
}

fn query(args: &Logs, container: Option<&str>) -> String {
    let mut query = format!(
        "follow={}&previous={}&timestamps={}",
        args.follow, args.previous, args.timestamps
    );
    if let Some(container) = container {
        // Writing to a String cannot fail, here and below.
        let _ = write!(query, "&container={}", encode(container));
    }
    if let Some(since) = args.since {
        let _ = write!(query, "&sinceSeconds={}", since.as_secs());
    }
    if let Some(time) = &args.since_time {
        let _ = write!(query, "&sinceTime={}", encode(time));
    }
    for (name, number) in [("tailLines", args.tail), ("limitBytes", args.limit_bytes)] {
        if let Some(number) = number {
            let _ = write!(query, "&{name}={number}");
        }
    }
    query
}
