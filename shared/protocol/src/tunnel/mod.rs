//! The tunnel's language: frames, hello, heartbeats, transfers, and one file a verb.
//!
//! Encodings are pinned by golden bytes (`tests/golden/`). Records are postcard: enum variants and
//! fields are only ever appended. Knows nothing of SMTP and of sealing.

pub mod findings;
pub mod frame;
pub mod heartbeat;
pub mod hello;
pub mod transfer;
pub mod transport;
pub mod verb;
pub mod wire;
