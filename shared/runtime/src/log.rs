//! Logs: one event a line, structured, the trace id always under `trace`. To stderr: readable on a
//! terminal, JSON with `GATEPOST_LOG_FORMAT=json`. Never a password, never a body.

/// Starts logging. `RUST_LOG`-style filter in `GATEPOST_LOG`, default `info`.
pub fn start() {
    todo!()
}
