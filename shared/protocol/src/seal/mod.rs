//! Mail sealed to the home's public key: HPKE (RFC 9180) with X-Wing (X25519 and ML-KEM-768),
//! HKDF-SHA256, AES-256-GCM. Only sealing is here; opening lives in the home, outside every crate
//! the edge links.
//!
//! What is sealed is the same sequence of frames that would have gone through the tunnel: the
//! request (`Inbound` or `Submission`), data, and the transfer's end.

pub mod container;
pub mod writer;
