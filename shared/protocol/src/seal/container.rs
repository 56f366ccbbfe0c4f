//! What a sealed message looks like on disk and on its way home.
//!
//! ```text
//! header: "GPSEAL" | version, 1 octet | suite, 1 octet | transfer id, 16 | sealed at, unix seconds, 8 big-endian
//!         | hash of the home's public key, 32 (SHA-256) | length of encapsulated key, 2 | encapsulated key
//! chunk:  length of ciphertext, 4 big-endian | ciphertext (AAD "more", or "last" for the last one)
//! ```
//! The whole header in front of the encapsulated key is bound as HPKE `info`, so that truncation,
//! reordering and swapping of anything is noticed.
