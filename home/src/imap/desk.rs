//! What a logged-in session works with: its mailbox and the folder it has open. Each command is done here at a stretch, or in
//! pieces where it may be long. Blocking.

use std::sync::Arc;

use imap_types::command::{CommandBody, StoreModifier};
use imap_types::flag::{Flag, StoreResponse, StoreType};

use super::answer::Status;
use super::append::Append;
use super::fetch::{self, Fetch};
use super::folders::{self, named, refusal};
use super::search::{self, Search};
use super::view::{Numbered, View, put_flags};
use crate::mailbox::name::{Flags, FolderName};
use crate::mailbox::{Change, Copied, Mailbox, MailboxError};
use crate::message::Message;

/// A logged-in session's own.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) view: Option<View>,
}

/// What became of a command.
#[derive(Debug)]
pub(super) enum Done {
    /// It is over.
    Over(Status),
    /// A long one goes on.
    Long(Long),
}

/// A command that goes on.
#[derive(Debug)]
pub(super) enum Long {
    Fetch(Fetch),
    Search(Search, bool),
}

impl Desk {
    /// Does a command; what is to be said is appended.
    pub(super) fn obey(&mut self, body: CommandBody<'static>, into: &mut Vec<u8>) -> Done {
        match self.try_obey(body, into) {
            Ok(done) => done,
            Err(error) => Done::Over(refusal(&error)),
        }
    }

    /// Does some more of a long command.
    pub(super) fn go_on(&mut self, long: &mut Long, into: &mut Vec<u8>) -> Option<Status> {
        let Some(view) = &self.view else { return Some(Status::bad("Select a mailbox first")) };
        let more = match long {
            Long::Fetch(fetch) => fetch.go_on(&self.mailbox, into),
            Long::Search(search, _) => search.go_on(&self.mailbox, view),
        };
        match (more, long) {
            (Ok(true), _) => None,
            (Ok(false), Long::Fetch(_)) => Some(self.told(into, "FETCH", false, None)),
            (Ok(false), Long::Search(search, by_uid)) => {
                into.extend_from_slice(b"* SEARCH");
                for Numbered { number, uid } in &search.found {
                    into.extend_from_slice(format!(" {}", if *by_uid { uid } else { number }).as_bytes());
                }
                into.extend_from_slice(b"\r\n");
                Some(self.told(into, "SEARCH", *by_uid, None))
            }
            (Err(error), _) => Some(refusal(&error)),
        }
    }

    fn try_obey(&mut self, body: CommandBody<'static>, into: &mut Vec<u8>) -> Result<Done, MailboxError> {
        let over = |status| Ok(Done::Over(status));
        let nowhere = || Ok(Done::Over(Status::no_code("CANNOT", "There can't be such a folder")));
        let mailbox = &self.mailbox;
        match body {
            CommandBody::Namespace => {
                into.extend_from_slice(b"* NAMESPACE ((\"\" \".\")) NIL NIL\r\n");
                over(Status::ok("NAMESPACE"))
            }
            CommandBody::List { reference, mailbox_wildcard } => {
                folders::list(mailbox, into, &reference, &mailbox_wildcard, false)?;
                over(Status::ok("LIST"))
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                folders::list(mailbox, into, &reference, &mailbox_wildcard, true)?;
                over(Status::ok("LSUB"))
            }
            CommandBody::Status { mailbox: written, item_names } => {
                let Some(name) = named(&written) else { return nowhere() };
                folders::status(mailbox, into, &name, &item_names)?;
                over(Status::ok("STATUS"))
            }
            CommandBody::Create { mailbox: written } => {
                let Some(name) = named(&written) else { return nowhere() };
                mailbox.create(&name)?;
                over(Status::ok("CREATE"))
            }
            CommandBody::Delete { mailbox: written } => {
                let Some(name) = named(&written) else { return nowhere() };
                mailbox.delete(&name)?;
                over(Status::ok("DELETE"))
            }
            CommandBody::Rename { from, to } => {
                let (Some(from), Some(to)) = (named(&from), named(&to)) else { return nowhere() };
                mailbox.rename(&from, &to)?;
                over(Status::ok("RENAME"))
            }
            CommandBody::Subscribe { mailbox: written } | CommandBody::Unsubscribe { mailbox: written }
                if named(&written).is_none() =>
            {
                nowhere()
            }
            CommandBody::Subscribe { mailbox: written } => {
                if let Some(name) = named(&written) {
                    mailbox.subscribe(&name, true)?;
                }
                over(Status::ok("SUBSCRIBE"))
            }
            CommandBody::Unsubscribe { mailbox: written } => {
                if let Some(name) = named(&written) {
                    mailbox.subscribe(&name, false)?;
                }
                over(Status::ok("UNSUBSCRIBE"))
            }
            CommandBody::Select { mailbox: written, parameters } if parameters.is_empty() => {
                self.select(named(&written), false, into).map(Done::Over)
            }
            CommandBody::Examine { mailbox: written, parameters } if parameters.is_empty() => {
                self.select(named(&written), true, into).map(Done::Over)
            }
            body => self.selected(body, into),
        }
    }

    /// Commands of an open folder.
    fn selected(&mut self, body: CommandBody<'static>, into: &mut Vec<u8>) -> Result<Done, MailboxError> {
        let over = |status| Ok(Done::Over(status));
        let bad_set = || Ok(Done::Over(Status::bad("There is no such message")));
        let Some(view) = &self.view else { return over(Status::bad("Select a mailbox first")) };
        let (folder, read_only) = (view.folder.clone(), view.read_only);
        let mailbox = &self.mailbox;
        match body {
            CommandBody::Noop => over(self.told(into, "NOOP", true, None)),
            CommandBody::Check => over(self.told(into, "CHECK", true, None)),
            CommandBody::Unselect => {
                self.view = None;
                over(Status::ok("UNSELECT"))
            }
            CommandBody::Close => {
                if !read_only {
                    mailbox.expunge(&folder, None)?;
                }
                self.view = None;
                over(Status::ok("CLOSE"))
            }
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
                if !modifiers.is_empty() || !fetch::is_known(&macro_or_item_names) {
                    return over(Status::bad("What is wanted is not offered"));
                }
                let Some(chosen) = view.chosen(&sequence_set, uid) else { return bad_set() };
                let words = mailbox.words(&folder)?;
                mailbox.see(&folder, |_| ())?;
                let fetch = Fetch::new(folder, macro_or_item_names, chosen, uid, read_only, words);
                Ok(Done::Long(Long::Fetch(fetch)))
            }
            CommandBody::Search { charset, criteria, uid } => {
                if !search::is_understood(charset.as_ref()) {
                    return over(Status::no_code("BADCHARSET (US-ASCII UTF-8)", "This charset is not understood"));
                }
                let words = mailbox.words(&folder)?;
                let search = Search::new(view, criteria.into_inner(), words);
                Ok(Done::Long(Long::Search(search, uid)))
            }
            CommandBody::Store { .. }
            | CommandBody::Expunge
            | CommandBody::ExpungeUid { .. }
            | CommandBody::Move { .. }
                if read_only =>
            {
                over(Status::no_code("NOPERM", "The folder is open for reading only"))
            }
            CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => {
                let Some(chosen) = view.chosen(&sequence_set, uid) else { return bad_set() };
                self.store(&chosen, kind, response, &flags, uid, &modifiers, into).map(Done::Over)
            }
            CommandBody::Expunge => {
                mailbox.expunge(&folder, None)?;
                over(self.told(into, "EXPUNGE", true, None))
            }
            CommandBody::ExpungeUid { sequence_set } => {
                let Some(chosen) = view.chosen(&sequence_set, true) else { return bad_set() };
                mailbox.expunge(&folder, Some(&uids(&chosen)))?;
                over(self.told(into, "EXPUNGE", true, None))
            }
            CommandBody::Copy { sequence_set, mailbox: target, uid } => {
                let Some(chosen) = view.chosen(&sequence_set, uid) else { return bad_set() };
                self.copy(&chosen, named(&target), uid, into).map(Done::Over)
            }
            CommandBody::Move { sequence_set, mailbox: target, uid } => {
                let Some(chosen) = view.chosen(&sequence_set, uid) else { return bad_set() };
                self.move_to(&chosen, named(&target), into).map(Done::Over)
            }
            _ => over(Status::bad("This is not offered")),
        }
    }

    fn select(
        &mut self,
        name: Option<FolderName>,
        read_only: bool,
        into: &mut Vec<u8>,
    ) -> Result<Status, MailboxError> {
        // RFC 9051 §6.3.2: whatever comes of it, what was open is open no more.
        self.view = None;
        let Some(name) = name else { return Ok(Status::no_code("NONEXISTENT", "There is no such folder")) };
        let opened = self.mailbox.view(&name)?;
        let words = opened.words.all().fold(String::new(), |words, word| words + " " + word);
        let system = Flags::ALL.map(|(_, name, _)| name).join(" ");
        let permanent = if read_only { String::new() } else { format!("{system}{words} \\*") };
        let numbers = opened.numbers;
        let unseen = self
            .mailbox
            .recall(&name, |folder| folder.messages.iter().position(|message| !message.info.flags.has(Flags::SEEN)))?;
        into.extend_from_slice(format!("* FLAGS ({system}{words})\r\n").as_bytes());
        into.extend_from_slice(format!("* OK [PERMANENTFLAGS ({permanent})] What can be changed\r\n").as_bytes());
        into.extend_from_slice(format!("* {} EXISTS\r\n* 0 RECENT\r\n", opened.uids.len()).as_bytes());
        if let Some(unseen) = unseen {
            into.extend_from_slice(format!("* OK [UNSEEN {}] The first unseen\r\n", unseen + 1).as_bytes());
        }
        into.extend_from_slice(format!("* OK [UIDVALIDITY {}] UIDs are valid\r\n", numbers.uidvalidity).as_bytes());
        into.extend_from_slice(format!("* OK [UIDNEXT {}] The next UID\r\n", numbers.uidnext).as_bytes());
        self.view = Some(View::new(name, read_only, opened.uids, numbers.modseq));
        Ok(if read_only {
            Status::ok_code("READ-ONLY", "EXAMINE done")
        } else {
            Status::ok_code("READ-WRITE", "SELECT done")
        })
    }

    #[expect(clippy::too_many_arguments, reason = "they are the arguments of the command")]
    fn store(
        &mut self,
        chosen: &[Numbered],
        kind: StoreType,
        response: StoreResponse,
        flags: &[Flag<'static>],
        by_uid: bool,
        modifiers: &[StoreModifier],
        into: &mut Vec<u8>,
    ) -> Result<Status, MailboxError> {
        let Some(view) = &self.view else { return Ok(Status::bad("Select a mailbox first")) };
        if !modifiers.is_empty() {
            return Ok(Status::bad("This is not offered"));
        }
        let Some((system, words)) = sorted(flags) else {
            return Ok(Status::bad("There is no such flag"));
        };
        let change = match kind {
            StoreType::Replace => Change::Replace,
            StoreType::Add => Change::Add,
            StoreType::Remove => Change::Remove,
        };
        let folder = view.folder.clone();
        let (done, _) = self.mailbox.store(&folder, &uids(chosen), change, system, &words, None)?;
        let words = self.mailbox.words(&folder)?;
        let modseq = self.mailbox.recall(&folder, |folder| {
            if response == StoreResponse::Answer {
                for Numbered { number, uid } in chosen {
                    let Some(message) = folder.get(*uid) else { continue };
                    let uid = if by_uid { format!("UID {uid} ") } else { String::new() };
                    into.extend_from_slice(format!("* {number} FETCH ({uid}FLAGS ").as_bytes());
                    put_flags(into, message.info, &words);
                    into.extend_from_slice(b")\r\n");
                }
            }
            folder.numbers.modseq
        })?;
        Ok(self.told(into, "STORE", by_uid, Some((modseq, &done))))
    }

    fn copy(
        &mut self,
        chosen: &[Numbered],
        target: Option<FolderName>,
        by_uid: bool,
        into: &mut Vec<u8>,
    ) -> Result<Status, MailboxError> {
        let (Some(view), Some(target)) = (&self.view, target) else { return Ok(no_target()) };
        match self.mailbox.copy(&view.folder, &uids(chosen), &target) {
            Ok(copied) => {
                self.told(into, "COPY", by_uid, None);
                Ok(match code(&copied) {
                    Some(code) => Status::ok_code(&code, "COPY done"),
                    None => Status::ok("COPY"),
                })
            }
            Err(MailboxError::NoSuchFolder) => Ok(no_target()),
            Err(error) => Err(error),
        }
    }

    fn move_to(
        &mut self,
        chosen: &[Numbered],
        target: Option<FolderName>,
        into: &mut Vec<u8>,
    ) -> Result<Status, MailboxError> {
        let (Some(view), Some(target)) = (&self.view, target) else { return Ok(no_target()) };
        match self.mailbox.move_to(&view.folder, &uids(chosen), &target) {
            Ok(copied) => {
                // RFC 6851 §4.3: told before anything is said to be gone.
                if let Some(code) = code(&copied) {
                    into.extend_from_slice(format!("* OK [{code}] Moved\r\n").as_bytes());
                }
                Ok(self.told(into, "MOVE", true, None))
            }
            Err(MailboxError::NoSuchFolder) => Ok(no_target()),
            Err(error) => Err(error),
        }
    }

    /// Puts a message in.
    pub(super) fn append(&mut self, append: &Append, message: &Message, into: &mut Vec<u8>) -> Status {
        let Some(folder) = named(&append.mailbox) else { return no_target() };
        let Some((flags, words)) = sorted(&append.flags) else { return Status::bad("There is no such flag") };
        let added = self
            .mailbox
            .append(&folder, flags, &words, append.date_unix_s, message.octets(), |draft| message.write_to(draft));
        match added {
            Ok(added) => {
                self.told(into, "APPEND", true, None);
                Status::ok_code(&format!("APPENDUID {} {}", added.uidvalidity, added.uid), "APPEND done")
            }
            Err(MailboxError::NoSuchFolder) => no_target(),
            Err(error) => refusal(&error),
        }
    }

    /// Whether a message may be put there; why not.
    pub(super) fn may_append(&self, append: &Append) -> Result<(), Status> {
        let Some(folder) = named(&append.mailbox) else { return Err(no_target()) };
        if self.mailbox.directory(&folder).join("cur").is_dir() { Ok(()) } else { Err(no_target()) }
    }

    /// Tells what has changed in the open folder, and that the command is done.
    pub(super) fn told(
        &mut self,
        into: &mut Vec<u8>,
        verb: &str,
        expunges: bool,
        known: Option<(u64, &[u32])>,
    ) -> Status {
        let Some(view) = &mut self.view else { return Status::ok(verb) };
        let name = view.folder.clone();
        let told = self
            .mailbox
            .words(&name)
            .and_then(|words| self.mailbox.see(&name, |folder| view.catch_up(into, folder, &words, expunges, known)));
        match told {
            Ok(()) => Status::ok(verb),
            Err(error) => refusal(&error),
        }
    }
}

fn uids(chosen: &[Numbered]) -> Vec<u32> {
    chosen.iter().map(|one| one.uid).collect()
}

fn no_target() -> Status {
    Status::no_code("TRYCREATE", "There is no such folder")
}

/// Flags of the system, and keywords. None if there is one of the system that nobody knows.
fn sorted(flags: &[Flag<'static>]) -> Option<(Flags, Vec<String>)> {
    let (mut system, mut words) = (Flags::default(), Vec::new());
    for flag in flags {
        match flag {
            Flag::Keyword(word) => words.push(word.as_ref().to_owned()),
            Flag::Extension(_) => return None,
            flag => {
                let name = flag.to_string();
                let known = Flags::ALL.iter().find(|(_, known, _)| known.eq_ignore_ascii_case(&name))?;
                system = system.with(known.0);
            }
        }
    }
    Some((system, words))
}

/// `COPYUID` (RFC 4315 §3).
fn code(copied: &Copied) -> Option<String> {
    if copied.uids.is_empty() {
        return None;
    }
    let from: Vec<u32> = copied.uids.iter().map(|(from, _)| *from).collect();
    let to: Vec<u32> = copied.uids.iter().map(|(_, to)| *to).collect();
    Some(format!("COPYUID {} {} {}", copied.uidvalidity, set(&from), set(&to)))
}

/// Numbers in their order as a set, runs put together.
fn set(numbers: &[u32]) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let run = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}:{last}") };
    runs.into_iter().map(run).collect::<Vec<_>>().join(",")
}
