//! What the commands ask the running edge by the control socket.

use serde_json::Value;

use crate::status::Status;

/// One request and its answer; an error is a text for people.
pub(super) fn answer(status: &Status, request: &Value) -> Result<Value, String> {
    match request.get("command").and_then(Value::as_str) {
        Some("status") => Ok(status.json()),
        Some("spool-list") => Ok(status.spool_json()),
        _ => Err("the running edge does not know this command; is it another version?".into()),
    }
}
