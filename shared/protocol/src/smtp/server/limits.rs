//! Bounds of one SMTP session, each with its unit.

use std::time::Duration;

/// Bounds of one session. The defaults follow RFC 5321 §4.5.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A command line, CRLF included (RFC 5321 §4.5.3.1.4 asks for 512 and more for extensions).
    pub command_octets_max: usize,
    /// A line of a login (RFC 4954 §4).
    pub auth_octets_max: usize,
    /// A message, as advertised by SIZE.
    pub message_octets_max: u64,
    /// Recipients of one transaction (RFC 5321 §4.5.3.1.8 asks for at least 100).
    pub recipients_max: usize,
    /// Replies of class 4 and 5 after which the session ends.
    pub errors_max: usize,
    /// Failed logins after which the session ends.
    pub login_failures_max: usize,
    /// Transactions of one session.
    pub transactions_max: usize,
    /// Commands of one session that move no mail forward (NOOP, RSET, HELP…).
    pub idle_commands_max: usize,
    /// Waiting for a command (RFC 5321 §4.5.3.2.7).
    pub command_wait_max: Duration,
    /// Waiting for the next bytes of a message (RFC 5321 §4.5.3.2.5).
    pub data_wait_max: Duration,
    /// A whole session.
    pub session_max: Duration,
    /// Input held while a question is open: pipelined commands beyond it are not read.
    pub buffer_octets_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_octets_max: 2048,
            auth_octets_max: 12_288,
            message_octets_max: 50 * 1024 * 1024,
            recipients_max: 1000,
            errors_max: 20,
            login_failures_max: 3,
            transactions_max: 10_000,
            idle_commands_max: 200,
            command_wait_max: Duration::from_mins(5),
            data_wait_max: Duration::from_mins(3),
            session_max: Duration::from_hours(6),
            buffer_octets_max: 64 * 1024,
        }
    }
}
