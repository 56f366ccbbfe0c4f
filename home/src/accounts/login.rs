//! One SASL exchange against the accounts, whether the client sits on the LAN or at an edge.

use std::net::IpAddr;

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::sasl::Mechanism;

use super::Accounts;

/// Where a password is typed: bounds what it can do (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an edge: submission-only app passwords by any mechanism, others only by SCRAM.
    Edge,
    /// At home.
    Home,
}

/// What the client is told next.
#[derive(Debug)]
pub enum Step {
    /// This challenge.
    Challenge(Vec<u8>),
    /// Logged in.
    Granted {
        /// Login name: the account's address.
        login: String,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// Not.
    Refused(Reply),
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    _todo: (),
}

impl Login {
    /// Begins.
    pub fn new(
        accounts: Accounts,
        place: Place,
        mechanism: Mechanism,
        exporter: Option<[u8; 32]>,
        client: IpAddr,
    ) -> Self {
        let _ = (accounts, place, mechanism, exporter, client);
        todo!()
    }

    /// The initial response, or its absence.
    pub async fn start(&mut self, initial: Option<Secret>) -> Step {
        let _ = initial;
        todo!()
    }

    /// The answer to a challenge.
    pub async fn response(&mut self, response: Secret) -> Step {
        let _ = response;
        todo!()
    }
}
