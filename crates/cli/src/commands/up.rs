//! `stead up`: starts Stead here, or finds the one that runs, applies the files, and shows every ordinal coming up.

use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use stead_cluster::{Cluster, Options, StopEvent};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{Api, Target, get, kind_named};
use crate::args::{Tier, Up};
use crate::commands::{apply, status};
use crate::failure::Failure;
use crate::live::Live;
use crate::manifest::{self, Manifest};
use crate::picture::SetPicture;
use crate::place::Place;

/// How long a daemon that holds the folder may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// Everything is read and checked before anything starts.
pub(crate) async fn run(args: Up, place: &Place) -> Result<ExitCode, Failure> {
    let manifests = manifest::read(&args.filename, "default")?;
    if !args.daemon && is_running(place).await? {
        return apply_to_running(&args, &manifests, place).await;
    }
    if args.detach {
        start_detached(&args, place).await?;
        return apply_to_running(&args, &manifests, place).await;
    }
    run_here(&args, &manifests, place).await
}

/// Whether the Stead that holds the folder answers. One that is just ending lets go of the folder: then there is none.
async fn is_running(place: &Place) -> Result<bool, Failure> {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while let Some(pid) = place.holder() {
        let answered = match place.connect().await {
            Ok(api) => api.client.apiserver_version().await.map(drop).map_err(|error| {
                Failure::caused(&format!("process {pid} holds {} and does not answer; if it does not end by itself, end it", place.dir.display()), &error)
            }),
            Err(failure) => Err(failure),
        };
        match answered {
            Ok(()) => return Ok(true),
            Err(failure) if began.elapsed() > ANSWERS_WITHIN => return Err(failure),
            Err(_) => tick.tick().await,
        };
    }
    Ok(false)
}

/// There is a Stead on this folder: it gets the files.
async fn apply_to_running(
    args: &Up,
    manifests: &[Manifest],
    place: &Place,
) -> Result<ExitCode, Failure> {
    let api = place.connect().await?;
    let mut live = Live::new();
    if let Ok(about) = place.about() {
        live.say(&format!(
            "stead runs on {}: {}",
            place.dir.display(),
            crate::picture::text(&about, "/tier")
        ));
    }
    apply_all(&api, manifests, &mut live).await?;
    if args.wait {
        watch_until_ready(&api, manifests, &mut live, args.timeout).await?;
    }
    tell_next(manifests, place, &mut live);
    Ok(ExitCode::SUCCESS)
}

/// Stead runs in this process until it is told to end.
async fn run_here(args: &Up, manifests: &[Manifest], place: &Place) -> Result<ExitCode, Failure> {
    place.create()?;
    let mut interrupts = Interrupts::catch()?;
    let cluster = Cluster::start(options(args, place, true)?).await;
    let cluster = cluster.map_err(|error| Failure::caused("could not start", &error))?;
    let mut live = Live::new();
    live.say(&cluster.about().tier_sentence);
    let api = Api {
        client: cluster.client(),
    };
    let shown = async {
        apply_all(&api, manifests, &mut live).await?;
        if !args.daemon {
            watch_until_ready(&api, manifests, &mut live, args.timeout).await?;
            tell_next(manifests, place, &mut live);
            live.say("Ctrl-C stops everything in reverse order; the data stays.");
        }
        Ok::<(), Failure>(())
    };
    let end = tokio::select! {
        end = interrupts.next() => Some(end),
        shown = shown => { shown.or_else(|failure| tolerate(args, failure))?; None }
    };
    let end = match end {
        Some(end) => end,
        None => interrupts.next().await,
    };
    finish(cluster, end, &mut interrupts).await;
    Ok(ExitCode::SUCCESS)
}

/// A set that is not ready in time is no reason to end the cluster, unless the caller waits for just that.
fn tolerate(args: &Up, failure: Failure) -> Result<(), Failure> {
    if args.wait {
        return Err(failure);
    }
    failure.report();
    Ok(())
}

/// Ctrl-C stops the pods too; a service's stop leaves them running. A second Ctrl-C leaves what still runs.
async fn finish(cluster: Cluster, end: End, interrupts: &mut Interrupts) {
    if end == End::Interrupted {
        let tell = |event: StopEvent| println!("{event}");
        tokio::select! {
            () = cluster.stop_pods(tell) => {}
            _ = interrupts.next() => println!("not waiting for the rest"),
        }
    }
    cluster.shutdown().await;
}

/// The options of the cluster that these arguments ask for.
pub(crate) fn options(args: &Up, place: &Place, workloads: bool) -> Result<Options, Failure> {
    let shim = std::env::current_exe()
        .map_err(|source| Failure::system("find the stead binary itself", source))?;
    Ok(Options {
        data_dir: place.dir.clone(),
        listen: args.listen,
        tier: args.tier.map(|tier| match tier {
            Tier::Containers => stead_node::runtime::Tier::Containers,
            Tier::Rootless => stead_node::runtime::Tier::Rootless,
            Tier::Processes => stead_node::runtime::Tier::Processes,
        }),
        shim,
        log: stead_node::runtime::LogLimits {
            max_bytes: args.container_log_max_size,
            max_files: args.container_log_max_files,
        },
        workloads,
        service_range: args.service_cidr.clone(),
        pod_range: args.pod_cidr.clone(),
        ..Options::default()
    })
}

/// Starts this binary once more, in a session of its own, and waits until it answers or ends.
async fn start_detached(args: &Up, place: &Place) -> Result<(), Failure> {
    place.create()?;
    let log = std::fs::File::create(place.daemon_log()).map_err(|source| {
        Failure::system(&format!("write {}", place.daemon_log().display()), source)
    })?;
    let errors = log
        .try_clone()
        .map_err(|source| Failure::system("share the daemon's log", source))?;
    let exe = std::env::current_exe()
        .map_err(|source| Failure::system("find the stead binary itself", source))?;
    let mut command = tokio::process::Command::new(exe);
    command.arg("--data-dir").arg(&place.dir).args([
        "up",
        "--daemon",
        "--listen",
        &args.listen.to_string(),
        "--container-log-max-size",
        &args.container_log_max_size.to_string(),
        "--container-log-max-files",
        &args.container_log_max_files.to_string(),
    ]);
    if let Some(tier) = args.tier {
        use clap::ValueEnum;
        command.args(
            tier.to_possible_value()
                .map(|value| format!("--tier={}", value.get_name())),
        );
    }
    let ranges = [
        ("--service-cidr", &args.service_cidr),
        ("--pod-cidr", &args.pod_cidr),
    ];
    for (flag, range) in ranges {
        command.args(range.iter().map(|range| format!("{flag}={range}")));
    }
    // Its own process group: Ctrl-C in this terminal is not meant for it.
    command
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    let mut daemon = command
        .spawn()
        .map_err(|source| Failure::system("start the daemon", source))?;
    wait_for_daemon(&mut daemon, place).await
}

async fn wait_for_daemon(daemon: &mut tokio::process::Child, place: &Place) -> Result<(), Failure> {
    let pid = daemon.id();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            ended = daemon.wait() => {
                let said = std::fs::read_to_string(place.daemon_log()).unwrap_or_default();
                let code = ended.map(|status| status.to_string()).unwrap_or_default();
                return Err(Failure::failed(format!("the daemon ended at once ({code}): {}", said.trim())));
            }
            _ = tick.tick() => {
                let ready = place.about().ok().and_then(|about| about["pid"].as_u64());
                if ready.is_some() && ready == pid.map(u64::from) {
                    return Ok(());
                }
            }
        }
    }
}

async fn apply_all(api: &Api, manifests: &[Manifest], live: &mut Live) -> Result<(), Failure> {
    for manifest in manifests {
        let applied = apply::one(api, manifest, false).await?;
        live.say(&format!("{} {}", manifest.target.display(), applied.how));
    }
    Ok(())
}

/// Shows the sets of the files until each is ready.
async fn watch_until_ready(
    api: &Api,
    manifests: &[Manifest],
    live: &mut Live,
    limit: Duration,
) -> Result<(), Failure> {
    let wanted: Vec<(String, String)> = manifests
        .iter()
        .filter(|manifest| manifest.target.kind.kind == "StatefulSet")
        .filter_map(|manifest| {
            Some((
                manifest.target.namespace.clone()?,
                manifest.target.name.clone()?,
            ))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut last = Vec::new();
    let watching = show_until_ready(api, &wanted, live, &mut last);
    match tokio::time::timeout(limit, watching).await {
        Ok(done) => done,
        Err(_) => Err(Failure::timeout(not_ready(&last, limit))),
    }
}

async fn show_until_ready(
    api: &Api,
    wanted: &[(String, String)],
    live: &mut Live,
    last: &mut Vec<SetPicture>,
) -> Result<(), Failure> {
    let mut changes = changes(api).await?;
    loop {
        let mut sets = status::pictures(api, None).await?;
        sets.retain(|set| wanted.contains(&(set.namespace.clone(), set.name.clone())));
        live.show(&sets, Instant::now());
        let complete = sets.len() == wanted.len() && sets.iter().all(SetPicture::is_complete);
        *last = sets;
        if complete {
            return Ok(());
        }
        if changes.next().await.is_none() {
            changes = self::changes(api).await?;
        }
    }
}

/// Something about pods, sets or claims changed; ends when a watch does.
async fn changes(api: &Api) -> Result<BoxStream<'static, ()>, Failure> {
    let mut streams = Vec::new();
    for kind in ["pod", "statefulset", "persistentvolumeclaim"] {
        let path = Target::all(kind_named(kind)?, None).path() + "?watch=true";
        let events = api.client.request_events::<Value>(get(path)?).await;
        let events =
            events.map_err(|error| Failure::caused(&format!("could not watch {kind}s"), &error))?;
        streams.push(events.map(|_| ()).boxed());
    }
    Ok(futures::stream::select_all(streams)
        .ready_chunks(256)
        .map(|_| ())
        .boxed())
}

fn not_ready(sets: &[SetPicture], limit: Duration) -> String {
    let mut text = format!("not ready after {} s", limit.as_secs());
    for set in sets.iter().filter(|set| !set.is_complete()) {
        text += &format!(
            "; {}/{} has {} of {} ready",
            set.namespace, set.name, set.ready, set.wanted
        );
        let why = set.ordinals.iter().find_map(|ordinal| {
            Some(format!(
                ": {} is {}",
                ordinal.pod,
                ordinal.because.as_ref()?
            ))
        });
        text += &why
            .or_else(|| set.waits_for.first().map(|why| format!(": {why}")))
            .unwrap_or_default();
    }
    text + "; it goes on, `stead status` shows how"
}

/// What to look at next.
fn tell_next(manifests: &[Manifest], place: &Place, live: &mut Live) {
    let set = manifests
        .iter()
        .find(|manifest| manifest.target.kind.kind == "StatefulSet");
    let data_dir = match place.is_default() {
        true => String::new(),
        false => format!(" --data-dir {}", place.dir.display()),
    };
    live.say("\nnext:");
    live.say(&format!("  stead{data_dir} status"));
    if let Some(name) = set.and_then(|set| set.target.name.as_ref()) {
        live.say(&format!("  stead{data_dir} logs {name}-0"));
        live.say(&format!("  stead{data_dir} scale {name} --replicas 5"));
    }
    live.say(&format!(
        "  KUBECONFIG={} kubectl get all",
        place.kubeconfig().display()
    ));
    live.say(&format!("  stead{data_dir} down"));
}

/// How the daemon was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Ctrl-C or `stead down`: the pods stop too.
    Interrupted,
    /// SIGTERM, as from a service manager: the pods go on.
    Terminated,
}

/// The signals that end a daemon, caught from the first moment on.
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Starts to catch them.
    pub(crate) fn catch() -> Result<Interrupts, Failure> {
        let catch = |kind| signal(kind).map_err(|source| Failure::system("catch signals", source));
        Ok(Interrupts {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) -> End {
        tokio::select! {
            _ = self.interrupt.recv() => End::Interrupted,
            _ = self.terminate.recv() => End::Terminated,
        }
    }
}
