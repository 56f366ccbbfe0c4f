//! One message of the queue and the state of each of its recipients. As kept on disk: [`record`].
//! Times are milliseconds since 1970 by the steady time, which a wrong date does not touch; [`Entry::dated`] makes
//! dates of them. Pure.

pub mod record;
pub mod trailer;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient, Ret};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::srs::ReturnPath;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::relay::AttemptId;

use super::{NewEntry, QueueId};

/// One message and its recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names it.
    pub id: QueueId,
    /// Its trace id.
    pub trace: TraceId,
    /// The account it came from.
    pub login: Option<String>,
    /// The recipients are mailboxes here, whose server did not take them (yet): nobody else is ever tried.
    pub local: bool,
    /// When it came to whoever received it first, by that one's clock: for people and reports.
    pub received_unix_ms: i64,
    /// When it was queued, by our own clock: what its schedule counts from.
    pub queued_unix_ms: i64,
    /// Octets of the message.
    pub octets: u64,
    /// The message holds octets over 127.
    pub eight_bit: bool,
    /// SHA-256 of the message.
    pub sha256: [u8; 32],
    /// Who sent it; bounces go there.
    pub reverse_path: ReversePath,
    /// `BODY=`.
    pub body: BodyKind,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`.
    pub envid: Option<String>,
    /// Who gets it, and how far that has come. Never fewer than at the start: places in this list
    /// are what attempts and bounces refer to.
    pub recipients: Vec<Addressee>,
    /// Attempts whose end is not known yet.
    pub attempts: Vec<OpenAttempt>,
    /// The bounce being handed over.
    pub bounce: Option<OpenBounce>,
    /// Held: nothing is tried until it is released. The reason, for people.
    pub held: Option<String>,
    /// When everything was done: the message itself is gone, this remains a while so that a repeat
    /// is recognised.
    pub finished_unix_ms: Option<i64>,
}

/// A recipient and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressee {
    /// Who, and what the sender wants to hear.
    pub recipient: Recipient,
    /// A mailbox here, and what it gets belongs in Junk.
    pub is_junk: bool,
    /// How far.
    pub state: State,
}

/// How far a recipient has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// To be tried.
    Waiting(Waiting),
    /// The next hop has taken it.
    Delivered {
        /// How it ended.
        last: Final,
        /// The sender was told, or wants to hear nothing of it, or hears it from further on.
        told: bool,
    },
    /// Given up.
    Failed {
        /// How it ended.
        last: Final,
        /// The sender was told, or wants to hear nothing, or is nobody.
        told: bool,
    },
}

/// A recipient to be tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Attempts so far that ended.
    pub attempts: u32,
    /// When to try next.
    pub next_unix_ms: i64,
    /// What the last attempt came to.
    pub last: Option<Final>,
    /// An earlier attempt is in doubt: the next one may deliver twice (RFC 1047).
    pub in_doubt: bool,
    /// The sender was told that it takes long, or wants to hear nothing of it.
    pub warned: bool,
}

/// The end of an attempt, for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Final {
    /// The remote's words, or ours.
    pub reply: Reply,
    /// The host that answered, if one did.
    pub remote: Option<String>,
    /// When.
    pub at_unix_ms: i64,
}

/// An attempt whose end is not known yet. Durable before the attempt begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAttempt {
    /// Names it.
    pub id: AttemptId,
    /// Who makes it.
    pub place: Place,
    /// Since when.
    pub since_unix_ms: i64,
    /// Which recipients, as places in [`Entry::recipients`].
    pub recipients: Vec<usize>,
    /// Since when it is known that nobody here follows it any more (the tunnel broke).
    pub lost_unix_ms: Option<i64>,
    /// When to ask the edge what became of it; `None` while it is followed. Not kept on disk:
    /// after a restart it is asked at once.
    pub ask_unix_ms: Option<i64>,
}

/// Who makes an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This edge.
    Edge {
        /// Its key.
        key: NodeKey,
        /// Its name, for people.
        name: String,
    },
    /// The home itself.
    Home,
}

/// What a moment in an entry is.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// Something happened then.
    Past,
    /// Something is to be tried then.
    NextTry,
}

/// What a report to the sender is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Recipients that were given up.
    Failure,
    /// Recipients that are still being tried.
    Delay,
    /// Recipients that a host has taken which will not report itself (RFC 3461 §6.2.7).
    Relay,
    /// Recipients in whose mailboxes here it lies.
    Delivery,
}

/// A report being handed over. Durable before it is, so that a repeat is known for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBounce {
    /// What it is about.
    pub about: About,
    /// Names it.
    pub id: TransferId,
    /// Its trace id.
    pub trace: TraceId,
    /// When it was made, seconds since 1970.
    pub made_unix_s: i64,
    /// Whom it tells of, as places in [`Entry::recipients`].
    pub recipients: Vec<usize>,
    /// Hand-overs so far that failed.
    pub attempts: u32,
    /// When to hand it over next.
    pub next_unix_ms: i64,
}

/// What is known of a message's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageFacts {
    /// Octets.
    pub octets: u64,
    /// Octets over 127 among them.
    pub eight_bit: bool,
    /// Digest.
    pub sha256: [u8; 32],
}

impl Addressee {
    /// Attempts so far that ended, while it waits.
    pub fn attempts(&self) -> u32 {
        match &self.state {
            State::Waiting(waiting) => waiting.attempts,
            State::Delivered { .. } | State::Failed { .. } => 0,
        }
    }
}

impl Entry {
    /// A message that was just taken: every recipient is due at once.
    pub fn new(new: NewEntry, facts: MessageFacts, queued_unix_ms: i64) -> Self {
        let waiting = |recipient| Addressee {
            recipient,
            is_junk: false,
            state: State::Waiting(Waiting { next_unix_ms: queued_unix_ms, ..Waiting::default() }),
        };
        Self {
            id: new.id,
            trace: new.trace,
            login: new.login,
            local: false,
            received_unix_ms: new.received_unix_s.saturating_mul(1000),
            queued_unix_ms,
            octets: facts.octets,
            eight_bit: facts.eight_bit,
            sha256: facts.sha256,
            reverse_path: new.envelope.reverse_path,
            body: new.envelope.body,
            smtputf8: new.envelope.smtputf8,
            ret: new.envelope.ret,
            envid: new.envelope.envid,
            recipients: new.envelope.recipients.into_iter().map(waiting).collect(),
            attempts: Vec::new(),
            bounce: None,
            held: new.held,
            finished_unix_ms: None,
        }
    }

    /// The same with its moments as dates, which are so far ahead of the steady time: for people.
    #[must_use]
    pub fn dated(&self, ahead_ms: i64) -> Self {
        let mut dated = self.clone();
        dated.for_each_moment(|_, at| *at = at.saturating_add(ahead_ms));
        dated
    }

    /// Every moment of the steady time, and whether it is to come.
    fn for_each_moment(&mut self, mut change: impl FnMut(Moment, &mut i64)) {
        change(Moment::Past, &mut self.queued_unix_ms);
        for addressee in &mut self.recipients {
            match &mut addressee.state {
                State::Waiting(waiting) => {
                    change(Moment::NextTry, &mut waiting.next_unix_ms);
                    if let Some(last) = &mut waiting.last {
                        change(Moment::Past, &mut last.at_unix_ms);
                    }
                }
                State::Delivered { last, .. } | State::Failed { last, .. } => {
                    change(Moment::Past, &mut last.at_unix_ms);
                }
            }
        }
        for attempt in &mut self.attempts {
            change(Moment::Past, &mut attempt.since_unix_ms);
            if let Some(lost) = &mut attempt.lost_unix_ms {
                change(Moment::Past, lost);
            }
        }
        if let Some(bounce) = &mut self.bounce {
            change(Moment::NextTry, &mut bounce.next_unix_ms);
        }
        if let Some(finished) = &mut self.finished_unix_ms {
            change(Moment::Past, finished);
        }
    }

    /// Brings moments that can't be right within reason: nothing has happened after `now`, and nothing waits longer
    /// than the longest pause. A date that was wrong while an older build wrote it would hold a message for years.
    pub fn mend_moments(&mut self, now_unix_ms: i64, pause_max_ms: i64) {
        self.for_each_moment(|moment, at| {
            *at = match moment {
                Moment::Past => now_unix_ms.min(*at),
                Moment::NextTry => now_unix_ms.saturating_add(pause_max_ms).min(*at),
            };
        });
    }

    /// The envelope for some of the recipients.
    pub fn envelope(&self, recipients: &[usize]) -> Envelope {
        Envelope {
            reverse_path: self.reverse_path.clone(),
            recipients: recipients
                .iter()
                .filter_map(|place| self.recipients.get(*place))
                .map(|addressee| addressee.recipient.clone())
                .collect(),
            body: self.body,
            smtputf8: self.smtputf8,
            ret: self.ret,
            envid: self.envid.clone(),
        }
    }

    /// True if an attempt that may still be under way has this recipient.
    pub fn is_being_tried(&self, place: usize) -> bool {
        self.attempts.iter().any(|attempt| attempt.recipients.contains(&place))
    }

    /// The addresses of the recipients that wait.
    pub fn waiting(&self) -> impl Iterator<Item = &Address> {
        let waits = |addressee: &&Addressee| matches!(addressee.state, State::Waiting(_));
        self.recipients.iter().filter(waits).map(|addressee| &addressee.recipient.address)
    }

    /// How many of those were tried before.
    pub fn deferred(&self) -> u32 {
        let deferred = self.recipients.iter().filter(|addressee| addressee.attempts() > 0).count();
        u32::try_from(deferred).unwrap_or(u32::MAX)
    }

    /// What was heard last of a recipient that waits.
    pub fn last_words(&self) -> Option<String> {
        let last = self.recipients.iter().filter_map(|addressee| match &addressee.state {
            State::Waiting(waiting) => waiting.last.as_ref(),
            State::Delivered { .. } | State::Failed { .. } => None,
        });
        last.max_by_key(|last| last.at_unix_ms).map(|last| last.reply.to_string())
    }

    /// Recipients whose sender is to be told this of them, and has not been.
    pub fn untold(&self, about: About) -> Vec<usize> {
        let is_untold = |addressee: &Addressee| match (&addressee.state, about) {
            (State::Failed { told, .. }, About::Failure) | (State::Delivered { told, .. }, About::Relay) => !told,
            _ => false,
        };
        (0..self.recipients.len()).filter(|place| is_untold(&self.recipients[*place])).collect()
    }

    /// True if what fails goes to the postmaster: mail of strangers for mailboxes here, or that an alias led on to
    /// another host. Their names prove nothing, so nobody is told, and it was promised, so it does not vanish.
    pub fn strands(&self) -> bool {
        // Under a return path of ours only what is forwarded goes out.
        let is_forwarded = self.reverse_path.address().is_some_and(|path| ReturnPath::is_like(path.local()));
        self.login.is_none() && (self.local || is_forwarded)
    }

    /// True once every recipient has come to its end and whoever must know of it does.
    pub fn is_done(&self) -> bool {
        let is_at_its_end = |addressee: &Addressee| {
            matches!(addressee.state, State::Delivered { told: true, .. } | State::Failed { told: true, .. })
        };
        self.attempts.is_empty() && self.bounce.is_none() && self.recipients.iter().all(is_at_its_end)
    }
}
