//! What the product promises: the pair on one machine, the world around it, real peers, faults, benches.
//!
//! - [`world`]: embedded DNS, a private CA, a sink for outbound mail, test messages
//! - [`client`]: an SMTP client that can misbehave, a load generator
//! - [`observe`]: waiting for a state
//! - [`bench`]: the pair beside the stack people run today

#![expect(missing_debug_implementations, reason = "processes and connections have nothing to show")]

pub mod bench;
pub mod client;
pub mod observe;
pub mod world;
