//! Storing mail where its owner reads it. [`maildir`] is the truth for mail; [`lmtp`] is for who has a
//! server of his own instead; [`workers`] are the threads that wait for the disk.

pub mod config;
pub mod lmtp;
pub mod maildir;
pub mod workers;
