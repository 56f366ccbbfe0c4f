//! Gatepost's authority on the LAN.

pub mod accounts;
pub mod assembly;
pub mod cli;
pub mod config;
pub mod database;
pub mod delivery;
pub mod edges;
pub mod message;
pub mod queue;
pub mod router;
pub mod submission;
pub mod unseal;
