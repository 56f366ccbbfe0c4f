//! The fuzz crate: what `bin/` needs of the targets.

#[cfg(feature = "programs")]
mod programs;
mod targets;

#[cfg(feature = "programs")]
pub use programs::queue_entry;
pub use targets::*;
