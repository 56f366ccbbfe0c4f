//! The [`Directory`] an edge may see: domains, addresses, verifiers of submission-only app passwords
//! and nothing else. No name, no other password, no mailbox.

use gatepost_protocol::mail::directory::{Directory, DomainPolicy, SrsVerifier};

use super::Settings;
use super::book::Book;
use super::password::Scope;

/// Builds it.
pub fn directory(book: &Book, settings: &Settings, version: u64, srs: SrsVerifier) -> Directory {
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
        full: std::collections::HashSet::new(),
        srs: Some(srs),
    }
}
