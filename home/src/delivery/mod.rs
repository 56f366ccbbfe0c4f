//! Storing mail where its owner reads it. [`maildir`] is the truth for mail; [`lmtp`] is for who has a
//! server of their own instead; [`usage`] knows what mailboxes hold; [`workers`] are the threads that wait for the disk.

pub mod config;
pub mod lmtp;
pub mod maildir;
pub mod usage;
pub mod workers;
