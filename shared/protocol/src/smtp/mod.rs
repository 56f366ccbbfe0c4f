//! SMTP: bounded lines, commands, bodies, and the two machines.
//!
//! Knows nothing of the tunnel and of sealing.

pub mod body;
pub mod capability;
pub mod client;
pub mod command;
pub mod line;
pub mod server;
mod xtext;
