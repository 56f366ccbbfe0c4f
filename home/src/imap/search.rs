//! SEARCH (RFC 9051 §6.4.4): which messages fit. What the index knows decides first; a message is read only when the words
//! of its header or its body are asked for, and then once. Blocking.

use imap_types::core::Charset;
use imap_types::search::SearchKey as Key;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use mail_parser::{MessageParser, PartType};

use super::view::{Numbered, View};
use crate::mailbox::folder::Message;
use crate::mailbox::message::{field, header_octets};
use crate::mailbox::name::{Flags, FolderName};
use crate::mailbox::{Mailbox, MailboxError, Words};

/// A SEARCH under way.
#[derive(Debug)]
pub(super) struct Search {
    folder: FolderName,
    keys: Vec<Key<'static>>,
    chosen: Vec<Numbered>,
    words: Words,
    at: usize,
    /// What fits.
    pub(super) found: Vec<Numbered>,
}

/// Messages looked at in one go.
const BATCH_MESSAGES: usize = 200;

/// Whether the words are in a charset that is understood.
pub(super) fn is_understood(charset: Option<&Charset<'_>>) -> bool {
    let name = match charset {
        None => return true,
        Some(Charset::Atom(name)) => name.as_ref(),
        Some(Charset::Quoted(name)) => name.as_ref(),
    };
    ["US-ASCII", "UTF-8"].iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Search {
    /// In the open folder.
    pub(super) fn new(view: &View, keys: Vec<Key<'static>>, words: Words) -> Self {
        let chosen = view.all().collect();
        Self { folder: view.folder.clone(), keys, chosen, words, at: 0, found: Vec::new() }
    }

    /// Looks at some more; true while there are more.
    pub(super) fn go_on(&mut self, mailbox: &Mailbox, view: &View) -> Result<bool, MailboxError> {
        let end = (self.at + BATCH_MESSAGES).min(self.chosen.len());
        let batch = self.chosen[self.at..end].to_vec();
        self.at = end;
        let messages: Vec<Option<Message>> =
            mailbox.recall(&self.folder, |folder| batch.iter().map(|one| folder.get(one.uid).cloned()).collect())?;
        for (one, message) in batch.into_iter().zip(messages) {
            let Some(message) = message else { continue };
            let mut looked = Looked { mailbox, view, one, message: &message, words: &self.words, text: None };
            let mut fits = true;
            for key in &self.keys {
                if !looked.fits(key)? {
                    fits = false;
                    break;
                }
            }
            if fits {
                self.found.push(one);
            }
        }
        Ok(self.at < self.chosen.len())
    }
}

/// One message that is looked at.
struct Looked<'a> {
    mailbox: &'a Mailbox,
    view: &'a View,
    one: Numbered,
    message: &'a Message,
    words: &'a Words,
    text: Option<Text>,
}

/// A message's words, in lower case.
#[derive(Default)]
struct Text {
    /// The header as it stands there.
    raw: Vec<u8>,
    /// Decoded.
    header: String,
    /// Of all parts that are text.
    body: String,
    /// The day in its Date, as it stands there.
    sent: Option<String>,
}

impl Looked<'_> {
    fn fits(&mut self, key: &Key<'_>) -> Result<bool, MailboxError> {
        let flags = self.message.info.flags;
        let keyword = |word: &str| self.words.bit(word).is_some_and(|bit| self.message.info.keywords.0 & bit.0 != 0);
        let internal = || day(self.message.date_s);
        Ok(match key {
            Key::And(keys) => {
                for key in keys.as_ref() {
                    if !self.fits(key)? {
                        return Ok(false);
                    }
                }
                true
            }
            Key::Or(one, other) => self.fits(one)? || self.fits(other)?,
            Key::Not(key) => !self.fits(key)?,
            Key::All | Key::Old => true,
            // Nothing is ever recent here.
            Key::New | Key::Recent => false,
            Key::SequenceSet(set) => self.is_in(set, false),
            Key::Uid(set) => self.is_in(set, true),
            Key::Answered => flags.has(Flags::ANSWERED),
            Key::Unanswered => !flags.has(Flags::ANSWERED),
            Key::Deleted => flags.has(Flags::DELETED),
            Key::Undeleted => !flags.has(Flags::DELETED),
            Key::Draft => flags.has(Flags::DRAFT),
            Key::Undraft => !flags.has(Flags::DRAFT),
            Key::Flagged => flags.has(Flags::FLAGGED),
            Key::Unflagged => !flags.has(Flags::FLAGGED),
            Key::Seen => flags.has(Flags::SEEN),
            Key::Unseen => !flags.has(Flags::SEEN),
            Key::Keyword(word) => keyword(word.as_ref()),
            Key::Unkeyword(word) => !keyword(word.as_ref()),
            Key::Larger(octets) => self.message.octets > u64::from(*octets),
            Key::Smaller(octets) => self.message.octets < u64::from(*octets),
            Key::Before(date) => internal() < date.as_ref().to_string(),
            Key::On(date) => internal() == date.as_ref().to_string(),
            Key::Since(date) => internal() >= date.as_ref().to_string(),
            Key::SentBefore(date) => self.sent()?.is_some_and(|sent| sent < date.as_ref().to_string()),
            Key::SentOn(date) => self.sent()?.is_some_and(|sent| sent == date.as_ref().to_string()),
            Key::SentSince(date) => self.sent()?.is_some_and(|sent| sent >= date.as_ref().to_string()),
            Key::Bcc(words) => self.field("Bcc", words.as_ref())?,
            Key::Cc(words) => self.field("Cc", words.as_ref())?,
            Key::From(words) => self.field("From", words.as_ref())?,
            Key::To(words) => self.field("To", words.as_ref())?,
            Key::Subject(words) => self.field("Subject", words.as_ref())?,
            Key::Header(name, words) => self.field(&String::from_utf8_lossy(name.as_ref()), words.as_ref())?,
            Key::Body(words) => {
                let words = lower(words.as_ref());
                self.text()?.body.contains(&words)
            }
            Key::Text(words) => {
                let words = lower(words.as_ref());
                let text = self.text()?;
                text.body.contains(&words) || text.header.contains(&words)
            }
            Key::ModSequence { modseq, .. } => self.message.modseq >= *modseq,
        })
    }

    fn is_in(&self, set: &imap_types::sequence::SequenceSet, by_uid: bool) -> bool {
        let chosen = self.view.chosen(set, by_uid).unwrap_or_default();
        chosen.binary_search_by_key(&self.one.uid, |one| one.uid).is_ok()
    }

    fn sent(&mut self) -> Result<Option<String>, MailboxError> {
        Ok(self.text()?.sent.clone())
    }

    /// RFC 9051 §6.4.4: no words at all fit every message that has the field.
    fn field(&mut self, name: &str, words: &[u8]) -> Result<bool, MailboxError> {
        let words = lower(words);
        let raw = &self.text()?.raw;
        let mut found = field::fields(raw).filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        Ok(found.any(|(_, value)| decoded(value).contains(&words)))
    }

    fn text(&mut self) -> Result<&Text, MailboxError> {
        if self.text.is_none() {
            let octets = self.mailbox.read(&self.view.folder, self.one.uid)?.unwrap_or_default();
            self.text = Some(Text::of(&octets));
        }
        Ok(self.text.get_or_insert_default())
    }
}

impl Text {
    fn of(octets: &[u8]) -> Self {
        let raw = octets[..header_octets(octets)].to_vec();
        let mut text = Self::default();
        for (name, value) in field::fields(&raw) {
            text.header.push_str(&lower(name));
            text.header.push_str(": ");
            text.header.push_str(&decoded(value));
            text.header.push('\n');
        }
        if let Some(message) = MessageParser::default().parse(octets) {
            text.sent = message.date().map(|date| format!("{:04}-{:02}-{:02}", date.year, date.month, date.day));
            gather(&mut text.body, &message, 0);
        }
        text.raw = raw;
        text
    }
}

/// Messages within messages that are searched.
const DEPTH_MAX: usize = 8;

fn gather(body: &mut String, message: &mail_parser::Message<'_>, depth: usize) {
    for part in &message.parts {
        match &part.body {
            PartType::Text(text) | PartType::Html(text) => {
                body.push_str(&text.to_lowercase());
                body.push('\n');
            }
            PartType::Message(inner) if depth < DEPTH_MAX => gather(body, inner, depth + 1),
            _ => {}
        }
    }
}

/// A value of a header with its encoded words decoded, in lower case.
fn decoded(value: &[u8]) -> String {
    let value = field::unfolded(value);
    if !value.windows(2).any(|pair| pair == b"=?") {
        return lower(&value);
    }
    let probe = [b"Subject: ", value.as_slice(), b"\r\n\r\n"].concat();
    let parsed = MessageParser::default().parse(&probe);
    parsed.as_ref().and_then(|message| message.subject()).map_or_else(|| lower(&value), str::to_lowercase)
}

fn lower(words: &[u8]) -> String {
    String::from_utf8_lossy(words).to_lowercase()
}

/// A day in UTC, as INTERNALDATE shows it.
fn day(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).unwrap_or_default().to_zoned(TimeZone::UTC).date().to_string()
}
