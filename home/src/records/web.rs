//! Names that lead to the edges because something is served there: the policy for other mail hosts, the settings for mail
//! programs. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gatepost_protocol::mail::mta_sts::{HOST_LABEL, Mode};

use super::issuance::{self, Issuance};
use super::{Facts, Making, address_type, known_hosts, without};

/// First labels of the hosts where mail programs look.
pub const SETTINGS_LABELS: [&str; 2] = ["autoconfig", "autodiscover"];

pub(super) fn records(making: &mut Making, facts: &Facts, domain: &str) {
    let name = format!("_mta-sts.{domain}");
    match &facts.mta_sts {
        Some(policy) => {
            let note = match policy.mode() {
                Mode::None => "others forget the policy they knew; a month later both records may go",
                Mode::Testing => "others only report what fails; see mta_sts.mode",
                Mode::Enforce => "others deliver to these mail hosts by verified TLS or not at all",
            };
            making.add(&name, "TXT", policy.record()).note =
                Some(format!("{note}; publish it anew whenever it is another one"));
            leads_to_edges(making, facts, &format!("{HOST_LABEL}.{domain}"));
        }
        None => making.unknown(&name, "TXT", "no mail host is known: connect an edge and ask again"),
    }
    for label in SETTINGS_LABELS {
        let name = format!("{label}.{domain}");
        if facts.services.whole().is_some() {
            leads_to_edges(making, facts, &name);
        } else {
            making.later(&name, "A", "mail programs can't be told where to read mail: see autoconfig.imaps");
        }
    }
}

/// One host's name follows it wherever it moves; of several each has to be named.
fn leads_to_edges(making: &mut Making, facts: &Facts, name: &str) {
    let hosts = known_hosts(facts);
    let blind = facts.edges.iter().filter(|edge| edge.elsewhere.iter().any(|elsewhere| elsewhere == name));
    let blind: Vec<&str> = blind.map(|edge| edge.name.as_str()).collect();
    let note = (!blind.is_empty())
        .then(|| format!("it does not lead to {} yet, which orders its certificate once it does", blind.join(", ")));
    if let ([host], true) = (hosts.as_slice(), facts.edges.iter().all(|edge| edge.host.is_some())) {
        making.add(name, "CNAME", format!("{}.", host.name)).note = note;
        return;
    }
    if let Some(why) = without(facts, |edge| edge.addresses.is_empty(), "the address") {
        return making.unknown(name, "A", &why);
    }
    let addresses: BTreeSet<IpAddr> = facts.edges.iter().flat_map(|edge| edge.addresses.iter().copied()).collect();
    for address in addresses {
        making.add(name, address_type(address), address.to_string()).note.clone_from(&note);
    }
    // Where one name follows another, that one's records count. Half a list would shut an edge out.
    let issuances: Vec<Issuance> = facts.edges.iter().filter_map(|edge| edge.issuance.clone()).collect();
    if issuances.len() == facts.edges.len() {
        issuance::caa(making, name, &issuances);
    }
}
