//! Sorting an envelope's recipients: into mailboxes here, hosts elsewhere, and nobody. Pure.

use std::collections::HashSet;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::envelope::Recipient;

use super::forward;
use crate::accounts::addresses::{Addresses, Ends, Leads};

/// Copies of one message, over all its recipients. A message that leads to more is not for all of them.
pub const COPIES_MAX: usize = 2000;

/// An envelope's recipients, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Mailboxes here, each once, in the order of the recipients that lead there.
    pub local: Vec<LocalCopy>,
    /// Addresses of other hosts that aliases here lead to, each once.
    pub forwards: Vec<Forward>,
    /// Addresses of other hosts.
    pub remote: Vec<Recipient>,
    /// Addresses of our domains that lead nowhere.
    pub unknown: Vec<Recipient>,
    /// Recipients some of whose ends are missing above: they are over [`COPIES_MAX`].
    pub beyond: Vec<Recipient>,
}

/// One mailbox that gets a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCopy {
    /// Its lookup key.
    pub mailbox: String,
    /// The recipient that leads there, as it was written.
    pub recipient: Address,
}

/// One address of another host that gets a copy by way of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Who.
    pub recipient: Recipient,
    /// The recipient that leads there, as it was written.
    pub via: Address,
}

/// Sorts them.
pub fn sort(addresses: &Addresses, recipients: &[Recipient]) -> Sorted {
    let mut sorted = Sorted::default();
    let mut taken = HashSet::new();
    for recipient in recipients {
        match addresses.lead(&recipient.address) {
            Leads::Remote => sorted.remote.push(recipient.clone()),
            Leads::Nowhere => sorted.unknown.push(recipient.clone()),
            Leads::Here(ends) => {
                if !add(&mut sorted, &mut taken, recipient, ends) {
                    sorted.beyond.push(recipient.clone());
                }
            }
        }
    }
    sorted
}

/// Adds where one recipient leads; false if it is too much.
fn add(sorted: &mut Sorted, taken: &mut HashSet<String>, recipient: &Recipient, ends: Ends) -> bool {
    for mailbox in ends.mailboxes {
        if taken.contains(&mailbox) {
            continue;
        }
        if taken.len() == COPIES_MAX {
            return false;
        }
        taken.insert(mailbox.clone());
        sorted.local.push(LocalCopy { mailbox, recipient: recipient.address.clone() });
    }
    for address in ends.forwards {
        let name = address.to_string();
        if taken.contains(&name) {
            continue;
        }
        if taken.len() == COPIES_MAX {
            return false;
        }
        taken.insert(name);
        let via = recipient.address.clone();
        // RFC 3461 §5.2.7: a report names the address its reader wrote to.
        let orcpt = recipient.orcpt.clone().or_else(|| (!via.needs_utf8()).then(|| format!("rfc822;{via}")));
        let recipient = Recipient { address, notify: forward::notify(recipient.notify), orcpt };
        sorted.forwards.push(Forward { recipient, via });
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::addresses::tests::example;

    #[test]
    fn sorts() {
        for (recipients, local, remote, unknown) in [
            (&["alice@example.org"][..], &["alice@example.org"][..], 0, 0),
            (&["bob+x@example.org"], &["alice@example.org", "bob@example.org"], 0, 0),
            (&["team@example.org", "alice@example.org"], &["alice@example.org", "bob@example.org"], 0, 0),
            (&["nobody@example.org", "x@example.com"], &[], 1, 1),
            (&["x@all.example", "gone@example.org"], &["alice@example.org", "bob@example.org"], 0, 1),
            (&["x@example.com", "y@example.net", "alice@example.org"], &["alice@example.org"], 2, 0),
        ] {
            let list: Vec<Recipient> =
                recipients.iter().map(|text| Recipient::plain(Address::parse(text).expect("valid"))).collect();
            let sorted = sort(&example(), &list);
            let mailboxes: Vec<&str> = sorted.local.iter().map(|copy| copy.mailbox.as_str()).collect();
            assert_eq!(
                (&mailboxes[..], sorted.remote.len(), sorted.unknown.len()),
                (local, remote, unknown),
                "{recipients:?}"
            );
        }
    }

    #[test]
    fn what_leads_elsewhere_goes_there_once_and_by_which_alias() {
        let list = ["away@example.org", "far@example.org", "x@example.com"]
            .map(|text| Recipient::plain(Address::parse(text).expect("valid")));
        let sorted = sort(&example(), &list);
        let [forward] = &sorted.forwards[..] else { panic!("{sorted:?}") };
        assert_eq!(forward.recipient.address.to_string(), "Away.Name@mail.example");
        assert_eq!(forward.recipient.orcpt.as_deref(), Some("rfc822;away@example.org"));
        assert_eq!(forward.via.to_string(), "away@example.org");
        assert_eq!((sorted.local.len(), sorted.remote.len()), (1, 1));
    }

    #[test]
    fn a_copy_remembers_the_recipient_it_is_for() {
        let list = ["team@example.org", "alice@example.org"]
            .map(|text| Recipient::plain(Address::parse(text).expect("valid")));
        let sorted = sort(&example(), &list);
        assert_eq!(sorted.local[0].recipient.to_string(), "team@example.org");
    }
}
