//! How long until the API answers, and until three ordered replicas are Ready, beside the same three programs started bare.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::daemon::Daemon;
use super::figure;

const RUNS: usize = 5;

/// Prints the medians of some runs.
pub(super) fn run(stead: &Path) -> Result<(), String> {
    let root = crate::root();
    let example = root.join("examples/first.yaml");
    let example = example.to_string_lossy();
    let mut api = Vec::new();
    let mut ready = Vec::new();
    let mut shims = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..RUNS {
        let mut daemon = Daemon::start(stead, &["apiserver", "--listen", "127.0.0.1:0"])?;
        api.push(daemon.until("kubeconfig")?);
        drop(daemon);
        let mut daemon = Daemon::start(stead, &["up", "--listen", "127.0.0.1:0", "-f", &example])?;
        ready.push(daemon.until("next:")?);
        drop(daemon);
        shims.push(super::shims::three(stead)?);
        bare.push(three_bare_programs()?);
    }
    let (api, ready) = (median(&mut api), median(&mut ready));
    let (shims, bare) = (median(&mut shims), median(&mut bare));
    figure("API alone: start to answering", &seconds(api), "goal 0.2 s");
    figure(
        "up: nothing to three ordered Ready",
        &seconds(ready),
        &format!(
            "{:.1} x three bare shims, {:.1} x three bare programs",
            ratio(ready, shims),
            ratio(ready, bare)
        ),
    );
    figure(
        "three bare shims, one after another",
        &seconds(shims),
        "containers of the same tier with no cluster round them",
    );
    figure(
        "three bare programs, one after another",
        &seconds(bare),
        "the same shell commands with no Stead",
    );
    Ok(())
}

/// What the example's program does until it is ready, three times, with nothing round it.
fn three_bare_programs() -> Result<Duration, String> {
    let folder =
        tempfile::tempdir().map_err(|error| format!("could not make a folder: {error}"))?;
    let script = "echo \"$(date -u +%Y-%m-%dT%H:%M:%SZ) start\" >> ledger; touch ready; echo \"$(wc -l < ledger)\"; test -f ready";
    let began = Instant::now();
    for _ in 0..3 {
        let done = Command::new("/bin/sh")
            .args(["-eu", "-c", script])
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .status();
        if !done.is_ok_and(|status| status.success()) {
            return Err("the bare program failed".to_owned());
        }
    }
    Ok(began.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}

fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
