//! What a home is told of an attempt: an outcome for each recipient, within the bound of a record for
//! certain, in the words of its version of the tunnel.

use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::Sessions;
use gatepost_protocol::tunnel::frame::RECORD_OCTETS_MAX;
use gatepost_protocol::tunnel::verb::relay::{AttemptState, RelayDone, RelayFacts, RelayStep};
use gatepost_protocol::tunnel::wire::{WireOutcome, WireReply, WireTls};
use gatepost_runtime::attempt::Attempt;
use gatepost_runtime::durable::Appended;

use super::exchangers;

/// Since this version of the tunnel a home is told [`RelayFacts`].
const FACTS_SINCE: u16 = 2;
/// Octets of a `RelayDone` and its `RelayFacts` besides its outcomes, at most: where it was sent, TLS, the
/// sessions (a bounded text of policies, up to sixteen names and reasons), and the record's own.
const REST_OCTETS_MAX: usize = 32 * 1024;
/// Octets of the host's name and address in it.
const REMOTE_OCTETS_MAX: usize = 1024;
/// Octets of one outcome besides its text: the judgement, codes of at most three octets each, their
/// option, how many lines.
const CODES_OCTETS_MAX: usize = 16;

/// How an attempt ended, and what else is known of it.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) done: RelayDone,
    pub(super) facts: RelayFacts,
    /// On its way to the disk, if a dot was sent.
    pub(super) kept: Option<Appended>,
}

impl Ended {
    /// What this connection's transaction came to.
    pub(super) fn over(outcomes: &[Outcome], attempt: &Attempt, reused: bool) -> Self {
        let exchanger = attempt.host().map(|(name, address)| exchangers::group(name, address.ip()));
        let facts = RelayFacts {
            dsn: attempt.offered().dsn,
            reused,
            exchanger,
            vouched: attempt.vouched().into(),
            ..RelayFacts::default()
        };
        Self { done: fitted(outcomes, Some(attempt.remote()), attempt.tls().map(WireTls::from)), facts, kept: None }
    }

    /// The same for every recipient; `remote` said so, or nobody was spoken to.
    pub(super) fn all(envelope: &Envelope, outcome: Outcome, remote: Option<String>) -> Self {
        let outcomes = vec![outcome; envelope.recipients.len()];
        Self { done: fitted(&outcomes, remote, None), facts: RelayFacts::default(), kept: None }
    }

    /// The same, with the sessions it took.
    pub(super) fn after(mut self, sessions: &Sessions) -> Self {
        self.facts.sessions = sessions.into();
        self
    }

    /// Our own reply for every recipient.
    pub(super) fn ours(envelope: &Envelope, reply: Reply) -> Self {
        Self::all(envelope, Outcome::of(reply), None)
    }

    /// As it is told in this version of the tunnel.
    pub(super) fn step(self, version: u16) -> RelayStep {
        if version >= FACTS_SINCE { RelayStep::Ended(self.done, self.facts) } else { RelayStep::Done(self.done) }
    }
}

/// A state as it is told in this version of the tunnel.
pub(super) fn told(state: AttemptState, version: u16) -> AttemptState {
    match state {
        AttemptState::EndedWith(done, _) if version < FACTS_SINCE => AttemptState::Ended(done),
        state => state,
    }
}

/// Within the bound of a record for certain: one that is too big would never reach the home, which
/// would ask for ever. Each reply keeps its codes and as much of its text as is its share.
fn fitted(outcomes: &[Outcome], remote: Option<String>, tls: Option<WireTls>) -> RelayDone {
    let share = (RECORD_OCTETS_MAX - REST_OCTETS_MAX) / outcomes.len().max(1);
    let cut = |outcome: &Outcome| {
        let cut = |reply: &Reply| WireReply::from(&reply.clone().cut(share.saturating_sub(CODES_OCTETS_MAX)));
        match outcome {
            Outcome::Accepted(reply) => WireOutcome::Accepted(cut(reply)),
            Outcome::Deferred(reply) => WireOutcome::Deferred(cut(reply)),
            Outcome::Refused(reply) => WireOutcome::Refused(cut(reply)),
        }
    };
    let mut remote = remote;
    if let Some(remote) = &mut remote {
        remote.truncate(remote.floor_char_boundary(REMOTE_OCTETS_MAX));
    }
    RelayDone { outcomes: outcomes.iter().map(cut).collect(), remote, tls }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::reply::{Enhanced, REPLY_LINES_MAX, REPLY_OCTETS_MAX};
    use gatepost_protocol::tunnel::frame;
    use gatepost_protocol::tunnel::wire::RECIPIENTS_MAX;

    use super::*;

    #[test]
    fn whatever_the_remote_host_says_the_outcome_fits_a_record() {
        let line = "\u{fc}".repeat(REPLY_OCTETS_MAX / REPLY_LINES_MAX / 2);
        let long = Reply::new(599, Some(Enhanced(5, 999, 999)), vec![line; REPLY_LINES_MAX]);
        for text in [long, Reply::new(550, Some(Enhanced(5, 999, 999)), vec![String::new(); REPLY_LINES_MAX])] {
            for recipients in [1, 100, RECIPIENTS_MAX] {
                let outcomes = vec![Outcome::of(text.clone()); recipients];
                let name = || "x".repeat(64);
                let tls = WireTls { version: name(), cipher: name(), group: name() };
                let done = fitted(&outcomes, Some("h".repeat(RECORD_OCTETS_MAX)), Some(tls));
                let mut record = bytes::BytesMut::new();
                frame::put_record(&mut record, &AttemptState::Ended(done.clone()), RECORD_OCTETS_MAX).expect("fits");
                let WireOutcome::Refused(reply) = done.outcomes[recipients - 1].clone() else { panic!("refused") };
                assert_eq!(Reply::from(reply).code(), text.code());
            }
        }
    }

    #[test]
    fn an_outcome_of_usual_size_is_kept_verbatim() {
        let outcome = Outcome::of(Reply::new(550, None, vec!["x".repeat(200)]));
        let done = fitted(&vec![outcome.clone(); RECIPIENTS_MAX], Some("mx [192.0.2.1]:25".into()), None);
        assert_eq!(done.outcomes[0], WireOutcome::from(&outcome));
        assert_eq!(done.remote.as_deref(), Some("mx [192.0.2.1]:25"));
    }

    #[test]
    fn a_home_of_the_first_version_is_told_no_word_it_does_not_know() {
        let done = || RelayDone { outcomes: Vec::new(), remote: None, tls: None };
        let facts = || RelayFacts { dsn: true, ..RelayFacts::default() };
        let ended = || Ended { done: done(), facts: facts(), kept: None };
        assert_eq!(ended().step(1), RelayStep::Done(done()));
        assert_eq!(ended().step(2), RelayStep::Ended(done(), facts()));
        assert_eq!(told(AttemptState::EndedWith(done(), facts()), 1), AttemptState::Ended(done()));
        assert_eq!(told(AttemptState::EndedWith(done(), facts()), 2), AttemptState::EndedWith(done(), facts()));
        assert_eq!(told(AttemptState::Ended(done()), 2), AttemptState::Ended(done()));
    }
}
