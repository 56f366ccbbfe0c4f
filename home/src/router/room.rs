//! Whether the mailboxes a message is for have room for it. Judged only while whoever sends still listens: what was
//! promised is stored. One recipient with room is enough, for after the message nobody can be refused alone; that
//! carries a mailbox beyond its quota by no more than edges let through, which refuse for full ones at RCPT.

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::reply::Reply;

use super::{Arrival, Destinations, Inner};

impl Inner {
    /// An error: no mailbox has room, and nobody else gets the message.
    pub(super) async fn judge_room(&self, arrival: &Arrival, destinations: &Destinations) -> Result<(), Reply> {
        if !destinations.forwards.is_empty() || !destinations.remote.is_empty() {
            return Ok(());
        }
        let octets = arrival.message.octets();
        let keepers = self.servers.keepers();
        let (mut unsure, mut refusal) = (Vec::new(), None);
        for copy in destinations.inbox.iter().chain(&destinations.junk) {
            // What a server keeps is the server's to judge; and postmaster always has room (RFC 5321 §4.5.1).
            if keepers.of(&copy.mailbox).is_some() || is_postmaster(&copy.recipient) {
                return Ok(());
            }
            let Some(octets_max) = self.accounts.quota(&copy.mailbox) else { return Ok(()) };
            if octets > octets_max {
                refusal.get_or_insert_with(|| Reply::mailbox_too_small(octets_max));
                continue;
            }
            let has_room = |held: u64| held.saturating_add(octets) <= octets_max;
            if self.promises.maildirs().usage().known(&copy.mailbox).is_some_and(has_room) {
                return Ok(());
            }
            unsure.push((copy.mailbox.clone(), octets_max - octets));
        }
        if !unsure.is_empty() {
            // Its owner may have made room a moment ago.
            if self.any_has_room(unsure).await {
                return Ok(());
            }
            refusal = Some(Reply::mailbox_full());
        }
        refusal.map_or(Ok(()), Err)
    }

    /// Counts again: each mailbox, and what it may hold so that the message still fits.
    async fn any_has_room(&self, mailboxes: Vec<(String, u64)>) -> bool {
        let promises = std::sync::Arc::clone(&self.promises);
        let counted = tokio::task::spawn_blocking(move || {
            mailboxes.into_iter().any(|(mailbox, held_max)| match promises.maildirs().usage().count(&mailbox) {
                Ok(held) => held <= held_max,
                Err(error) => {
                    tracing::error!(mailbox, %error, "a mailbox can't be counted; it is taken to have room");
                    true
                }
            })
        });
        counted.await.unwrap_or(true)
    }
}

/// True for the address that every domain must have.
fn is_postmaster(address: &Address) -> bool {
    address.local().as_str().eq_ignore_ascii_case("postmaster")
}
