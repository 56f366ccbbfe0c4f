//! The fuzz crate: what `bin/` needs of the targets.

#[cfg(feature = "programs")]
mod programs;
mod targets;

#[cfg(feature = "programs")]
pub use programs::{
    attempts_journal, clients, drop_letter, event_segment, imap_session, message_structure, metrics_page, queue_entry, queue_trailer,
};
pub use targets::*;
