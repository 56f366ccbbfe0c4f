//! The gate: accepts mail for homes behind it, hands it over or seals it, sends theirs into the
//! world, and keeps nothing readable.
//!
//! Order, imports point downwards only: `cli > run, status > listeners > session, web > policy,
//! handover, relay, pairing, local > spool, bans, admission > homes > config`. What a home asks for leaves [`homes`] as an event;
//! [`run`] gives it to who serves it.

pub mod admission;
pub mod alarm;
pub mod bans;
pub mod cli;
pub mod config;
pub mod examination;
pub mod handover;
pub mod homes;
pub mod journal;
pub mod listeners;
pub mod local;
pub mod pairing;
pub mod policy;
pub mod relay;
pub mod run;
pub mod session;
pub mod splice;
pub mod spool;
pub mod status;
pub mod web;
