//! `gatepost-edge`: parse, call.

use std::process::ExitCode;

use gatepost_edge::cli::Cli;

fn main() -> ExitCode {
    // Libraries below may ask for the process's provider; it fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Cli::perform_called()
}
