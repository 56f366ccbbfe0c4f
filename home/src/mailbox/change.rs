//! What is done to messages: flags, expunging, copies, moves, new ones. The file first, then the index: what a crash leaves
//! between the two, the next look finds. Whoever listens to the folder hears of it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use gatepost_runtime::clock::Clock;
use gatepost_runtime::durable::{self, Draft};

use super::folder::{Folder, Message};
use super::index::{self, Index};
use super::name::{self, Flags, FolderName, Info, Keywords};
use super::{Mailbox, MailboxError, Names};

/// How flags are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// These and no others.
    Replace,
    /// These as well.
    Add,
    /// These no more.
    Remove,
}

/// What became of copies and moves: UIDs in the other folder, each beside the one it came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The other folder's UIDVALIDITY.
    pub uidvalidity: u32,
    /// From and to, ascending.
    pub uids: Vec<(u32, u32)>,
}

/// A message that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The folder's UIDVALIDITY.
    pub uidvalidity: u32,
    /// Its UID.
    pub uid: u32,
}

impl Names {
    /// A name no other message has.
    pub(super) fn unique(&self, clock: &Clock) -> String {
        let now = clock.unix();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let (seconds, micros, process) = (now.as_secs(), now.subsec_micros(), std::process::id());
        format!("{seconds}.M{micros}P{process}V{count}R{}.{}", self.run, self.host)
    }
}

impl Mailbox {
    /// Changes flags of messages; gives the UIDs of those that are there. `unchanged_since`: one that changed after this
    /// modification sequence is left alone, and given in the second list.
    pub fn store(
        &self,
        folder: &FolderName,
        uids: &[u32],
        change: Change,
        flags: Flags,
        words: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<(Vec<u32>, Vec<u32>), MailboxError> {
        // To take a keyword away needs no letter for it.
        let keywords = if change == Change::Remove {
            let known = self.words(folder)?;
            Keywords(words.iter().filter_map(|word| known.bit(word)).fold(0, |bits, bit| bits | bit.0))
        } else {
            self.bits(folder, words)?
        };
        let directory = self.directory(folder);
        let done = self.with(folder, |folder, index| {
            let next = folder.numbers.modseq + 1;
            let (mut done, mut modified, mut changed) = (Vec::new(), Vec::new(), Vec::new());
            for uid in uids {
                let Ok(at) = folder.messages.binary_search_by_key(uid, |message| message.uid) else { continue };
                let message = &mut folder.messages[at];
                if unchanged_since.is_some_and(|since| message.modseq > since) {
                    modified.push(*uid);
                    continue;
                }
                done.push(*uid);
                let info = changed_info(message.info, change, Info { flags, keywords });
                if info != message.info && rename(&directory, message, info)? {
                    message.modseq = next;
                    changed.push(at);
                }
            }
            if !changed.is_empty() {
                folder.numbers.modseq = next;
                // `cur` has changed by our own hand: what else did is found at the next look.
                folder.numbers.stamp = super::folder::Stamp::default();
                durable::sync_directory(&directory.join("cur"))?;
                write(folder, index, &changed)?;
            }
            Ok((done, modified, !changed.is_empty()))
        });
        let (done, modified, changed) = done?;
        if changed {
            self.bells.ring(&directory);
        }
        Ok((done, modified))
    }

    /// Removes messages marked `\Deleted`, of these UIDs if any are given; gives those that are gone now.
    pub fn expunge(&self, folder: &FolderName, uids: Option<&[u32]>) -> Result<Vec<u32>, MailboxError> {
        let directory = self.directory(folder);
        let gone = self.with(folder, |folder, index| {
            let doomed = |message: &Message| {
                message.info.flags.has(Flags::DELETED)
                    && uids.is_none_or(|uids| uids.binary_search(&message.uid).is_ok())
            };
            let mut gone = Vec::new();
            for message in folder.messages.iter().filter(|message| doomed(message)) {
                match fs::remove_file(directory.join(message.path())) {
                    Ok(()) => gone.push(message.uid),
                    // Moved or gone by another's hand: the next look tells which.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
            forget(folder, index, &gone)?;
            Ok(gone)
        })?;
        if !gone.is_empty() {
            self.bells.ring(&directory);
        }
        Ok(gone)
    }

    /// Copies messages into another folder, all or none; flags and dates stay. Durable when it returns.
    pub fn copy(&self, from: &FolderName, uids: &[u32], to: &FolderName) -> Result<Copied, MailboxError> {
        let (source, target) = (self.directory(from), self.directory(to));
        if !target.join("cur").is_dir() {
            return Err(MailboxError::NoSuchFolder);
        }
        let words = self.words(from)?;
        let messages = self.chosen(from, uids)?;
        let mut made = Vec::new();
        let linked = messages.iter().try_for_each(|message| {
            let info = self.carried(&words, message.info, to)?;
            let unique = self.copied_name(message);
            let file = name::write(&unique, info);
            fs::hard_link(source.join(message.path()), target.join("cur").join(&file))?;
            made.push((message.uid, unique, file));
            Ok::<_, MailboxError>(())
        });
        if let Err(error) = linked.and_then(|()| Ok(durable::sync_directory(&target.join("cur"))?)) {
            for (_, _, file) in &made {
                let _ = fs::remove_file(target.join("cur").join(file));
            }
            return Err(error);
        }
        let made: Vec<_> = made.into_iter().map(|(uid, unique, _)| (uid, unique)).collect();
        self.found_again(to, &made)
    }

    /// Moves messages into another folder; those that another program took away meanwhile are left out. Durable when it
    /// returns.
    pub fn move_to(&self, from: &FolderName, uids: &[u32], to: &FolderName) -> Result<Copied, MailboxError> {
        let (source, target) = (self.directory(from), self.directory(to));
        if !target.join("cur").is_dir() {
            return Err(MailboxError::NoSuchFolder);
        }
        if from == to {
            return Err(MailboxError::Cannot("the messages are there already"));
        }
        let words = self.words(from)?;
        let mut made = Vec::new();
        for message in self.chosen(from, uids)? {
            let info = self.carried(&words, message.info, to)?;
            let unique = self.copied_name(&message);
            let file = target.join("cur").join(name::write(&unique, info));
            match durable::rename(&source.join(message.path()), &file) {
                Ok(()) => made.push((message.uid, unique)),
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        durable::sync_directory(&target.join("cur"))?;
        durable::sync_directory(&source.join("cur"))?;
        let gone: Vec<u32> = made.iter().map(|(uid, _)| *uid).collect();
        // What is gone is found by looking, and written down then.
        self.with(from, |folder, index| forget(folder, index, &gone))?;
        self.bells.ring(&source);
        self.found_again(to, &made)
    }

    /// Puts a message in. `fill` writes its octets. Durable when it returns.
    pub fn append(
        &self,
        folder: &FolderName,
        flags: Flags,
        words: &[String],
        date_s: Option<i64>,
        octets: u64,
        fill: impl FnOnce(&mut Draft) -> Result<(), durable::DurableError>,
    ) -> Result<Added, MailboxError> {
        let directory = self.directory(folder);
        if !directory.join("cur").is_dir() {
            return Err(MailboxError::NoSuchFolder);
        }
        let keywords = self.bits(folder, words)?;
        let unique = format!("{},S={octets}", self.names.unique(&self.clock));
        let mut draft = Draft::create(&directory.join("tmp").join(&unique))?;
        fill(&mut draft)?;
        draft.sync()?;
        if let Some(date_s) = date_s.and_then(|date_s| u64::try_from(date_s).ok()) {
            draft.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(date_s))?;
        }
        draft.rename(&directory.join("cur").join(name::write(&unique, Info { flags, keywords })))?;
        durable::sync_directory(&directory.join("cur"))?;
        let Copied { uidvalidity, uids } = self.found_again(folder, &[(0, unique)])?;
        let uid = uids.first().map(|(_, uid)| *uid).ok_or(MailboxError::NoSuchFolder)?;
        Ok(Added { uidvalidity, uid })
    }

    fn chosen(&self, folder: &FolderName, uids: &[u32]) -> Result<Vec<Message>, MailboxError> {
        self.see(folder, |folder| uids.iter().filter_map(|uid| folder.get(*uid).cloned()).collect())
    }

    /// A new name for the same octets.
    fn copied_name(&self, message: &Message) -> String {
        let unique = message.unique();
        let numbers = unique.find(',').map_or("", |at| &unique[at..]);
        format!("{}{numbers}", self.names.unique(&self.clock))
    }

    /// The same flags in another folder, whose letters may mean other words.
    fn carried(&self, words: &super::Words, info: Info, to: &FolderName) -> Result<Info, MailboxError> {
        let carried: Vec<String> = words.of(info.keywords).map(str::to_owned).collect();
        let keywords = if carried.is_empty() { Keywords::default() } else { self.bits(to, &carried)? };
        Ok(Info { flags: info.flags, keywords })
    }

    /// The UIDs that files got which were just put into a folder.
    fn found_again(&self, folder: &FolderName, made: &[(u32, String)]) -> Result<Copied, MailboxError> {
        let directory = self.directory(folder);
        let copied = self.with(folder, |folder, index| {
            let known = |folder: &Folder| {
                let newest = folder.messages.iter().rev();
                newest.map(|message| (message.unique().to_owned(), message.uid)).collect::<HashMap<_, _>>()
            };
            let mut found = known(folder);
            if made.iter().any(|(_, unique)| !found.contains_key(unique)) {
                // Whatever the clock of the file system says, something is new.
                folder.numbers.stamp = super::folder::Stamp::default();
                folder.look(index, &directory, self.clock.unix())?;
                found = known(folder);
            }
            let uids = made.iter().filter_map(|(from, unique)| Some((*from, *found.get(unique)?))).collect();
            Ok(Copied { uidvalidity: folder.numbers.uidvalidity, uids })
        })?;
        self.bells.ring(&directory);
        Ok(copied)
    }
}

fn changed_info(before: Info, change: Change, by: Info) -> Info {
    match change {
        Change::Replace => by,
        Change::Add => {
            Info { flags: before.flags.with(by.flags), keywords: Keywords(before.keywords.0 | by.keywords.0) }
        }
        Change::Remove => {
            Info { flags: before.flags.without(by.flags), keywords: Keywords(before.keywords.0 & !by.keywords.0) }
        }
    }
}

/// Gives a message's file the name of these flags; false if it is not there any more.
fn rename(directory: &Path, message: &mut Message, info: Info) -> Result<bool, MailboxError> {
    let file = name::write(message.unique(), info);
    match durable::rename(&directory.join(message.path()), &directory.join("cur").join(&file)) {
        Ok(()) => {
            (message.is_new, message.file, message.info) = (false, file.into(), info);
            Ok(true)
        }
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Writes changed messages down, by their places.
fn write(folder: &Folder, index: &mut Index, changed: &[usize]) -> Result<(), MailboxError> {
    index.change(|transaction| {
        index::write_numbers(transaction, &folder.numbers)?;
        changed.iter().try_for_each(|at| index::write_message(transaction, folder.numbers.id, &folder.messages[*at]))
    })
}

/// Messages are gone.
fn forget(folder: &mut Folder, index: &mut Index, gone: &[u32]) -> Result<(), MailboxError> {
    if gone.is_empty() {
        return Ok(());
    }
    folder.numbers.modseq += 1;
    folder.numbers.stamp = super::folder::Stamp::default();
    folder.messages.retain(|message| gone.binary_search(&message.uid).is_err());
    let numbers = folder.numbers;
    index.change(|transaction| {
        index::write_numbers(transaction, &numbers)?;
        for uid in gone {
            index::remove_message(transaction, numbers.id, *uid, numbers.modseq)?;
        }
        index::trim_expunged(transaction, numbers.id)
    })
}
