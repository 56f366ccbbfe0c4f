//! What is particular to mail from the world: recipients by the directory of the home they belong to.

use std::net::IpAddr;

use gatepost_protocol::mail::envelope::Recipient;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::srs::Day;
use gatepost_protocol::smtp::server::RcptTo;

use super::Desk;
use super::transaction::Transaction;
use crate::admission::Arrival;
use crate::policy::client::{self, Thresholds};
use crate::policy::recipient::{Asked, judge_inbound};

/// RCPT on 25.
pub async fn recipient(
    desk: &Desk,
    client: IpAddr,
    arrival: &mut Arrival,
    transaction: &mut Transaction,
    recipient: RcptTo,
) -> Result<(), Reply> {
    let RcptTo { path, notify, orcpt, .. } = recipient;
    let standing = arrival.standing().await;
    let suspicion = standing.as_deref().map(|standing| client::judge(standing, thresholds(desk), client));
    let suspicion = suspicion.unwrap_or_default();
    let asked = Asked {
        home: transaction.home(),
        policy: transaction.policy(),
        size: transaction.size(),
        client,
        listed: suspicion.refused.as_ref(),
        sender: transaction.sender(),
        today: Day::of(desk.clock.latest_s()),
    };
    let taken = judge_inbound(&desk.homes, path, asked)?;
    transaction.add(desk, taken.home, Recipient { address: taken.address, notify, orcpt }).await?;
    transaction.note(taken.allowed, taken.policy);
    transaction.note_standing(standing, suspicion.junk);
    Ok(())
}

fn thresholds(desk: &Desk) -> Thresholds {
    let settings = desk.admission.settings();
    Thresholds { junk_at: settings.junk_at, refuse_at: settings.refuse_at }
}
