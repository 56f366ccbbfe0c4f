//! The edge's library with everything real but the home: the other end of the tunnel is played
//! here, so that it can be silent, break off, or ask for what it may not.

mod client;
mod commands;
mod edge;
mod home;
mod log;

mod admission;
mod alarm;
mod handover;
mod pairing;
mod relay;
mod relay_by_mx;
mod reload;
mod reuse;
mod spool;
mod submission;
