//! What benches are made of: a load generator, the stack people run today, a bare loop of durable
//! writes, an account of what processes use, and the table of it all.

pub mod bare;
pub mod chain;
pub mod check;
pub mod drain;
pub mod judged;
pub mod load;
pub mod outbound;
pub mod pair;
pub mod queue;
pub mod signed;
pub mod subject;
pub mod table;
pub mod usage;
