//! What this home, its machine and its edges are called, as far as the config tells.

use gatepost_protocol::mail::address::Domain;
use gatepost_runtime::host;

use super::Config;
use crate::edges::EdgeSettings;

impl Config {
    /// Names under which we and our edges write what was found about mail, as far as the config tells.
    pub(super) fn own_hosts(&self) -> Vec<String> {
        let dialled = self.edges.iter().filter_map(dialled);
        dialled.map(|host| host.to_string()).chain([self.hostname.to_lowercase()]).collect()
    }

    /// The name under which accounts read their mail here, if they can: a server behind LMTP has a name of its own.
    pub(super) fn imaps_host(&self) -> Option<Domain> {
        let host = Domain::parse(&self.hostname).ok().filter(|host| host.as_str().contains('.'));
        host.filter(|_| self.imaps.is_some() && self.keepers.are_maildirs())
    }

    /// What this machine is called: an address there is a local name.
    pub(super) fn local_hosts(&self) -> Vec<Domain> {
        let system = host::name();
        let names = ["localhost", "localhost.localdomain", self.hostname.as_str(), system.as_str()];
        names.into_iter().filter_map(|name| Domain::parse(name).ok()).collect()
    }
}

/// The name an edge is dialled by, if that is a name.
pub(super) fn dialled(edge: &EdgeSettings) -> Option<Domain> {
    let (host, _) = edge.address.rsplit_once(':')?;
    // An IPv4 address would pass for one.
    let is_name = host.parse::<std::net::IpAddr>().is_err();
    Domain::parse(host).ok().filter(|host| is_name && host.literal().is_none())
}
