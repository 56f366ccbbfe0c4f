//! The [`Directory`] an edge may see: domains, addresses, verifiers of submission-only app passwords
//! and nothing else. No name, no other password, no mailbox.

use std::collections::HashMap;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::directory::{Directory, DomainPolicy, Room, SrsVerifier};
use gatepost_protocol::mail::mta_sts::StsPolicy;
use gatepost_protocol::mail::policy::HOSTS_MAX;
use gatepost_protocol::mail::services::{Service, Services};

use super::Settings;
use super::addresses::{Addresses, Leads};
use super::book::Book;
use super::neighbours::Neighbours;
use super::password::Scope;
use crate::publishing::ReadAt;

/// Builds it. `tight` are the mailboxes with little room, `met` what edges told of themselves.
#[expect(clippy::implicit_hasher, reason = "there is one kind of set here")]
pub fn directory(
    book: &Book,
    settings: &Settings,
    version: u64,
    srs: SrsVerifier,
    tight: &HashMap<String, Room>,
    met: &Neighbours,
) -> Directory {
    let Published { mta_sts, services } = published(settings, met);
    let addresses = &book.addresses;
    let domains = settings.domains.iter().map(|domain| {
        // A catch-all that leads nowhere catches nothing.
        let targets = addresses.catch_alls.get(domain.as_str());
        (domain.clone(), DomainPolicy { catch_all: targets.is_some_and(|targets| addresses.leads_somewhere(targets)) })
    });
    let patterns = addresses.patterns.iter().filter(|(_, targets)| addresses.leads_somewhere(targets));
    let verifiers = book.accounts.iter().filter_map(|(login, account)| {
        let verifier = account.verifier(|scope| scope == Scope::Submission);
        (!verifier.keys.is_empty()).then(|| (login.clone(), verifier))
    });
    Directory {
        version,
        domains: domains.collect(),
        addresses: addresses.known(),
        subaddress_separator: settings.subaddress_separator,
        verifiers: verifiers.collect(),
        seal_key: settings.seal_key.clone(),
        message_octets_max: settings.message_octets_max,
        patterns: patterns.map(|(pattern, _)| pattern.clone()).collect(),
        tight: tight_addresses(addresses, tight),
        srs: Some(srs),
        access: book.access.clone(),
        policies: settings.policies.clone(),
        hosts: hosts(settings, met),
        mta_sts,
        services,
    }
}

/// What other hosts, and mail programs, are told.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// How mail is to be brought.
    pub mta_sts: Option<StsPolicy>,
    /// Where accounts read and send theirs.
    pub services: Services,
}

/// As far as the edges are known.
pub fn published(settings: &Settings, met: &Neighbours) -> Published {
    let told = &settings.publishing;
    let max_age_s = u32::try_from(told.max_age.as_secs()).unwrap_or(u32::MAX);
    Published {
        mta_sts: StsPolicy::new(told.mode, max_age_s, met.mail_hosts(&settings.edges)),
        services: Services { imaps: imaps(settings, met), submissions: met.submissions(&settings.edges) },
    }
}

/// Where accounts read their mail: here, where an edge carries them, or where the owner says.
fn imaps(settings: &Settings, met: &Neighbours) -> Option<Service> {
    match &settings.publishing.imaps {
        ReadAt::Off => None,
        ReadAt::At(service) => Some(service.clone()),
        ReadAt::Here => {
            let host = settings.imaps_host.clone()?;
            Some(Service { host, port: met.imaps(&settings.edges)? })
        }
    }
}

/// Each name once, as many as there may be.
fn hosts(settings: &Settings, met: &Neighbours) -> Vec<String> {
    let mut hosts: Vec<String> = settings.hosts.iter().cloned().chain(met.hosts(&settings.edges)).collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(HOSTS_MAX);
    hosts
}

/// Addresses that lead to such mailboxes and nowhere else; the one with the most room counts.
fn tight_addresses(addresses: &Addresses, tight: &HashMap<String, Room>) -> HashMap<String, Room> {
    if tight.is_empty() {
        return HashMap::new();
    }
    let room = |key: &str| -> Option<Room> {
        match addresses.lead(&Address::parse(key).ok()?) {
            Leads::Here(ends) if ends.forwards.is_empty() => {
                let rooms: Option<Vec<Room>> =
                    ends.mailboxes.iter().map(|mailbox| tight.get(mailbox).copied()).collect();
                let rooms = rooms?;
                let most = |of: fn(&Room) -> u64| rooms.iter().map(of).max();
                Some(Room { left: most(|room| room.left)?, whole: most(|room| room.whole)? })
            }
            Leads::Here(_) | Leads::Nowhere | Leads::Remote => None,
        }
    };
    let mailboxes = tight.keys().map(String::as_str);
    let aliases = addresses.aliases.keys().map(AsRef::as_ref);
    mailboxes.chain(aliases).filter_map(|key| Some((key.to_owned(), room(key)?))).collect()
}
