//! The doors: each hands its connections on. A handshake is never awaited in an accept loop.

pub mod imaps;
pub mod mail;
pub mod tunnel;
pub mod web;
