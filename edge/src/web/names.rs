//! The names at which something is served for homes: each gets a certificate of its own.

use std::collections::BTreeSet;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::Directory;
use gatepost_runtime::acme::names::Names;

use super::documents::{LABELS, Site};
use crate::homes::Homes;

/// Tells whenever they are others, until the program ends.
pub async fn follow(homes: Homes, names: Names) {
    let mut learned = homes.learned();
    loop {
        learned.borrow_and_update();
        names.set(wanted(&homes));
        if learned.changed().await.is_err() {
            return;
        }
    }
}

fn wanted(homes: &Homes) -> BTreeSet<Domain> {
    let mut names = BTreeSet::new();
    for home in homes.all() {
        let Some(directory) = home.directory() else { continue };
        for domain in home.domains().iter().filter(|domain| directory.domains.contains_key(*domain)) {
            names.extend(of_domain(domain, &directory));
        }
    }
    names
}

/// Those of one domain at which its home has something to say.
fn of_domain(domain: &Domain, directory: &Directory) -> Vec<Domain> {
    let settings = directory.services.whole().is_some();
    let is_served = |site| match site {
        Site::MtaSts => directory.mta_sts.is_some(),
        Site::Settings | Site::Discovery | Site::Itself => settings,
    };
    let below = LABELS.into_iter().filter(|(_, site)| is_served(*site));
    let mut names: Vec<Domain> =
        below.filter_map(|(label, _)| Domain::parse(&format!("{label}.{domain}")).ok()).collect();
    // Mail programs ask the domain itself, too; where that is a web site it does not lead here.
    names.extend(is_served(Site::Itself).then(|| domain.clone()));
    names
}

/// Whether this name is one of this domain's.
pub fn is_of(name: &Domain, domain: &Domain) -> bool {
    name == domain
        || name
            .as_str()
            .split_once('.')
            .is_some_and(|(label, rest)| rest == domain.as_str() && LABELS.iter().any(|(known, _)| *known == label))
}
