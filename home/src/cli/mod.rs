//! One file a command.

pub mod queue;
