//! What the queue gives up because its time is over: told in the log, and to whoever tells the owner. Pure, but
//! for the log.

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::received::TraceId;
use tokio::sync::broadcast;

use super::entry::{Entry, State};

/// Kept for a listener that is slow; of more, the log tells.
const UNHEARD_MAX: usize = 64;

/// A recipient that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// The message's trace id.
    pub trace: TraceId,
    /// Who sent it.
    pub sender: ReversePath,
    /// Who did not get it.
    pub recipient: Address,
    /// How long it was tried, and what was heard last.
    pub why: String,
    /// Who is told of it, or gets the message itself.
    pub heir: Heir,
}

/// Who hears of a message that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    /// Its sender.
    Sender,
    /// The postmaster, who gets it: its sender proved nothing.
    Postmaster,
    /// Nobody: so its sender wishes, or it is a report or an alarm itself.
    Nobody,
}

/// Where they are told.
#[derive(Debug)]
pub struct Teller(broadcast::Sender<GivenUp>);

impl Default for Teller {
    fn default() -> Self {
        Self(broadcast::Sender::new(UNHEARD_MAX))
    }
}

impl Teller {
    /// Each that is given up from now on.
    pub fn listen(&self) -> broadcast::Receiver<GivenUp> {
        self.0.subscribe()
    }

    /// Tells which recipients were given up by a change of an entry.
    pub fn tell(&self, before: &Entry, after: &Entry) {
        for one in given_up(before, after) {
            let (trace, queue, recipient, reply) = (one.trace, after.id, &one.recipient, &one.why);
            tracing::warn!(%trace, %queue, %recipient, %reply, "given up: its time is over");
            // Nobody listens, perhaps.
            let _ = self.0.send(one);
        }
    }
}

fn given_up(before: &Entry, after: &Entry) -> Vec<GivenUp> {
    let mut all = Vec::new();
    for (was, is) in before.recipients.iter().zip(&after.recipients) {
        let (State::Waiting(_), State::Failed { last, told }) = (&was.state, &is.state) else { continue };
        if !last.reply.is_given_up() {
            continue;
        }
        all.push(GivenUp {
            trace: after.trace,
            sender: after.reverse_path.clone(),
            recipient: is.recipient.address.clone(),
            why: last.reply.to_string(),
            heir: match told {
                true => Heir::Nobody,
                false if after.strands() => Heir::Postmaster,
                false => Heir::Sender,
            },
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::reply::Reply;

    use super::*;
    use crate::queue::entry::Final;
    use crate::queue::tests::entry;

    fn ended(mut entry: Entry, place: usize, reply: Reply, told: bool) -> Entry {
        let last = Final { reply, remote: None, at_unix_ms: 0 };
        entry.recipients[place].state = State::Failed { last, told };
        entry
    }

    #[test]
    fn what_ends_by_its_time_is_told_once_and_a_refusal_is_not() {
        let before = entry(&["a@one.example", "b@two.example", "c@two.example"]);
        let after = ended(before.clone(), 0, Reply::expired("5 days"), false);
        let after = ended(after, 1, Reply::unknown_recipient(), false);
        let teller = Teller::default();
        let mut heard = teller.listen();
        teller.tell(&before, &after);
        teller.tell(&after, &after);
        let one = heard.try_recv().expect("told");
        assert_eq!((one.recipient.to_string().as_str(), one.heir), ("a@one.example", Heir::Sender));
        assert!(one.why.contains("Given up after 5 days"), "{}", one.why);
        assert!(heard.try_recv().is_err(), "once, and only that one");
    }

    #[test]
    fn it_is_said_who_hears_of_it() {
        for (login, local, told, heir) in [
            (Some("alice"), false, false, Heir::Sender),
            (Some("alice"), false, true, Heir::Nobody),
            (None, true, false, Heir::Postmaster),
        ] {
            let mut before = entry(&["a@one.example"]);
            before.login = login.map(str::to_owned);
            before.local = local;
            let after = ended(before.clone(), 0, Reply::expired("5 days"), told);
            assert_eq!(given_up(&before, &after)[0].heir, heir, "{login:?} {local} {told}");
        }
    }
}
