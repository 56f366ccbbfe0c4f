//! The conventions of the `sendmail` command, which cron, PHP, `mail` and a thousand scripts speak: its
//! arguments, its exit codes, and how text on stdin becomes a message. Pure.

pub mod arguments;
pub mod exit;
pub mod text;
