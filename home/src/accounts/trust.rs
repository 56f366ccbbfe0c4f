//! What mail may say of itself that comes without a login: from trusted networks and from programs on this
//! machine. Its sender must be of a domain of ours, or of one the owner lists; names without a domain, or
//! at this machine's own name, are local.

use gatepost_protocol::mail::address::{Address, LocalPart};

use super::Accounts;
use super::addresses::Leads;

impl Accounts {
    /// An address that names this machine (`root@localhost`, `root@raspberrypi`) is a local name: it gets our first
    /// domain, and true. Others stay what they are.
    pub fn qualify(&self, address: Address) -> (Address, bool) {
        let settings = self.settings();
        let is_local = settings.local_hosts.contains(address.domain()) && !settings.domains.contains(address.domain());
        match settings.domains.first().filter(|_| is_local) {
            Some(first) => (Address::new(address.local().clone(), first.clone()), true),
            None => (address, false),
        }
    }

    /// Reads an address that may be a bare local name; the bool says that it was local. `None` if it is neither.
    pub fn parse_qualified(&self, text: &str) -> Option<(Address, bool)> {
        if text.contains('@') {
            return Address::parse(text).ok().map(|address| self.qualify(address));
        }
        let first = self.settings().domains.first()?.clone();
        LocalPart::parse(text).ok().map(|local| (Address::new(local, first), true))
    }

    /// Where a local name leads: to the address of that name at our first domain, or, if there is none such, to the
    /// postmaster, who looks after this machine.
    pub fn local_recipient(&self, address: Address) -> Address {
        match self.lead(&address) {
            Leads::Nowhere => self.settings().postmaster.clone(),
            Leads::Here(_) | Leads::Remote => address,
        }
    }

    /// Whether mail without a login may come from this address.
    pub fn is_trusted_sender(&self, address: &Address) -> bool {
        let settings = self.settings();
        settings.domains.contains(address.domain()) || settings.trusted_senders.contains(address.domain())
    }
}
