//! Mail sealed to the home's public key: HPKE (RFC 9180) with X-Wing (X25519 and ML-KEM-768),
//! HKDF-SHA256, AES-256-GCM. Only sealing is here; opening lives in the home, outside every crate
//! the edge links.
//!
//! What is sealed is the same sequence of frames that would have gone through the tunnel: the
//! request (`Inbound` or `Submission`), data, and the transfer's end.
//!
//! * To seal: [`writer::Sealer::new`] gives the header and a sealer; [`writer::Sealer::seal`] appends
//!   whole chunks to a buffer, [`writer::Sealer::finish`] appends the last one.
//! * To read: [`container::Reader`] cuts what arrives into the header and chunks, bounded; whoever has
//!   the private key opens them with [`container::Header::info`] and [`container::Chunk::aad`].

pub mod container;
pub mod writer;

/// The trait a source of randomness has to offer to seal.
pub use hpke::rand_core;
