//! The local socket behind `status`, `queue`, `spool`…: a unix socket in the state directory (0600),
//! one JSON request a line, one JSON answer a line.

use std::future::Future;
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use crate::shutdown::Signal;

/// Name of the socket inside the state directory.
pub const SOCKET: &str = "control.sock";
/// Longest request or answer.
pub const LINE_OCTETS_MAX: usize = 64 * 1024 * 1024;

/// Why asking failed.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error("it is not running (no answer at {0})")]
    NotRunning(String),
    /// It answered with an error, for people.
    #[error("{0}")]
    Refused(String),
    /// The socket broke.
    #[error("the running program did not answer: {0}")]
    Broken(#[from] std::io::Error),
}

/// Serves until the end. `handle` gets each request; its `Err` is a text for people.
pub async fn serve<F, Fut>(state: &Path, signal: Signal, handle: F) -> std::io::Result<()>
where
    F: Fn(Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, String>> + Send + 'static,
{
    let _ = (state, signal, handle);
    todo!()
}

/// Asks the program that runs on this state directory.
pub fn ask(state: &Path, request: &Value) -> Result<Value, ControlError> {
    let _ = (state, request);
    todo!()
}
