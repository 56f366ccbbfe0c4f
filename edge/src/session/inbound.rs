//! What is particular to mail from the world: recipients by the directory of the home they belong to.

use std::net::IpAddr;

use gatepost_protocol::mail::envelope::Recipient;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::srs::Day;
use gatepost_protocol::mail::verdict::Oddity;
use gatepost_protocol::smtp::server::RcptTo;

use super::Desk;
use super::judging::Client;
use super::transaction::Transaction;
use crate::admission::{Arrival, Hold};
use crate::policy::access::Allowed;
use crate::policy::client::{self, Thresholds};
use crate::policy::helo::{self, Ourselves};
use crate::policy::recipient::{Asked, is_postmaster, judge_inbound};

/// Who sends from the world.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// Its address.
    pub client: IpAddr,
    /// The address it connected to.
    pub local: Option<IpAddr>,
    /// What it calls itself.
    pub helo: &'a str,
}

/// RCPT on 25.
pub async fn recipient(
    desk: &Desk,
    visitor: Visitor<'_>,
    arrival: &mut Arrival,
    transaction: &mut Transaction,
    recipient: RcptTo,
) -> Result<(), Reply> {
    let RcptTo { path, notify, orcpt, .. } = recipient;
    let standing = arrival.standing().await;
    let Visitor { client, local, helo } = visitor;
    // Who is none of ours may call itself as it likes, and so may we ourselves.
    let ourselves = Ourselves { hostname: &desk.hostname, address: local };
    let judged = desk.admission.is_stranger(client) && local != Some(client);
    let oddity = helo::judge(helo, client, ourselves).filter(|_| judged);
    let found = standing.as_deref().cloned().unwrap_or_default();
    let suspicion = client::judge(&found, thresholds(desk), client, (helo, oddity));
    let asked = Asked {
        home: transaction.home(),
        policy: transaction.policy(),
        size: transaction.size(),
        client,
        listed: suspicion.refused.as_ref(),
        sender: transaction.sender(),
        today: Day::of(desk.clock.latest_s()),
    };
    let taken = judge_inbound(&desk.homes, path, asked).inspect_err(|reply| {
        let sender = transaction.sender().to_string();
        if suspicion.refused.as_ref() == Some(reply) {
            desk.admission.held(if oddity == Some(Oddity::OurName) { Hold::Name } else { Hold::List });
        } else if [client.to_string(), sender].iter().any(|who| *reply == Reply::access_refused(who)) {
            desk.admission.held(Hold::Access);
        }
    })?;
    if taken.allowed == Allowed::No && !taken.policy.monitor && !is_postmaster(&taken.address) {
        let (sender, recipient) = (transaction.sender().to_string(), taken.address.to_string());
        if let Some(delay) = desk.admission.greylisted(client, &sender, &recipient) {
            return Err(Reply::greylisted(delay.as_secs().div_ceil(60)));
        }
    }
    transaction.add(desk, taken.home, Recipient { address: taken.address, notify, orcpt }).await?;
    transaction.note(taken.allowed, taken.policy);
    transaction.note_client(Client { standing: found, oddity, suspect: suspicion.junk });
    Ok(())
}

fn thresholds(desk: &Desk) -> Thresholds {
    let settings = desk.admission.settings();
    Thresholds { junk_at: settings.junk_at, refuse_at: settings.refuse_at }
}
