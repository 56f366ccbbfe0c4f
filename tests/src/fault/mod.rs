//! What can go wrong between and around the programs, and how to watch them in it.

pub mod crash_point;
pub mod lying_dns;
pub mod lying_edge;
pub mod lying_lmtp;
pub mod namespace;
pub mod network;
pub mod proxy;
pub mod skewed_clock;
pub mod small_disk;
pub mod strace;
