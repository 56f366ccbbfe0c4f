//! What is served of homes: policies for other mail hosts, settings for mail programs. Which document a host and a path
//! name. Pure; what is in them, the home said.

use gatepost_protocol::autoconfig::{address_of_query, apple, outlook, thunderbird};
use gatepost_protocol::mail::address::{Address, Domain};
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::mta_sts;
use gatepost_runtime::web::{Asked, Page};

/// Hosts at which something is served, by their first label.
pub const LABELS: [(&str, Site); 3] =
    [(mta_sts::HOST_LABEL, Site::MtaSts), ("autoconfig", Site::Settings), ("autodiscover", Site::Discovery)];

/// A host of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// `mta-sts.DOMAIN`
    MtaSts,
    /// `autoconfig.DOMAIN`
    Settings,
    /// `autodiscover.DOMAIN`
    Discovery,
    /// `DOMAIN`
    Itself,
}

/// A document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Document {
    Policy,
    Thunderbird,
    Outlook,
    Apple,
}

/// Which domains a host may be of: of `mta-sts.example.org` there are two, should somebody have mail there.
pub fn sites(host: &str) -> impl Iterator<Item = (Domain, Site)> {
    let below = host.split_once('.').and_then(|(label, rest)| {
        let (_, site) = LABELS.into_iter().find(|(known, _)| *known == label)?;
        Some((Domain::parse(rest).ok()?, site))
    });
    let itself = Domain::parse(host).ok().map(|domain| (domain, Site::Itself));
    below.into_iter().chain(itself).filter(|(domain, _)| domain.literal().is_none())
}

/// The answer of this site of a domain; `None` where nothing is served there by that path.
pub fn answer(asked: &Asked, domain: &Domain, site: Site, directory: &Directory) -> Option<Page> {
    let document = document(&asked.path, site)?;
    // To who has no right to it there is nothing there, whatever was asked.
    let whole = directory.services.whole().is_some();
    match document {
        Document::Policy => {
            let policy = directory.mta_sts.as_ref().filter(|_| asked.secure)?;
            Some(if asked.post {
                Page::only("GET, HEAD")
            } else {
                Page::new("text/plain; charset=utf-8", policy.text())
            })
        }
        _ if !whole => None,
        Document::Thunderbird if asked.post => Some(Page::only("GET, HEAD")),
        Document::Thunderbird => {
            Some(Page::new(thunderbird::KIND, thunderbird::document(domain, &directory.services)?))
        }
        // Under TLS only: what is typed into what comes of these is a password.
        Document::Outlook | Document::Apple if !asked.secure => {
            Some(Page::moved(&format!("https://{}{}", asked.host, target(asked))))
        }
        Document::Outlook if !asked.post => Some(Page::only("POST")),
        Document::Outlook => {
            let address = outlook::asked(&asked.body);
            Some(settings(address, domain, outlook::KIND, |address| outlook::document(address, &directory.services)))
        }
        Document::Apple if asked.post => Some(Page::only("GET, HEAD")),
        Document::Apple => {
            let address = address_of_query(&asked.query, &apple::PARAMETERS);
            Some(settings(address, domain, apple::KIND, |address| apple::document(address, &directory.services)))
        }
    }
}

fn document(path: &str, site: Site) -> Option<Document> {
    let is_outlook = path.eq_ignore_ascii_case(outlook::PATH);
    match site {
        Site::MtaSts => (path == mta_sts::PATH).then_some(Document::Policy),
        Site::Settings => match path {
            thunderbird::PATH | thunderbird::WELL_KNOWN_PATH => Some(Document::Thunderbird),
            apple::PATH => Some(Document::Apple),
            _ => is_outlook.then_some(Document::Outlook),
        },
        Site::Discovery => is_outlook.then_some(Document::Outlook),
        Site::Itself => match path {
            thunderbird::WELL_KNOWN_PATH => Some(Document::Thunderbird),
            _ => is_outlook.then_some(Document::Outlook),
        },
    }
}

/// For an address of this domain, whether it exists or not: nobody learns here who does.
fn settings(
    address: Option<Address>,
    domain: &Domain,
    kind: &'static str,
    document: impl FnOnce(&Address) -> Option<Vec<u8>>,
) -> Page {
    match address {
        None => Page::bad_request("an address is wanted"),
        Some(address) if address.domain() != domain => Page::not_found(),
        Some(address) => document(&address).map_or_else(Page::not_found, |document| Page::new(kind, document)),
    }
}

/// Path and query, to ask for the same elsewhere.
fn target(asked: &Asked) -> String {
    if asked.query.is_empty() { asked.path.clone() } else { format!("{}?{}", asked.path, asked.query) }
}

#[cfg(test)]
mod tests;
