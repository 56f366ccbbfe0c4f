//! `gatepost-home`: parse, call.

use std::process::ExitCode;

use gatepost_home::cli::Cli;

fn main() -> ExitCode {
    Cli::perform_called()
}
