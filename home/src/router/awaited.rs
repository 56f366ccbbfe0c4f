//! Mail that somebody waits for: a copy of its beginning goes to whoever waits, and it is delivered as ever. Known by a
//! token that nobody can guess, in what comes to one address. While nobody waits this costs nothing.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gatepost_protocol::mail::address::Address;
use gatepost_runtime::clock::Clock;
use memchr::memmem;
use thiserror::Error;
use tokio::sync::Notify;

use super::{Arrival, Origin};
use crate::message::Message;

/// Who waits at once.
const WAITS_MAX: usize = 4;
/// Messages kept for one who waits; later ones are delivered all the same.
const FOUND_MAX: usize = 8;
/// Octets of a message that are looked at, and kept.
pub const OCTETS_MAX: usize = 512 * 1024;

/// Who waits for what. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waits: Mutex<Vec<Wait>>,
    /// How many they are.
    count: AtomicUsize,
    found: Notify,
}

#[derive(Debug)]
struct Wait {
    token: String,
    to: String,
    until: Instant,
    found: Vec<Vec<u8>>,
}

/// Too many wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{WAITS_MAX} probes are under way already; wait for their answers")]
pub struct TooMany;

impl Awaited {
    /// From now on until then, mail to `to` that holds `token` is awaited.
    pub fn begin(&self, token: &str, to: &Address, until: Instant, now: Instant) -> Result<(), TooMany> {
        let mut waits = self.waits();
        waits.retain(|wait| wait.until > now);
        let may = waits.len() < WAITS_MAX;
        if may {
            waits.push(Wait { token: token.to_owned(), to: to.lookup_key(), until, found: Vec::new() });
        }
        self.0.count.store(waits.len(), Ordering::Relaxed);
        if may { Ok(()) } else { Err(TooMany) }
    }

    /// Nobody waits for it any more.
    pub fn end(&self, token: &str) {
        let mut waits = self.waits();
        waits.retain(|wait| wait.token != token);
        self.0.count.store(waits.len(), Ordering::Relaxed);
    }

    /// What has come beyond the first `seen`, as soon as there is something, or nothing after so long; `None` if nobody
    /// waits for it (any more).
    pub async fn look(&self, token: &str, seen: usize, wait_max: Duration, clock: &Clock) -> Option<Vec<Vec<u8>>> {
        let look = || {
            let waits = self.waits();
            let wait = waits.iter().find(|wait| wait.token == token)?;
            Some(wait.found.get(seen..).map_or_else(Vec::new, <[_]>::to_vec))
        };
        let until = clock.now() + wait_max;
        loop {
            let found = self.0.found.notified();
            let new = look()?;
            let left = until.saturating_duration_since(clock.now());
            if !new.is_empty() || clock.timeout(left, found).await.is_none() {
                return Some(new);
            }
        }
    }

    /// Those of them this message may be for: the tokens to look for in it.
    pub(super) fn of(&self, arrival: &Arrival) -> Vec<String> {
        let comes_back = matches!(arrival.origin, Origin::World { .. } | Origin::Bounce { .. });
        if self.0.count.load(Ordering::Relaxed) == 0 || !comes_back {
            return Vec::new();
        }
        let to: Vec<String> = arrival.envelope.recipients.iter().map(|one| one.address.lookup_key()).collect();
        let waits = self.waits();
        waits.iter().filter(|wait| to.contains(&wait.to)).map(|wait| wait.token.clone()).collect()
    }

    /// Keeps a copy of the message for those whose token it holds. Blocking for a body in a file.
    pub(super) fn offer(&self, tokens: &[String], message: &Message) {
        if tokens.is_empty() {
            return;
        }
        let begun = match beginning(message) {
            Ok(begun) => begun,
            Err(error) => return tracing::warn!(%error, "whether it is an answer that is awaited can't be told"),
        };
        let held = |token: &String| memmem::find(&begun, token.as_bytes()).is_some();
        for wait in self.waits().iter_mut().filter(|wait| tokens.contains(&wait.token) && held(&wait.token)) {
            if wait.found.len() < FOUND_MAX {
                wait.found.push(begun.clone());
            }
        }
        self.0.found.notify_waiters();
    }

    fn waits(&self) -> MutexGuard<'_, Vec<Wait>> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So much of a message as is looked at.
fn beginning(message: &Message) -> io::Result<Vec<u8>> {
    let mut begun = message.front.to_vec();
    for chunk in message.body.chunks() {
        begun.extend_from_slice(&chunk?);
        if begun.len() >= OCTETS_MAX {
            break;
        }
    }
    begun.truncate(OCTETS_MAX);
    Ok(begun)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::Body;

    fn message(text: &str) -> Message {
        Message { front: Bytes::from_static(b"X: 1\r\n"), body: Body::from(text.as_bytes().to_vec()) }
    }

    #[tokio::test]
    async fn what_holds_the_token_is_copied_and_nothing_else() {
        let (awaited, clock) = (Awaited::default(), Clock::real());
        let to = Address::parse("alice@example.org").unwrap();
        let now = clock.now();
        awaited.begin("token1", &to, now + Duration::from_mins(1), now).unwrap();
        let tokens = ["token1".to_owned()];
        awaited.offer(&tokens, &message("about something else"));
        let look = async |seen| awaited.look("token1", seen, Duration::from_millis(1), &clock).await;
        assert_eq!(look(0).await, Some(vec![]));
        awaited.offer(&tokens, &message("In-Reply-To: <token1@x>"));
        assert_eq!(look(0).await, Some(vec![b"X: 1\r\nIn-Reply-To: <token1@x>".to_vec()]));
        assert_eq!(look(1).await, Some(vec![]));
        awaited.end("token1");
        assert_eq!(look(0).await, None);
    }

    #[tokio::test]
    async fn who_waits_and_what_is_kept_is_bounded() {
        let (awaited, clock) = (Awaited::default(), Clock::real());
        let to = Address::parse("alice@example.org").unwrap();
        let now = clock.now();
        let until = now + Duration::from_mins(1);
        for number in 0..WAITS_MAX {
            awaited.begin(&format!("token{number}"), &to, until, now).unwrap();
        }
        assert_eq!(awaited.begin("one more", &to, until, now), Err(TooMany));
        awaited.begin("later", &to, until + Duration::from_mins(1), until).unwrap();
        let long = format!("later {}", "x".repeat(OCTETS_MAX));
        for _ in 0..=FOUND_MAX {
            awaited.offer(&["later".to_owned()], &message(&long));
        }
        let found = awaited.look("later", 0, Duration::ZERO, &clock).await.unwrap();
        assert_eq!((found.len(), found[0].len()), (FOUND_MAX, OCTETS_MAX));
        assert_eq!(awaited.look("token0", 0, Duration::ZERO, &clock).await, None, "their time is over");
    }
}
