//! `gatepost-home`: parse, call.

use std::process::ExitCode;

use clap::Parser;
use gatepost_home::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().perform()
}
