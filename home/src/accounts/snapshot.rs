//! The [`Directory`] an edge may see: domains, addresses, verifiers of submission-only app passwords
//! and nothing else. No name, no other password, no mailbox.

use std::collections::HashSet;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::directory::{Directory, DomainPolicy, SrsVerifier};

use super::Settings;
use super::addresses::{Addresses, Leads};
use super::book::Book;
use super::password::Scope;

/// Builds it. `full` are the mailboxes over quota.
#[expect(clippy::implicit_hasher, reason = "there is one kind of set here")]
pub fn directory(
    book: &Book,
    settings: &Settings,
    version: u64,
    srs: SrsVerifier,
    full: &HashSet<String>,
) -> Directory {
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
        full: full_addresses(addresses, full),
        srs: Some(srs),
    }
}

/// Addresses that lead to full mailboxes and nowhere else.
fn full_addresses(addresses: &Addresses, full: &HashSet<String>) -> HashSet<String> {
    if full.is_empty() {
        return HashSet::new();
    }
    let is_full = |key: &str| {
        let Ok(address) = Address::parse(key) else { return false };
        match addresses.lead(&address) {
            Leads::Here(ends) => {
                ends.forwards.is_empty() && ends.mailboxes.iter().all(|mailbox| full.contains(mailbox))
            }
            Leads::Nowhere | Leads::Remote => false,
        }
    };
    let mailboxes = full.iter().map(String::as_str);
    let aliases = addresses.aliases.keys().map(AsRef::as_ref);
    mailboxes.chain(aliases).filter(|key| is_full(key)).map(str::to_owned).collect()
}
