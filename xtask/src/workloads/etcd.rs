//! etcd: three members; every put that was acknowledged must be there, and no act of ours may cost the quorum.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Story;
use super::http::Client;
use super::load::{Break, Load};
use super::place::{Place, until};

const SET: &str = "etcd";
const WRITERS: usize = 4;
/// Puts that must be acknowledged at least.
const PUTS: u64 = 5_000;

pub(super) fn run(place: &Place) -> Result<Story, String> {
    place.up("etcd.yaml")?;
    let load = Load::new(WRITERS);
    let broken = load.run(
        place,
        SET,
        PUTS,
        |writer| write(place, &load, writer),
        &breaks(place),
    )?;
    let client = Client::new()?;
    for writer in 0..WRITERS {
        all_puts_are_there(place, &client, writer, load.next(writer))?;
    }
    Ok(Story {
        broken,
        held: vec![format!(
            "{} puts acknowledged, each there; the longest time without one was {:.1} s",
            load.total(),
            load.longest_silence().as_secs_f64()
        )],
    })
}

fn breaks(place: &Place) -> Vec<Break<'_>> {
    vec![
        (
            "a member is deleted",
            Box::new(|| place.delete_pod("etcd-1")),
        ),
        (
            "kill -9 of a member",
            Box::new(|| place.kill_container("etcd-2")),
        ),
        (
            "a member loses its volume",
            Box::new(|| lose_volume(place, "etcd-0")),
        ),
        (
            "kill -9 of the daemon",
            Box::new(|| place.kill_daemon_alone(SET, 3)),
        ),
        ("a new template", Box::new(|| place.roll("etcd.yaml", SET))),
    ]
}

/// Claim and pod go; the member comes back on another volume and joins anew.
fn lose_volume(place: &Place, pod: &str) -> Result<(), String> {
    let claim = format!("data-{pod}");
    let before = place.get("pvc", &claim)?["metadata"]["uid"].clone();
    place.run(&["delete", "pvc", &claim, "--no-wait"])?;
    place.delete_pod(pod)?;
    until(&format!("another {claim} is there"), || {
        place
            .get("pvc", &claim)
            .is_ok_and(|after| after["metadata"]["uid"] != before)
    })
}

/// Puts until it is over, to whichever member answers.
fn write(place: &Place, load: &Load, writer: usize) {
    let Ok(client) = Client::new() else { return };
    let mut member = writer;
    while !load.is_over() {
        let pod = format!("{SET}-{}", member % 3);
        member += 1;
        if let Some(address) = place.address(&pod) {
            while !load.is_over() && put(&client, &address, writer, load.next(writer)).is_some() {
                load.acknowledge(writer);
            }
        }
        if !load.is_over() {
            load.interrupt();
        }
    }
}

fn put(client: &Client, address: &str, writer: usize, number: u64) -> Option<()> {
    let body = json!({"key": STANDARD.encode(key(writer, number)), "value": STANDARD.encode(number.to_string())});
    let url = format!("http://{address}:2379/v3/kv/put");
    let answer = client
        .send("POST", &url, body.to_string().as_bytes())
        .ok()?;
    (answer.status == 200).then_some(())
}

/// Reads a writer's keys in one linearizable range.
fn all_puts_are_there(
    place: &Place,
    client: &Client,
    writer: usize,
    promised: u64,
) -> Result<(), String> {
    let address = place.address("etcd-0").ok_or("etcd-0 has no address")?;
    let range = json!({
        "key": STANDARD.encode(key(writer, 0)),
        "range_end": STANDARD.encode(key(writer, promised)),
        "count_only": true,
    });
    let url = format!("http://{address}:2379/v3/kv/range");
    let answer = client
        .send("POST", &url, range.to_string().as_bytes())
        .map_err(|error| format!("{url}: {error:?}"))?;
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|error| format!("{url}: {error}"))?;
    let count = body["count"].as_str().unwrap_or("0");
    if count == promised.to_string() {
        Ok(())
    } else {
        Err(format!(
            "of writer {writer}'s {promised} acknowledged puts {count} are there"
        ))
    }
}

/// Sorted as numbers are.
fn key(writer: usize, number: u64) -> String {
    format!("{writer}/{number:012}")
}
