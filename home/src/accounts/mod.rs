//! Accounts, their addresses, their passwords.

pub mod login;

use gatepost_protocol::mail::address::Address;

/// The accounts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts {
    _todo: (),
}

impl Accounts {
    /// Whether this login may send under that address: its own address, an alias that leads to it,
    /// or a subaddress of these.
    pub async fn may_send_as(&self, login: &str, address: &Address) -> bool {
        let _ = (login, address);
        todo!()
    }
}
