//! What the product promises: the pair on one machine, the world around it, real peers, faults, benches.
//!
//! - [`pair`]: builds, starts, watches, kills and restarts edge and home; `cargo pair` is a thin layer over it
//! - [`world`]: embedded DNS, a private CA, a sink for outbound mail, test messages
//! - [`client`]: an SMTP client that can misbehave, a load generator
//! - [`peers`]: real programs at the other end
//! - [`fault`]: what breaks between and around the programs
//! - [`observe`]: waiting for a state
//! - [`mod@bench`]: the pair beside the stack people run today

#![expect(missing_debug_implementations, reason = "processes and connections have nothing to show")]

pub mod bench;
pub mod client;
pub mod fault;
pub mod observe;
pub mod pair;
pub mod peers;
pub mod world;
