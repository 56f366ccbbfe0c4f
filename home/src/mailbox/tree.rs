//! The folders of a mailbox: listed from the disk, made, renamed, removed, subscribed to.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use gatepost_runtime::durable;

use super::name::FolderName;
use super::{Mailbox, MailboxError};

/// Folders of one mailbox.
const FOLDERS_MAX: usize = 5_000;
/// The list of subscriptions, as Dovecot keeps it beside a Maildir.
const SUBSCRIPTIONS: &str = "subscriptions";

/// What a folder is for (RFC 6154).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Letters not sent yet.
    Drafts,
    /// Letters that were sent.
    Sent,
    /// What nobody wants.
    Junk,
    /// What was thrown away.
    Trash,
    /// What is kept.
    Archive,
}

impl Use {
    const ALL: [Self; 5] = [Self::Drafts, Self::Sent, Self::Junk, Self::Trash, Self::Archive];

    /// The folder's usual name.
    fn folder(self) -> &'static str {
        match self {
            Self::Drafts => "Drafts",
            Self::Sent => "Sent",
            Self::Junk => "Junk",
            Self::Trash => "Trash",
            Self::Archive => "Archive",
        }
    }

    /// What a folder of this name is for.
    pub fn of(folder: &FolderName) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.folder() == folder.as_str())
    }

    /// The attribute in a list.
    pub fn attribute(self) -> String {
        format!("\\{}", self.folder())
    }
}

/// A folder in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: FolderName,
    /// It is there; else it only has some below it.
    pub exists: bool,
    /// There are some below it.
    pub has_children: bool,
    /// What it is for.
    pub special: Option<Use>,
}

impl Mailbox {
    /// The folders everybody expects; those that are there stay as they are.
    pub(super) fn make_usual(&self) -> Result<(), MailboxError> {
        let before = self.folders()?;
        for usual in Use::ALL {
            let Some(name) = FolderName::parse(usual.folder()) else { continue };
            if !before.contains(&name) {
                self.make(&name)?;
            }
        }
        if !self.path.join(SUBSCRIPTIONS).exists() {
            let names: BTreeSet<_> = self.folders()?.into_iter().filter(|name| !name.is_inbox()).collect();
            self.write_subscriptions(&names)?;
        }
        Ok(())
    }

    /// All folders that are there, the inbox first.
    pub fn folders(&self) -> Result<BTreeSet<FolderName>, MailboxError> {
        let mut folders = BTreeSet::from([FolderName::inbox()]);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().and_then(FolderName::of_directory) else { continue };
            if entry.path().join("cur").is_dir() {
                folders.insert(name);
            }
        }
        Ok(folders)
    }

    /// All of them, and the names above them.
    pub fn list(&self) -> Result<Vec<Listed>, MailboxError> {
        let folders = self.folders()?;
        let mut names = folders.clone();
        for folder in &folders {
            let mut name = folder.as_str();
            while let Some((above, _)) = name.rsplit_once(super::name::SEPARATOR) {
                names.extend(FolderName::parse(above));
                name = above;
            }
        }
        let listed = |name: &FolderName| Listed {
            exists: folders.contains(name),
            has_children: folders.iter().any(|other| other.is_below(name)),
            special: Use::of(name),
            name: name.clone(),
        };
        Ok(names.iter().map(listed).collect())
    }

    /// Makes a folder. Durable when it returns.
    pub fn create(&self, name: &FolderName) -> Result<(), MailboxError> {
        let folders = self.folders()?;
        if folders.contains(name) {
            return Err(MailboxError::Exists);
        }
        if folders.len() >= FOLDERS_MAX {
            return Err(MailboxError::Cannot("there are too many folders"));
        }
        self.make(name)
    }

    fn make(&self, name: &FolderName) -> Result<(), MailboxError> {
        let directory = self.directory(name);
        for part in ["tmp", "new", "cur"] {
            durable::create_directory(&directory.join(part))?;
        }
        // Maildir++: tells deliverers that this is a folder of the mailbox above it.
        Ok(durable::write_file(&directory.join("maildirfolder"), b"")?)
    }

    /// Removes a folder and what is in it; those below it stay.
    pub fn delete(&self, name: &FolderName) -> Result<(), MailboxError> {
        if name.is_inbox() {
            return Err(MailboxError::Cannot("the inbox stays"));
        }
        let mut state = self.state();
        if !self.folders()?.contains(name) {
            return Err(MailboxError::NoSuchFolder);
        }
        // Under a name that is no folder's: what a crash leaves of it is not seen.
        let doomed = self.doomed();
        durable::rename(&self.directory(name), &doomed)?;
        durable::sync_directory(&self.path)?;
        state.folders.remove(name);
        state.index.remove_folder(name)?;
        drop(state);
        self.bells.ring(&self.directory(name));
        Ok(fs::remove_dir_all(&doomed)?)
    }

    fn doomed(&self) -> PathBuf {
        self.path.join(format!("gone.{}", self.names.unique(&self.clock)))
    }

    /// Gives a folder another name, and those below it. The numbers of their messages stay.
    pub fn rename(&self, old: &FolderName, new: &FolderName) -> Result<(), MailboxError> {
        if old.is_inbox() {
            return Err(MailboxError::Cannot("the inbox keeps its name; move the messages"));
        }
        let mut state = self.state();
        let folders = self.folders()?;
        if folders.contains(new) {
            return Err(MailboxError::Exists);
        }
        if new.is_below(old) {
            return Err(MailboxError::Cannot("a folder can't be put below itself"));
        }
        let moving: Vec<_> = folders.iter().filter(|name| *name == old || name.is_below(old)).collect();
        if moving.is_empty() {
            return Err(MailboxError::NoSuchFolder);
        }
        let moves: Option<Vec<_>> =
            moving.into_iter().map(|name| Some((name.clone(), name.moved(old, new)?))).collect();
        let Some(moves) = moves else { return Err(MailboxError::Cannot("a name would be too long")) };
        for (from, to) in moves {
            durable::rename(&self.directory(&from), &self.directory(&to))?;
            state.folders.remove(&from);
            state.index.rename_folder(&from, &to)?;
            self.bells.ring(&self.directory(&from));
        }
        Ok(durable::sync_directory(&self.path)?)
    }

    /// The names that are subscribed to; some may not be there (any more).
    pub fn subscriptions(&self) -> Result<BTreeSet<FolderName>, MailboxError> {
        match fs::read(self.path.join(SUBSCRIPTIONS)) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).lines().filter_map(FolderName::parse).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Subscribes, or no more. Durable when it returns.
    pub fn subscribe(&self, name: &FolderName, subscribed: bool) -> Result<(), MailboxError> {
        let _state = self.state();
        let mut names = self.subscriptions()?;
        let changed = if subscribed { names.insert(name.clone()) } else { names.remove(name) };
        if names.len() > FOLDERS_MAX {
            return Err(MailboxError::Cannot("there are too many subscriptions"));
        }
        if changed { self.write_subscriptions(&names) } else { Ok(()) }
    }

    fn write_subscriptions(&self, names: &BTreeSet<FolderName>) -> Result<(), MailboxError> {
        let text = names.iter().fold(String::new(), |text, name| text + name.as_str() + "\n");
        Ok(durable::write_file(&self.path.join(SUBSCRIPTIONS), text.as_bytes())?)
    }
}
