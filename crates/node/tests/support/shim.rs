//! `stead shim` without the rest of `stead`: the program that this crate's tests start as shim.
//!
//! It also speaks and listens for them, on machines that have no program for it: `answer ADDRESS TEXT` tells everyone
//! who connects the text, `ask ADDRESS` prints what it is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [_, "answer", address, text] => told(answer(address, text)),
        [_, "ask", address] => told(ask(address)),
        // As in the product, the word `shim` comes first.
        _ => stead_node::shim_main(std::env::args_os().skip(2)),
    }
}

fn answer(address: &str, text: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening");
    for stream in listener.incoming() {
        stream?.write_all(text.as_bytes())?;
    }
    Ok(())
}

fn ask(address: &str) -> std::io::Result<()> {
    let address = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    println!("{text}");
    Ok(())
}

fn told(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
