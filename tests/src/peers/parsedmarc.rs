//! parsedmarc, by which owners of domains read what receivers report to them.

use serde_json::Value;

use super::{judged, note};

/// All it reads in a message that carries a report; an error if there is none that it accepts.
pub fn read(message: &[u8]) -> anyhow::Result<Value> {
    note("parsedmarc");
    Ok(serde_json::from_slice(&judged(include_str!("parsedmarc.py"), std::iter::empty(), message)?)?)
}
