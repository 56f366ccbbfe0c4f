//! The homes' access lists: at connect and at MAIL only what every home refuses for certain, at RCPT what the
//! recipient's home says.

use std::net::IpAddr;

use gatepost_protocol::mail::access::{Access, Case, Rule, Sender, Subject};
use gatepost_protocol::mail::address::{Domain, ReversePath};
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::reply::Reply;

use crate::homes::Homes;

/// What the owner's list says in favour of who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Allowed {
    /// Nothing.
    #[default]
    No,
    /// The sender's address or domain is allowed, which anybody can write.
    Sender,
    /// The client is allowed, and it is the one that is connected.
    Client,
}

/// Whether a client need not be heard: no home takes anything from it.
pub fn client_refused(homes: &Homes, client: IpAddr) -> Option<Reply> {
    refused_by_all(homes, client, Sender::Unknown).then(|| Reply::client_refused(&client.to_string()))
}

/// Whether a sender need not go on: no home takes anything of it.
pub fn sender_refused(homes: &Homes, client: IpAddr, sender: &ReversePath) -> Option<Reply> {
    let refused = refused_by_all(homes, client, Sender::Said(sender));
    refused.then(|| Reply::access_refused(&sender.to_string()))
}

fn refused_by_all(homes: &Homes, client: IpAddr, sender: Sender<'_>) -> bool {
    let refuses = |directory: &Directory| {
        let case = Case { client, sender, recipient: None };
        directory.access.decide(&case).is_some_and(|rule| rule.access == Access::Refuse)
    };
    let homes = homes.all();
    // A home that never told its directory may take it.
    !homes.is_empty() && homes.iter().all(|home| home.directory().is_some_and(|directory| refuses(&directory)))
}

/// What a home says of who writes to this domain of its own.
pub fn judge(directory: &Directory, client: IpAddr, sender: &ReversePath, to: &Domain) -> Result<Allowed, Reply> {
    let case = Case { client, sender: Sender::Said(sender), recipient: Some(to) };
    match directory.access.decide(&case) {
        None => Ok(Allowed::No),
        Some(Rule { access: Access::Allow, subject: Subject::Network(_), .. }) => Ok(Allowed::Client),
        Some(Rule { access: Access::Allow, .. }) => Ok(Allowed::Sender),
        Some(Rule { access: Access::Refuse, subject: Subject::Network(_), .. }) => {
            Err(Reply::access_refused(&client.to_string()))
        }
        Some(Rule { access: Access::Refuse, .. }) => Err(Reply::access_refused(&sender.to_string())),
    }
}
