//! What benches are made of: a load generator, the stack people run today, a bare loop of durable
//! writes, and an account of what processes use.

pub mod bare;
pub mod chain;
pub mod check;
pub mod load;
pub mod outbound;
pub mod pair;
pub mod queue;
pub mod usage;
