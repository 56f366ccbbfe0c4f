//! What is particular to mail from the world: recipients by the directory of the home they belong to.

use gatepost_protocol::mail::envelope::Recipient;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::server::RcptTo;

use super::Desk;
use super::transaction::Transaction;
use crate::policy::recipient::judge_inbound;

/// RCPT on 25.
pub fn recipient(desk: &Desk, transaction: &mut Transaction, recipient: RcptTo) -> Result<(), Reply> {
    let RcptTo { path, notify, orcpt, .. } = recipient;
    let taken = judge_inbound(&desk.homes, path, transaction.home(), transaction.size())?;
    transaction.add(taken.home, Recipient { address: taken.address, notify, orcpt });
    Ok(())
}
