//! `stead shim` without the rest of `stead`: the program that this crate's tests start as shim.

use std::process::ExitCode;

fn main() -> ExitCode {
    // As in the product, the word `shim` comes first.
    stead_node::shim_main(std::env::args_os().skip(2))
}
