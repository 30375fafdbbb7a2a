//! Redis: one primary, two replicas; every write that `WAIT` confirmed on a replica must be on all three.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use super::Story;
use super::load::{Break, Load};
use super::place::{Place, until};

const SET: &str = "redis";
const WRITERS: usize = 4;
/// Writes that must be confirmed at least.
const WRITES: u64 = 20_000;
/// How long a connection may be silent before it is given up.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn run(place: &Place) -> Result<Story, String> {
    place.up("redis.yaml")?;
    let load = Load::new(WRITERS);
    let broken = load.run(
        place,
        SET,
        WRITES,
        |writer| write(place, &load, writer),
        &breaks(place),
    )?;
    for ordinal in 0..3 {
        all_writes_are_there(place, &load, ordinal)?;
    }
    Ok(Story {
        broken,
        held: vec![
            format!(
                "{} writes confirmed by WAIT, each on all three replicas; the writers connected again {} times",
                load.total(),
                load.interruptions()
            ),
            "no container was restarted by the daemon's death".to_owned(),
        ],
    })
}

fn breaks(place: &Place) -> Vec<Break<'_>> {
    let scale = |replicas| move || place.run(&["scale", SET, "--replicas", replicas]).map(drop);
    vec![
        (
            "a replica is deleted",
            Box::new(|| place.delete_pod("redis-2")),
        ),
        (
            "the primary is deleted",
            Box::new(|| place.delete_pod("redis-0")),
        ),
        (
            "kill -9 of a replica",
            Box::new(|| place.kill_container("redis-1")),
        ),
        (
            "kill -9 of the primary",
            Box::new(|| place.kill_container("redis-0")),
        ),
        (
            "kill -9 of the daemon",
            Box::new(|| place.kill_daemon_alone(SET, 3)),
        ),
        ("scaled from 3 to 2", Box::new(scale("2"))),
        ("scaled from 2 to 3", Box::new(scale("3"))),
    ]
}

/// Writes until it is over: a number counts once the primary and a replica both have it.
fn write(place: &Place, load: &Load, writer: usize) {
    while !load.is_over() {
        let connected = place
            .address("redis-0")
            .and_then(|address| Connection::open(&address).ok());
        if let Some(mut redis) = connected {
            // Ends with an error of the connection, or because it is over.
            while !load.is_over() && confirm(&mut redis, writer, load.next(writer)).is_ok() {
                load.acknowledge(writer);
            }
        }
        if !load.is_over() {
            load.interrupt();
        }
    }
}

fn confirm(redis: &mut Connection, writer: usize, number: u64) -> Result<(), String> {
    let key = format!("{writer}/{number}");
    let set = redis.ask(&["SET", &key, &number.to_string()])?;
    let replicas = redis.ask(&["WAIT", "1", "2000"])?;
    if set == "+OK" && replicas != ":0" && replicas.starts_with(':') {
        Ok(())
    } else {
        Err(format!("{key}: {set}, {replicas}"))
    }
}

fn all_writes_are_there(place: &Place, load: &Load, ordinal: u32) -> Result<(), String> {
    let pod = format!("redis-{ordinal}");
    let address = place
        .address(&pod)
        .ok_or_else(|| format!("{pod} has no address"))?;
    let mut redis = Connection::open(&address)?;
    for writer in 0..WRITERS {
        for number in 0..load.next(writer) {
            let key = format!("{writer}/{number}");
            let value = redis.ask(&["GET", &key])?;
            // A replica may be a moment behind with the very last ones.
            if value != number.to_string() {
                let there = || {
                    Connection::open(&address)
                        .and_then(|mut redis| redis.ask(&["GET", &key]))
                        .is_ok_and(|value| value == number.to_string())
                };
                until(&format!("{pod} has {key}, which was acknowledged"), there)?;
            }
        }
    }
    Ok(())
}

/// One connection that speaks Redis' protocol, as far as these commands need it.
struct Connection {
    input: BufReader<TcpStream>,
}

impl Connection {
    fn open(address: &str) -> Result<Connection, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let address_of = format!("{address}:6379")
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or("no address")?;
        let stream = TcpStream::connect_timeout(&address_of, PATIENCE).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Connection {
            input: BufReader::new(stream),
        };
        match connection.ask(&["AUTH", "change-me"])?.as_str() {
            "+OK" => Ok(connection),
            other => Err(format!("{address}: {other}")),
        }
    }

    /// Sends a command; the answer's line, or its bulk text.
    fn ask(&mut self, words: &[&str]) -> Result<String, String> {
        let failed = |error: std::io::Error| format!("{words:?}: {error}");
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.input
            .get_mut()
            .write_all(command.as_bytes())
            .map_err(failed)?;
        let line = self.line().map_err(failed)?;
        match line.strip_prefix('$') {
            Some("-1") | None => Ok(line),
            Some(_) => self.line().map_err(failed),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
