//! Mail of this machine's own programs (cron, root), for the postmaster at home. The `send` command seals it before it
//! touches the disk and leaves it in the drop, whether the edge runs or not; here it is taken into the spool, each
//! letter once, and goes home like all sealed mail. Nothing here can read it.

pub mod notice;

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use gatepost_protocol::seal::container::{self, Part};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::maildrop::rounds::Rounds;
use gatepost_runtime::maildrop::{Maildrop, Name};
use gatepost_runtime::pace::{Pace, Sender};
use gatepost_runtime::shutdown::Signal;
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use self::notice::{HEAD_OCTETS_MAX, NOTICE, Notice, NoticedHome};
use crate::homes::Homes;
use crate::spool::{Spool, SpoolError};

/// Largest letter, in octets: the largest message that can be configured, sealed.
const LETTER_OCTETS_MAX: u64 = 1100 * 1024 * 1024;
/// Octets copied at a time.
const PIECE_OCTETS: usize = 64 * 1024;

/// Takes what local programs left. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Local(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    drop: Maildrop,
    homes: Homes,
    spool: Spool,
    hostname: String,
    pace: Pace,
    clock: Clock,
    // The home of the config, and the notice that hangs there.
    hung: Mutex<(Option<String>, Option<Notice>)>,
}

/// Why a letter is not taken.
enum Trouble {
    /// It is none, and never will be.
    Damaged(String),
    /// Not now.
    Later(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Later(error.to_string())
    }
}

impl From<SpoolError> for Trouble {
    fn from(error: SpoolError) -> Self {
        Self::Later(error.to_string())
    }
}

impl Local {
    /// For these homes; `home` is whose the mail is unless who sends says otherwise.
    pub fn new(
        drop: Maildrop,
        (homes, spool): (Homes, Spool),
        hostname: String,
        home: Option<String>,
        messages_per_hour_max: u32,
        clock: Clock,
    ) -> Self {
        let pace = Pace::new(messages_per_hour_max);
        Self(Arc::new(Inner { drop, homes, spool, hostname, pace, clock, hung: Mutex::new((home, None)) }))
    }

    /// Takes changed settings into account.
    pub fn reload(&self, home: Option<String>, messages_per_hour_max: u32) {
        self.0.pace.set_max(messages_per_hour_max);
        self.0.hung.lock().unwrap_or_else(PoisonError::into_inner).0 = home;
    }

    /// Makes the drop, and takes up what comes until draining begins.
    pub fn start(&self, signal: Signal) -> io::Result<()> {
        let inner = Arc::clone(&self.0);
        inner.drop.prepare(inner.clock.unix()).map_err(|error| io::Error::other(error.to_string()))?;
        inner.hang_notice();
        let mut rounds = Rounds::new(inner.drop.clone(), inner.clock.clone(), signal);
        let mut learned = inner.homes.learned();
        tokio::spawn(async move {
            loop {
                let names = tokio::select! {
                    names = rounds.next() => match names {
                        Some(names) => names,
                        None => return,
                    },
                    // There may be a key to tell of now.
                    Ok(()) = learned.changed() => Vec::new(),
                };
                let inner = Arc::clone(&inner);
                let round = spawn_blocking(move || {
                    inner.hang_notice();
                    for name in names {
                        inner.take_up(&name);
                    }
                });
                if let Err(error) = round.await {
                    error!(%error, "taking up local mail failed; this is a bug");
                }
            }
        });
        Ok(())
    }
}

impl Inner {
    /// Tells programs whom they may seal to, if that has changed. Blocking.
    fn hang_notice(&self) {
        let noticed = |home: &Arc<crate::homes::Home>| {
            let directory = home.directory().filter(|directory| !directory.seal_key.is_empty())?;
            Some(NoticedHome {
                name: home.name().to_owned(),
                postmaster: format!("postmaster@{}", home.domains().first()?),
                seal_key: directory.seal_key.clone(),
                message_octets_max: directory.message_octets_max,
            })
        };
        let homes: Vec<NoticedHome> = self.homes.all().iter().filter_map(noticed).collect();
        let mut hung = self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        let notice = Notice::new(self.hostname.clone(), hung.0.clone(), homes);
        if hung.1.as_ref() == Some(&notice) {
            return;
        }
        let text = match serde_json::to_vec(&notice) {
            Ok(text) => text,
            Err(error) => return error!(%error, "the notice for local programs can't be written; this is a bug"),
        };
        match self.drop.publish(NOTICE, &text) {
            Ok(()) => hung.1 = Some(notice),
            Err(error) => error!(%error, "local programs can't be told whom to seal to"),
        }
    }

    fn take_up(&self, name: &Name) {
        match self.take(name) {
            Ok(()) => {
                if let Err(error) = self.drop.remove(name) {
                    // It comes again under the same name, and the home knows it.
                    error!(%error, "local mail that was taken can't be removed");
                }
            }
            Err(Trouble::Later(why)) => warn!(file = %name, why, "local mail is not taken now; it stays in the drop"),
            Err(Trouble::Damaged(why)) => {
                error!(file = %name, why, "a file in the drop is no sealed mail; it is set aside in drop/damaged");
                if let Err(error) = self.drop.set_aside(name) {
                    error!(%error, "it can't even be set aside");
                }
            }
        }
    }

    /// Copies a letter into the spool: whoever left it may still change the file it is in.
    fn take(&self, name: &Name) -> Result<(), Trouble> {
        let found = match self.drop.open(name) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Trouble::Damaged(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        if found.octets > LETTER_OCTETS_MAX {
            return Err(Trouble::Damaged("it is too large".to_owned()));
        }
        let mut reader = BufReader::new(found.file.take(LETTER_OCTETS_MAX));
        let mut line = Vec::new();
        reader.by_ref().take(HEAD_OCTETS_MAX as u64).read_until(b'\n', &mut line)?;
        let head =
            notice::Head::parse(&line).ok_or_else(|| Trouble::Damaged("its first line is no head".to_owned()))?;
        let transfer = TransferId(name.id());
        if !self.homes.all().iter().any(|home| home.name() == head.home) {
            return Err(Trouble::Damaged(format!("{:?} is no home of this edge", head.home)));
        }
        if self.spool.fetch(&head.home, transfer).is_some() {
            return Ok(());
        }
        if !self.pace.take(self.clock.now(), Sender::User(found.uid), 1) {
            return Err(Trouble::Later(format!("user {} has sent enough for an hour", found.uid)));
        }
        let octets = self.copy(&head.home, transfer, &mut reader)?;
        info!(trace = head.trace, home = head.home, uid = found.uid, octets, "mail of a local program, sealed");
        Ok(())
    }

    /// Copies, checking the form of what it can't read. Gives the octets.
    fn copy(&self, home: &str, transfer: TransferId, reader: &mut impl Read) -> Result<u64, Trouble> {
        let mut draft = self.spool.draft(home, transfer)?;
        let mut parts = container::Reader::default();
        let mut buffer = BytesMut::new();
        let mut octets = 0;
        let malformed = |error: container::ContainerError| Trouble::Damaged(error.to_string());
        loop {
            let mut piece = Vec::with_capacity(PIECE_OCTETS);
            reader.by_ref().take(PIECE_OCTETS as u64).read_to_end(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            draft.write(&piece)?;
            octets += piece.len() as u64;
            buffer.extend_from_slice(&piece);
            while let Some(part) = parts.take(&mut buffer).map_err(malformed)? {
                if matches!(part, Part::Header(header) if header.transfer != transfer) {
                    return Err(Trouble::Damaged("it is sealed under another name".to_owned()));
                }
            }
        }
        parts.end(&buffer).map_err(malformed)?;
        draft.commit()?;
        Ok(octets)
    }
}
