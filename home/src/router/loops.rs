//! Mail that goes in circles (RFC 5321 §6.3): too many hops, or an address of ours that it was delivered to before.
//! Whoever sends can forge either, so nothing is ever dropped for it: it is refused while its sender listens, and
//! the postmaster's afterwards. Who wrote to strangers before is nothing to us.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::header::{self, HEADER_OCTETS_MAX};
use gatepost_protocol::mail::received::HOPS_MAX;
use gatepost_protocol::mail::reply::Reply;

use super::recipients::LocalCopy;
use super::{Destinations, Inner};
use crate::message::{Body, Message};

/// Addresses taken out of one header.
const ADDRESSES_MAX: usize = 1000;

/// Where a message has been.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Received fields.
    hops: usize,
    /// Addresses it was delivered to, by lookup key.
    delivered_to: HashSet<String>,
}

impl Past {
    /// As its header tells, off the async threads where it lies in a file.
    pub async fn of(message: &Message) -> io::Result<Self> {
        match &message.body {
            Body::Memory(_) => Self::read(message),
            Body::File { .. } => {
                let message = message.clone();
                tokio::task::spawn_blocking(move || Self::read(&message)).await.map_err(io::Error::other)?
            }
        }
    }

    fn read(message: &Message) -> io::Result<Self> {
        let section = match &message.body {
            // Almost always the first piece holds all of it.
            Body::Memory(parts) if parts.first().is_some_and(|part| header::body_start(part).is_some()) => {
                Cow::Borrowed(parts[0].as_ref())
            }
            body => {
                let message = Message { front: bytes::Bytes::new(), body: body.clone() };
                let octets_max = usize::try_from(HEADER_OCTETS_MAX).unwrap_or(usize::MAX);
                Cow::Owned(message.header(octets_max)?.unwrap_or_default())
            }
        };
        let mut past = Self::default();
        for field in header::fields(&section) {
            if field.is("received") {
                past.hops += 1;
            } else if field.is("delivered-to")
                && past.delivered_to.len() < ADDRESSES_MAX
                && let Ok(text) = std::str::from_utf8(field.value())
                && let Ok(address) = Address::parse(text.trim().trim_matches(['<', '>']))
            {
                past.delivered_to.insert(address.lookup_key());
            }
        }
        Ok(past)
    }

    /// It has made more hops than any honest way has.
    pub fn is_endless(&self) -> bool {
        self.hops > HOPS_MAX
    }
}

impl Inner {
    /// Takes out what would only go round once more. An error: all of it would, and the sender still listens.
    pub(super) fn break_loops(
        &self,
        past: &Past,
        mut destinations: Destinations,
        spooled: bool,
    ) -> Result<Destinations, Reply> {
        if past.is_endless() && !spooled {
            return Err(Reply::mail_loop());
        }
        let met = |key: &str| past.is_endless() || past.delivered_to.contains(key);
        let mut looping: Vec<Address> = Vec::new();
        destinations.inbox.retain(|LocalCopy { mailbox, recipient }| {
            let again = met(mailbox);
            if again {
                looping.push(recipient.clone());
            }
            !again
        });
        destinations.forwards.retain(|forward| {
            let again = met(&forward.via.lookup_key());
            if again {
                looping.push(forward.via.clone());
            }
            !again
        });
        let Some(first) = looping.first() else { return Ok(destinations) };
        let nobody_left =
            destinations.inbox.is_empty() && destinations.forwards.is_empty() && destinations.remote.is_empty();
        if nobody_left && !spooled {
            return Err(Reply::delivered_before(&first.to_string()));
        }
        for recipient in &looping {
            self.to_postmaster(recipient, &mut destinations.inbox);
        }
        Ok(destinations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(text: &str) -> Past {
        let message = |body| Message { front: bytes::Bytes::from_static(b"Delivered-To: front@example.org\r\n"), body };
        let whole = Past::read(&message(Body::from(text.as_bytes().to_vec()))).expect("read");
        let pieces: Vec<_> = text.as_bytes().chunks(7).map(bytes::Bytes::copy_from_slice).collect();
        assert_eq!(Past::read(&message(Body::Memory(pieces.into()))).expect("read"), whole, "{text}");
        whole
    }

    #[test]
    fn the_past_is_in_the_header_only() {
        let text = "Received: a\r\nDelivered-To: Alice@Example.org\r\nReceived: b\r\n\tc\r\nDELIVERED-TO : <bob@example.com>\r\n\
                    Delivered-To: nonsense\r\nX-Delivered-To: eve@example.org\r\n\r\nDelivered-To: mallory@example.org\r\n";
        let past = past(text);
        assert_eq!(past.hops, 2);
        let mut keys: Vec<_> = past.delivered_to.iter().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["alice@example.org", "bob@example.com"]);
    }

    #[test]
    fn a_hundred_hops_are_a_way_and_one_more_is_a_circle() {
        let text = |hops| format!("{}Subject: x\r\n\r\n", "Received: x\r\n".repeat(hops));
        assert!(!past(&text(HOPS_MAX)).is_endless());
        assert!(past(&text(HOPS_MAX + 1)).is_endless());
    }

    #[test]
    fn what_a_header_may_hold_is_bounded() {
        let lines: Vec<String> =
            (0..ADDRESSES_MAX + 9).map(|n| format!("Delivered-To: a{n}@example.org\r\n")).collect();
        let text = lines.concat();
        assert_eq!(past(&(text + "\r\n")).delivered_to.len(), ADDRESSES_MAX);
        assert_eq!(past(""), Past::default());
    }
}
