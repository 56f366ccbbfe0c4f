//! Gatepost's authority on the LAN: holds the mail, the accounts, the keys, the outbound queue and every
//! decision that can wait.
//!
//! Order, imports point downwards only: cli, run, administration and pickup, submission, router, delivery and edges, queue,
//! accounts, feedback, signing and unseal, database, assembly, message. What edges and the queue bring for the router leaves them as
//! events; [`run`] gives it to who serves it.

pub mod accounts;
pub mod administration;
pub mod assembly;
pub mod cli;
pub mod config;
pub mod counts;
pub mod database;
pub mod delivery;
pub mod doctor;
pub mod edges;
pub mod feedback;
pub mod imap;
pub mod mailbox;
pub mod message;
pub mod metrics;
pub mod pickup;
pub mod policy;
pub mod publishing;
pub mod queue;
pub mod records;
pub mod reporting;
pub mod router;
pub mod run;
pub mod signing;
pub mod submission;
pub mod trace;
pub mod troubles;
pub mod unseal;
