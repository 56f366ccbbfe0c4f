//! FETCH (RFC 9051 §6.4.5): what is wanted of which messages, answered some at a time, so that a session holds no more than
//! one message and what was not sent yet. Blocking.

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZeroU32;

use imap_types::fetch::{Macro, MacroOrMessageDataItemNames, MessageDataItemName as Item};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::section;
use super::view::{Numbered, put_flags};
use crate::mailbox::folder::Message;
use crate::mailbox::message::Part;
use crate::mailbox::message::string::put_literal;
use crate::mailbox::name::{Flags, FolderName};
use crate::mailbox::{Change, Mailbox, MailboxError, Words};

/// Octets of responses that are made before they are sent.
const BATCH_OCTETS: usize = 256 * 1024;
/// Messages looked at in one go.
const BATCH_MESSAGES: usize = 500;

/// A FETCH under way.
#[derive(Debug)]
pub(super) struct Fetch {
    folder: FolderName,
    items: Vec<Item<'static>>,
    chosen: Vec<Numbered>,
    at: usize,
    words: Words,
    /// Messages are read, and may be marked so.
    marks_seen: bool,
}

impl Fetch {
    /// Of these messages. Those that are read are marked so, unless the folder is open for reading only.
    pub(super) fn new(
        folder: FolderName,
        wanted: MacroOrMessageDataItemNames<'static>,
        chosen: Vec<Numbered>,
        by_uid: bool,
        read_only: bool,
        words: Words,
    ) -> Self {
        let mut items = expanded(wanted);
        if by_uid && !items.contains(&Item::Uid) {
            items.insert(0, Item::Uid);
        }
        let marks_seen = !read_only && items.iter().any(marks_seen);
        if marks_seen && !items.contains(&Item::Flags) {
            items.push(Item::Flags);
        }
        Self { folder, items, chosen, at: 0, words, marks_seen }
    }

    /// The next responses; true while there are more.
    pub(super) fn go_on(&mut self, mailbox: &Mailbox, into: &mut Vec<u8>) -> Result<bool, MailboxError> {
        let batch = &self.chosen[self.at..(self.at + BATCH_MESSAGES).min(self.chosen.len())];
        let uids: Vec<u32> = batch.iter().map(|one| one.uid).collect();
        if self.marks_seen {
            mailbox.store(&self.folder, &uids, Change::Add, Flags::SEEN, &[], None)?;
        }
        let known: HashMap<u32, Message> = mailbox.recall(&self.folder, |folder| {
            uids.iter().filter_map(|uid| Some((*uid, folder.get(*uid)?.clone()))).collect()
        })?;
        let structures =
            if self.items.iter().any(is_structure) { mailbox.structures(&self.folder, &uids)? } else { HashMap::new() };
        let reads = self.items.iter().any(is_content);
        for Numbered { number, uid } in batch {
            self.at += 1;
            // Gone since the client was told of it: it hears so when numbers may move.
            let Some(message) = known.get(uid) else { continue };
            let structure = structures.get(uid);
            if structure.is_none() && self.items.iter().any(is_structure) {
                continue;
            }
            let content = if reads { mailbox.read(&self.folder, *uid)? } else { None };
            if reads && content.is_none() {
                continue;
            }
            let content = content.map(|octets| (Part::of(&octets), octets));
            into.extend_from_slice(format!("* {number} FETCH (").as_bytes());
            for (place, item) in self.items.iter().enumerate() {
                if place > 0 {
                    into.push(b' ');
                }
                match item {
                    Item::Envelope => put_known(into, "ENVELOPE ", structure.map(|known| &known.envelope)),
                    Item::Body => put_known(into, "BODY ", structure.map(|known| &known.body)),
                    Item::BodyStructure => {
                        put_known(into, "BODYSTRUCTURE ", structure.map(|known| &known.bodystructure));
                    }
                    item => put(into, item, message, content.as_ref(), &self.words),
                }
            }
            into.extend_from_slice(b")\r\n");
            if into.len() >= BATCH_OCTETS {
                break;
            }
        }
        Ok(self.at < self.chosen.len())
    }
}

fn expanded(wanted: MacroOrMessageDataItemNames<'static>) -> Vec<Item<'static>> {
    match wanted {
        MacroOrMessageDataItemNames::MessageDataItemNames(items) => items,
        MacroOrMessageDataItemNames::Macro(of) => {
            let fast = vec![Item::Flags, Item::InternalDate, Item::Rfc822Size];
            match of {
                Macro::All => [fast, vec![Item::Envelope]].concat(),
                Macro::Full => [fast, vec![Item::Envelope, Item::Body]].concat(),
                _ => fast,
            }
        }
    }
}

/// RFC 9051 §6.4.5: these set `\Seen`.
fn marks_seen(item: &Item<'_>) -> bool {
    matches!(item, Item::BodyExt { peek: false, .. } | Item::Rfc822 | Item::Rfc822Text)
}

fn is_structure(item: &Item<'_>) -> bool {
    matches!(item, Item::Envelope | Item::Body | Item::BodyStructure)
}

fn is_content(item: &Item<'_>) -> bool {
    matches!(item, Item::BodyExt { .. } | Item::Rfc822 | Item::Rfc822Header | Item::Rfc822Text)
}

/// Whether every item is one that is answered.
pub(super) fn is_known(wanted: &MacroOrMessageDataItemNames<'_>) -> bool {
    let MacroOrMessageDataItemNames::MessageDataItemNames(items) = wanted else { return true };
    !items.iter().any(|item| matches!(item, Item::Binary { .. } | Item::BinarySize { .. }))
}

fn put_known(into: &mut Vec<u8>, name: &str, known: Option<&Vec<u8>>) {
    into.extend_from_slice(name.as_bytes());
    into.extend_from_slice(known.map_or(b"NIL", Vec::as_slice));
}

fn put(into: &mut Vec<u8>, item: &Item<'_>, message: &Message, content: Option<&(Part, Vec<u8>)>, words: &Words) {
    match item {
        Item::Flags => {
            into.extend_from_slice(b"FLAGS ");
            put_flags(into, message.info, words);
        }
        Item::Uid => into.extend_from_slice(format!("UID {}", message.uid).as_bytes()),
        Item::InternalDate => {
            into.extend_from_slice(format!("INTERNALDATE \"{}\"", internal_date(message.date_s)).as_bytes());
        }
        Item::Rfc822Size => into.extend_from_slice(format!("RFC822.SIZE {}", message.octets).as_bytes()),
        Item::ModSeq => into.extend_from_slice(format!("MODSEQ ({})", message.modseq).as_bytes()),
        Item::BodyExt { section, partial, .. } => {
            let name = section::name(section.as_ref());
            let origin = partial.map_or_else(String::new, |(origin, _)| format!("<{origin}>"));
            into.extend_from_slice(format!("BODY[{name}]{origin} ").as_bytes());
            let found = content.and_then(|(part, octets)| section::octets(octets, part, section.as_ref()));
            put_section(into, found, *partial);
        }
        Item::Rfc822 => {
            into.extend_from_slice(b"RFC822 ");
            put_section(into, content.map(|(_, octets)| Cow::Borrowed(octets.as_slice())), None);
        }
        Item::Rfc822Header => {
            into.extend_from_slice(b"RFC822.HEADER ");
            put_section(into, content.map(|(part, octets)| Cow::Borrowed(&octets[part.header.clone()])), None);
        }
        Item::Rfc822Text => {
            into.extend_from_slice(b"RFC822.TEXT ");
            put_section(into, content.map(|(part, octets)| Cow::Borrowed(&octets[part.body.clone()])), None);
        }
        // Refused before, or written by another hand.
        Item::Binary { .. } | Item::BinarySize { .. } | Item::Envelope | Item::Body | Item::BodyStructure => {}
    }
}

fn put_section(into: &mut Vec<u8>, found: Option<Cow<'_, [u8]>>, partial: Option<(u32, NonZeroU32)>) {
    match found {
        Some(octets) => put_literal(into, section::partial(&octets, partial)),
        None => into.extend_from_slice(b"NIL"),
    }
}

/// RFC 9051 §9 `date-time`, in UTC.
pub(super) fn internal_date(unix_s: i64) -> String {
    let at = Timestamp::from_second(unix_s).unwrap_or_default().to_zoned(TimeZone::UTC);
    at.strftime("%e-%b-%Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_with_a_day_of_two_places() {
        assert_eq!(internal_date(0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(internal_date(1_700_000_000), "14-Nov-2023 22:13:20 +0000");
    }
}
