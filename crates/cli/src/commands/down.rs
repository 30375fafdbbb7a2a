//! `stead down`: stops all pods in reverse order, then Stead itself. Data stays unless it is asked for twice.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use stead_cluster::Cluster;

use crate::api::{Api, Target, kind_named};
use crate::args::{Cascade, Down, Up};
use crate::commands::{delete, up};
use crate::failure::Failure;
use crate::picture::text;
use crate::place::Place;

/// Stops the daemon of this data folder and waits until it has gone.
pub(crate) async fn run(args: Down, place: &Place) -> Result<ExitCode, Failure> {
    if args.delete_volumes && !args.yes {
        confirm(place)?;
    }
    let was_running = stop(&args, place).await?;
    if args.delete_volumes {
        delete_volumes(&args, place).await?;
    } else if !was_running {
        return Err(Failure::not_running(format!(
            "no Stead runs on {}",
            place.dir.display()
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for what cannot be taken back.
fn confirm(place: &Place) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::input(
            "--delete-volumes cannot ask here; say --yes if every volume is to go",
        ));
    }
    print!(
        "Delete every claim and volume under {}? This cannot be undone. Type yes: ",
        place.dir.display()
    );
    let mut answer = String::new();
    let asked = std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer));
    asked.map_err(|source| Failure::system("ask", source))?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::input("nothing was deleted and nothing stopped"))
    }
}

/// Interrupts the daemon and waits for its end. `false` when none ran.
async fn stop(args: &Down, place: &Place) -> Result<bool, Failure> {
    let Some(daemon) = place.holder() else {
        return Ok(false);
    };
    place.interrupt(daemon)?;
    let waiting = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while place.holder() == Some(daemon) {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(args.timeout, waiting).await.is_err() {
        return Err(Failure::timeout(format!(
            "Stead (process {daemon}) still stops its pods after {} s; `stead status` shows which",
            args.timeout.as_secs()
        )));
    }
    if let Err(error) = crate::host_dns::uninstall(std::path::Path::new("/"), &place.dir) {
        Failure::caused("stopped, but the resolver's drop-in stays", &error).report();
    }
    println!("stopped; the data stays under {}", place.dir.display());
    Ok(true)
}

/// Deletes every claim, as its owner's will, and lets the node remove what the claims held.
async fn delete_volumes(args: &Down, place: &Place) -> Result<(), Failure> {
    let alone = Up {
        filename: Vec::new(),
        detach: false,
        wait: false,
        timeout: args.timeout,
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        tier: None,
        container_log_max_size: 10 << 20,
        container_log_max_files: 5,
        service_cidr: None,
        pod_cidr: None,
        daemon: false,
    };
    let cluster = Cluster::start(up::options(&alone, place, false)?).await;
    let cluster = cluster.map_err(|error| {
        Failure::caused(
            "could not open the data folder to delete its volumes",
            &error,
        )
    })?;
    let api = Api {
        client: cluster.client(),
    };
    let deleted = delete_all(&api, args.timeout).await;
    cluster.shutdown().await;
    println!("{} volumes deleted", deleted?);
    Ok(())
}

async fn delete_all(api: &Api, limit: Duration) -> Result<usize, Failure> {
    let claims = api
        .list(&Target::all(kind_named("persistentvolumeclaim")?, None), "")
        .await?;
    delete_each(api, "persistentvolumeclaim", &claims, limit).await?;
    // Volumes whose class says Retain outlive their claims; here their owner asked for them too.
    let volumes = api
        .list(&Target::all(kind_named("persistentvolume")?, None), "")
        .await?;
    delete_each(api, "persistentvolume", &volumes, limit).await?;
    Ok(claims.len())
}

async fn delete_each(
    api: &Api,
    kind: &str,
    objects: &[Value],
    limit: Duration,
) -> Result<(), Failure> {
    let mut gone = Vec::new();
    for object in objects {
        let namespace = text(object, "/metadata/namespace");
        let target =
            Target::all(kind_named(kind)?, Some(namespace)).named(text(object, "/metadata/name"));
        // What its claim took along meanwhile needs no more.
        if let Some(uid) = delete::delete(api, &target, Cascade::Background).await? {
            gone.push((target, uid));
        }
    }
    for (target, uid) in gone {
        delete::wait_gone(api, &target, &uid, limit).await?;
    }
    Ok(())
}
