//! The [`Directory`] an edge may see: domains, addresses, verifiers of submission-only app passwords
//! and nothing else. No name, no other password, no mailbox.

use gatepost_protocol::mail::directory::{Directory, DomainPolicy};

use super::Settings;
use super::book::Book;
use super::password::Scope;

/// Builds it.
pub fn directory(book: &Book, settings: &Settings, version: u64) -> Directory {
    let addresses = &book.addresses;
    let domains = settings.domains.iter().map(|domain| {
        // A catch-all that leads nowhere catches nothing.
        let catch_all = addresses.catch_alls.get(domain).is_some_and(|targets| {
            targets.iter().any(|target| addresses.mailboxes.contains(target) || addresses.aliases.contains_key(target))
        });
        (domain.clone(), DomainPolicy { catch_all })
    });
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
        patterns: Vec::new(),
        full: std::collections::HashSet::new(),
        srs: None,
    }
}
