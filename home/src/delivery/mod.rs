//! Storing mail where its owner reads it. [`maildir`] is the truth for mail; [`workers`] are the
//! threads that wait for the disk.

pub mod maildir;
pub mod workers;
