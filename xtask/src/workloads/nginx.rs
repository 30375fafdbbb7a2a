//! nginx: three servers behind one Service; every accepted upload must stay where it was accepted, and nobody be refused.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Story;
use super::http::{Client, Failed};
use super::load::{Break, Load};
use super::place::{Place, until};

const SET: &str = "nginx";
const WRITERS: usize = 4;
/// Uploads that must be accepted at least.
const UPLOADS: u64 = 5_000;

/// What the uploads saw.
struct Seen {
    /// The ordinal that accepted each of a writer's uploads.
    accepted: Vec<Mutex<Vec<String>>>,
    /// Requests that nobody took.
    refused: AtomicU64,
    /// Requests that were cut off or answered with an error.
    failed: Mutex<Vec<String>>,
}

pub(super) fn run(place: &Place) -> Result<Story, String> {
    place.up("nginx.yaml")?;
    let service = place.get("service", SET)?;
    let address = service["spec"]["clusterIP"]
        .as_str()
        .ok_or("the Service nginx has no address")?
        .to_owned();
    let load = Load::new(WRITERS);
    let seen = Seen {
        accepted: (0..WRITERS).map(|_| Mutex::default()).collect(),
        refused: AtomicU64::new(0),
        failed: Mutex::default(),
    };
    let broken = load.run(
        place,
        SET,
        UPLOADS,
        |writer| upload(&address, &load, &seen, writer),
        &breaks(place),
    )?;
    let refused = seen.refused.load(Ordering::SeqCst);
    let failed = seen
        .failed
        .lock()
        .map_err(|error| error.to_string())?
        .clone();
    if refused > 0 || !failed.is_empty() {
        return Err(format!(
            "{refused} requests were refused and {} failed, the first: {:?}",
            failed.len(),
            failed.first()
        ));
    }
    all_uploads_are_there(place, &seen)?;
    Ok(Story {
        broken,
        held: vec![format!(
            "{} uploads accepted, each readable from its ordinal; no request refused, none failed",
            load.total()
        )],
    })
}

fn breaks(place: &Place) -> Vec<Break<'_>> {
    let scale = |replicas| move || place.run(&["scale", SET, "--replicas", replicas]).map(drop);
    vec![
        (
            "a server is deleted",
            Box::new(|| place.delete_pod("nginx-1")),
        ),
        ("a new template", Box::new(|| place.roll("nginx.yaml", SET))),
        ("scaled from 3 to 1", Box::new(scale("1"))),
        ("scaled from 1 to 3", Box::new(scale("3"))),
        (
            "kill -9 of the daemon",
            Box::new(|| place.kill_daemon_alone(SET, 3)),
        ),
    ]
}

/// Uploads until it is over, through the Service's address.
fn upload(address: &str, load: &Load, seen: &Seen, writer: usize) {
    let Ok(client) = Client::new() else { return };
    while !load.is_over() {
        let number = load.next(writer);
        let url = format!("http://{address}/uploads/{writer}-{number}");
        match client.send("PUT", &url, content(writer, number).as_bytes()) {
            Ok(answer) if answer.status == 201 => {
                let ordinal = answer.ordinal.unwrap_or_default();
                if let Ok(mut accepted) = seen.accepted[writer].lock() {
                    accepted.push(ordinal);
                }
                load.acknowledge(writer);
            }
            Ok(answer) => note(seen, load, format!("{url}: {}", answer.status)),
            Err(Failed::Refused) => {
                seen.refused.fetch_add(1, Ordering::SeqCst);
                load.interrupt();
            }
            Err(Failed::Other(error)) => note(seen, load, error),
        }
    }
}

fn note(seen: &Seen, load: &Load, what: String) {
    load.interrupt();
    if let Ok(mut failed) = seen.failed.lock() {
        failed.push(what);
    }
}

fn all_uploads_are_there(place: &Place, seen: &Seen) -> Result<(), String> {
    let client = Client::new()?;
    let addresses: Vec<String> = (0..3)
        .map(|ordinal| {
            let pod = format!("{SET}-{ordinal}");
            until(&format!("{pod} has an address"), || {
                place.address(&pod).is_some()
            })?;
            place.address(&pod).ok_or(format!("{pod} has no address"))
        })
        .collect::<Result<_, _>>()?;
    for (writer, accepted) in seen.accepted.iter().enumerate() {
        let accepted = accepted.lock().map_err(|error| error.to_string())?;
        for (number, pod) in (0..).zip(accepted.iter()) {
            let address = pod
                .strip_prefix("nginx-")
                .and_then(|ordinal| ordinal.parse::<usize>().ok())
                .and_then(|ordinal| addresses.get(ordinal))
                .ok_or_else(|| format!("upload {writer}-{number} was accepted by {pod:?}"))?;
            let url = format!("http://{address}:8080/uploads/{writer}-{number}");
            let answer = client
                .send("GET", &url, b"")
                .map_err(|error| format!("{url}: {error:?}"))?;
            if answer.status != 200 || answer.body != content(writer, number).as_bytes() {
                return Err(format!(
                    "{url} of {pod} was accepted and answers {}",
                    answer.status
                ));
            }
        }
    }
    Ok(())
}

fn content(writer: usize, number: u64) -> String {
    format!("upload {number} of writer {writer}\n").repeat(50)
}
