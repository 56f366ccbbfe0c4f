//! What a message of the world is besides a letter, once it is kept: perhaps a report about our own mail, and one more to
//! be told to the domain in whose name it came.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::verdict::Verdict;

use super::ledger::HandOver;
use super::{Arrival, Destinations, Inner, Origin, Router};
use crate::feedback::Offer;
use crate::reporting::{Judged, Reporting};

impl Router {
    /// Keeps it, and counts it then. What came before was counted before.
    pub(super) async fn keep_of_world(
        &self,
        hand_over: HandOver,
        (client, verdict): (IpAddr, &Arc<Verdict>),
        arrival: Arrival,
        destinations: Destinations,
    ) -> Reply {
        let sender = arrival.envelope.reverse_path.address().map(|address| address.domain().clone());
        let at_unix_s = arrival.received_unix_s;
        let (reply, kept) = self.keep_once(hand_over, arrival, destinations).await;
        if kept.is_some() {
            let sender = sender.as_ref().map_or("", Domain::as_str);
            self.inner.reporting.note(Judged { client, sender, verdict, refused: false, at_unix_s });
        }
        reply
    }

    /// Counts what domains are told of mail in their name.
    pub fn reporting(&self) -> &Reporting {
        &self.inner.reporting
    }
}

impl Inner {
    /// The message, if it is for where reports about our domains go.
    pub(super) fn offer(&self, arrival: &Arrival) -> Option<Offer> {
        let Origin::World { verdict, .. } = &arrival.origin else { return None };
        let settings = self.accounts.settings();
        Offer::of(&arrival.envelope, (&arrival.message, arrival.trace), verdict, &settings.domains)
    }
}
