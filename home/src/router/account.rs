//! Mail of an account: its sender's rights, what it lacks, and how much of it may leave. What waited at an edge
//! was promised there, so it is kept even where it would be refused now.

use std::sync::Arc;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::random;

use super::ledger::HandOver;
use super::{Arrival, Router, refused, report};
use crate::accounts::addresses::Leads;

impl Router {
    pub(super) async fn accept_submission(
        &self,
        login: String,
        edge: Option<(NodeKey, TransferId)>,
        spooled: bool,
        mut arrival: Arrival,
    ) -> Reply {
        let original = arrival.message.clone();
        let completed = match self.inner.complete_submission(&login, &mut arrival).await {
            Ok(destinations) if !spooled => self.inner.judge_room(&arrival, &destinations).await.map(|()| destinations),
            completed => completed,
        };
        match completed {
            Ok(mut destinations) => {
                let hand_over = match edge {
                    Some((edge, transfer)) => HandOver::from_edge(edge, transfer),
                    None => HandOver::our_own(TransferId(random::bytes())),
                };
                let accounts = &self.inner.accounts;
                let reserved = accounts.caps().reserve(&login, destinations.remote.len(), accounts.cap(&login));
                let reserved = match reserved {
                    Ok(reserved) => Some(reserved),
                    // A repeat is settled by what was kept, and was counted then.
                    Err(_) if self.is_known(hand_over).await => None,
                    // It was answered 250 long ago: nothing of it is lost, but nothing leaves by itself.
                    Err(over) if spooled => {
                        destinations.held = Some(format!("over what {login} may send in {}", over.window));
                        None
                    }
                    Err(over) => return refused(&arrival, over.reply()),
                };
                let mut wanted = report::wanted(&arrival, &destinations, &self.inner.servers.keepers());
                let subject = (!wanted.is_empty()).then(|| arrival.clone());
                let (reply, news) = self.keep_once(hand_over, arrival, destinations).await;
                if let Some(reserved) = reserved.filter(|_| news.is_some()) {
                    reserved.spend();
                }
                let held = news.unwrap_or_default();
                wanted.retain(|recipient| !self.leads_to(&recipient.address, &held));
                if let Some(subject) = subject.filter(|_| reply.is_positive() && !wanted.is_empty()) {
                    self.tell_delivered(report::name(edge), subject, wanted, reply.clone()).await;
                }
                reply
            }
            Err(reply) => match edge.filter(|_| spooled && reply.class() == Class::Permanent) {
                Some(edge) => {
                    arrival.message = original;
                    self.refuse_submission(&login, edge, arrival, reply).await
                }
                None => refused(&arrival, reply),
            },
        }
    }

    /// Whether one of these mailboxes is behind this address.
    fn leads_to(&self, address: &Address, mailboxes: &[String]) -> bool {
        match self.inner.accounts.lead(address) {
            Leads::Here(ends) => ends.mailboxes.iter().any(|mailbox| mailboxes.contains(mailbox)),
            Leads::Nowhere | Leads::Remote => false,
        }
    }

    async fn is_known(&self, hand_over: HandOver) -> bool {
        let promises = Arc::clone(&self.inner.promises);
        let found = tokio::task::spawn_blocking(move || promises.ledger().find(hand_over)).await;
        matches!(found, Ok(Ok(Some(_))))
    }
}
