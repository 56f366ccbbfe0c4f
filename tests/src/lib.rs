//! What the product promises: the pair on one machine, the world around it, and real peers.

pub mod bench;
