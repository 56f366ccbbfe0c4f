//! Records the programs keep on disk.

use std::fmt::Write as _;

use gatepost_home::queue::entry::record;
use serde_json::{Value, json};

/// A queue entry's file: as it is, and with a checksum that fits, so that what is behind it is reached.
pub fn queue_entry(data: &[u8]) {
    let _ = record::decode_file(data);
    let Ok(entry) = serde_json::from_slice::<Value>(data) else { return };
    let compact = serde_json::to_vec(&entry).expect("a value always serialises");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &compact);
    let hexadecimal = digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let file = json!({ "checksum": format!("sha256:{hexadecimal}"), "entry": entry });
    if let Ok(entry) = record::decode_file(file.to_string().as_bytes()) {
        let again = record::decode(&record::encode(&entry)).expect("what was read can be written and read");
        assert_eq!(record::view(&again), record::view(&entry));
    }
}
