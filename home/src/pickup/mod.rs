//! Takes up what local programs left in the drop, each letter once: at start, when something is left, and now
//! and then. Its name names the hand-over, so that one that was taken and not removed is recognised. What
//! can't be taken now stays; what can't be taken ever goes back to its sender, unless that one is asking.

pub mod letter;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::smtp::body::Encoder;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::maildrop::rounds::Rounds;
use gatepost_runtime::maildrop::{Maildrop, Name};
use gatepost_runtime::pace::{Pace, Sender};
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use self::letter::{HEAD_OCTETS_MAX, Head};
use crate::accounts::Accounts;
use crate::assembly::Assembly;
use crate::message::{Body, Message};
use crate::router::{Arrival, Origin, Router, Trusted};

/// Requests that wait for their turn; more wait to be made.
const ASKS_WAITING_MAX: usize = 16;
/// Octets copied at a time.
const PIECE_OCTETS: usize = 64 * 1024;

/// Who asks what became of a letter, and where it is answered.
#[derive(Debug)]
struct Ask {
    name: Name,
    answer: oneshot::Sender<Reply>,
}

/// Asks for letters to be taken up now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counter(mpsc::Sender<Ask>);

impl Counter {
    /// Has this letter taken up; the reply to it, or `None` if it could not be asked for.
    pub async fn take_up(&self, name: Name) -> Option<Reply> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask { name, answer }).await.ok()?;
        answered.await.ok()
    }
}

/// What taking up needs.
pub struct Pickup {
    /// Where letters are left.
    pub drop: Maildrop,
    /// Who takes messages.
    pub router: Router,
    /// Whose local names are.
    pub accounts: Accounts,
    /// How much each user may send.
    pub pace: Arc<Pace>,
    /// `incoming/` in the state directory.
    pub incoming: Arc<Path>,
    /// Time.
    pub clock: Clock,
}

impl std::fmt::Debug for Pickup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pickup")
    }
}

/// A letter, copied: nobody changes it any more.
struct Opened {
    head: Head,
    body: Body,
    eight_bit: bool,
    uid: u32,
}

/// Why a letter is not taken.
enum Trouble {
    /// It can't be read as one, and never will be.
    Damaged(String),
    /// Not now.
    Later(String),
    /// It is gone: somebody took it before.
    Gone,
}

impl Pickup {
    /// Makes the drop, and takes up what comes until draining begins.
    pub fn start(self, signal: Signal) -> io::Result<Counter> {
        self.drop.prepare(self.clock.unix()).map_err(|error| io::Error::other(error.to_string()))?;
        let mut rounds = Rounds::new(self.drop.clone(), self.clock.clone(), signal);
        let (sender, mut asks) = mpsc::channel(ASKS_WAITING_MAX);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    ask = asks.recv() => match ask {
                        Some(ask) => self.asked(ask).await,
                        None => return,
                    },
                    names = rounds.next() => match names {
                        Some(names) => self.round(names).await,
                        None => return,
                    },
                }
            }
        });
        Ok(Counter(sender))
    }

    async fn round(&self, names: Vec<Name>) {
        for name in names {
            self.take_up(&name, false).await;
        }
    }

    async fn asked(&self, ask: Ask) {
        let reply = self.take_up(&ask.name, true).await;
        // Who asked may be gone: the letter was durable before, and is taken now.
        let _ = ask.answer.send(reply);
    }

    /// Takes one letter up. A refusal goes back to its sender, unless that one waits for the reply.
    async fn take_up(&self, name: &Name, waits: bool) -> Reply {
        let opened = match self.open(name).await {
            Ok(opened) => opened,
            Err(Trouble::Gone) => return Reply::ok(),
            Err(Trouble::Later(why)) => {
                tracing::warn!(file = %name, why, "a letter in the drop is not taken now; it stays");
                return Reply::local_error();
            }
            Err(Trouble::Damaged(why)) => {
                tracing::error!(file = %name, why, "a file in the drop is no letter; it is set aside in drop/damaged");
                let (drop, name) = (self.drop.clone(), name.clone());
                if let Ok(Err(error)) = spawn_blocking(move || drop.set_aside(&name)).await {
                    tracing::error!(%error, "it can't even be set aside");
                }
                return Reply::malformed_message(&why);
            }
        };
        let recipients = u32::try_from(opened.head.recipients.len()).unwrap_or(u32::MAX);
        if !self.pace.take(self.clock.now(), Sender::User(opened.uid), recipients) {
            tracing::warn!(file = %name, uid = opened.uid, "this user has sent enough for an hour; the letter waits in the drop");
            return Reply::trusted_share_used();
        }
        let reply = self.hand_over(name, opened, waits).await;
        if reply.class() != Class::Temporary {
            let (drop, name) = (self.drop.clone(), name.clone());
            if let Ok(Err(error)) = spawn_blocking(move || drop.remove(&name)).await {
                // It comes again under the same name, and is known.
                tracing::error!(%error, "a letter that was taken can't be removed");
            }
        }
        reply
    }

    async fn hand_over(&self, name: &Name, opened: Opened, waits: bool) -> Reply {
        let Opened { head, body, eight_bit, uid } = opened;
        let trace = TraceId::from_random(random::bytes());
        let (reverse_path, wrong_sender) = self.sender(&head.sender);
        let (good, bad) = self.recipients(&head).await;
        tracing::info!(%trace, uid, sender = %reverse_path, recipients = head.recipients.len(), "from a program on this machine");
        let smtputf8 = reverse_path.address().is_some_and(Address::needs_utf8)
            || good.iter().chain(&bad).any(|recipient| recipient.address.needs_utf8());
        let arrival = |recipients: Vec<Recipient>, transfer: TransferId| Arrival {
            origin: Origin::Trusted { by: Trusted::Local, transfer },
            trace,
            envelope: Envelope {
                reverse_path: reverse_path.clone(),
                recipients,
                body: if eight_bit { BodyKind::EightBit } else { BodyKind::SevenBit },
                smtputf8,
                ret: head.ret(),
                envid: head.envid.clone(),
            },
            message: Message { front: Bytes::new(), body: body.clone() },
            received_unix_s: self.clock.unix_s(),
        };
        let transfer = TransferId(name.id());
        let everybody = || good.iter().chain(&bad).cloned().collect::<Vec<_>>();
        let reply = match (is_clean(&body).await, wrong_sender) {
            (Ok(true), Some(refusal)) => refusal,
            (Ok(true), None) if good.is_empty() => Reply::unknown_recipient(),
            (Ok(true), None) => self.router.accept(arrival(good.clone(), transfer)).await,
            (Ok(false), _) => Reply::bare_in_message(),
            (Err(error), _) => {
                tracing::error!(%trace, %error, "a letter can't be read back");
                Reply::local_error()
            }
        };
        match reply.class() {
            Class::Permanent if waits => reply,
            Class::Permanent => self.router.refuse_local(transfer, arrival(everybody(), transfer), reply).await,
            Class::Done if !bad.is_empty() => {
                // Those who do not exist are told of under a name of their own.
                let mut id = name.id();
                id[0] = !id[0];
                let (transfer, refusal) = (TransferId(id), Reply::unknown_recipient());
                let told = self.router.refuse_local(transfer, arrival(bad, transfer), refusal).await;
                if told.is_positive() { reply } else { told }
            }
            _ => reply,
        }
    }

    /// Who sent it, and why that can't be.
    fn sender(&self, written: &str) -> (ReversePath, Option<Reply>) {
        if written.is_empty() {
            return (ReversePath::Null, None);
        }
        match self.accounts.parse_qualified(written) {
            Some((address, _)) => (ReversePath::Address(address), None),
            None => (ReversePath::Null, Some(Reply::bad_sender_syntax("The sender is no address"))),
        }
    }

    /// Those who can be written to, and those of our domains who do not exist.
    async fn recipients(&self, head: &Head) -> (Vec<Recipient>, Vec<Recipient>) {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for written in &head.recipients {
            let Some((address, local)) = self.accounts.parse_qualified(written) else {
                tracing::warn!(recipient = ?written, "no address; left out of a letter");
                continue;
            };
            let address = if local { self.accounts.local_recipient(address) } else { address };
            let exists = self.router.check_recipient(&address).await.is_ok();
            let recipient = Recipient { address, notify: head.notify(), orcpt: None };
            if exists { good.push(recipient) } else { bad.push(recipient) }
        }
        (good, bad)
    }

    /// Copies a letter to where nobody changes it.
    async fn open(&self, name: &Name) -> Result<Opened, Trouble> {
        let octets_max = self.accounts.settings().message_octets_max;
        let (drop, name) = (self.drop.clone(), name.clone());
        let begun = spawn_blocking(move || begin(&drop, &name, octets_max)).await;
        let (head, uid, mut reader) = begun.map_err(|error| Trouble::Later(error.to_string()))??;
        let mut assembly = Assembly::new(Arc::clone(&self.incoming));
        let mut eight_bit = false;
        loop {
            let read = spawn_blocking(move || {
                let mut piece = Vec::with_capacity(PIECE_OCTETS);
                reader.by_ref().take(PIECE_OCTETS as u64).read_to_end(&mut piece).map(|_| (piece, reader))
            });
            let piece;
            (piece, reader) = read
                .await
                .map_err(|error| Trouble::Later(error.to_string()))?
                .map_err(|error| Trouble::Later(error.to_string()))?;
            if piece.is_empty() {
                break;
            }
            eight_bit |= !piece.is_ascii();
            assembly.add(Bytes::from(piece)).await.map_err(|error| Trouble::Later(error.to_string()))?;
        }
        let body = assembly.finish().await.map_err(|error| Trouble::Later(error.to_string()))?;
        Ok(Opened { head, body, eight_bit, uid })
    }
}

/// Opens the file and reads its head; the rest can be read up to the bound. Blocking.
fn begin(drop: &Maildrop, name: &Name, octets_max: u64) -> Result<(Head, u32, impl Read + Send + use<>), Trouble> {
    let found = match drop.open(name) {
        Ok(Some(found)) => found,
        Ok(None) => return Err(Trouble::Gone),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Trouble::Damaged(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Trouble::Later(format!("{error}; does it belong to the group of the drop?")));
        }
        Err(error) => return Err(Trouble::Later(error.to_string())),
    };
    let most = octets_max.saturating_add(HEAD_OCTETS_MAX as u64);
    if found.octets > most {
        return Err(Trouble::Damaged(format!("it is larger than {octets_max} octets")));
    }
    let failed = |error: io::Error| Trouble::Later(error.to_string());
    let mut reader: BufReader<io::Take<File>> = BufReader::new(found.file.take(most));
    let mut line = Vec::new();
    reader.by_ref().take(HEAD_OCTETS_MAX as u64).read_until(b'\n', &mut line).map_err(failed)?;
    let head = Head::parse(&line).map_err(Trouble::Damaged)?;
    Ok((head, found.uid, reader))
}

/// Whether every line ends with CR LF, nothing else has either, and there is no NUL: who wrote the file may be anybody.
async fn is_clean(body: &Body) -> io::Result<bool> {
    let body = body.clone();
    let check = move || {
        let mut encoder = Encoder::default();
        for chunk in body.chunks() {
            let chunk = chunk?;
            if memchr::memchr(0, &chunk).is_some() || encoder.encode(chunk).is_err() {
                return Ok(false);
            }
        }
        Ok(encoder.finish().is_ok())
    };
    spawn_blocking(check).await.map_err(io::Error::other)?
}
