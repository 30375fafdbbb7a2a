//! PostgreSQL: one primary, two standbys; every row whose insert was acknowledged must be on all three.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::Story;
use super::load::{Break, Load};
use super::place::{Place, example_with, until};

const SET: &str = "postgresql";
const EXAMPLE: &str = "postgresql.yaml";
const WRITERS: usize = 4;
/// Rows that must be acknowledged at least.
const ROWS: u64 = 50_000;
/// A primary that is gone without a word is given up after seconds, not after the system's minutes.
const PATIENCE: &str = "connect_timeout=2 tcp_user_timeout=3000 keepalives_idle=1 keepalives_interval=1 keepalives_count=3";

pub(super) fn run(place: &Place) -> Result<Story, String> {
    let client = client()?;
    place.up(EXAMPLE)?;
    let query = |ordinal: u32, sql: &str| query(place, &client, ordinal, sql);
    query(
        0,
        "CREATE TABLE ledger (writer int, number bigint, at timestamptz DEFAULT now(), PRIMARY KEY (writer, number))",
    )?;
    let load = Load::new(WRITERS);
    let broken = load.run(
        place,
        SET,
        ROWS,
        |writer| write(place, &client, &load, writer),
        &breaks(place),
    )?;
    let rows = all_rows_are_there(&load, &query)?;
    replicas_are_equal(&query)?;
    let size = place.get("pvc", "data-postgresql-0")?["status"]["capacity"]["storage"].clone();
    if size != "2Gi" {
        return Err(format!("the claim was expanded and has {size}"));
    }
    Ok(Story {
        broken,
        held: vec![
            format!(
                "{rows} rows acknowledged, none lost; the writers connected again {} times",
                load.interruptions()
            ),
            "all three replicas hold the same rows".to_owned(),
            "no container was restarted by the daemon's deaths".to_owned(),
        ],
    })
}

fn breaks(place: &Place) -> Vec<Break<'_>> {
    vec![
        (
            "a standby is deleted",
            Box::new(|| place.delete_pod("postgresql-2")),
        ),
        (
            "the primary is deleted",
            Box::new(|| place.delete_pod("postgresql-0")),
        ),
        (
            "kill -9 of a standby",
            Box::new(|| place.kill_container("postgresql-1")),
        ),
        (
            "kill -9 of the primary",
            Box::new(|| place.kill_container("postgresql-0")),
        ),
        (
            "kill -9 of the daemon",
            Box::new(|| place.kill_daemon_alone(SET, 3)),
        ),
        ("scaled from 3 to 1", Box::new(|| scale(place, "1"))),
        ("scaled from 1 to 3", Box::new(|| scale(place, "3"))),
        (
            "a new template above partition 2",
            Box::new(|| roll(place, 2)),
        ),
        ("the partition goes to 0", Box::new(|| roll(place, 0))),
        ("a claim is expanded", Box::new(|| expand(place))),
    ]
}

fn scale(place: &Place, replicas: &str) -> Result<(), String> {
    place.run(&["scale", SET, "--replicas", replicas]).map(drop)
}

/// Another template, rolled out to the ordinals from the partition on.
fn roll(place: &Place, partition: u32) -> Result<(), String> {
    let strategy = format!(
        "  replicas: 3\n  updateStrategy:\n    rollingUpdate:\n      partition: {partition}\n"
    );
    let manifest = example_with(EXAMPLE, "  replicas: 3\n", &strategy)?;
    let labels =
        "      labels:\n        app: postgresql\n    spec:\n      terminationGracePeriodSeconds";
    if manifest.matches(labels).count() != 1 {
        return Err(format!("{EXAMPLE} has another template than this knows"));
    }
    let labelled = labels.replace(
        "app: postgresql\n",
        "app: postgresql\n      annotations:\n        release: second\n",
    );
    place.apply(&manifest.replace(labels, &labelled))?;
    let set = place.get("statefulset", SET)?;
    until("the roll is under way or done", || {
        place.get("statefulset", SET).is_ok_and(|now| {
            now["status"]["observedGeneration"].as_u64() >= set["metadata"]["generation"].as_u64()
        })
    })?;
    place.until_rest(SET)?;
    let updated = place.get("statefulset", SET)?["status"]["updatedReplicas"].clone();
    if updated == 3 - partition {
        Ok(())
    } else {
        Err(format!(
            "partition {partition}, and {updated} replicas are updated"
        ))
    }
}

fn expand(place: &Place) -> Result<(), String> {
    place.apply(
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-postgresql-0}, spec: {resources: {requests: {storage: 2Gi}}}}",
    )?;
    until("the claim has its new size", || {
        place
            .get("pvc", "data-postgresql-0")
            .is_ok_and(|claim| claim["status"]["capacity"]["storage"] == "2Gi")
    })
}

/// Each writer's rows run from 0 to the last acknowledged, without a gap; one more may be there whose answer was lost.
fn all_rows_are_there(
    load: &Load,
    query: &impl Fn(u32, &str) -> Result<String, String>,
) -> Result<u64, String> {
    for writer in 0..WRITERS {
        let promised = load.next(writer);
        let count = query(
            0,
            &format!("SELECT count(*) FROM ledger WHERE writer = {writer} AND number < {promised}"),
        )?;
        if count != promised.to_string() {
            return Err(format!(
                "of writer {writer}'s {promised} acknowledged rows {count} are there"
            ));
        }
    }
    Ok(load.total())
}

fn replicas_are_equal(query: &impl Fn(u32, &str) -> Result<String, String>) -> Result<(), String> {
    let position = query(0, "SELECT pg_current_wal_flush_lsn()")?;
    let sum =
        "SELECT count(*) || ' ' || sum(hashtext(writer || '/' || number || '/' || at)) FROM ledger";
    let primary = query(0, sum)?;
    for ordinal in [1, 2] {
        until(
            &format!("postgresql-{ordinal} has all that was written"),
            || {
                query(
                    ordinal,
                    &format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"),
                )
                .is_ok_and(|answer| answer == "t")
            },
        )?;
        let own = query(ordinal, sum)?;
        if own != primary {
            return Err(format!(
                "postgresql-{ordinal} holds {own}, the primary {primary}"
            ));
        }
    }
    Ok(())
}

/// Writes rows until it is over, each with the next number; a row counts once the database said that it is there.
fn write(place: &Place, client: &PathBuf, load: &Load, writer: usize) {
    while !load.is_over() {
        let Some(address) = place.address("postgresql-0") else {
            continue;
        };
        if let Ok(mut psql) = connect(client, &address) {
            insert(&mut psql, load, writer);
            // It may have ended by itself, and that is why we are here.
            drop(psql.kill());
            drop(psql.wait());
        }
        if !load.is_over() {
            load.interrupt();
        }
    }
}

fn insert(psql: &mut Child, load: &Load, writer: usize) {
    let (Some(mut input), Some(output)) = (psql.stdin.take(), psql.stdout.take()) else {
        return;
    };
    let mut answers = BufReader::new(output).lines();
    while !load.is_over() {
        let number = load.next(writer);
        // Asked again, a row whose answer was lost is there already.
        let sql = format!(
            "INSERT INTO ledger (writer, number) VALUES ({writer}, {number}) ON CONFLICT DO NOTHING;\n"
        );
        if input.write_all(sql.as_bytes()).is_err() {
            return;
        }
        match answers.next() {
            Some(Ok(answer)) if answer.starts_with("INSERT 0 ") => load.acknowledge(writer),
            Some(_) | None => return,
        }
    }
}

/// Asks one replica.
fn query(place: &Place, client: &PathBuf, ordinal: u32, sql: &str) -> Result<String, String> {
    let address = place
        .address(&format!("postgresql-{ordinal}"))
        .ok_or_else(|| format!("postgresql-{ordinal} has no address"))?;
    let output = command(client, &address)
        .args(["--tuples-only", "--no-align", "--command", sql])
        .output()
        .map_err(|error| format!("psql: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!(
            "{sql}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ))
    }
}

fn connect(client: &PathBuf, address: &str) -> std::io::Result<Child> {
    command(client, address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

fn command(client: &PathBuf, address: &str) -> Command {
    let mut command = Command::new(client);
    command
        .args(["--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--dbname"])
        .arg(format!(
            "host={address} user=postgres dbname=postgres {PATIENCE}"
        ))
        .env("PGPASSWORD", "change-me");
    command
}

/// The distribution's psql itself: its wrapper takes longer to start than a query takes.
fn client() -> Result<PathBuf, String> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    versions
        .flatten()
        .map(|version| version.path().join("bin/psql"))
        .find(|path| path.exists())
        .ok_or_else(|| {
            "there is no psql below /usr/lib/postgresql; install the package postgresql".to_owned()
        })
}
