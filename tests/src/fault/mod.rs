//! What can go wrong between and around the programs.

pub mod proxy;
