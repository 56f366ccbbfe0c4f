//! What a submission gets, from the LAN or by way of an edge: Date and Message-ID where missing, our
//! Received field without the client's private name and address, no Bcc, no Return-Path. What can't
//! be made right is refused with the reason.

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;

use crate::accounts::Accounts;
use crate::message::Message;

/// What is known of a submission.
#[derive(Clone, Copy, Debug)]
pub struct Submitted<'a> {
    /// Who logged in.
    pub login: &'a str,
    /// The name that goes into Received.
    pub hostname: &'a str,
    /// `SMTPUTF8` was said.
    pub smtputf8: bool,
    /// The trace id.
    pub trace: TraceId,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// Completes a submission, or refuses it. Called once for each, by the router: submissions of the LAN
/// come to it as they were received.
pub async fn complete(accounts: &Accounts, submitted: Submitted<'_>, message: Message) -> Result<Message, Reply> {
    let _ = (accounts, submitted, message);
    todo!()
}
