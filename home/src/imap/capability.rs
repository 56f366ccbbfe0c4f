//! What is offered, and which commands belong to what. Nothing is offered that does not work entirely.

use gatepost_protocol::sasl::Mechanism;
use imap_types::command::CommandBody;

/// Before a login.
const BEFORE: [&str; 4] = ["IMAP4rev1", "SASL-IR", "LITERAL+", "ID"];
/// After one.
const AFTER: [&str; 10] =
    ["IMAP4rev1", "LITERAL+", "ID", "NAMESPACE", "CHILDREN", "IDLE", "MOVE", "SPECIAL-USE", "UIDPLUS", "UNSELECT"];

/// The commands there are, by their first words.
const VERBS: [&str; 37] = [
    "APPEND",
    "AUTHENTICATE",
    "CAPABILITY",
    "CHECK",
    "CLOSE",
    "COPY",
    "CREATE",
    "DELETE",
    "ENABLE",
    "EXAMINE",
    "EXPUNGE",
    "FETCH",
    "ID",
    "IDLE",
    "LIST",
    "LOGIN",
    "LOGOUT",
    "LSUB",
    "MOVE",
    "NAMESPACE",
    "NOOP",
    "RENAME",
    "SEARCH",
    "SELECT",
    "SORT",
    "STATUS",
    "STORE",
    "SUBSCRIBE",
    "THREAD",
    "UID",
    "UNSELECT",
    "UNSUBSCRIBE",
    "GETQUOTA",
    "GETQUOTAROOT",
    "GETMETADATA",
    "SETMETADATA",
    "COMPRESS",
];

/// The capabilities, in one line.
pub fn list(logged_in: bool, mechanisms: impl Iterator<Item = Mechanism>) -> String {
    if logged_in {
        return AFTER.join(" ");
    }
    let mut words = BEFORE.join(" ");
    for mechanism in mechanisms {
        words.push_str(" AUTH=");
        words.push_str(mechanism.name());
    }
    words
}

/// Whether this is a verb at all.
pub fn is_verb(verb: &str) -> bool {
    VERBS.contains(&verb)
}

/// Commands of an open mailbox (RFC 9051 §6.4).
pub fn needs_mailbox(body: &CommandBody<'_>) -> bool {
    matches!(
        body,
        CommandBody::Check
            | CommandBody::Close
            | CommandBody::Unselect
            | CommandBody::Expunge
            | CommandBody::ExpungeUid { .. }
            | CommandBody::Search { .. }
            | CommandBody::Sort { .. }
            | CommandBody::Thread { .. }
            | CommandBody::Fetch { .. }
            | CommandBody::Store { .. }
            | CommandBody::Copy { .. }
            | CommandBody::Move { .. }
    )
}
