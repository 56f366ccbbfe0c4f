//! Commands on folders (RFC 9051 §6.3): LIST, LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE. Blocking.

use imap_types::mailbox::{ListMailbox, Mailbox as Written};
use imap_types::status::StatusDataItemName;

use super::answer::Status;
use crate::mailbox::message::string::put_string;
use crate::mailbox::name::{Flags, FolderName, SEPARATOR};
use crate::mailbox::{Listed, Mailbox, MailboxError};

/// The folder that is meant; none if there can't be such a one.
pub(super) fn named(written: &Written<'_>) -> Option<FolderName> {
    match written {
        Written::Inbox => Some(FolderName::inbox()),
        Written::Other(other) => FolderName::parse(std::str::from_utf8(other.as_ref()).ok()?),
    }
}

/// What a client is told when something can't be done.
pub(super) fn refusal(error: &MailboxError) -> Status {
    match error {
        MailboxError::NoSuchFolder => Status::no_code("NONEXISTENT", "There is no such folder"),
        MailboxError::Exists => Status::no_code("ALREADYEXISTS", "There is such a folder already"),
        MailboxError::Cannot(why) => Status::no_code("CANNOT", &format!("This can't be done: {why}")),
        MailboxError::Full => Status::no_code("LIMIT", "The folder has no room for that"),
        error if error.is_full() => Status::no_code("OVERQUOTA", "The disk is full"),
        error => {
            tracing::error!(%error, "a mailbox can't be worked on");
            Status::no_code("SERVERBUG", "The server can't do this now; its log says why")
        }
    }
}

pub(super) fn list(
    mailbox: &Mailbox,
    into: &mut Vec<u8>,
    reference: &Written<'_>,
    pattern: &ListMailbox<'_>,
    subscribed_only: bool,
) -> Result<(), MailboxError> {
    let verb = if subscribed_only { "LSUB" } else { "LIST" };
    let pattern: &[u8] = match pattern {
        ListMailbox::Token(token) => token.as_ref(),
        ListMailbox::String(string) => string.as_ref(),
    };
    if pattern.is_empty() && !subscribed_only {
        into.extend_from_slice(format!("* LIST (\\Noselect) \"{SEPARATOR}\" \"\"\r\n").as_bytes());
        return Ok(());
    }
    let reference: &[u8] = match reference {
        Written::Inbox => b"INBOX",
        Written::Other(other) => other.as_ref(),
    };
    let pattern = [reference, pattern].concat();
    if subscribed_only {
        for name in mailbox.subscriptions()? {
            if matches(&pattern, name.as_str().as_bytes()) {
                put(into, verb, "", &name);
            }
        }
        return Ok(());
    }
    for Listed { name, exists, has_children, special } in mailbox.list()? {
        let is_inbox = name.is_inbox() && matches(&pattern.to_ascii_uppercase(), b"INBOX");
        if !is_inbox && !matches(&pattern, name.as_str().as_bytes()) {
            continue;
        }
        let mut attributes = vec![if has_children { "\\HasChildren" } else { "\\HasNoChildren" }.to_owned()];
        if !exists {
            attributes.push("\\Noselect".to_owned());
        }
        attributes.extend(special.map(crate::mailbox::Use::attribute));
        put(into, verb, &attributes.join(" "), &name);
    }
    Ok(())
}

fn put(into: &mut Vec<u8>, verb: &str, attributes: &str, name: &FolderName) {
    into.extend_from_slice(format!("* {verb} ({attributes}) \"{SEPARATOR}\" ").as_bytes());
    put_string(into, name.as_str().as_bytes());
    into.extend_from_slice(b"\r\n");
}

/// RFC 9051 §6.3.9: `*` is anything, `%` anything within a level. In time at most the product of both lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Which beginnings of the name the pattern so far can have used up.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for octet in pattern {
        match octet {
            b'*' | b'%' => {
                for at in 1..=name.len() {
                    let within = *octet == b'*' || name[at - 1] != SEPARATOR as u8;
                    reached[at] |= within && reached[at - 1];
                }
            }
            octet => {
                for at in (1..=name.len()).rev() {
                    reached[at] = reached[at - 1] && name[at - 1] == *octet;
                }
                reached[0] = false;
            }
        }
    }
    reached[name.len()]
}

pub(super) fn status(
    mailbox: &Mailbox,
    into: &mut Vec<u8>,
    name: &FolderName,
    items: &[StatusDataItemName],
) -> Result<(), MailboxError> {
    let counted = mailbox.see(name, |folder| {
        let count = |of: &dyn Fn(Flags) -> bool| folder.messages.iter().filter(|one| of(one.info.flags)).count() as u64;
        let told = |item: &StatusDataItemName| match item {
            StatusDataItemName::Messages => Some(("MESSAGES", folder.messages.len() as u64)),
            StatusDataItemName::Recent => Some(("RECENT", 0)),
            StatusDataItemName::UidNext => Some(("UIDNEXT", u64::from(folder.numbers.uidnext))),
            StatusDataItemName::UidValidity => Some(("UIDVALIDITY", u64::from(folder.numbers.uidvalidity))),
            StatusDataItemName::Unseen => Some(("UNSEEN", count(&|flags| !flags.has(Flags::SEEN)))),
            StatusDataItemName::Deleted => Some(("DELETED", count(&|flags| flags.has(Flags::DELETED)))),
            StatusDataItemName::HighestModSeq => Some(("HIGHESTMODSEQ", folder.numbers.modseq)),
            StatusDataItemName::DeletedStorage => None,
        };
        items.iter().filter_map(told).map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" ")
    })?;
    into.extend_from_slice(b"* STATUS ");
    put_string(into, name.as_str().as_bytes());
    into.extend_from_slice(format!(" ({counted})\r\n").as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_stays_within_a_level() {
        for (pattern, name, expected) in [
            ("*", "a.b", true),
            ("%", "a.b", false),
            ("%", "a", true),
            ("a.%", "a.b", true),
            ("a.%", "a.b.c", false),
            ("a*c", "a.b.c", true),
            ("%.%", "a.b", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*a*b*", "xaxbx", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
        assert!(!matches("*a".repeat(1000).as_bytes(), &[b'a'; 200]), "in no time");
    }
}
