//! Sorting an envelope's recipients: into mailboxes here, hosts elsewhere, and nobody. Pure.

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::envelope::Recipient;

use crate::accounts::addresses::{Addresses, Leads};

/// Copies of one message, over all its recipients. A message that leads to more is not for all of them.
pub const COPIES_MAX: usize = 2000;

/// An envelope's recipients, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// Mailboxes here, each once, in the order of the recipients that lead there.
    pub local: Vec<LocalCopy>,
    /// Addresses of other hosts.
    pub remote: Vec<Recipient>,
    /// Addresses of our domains that lead nowhere.
    pub unknown: Vec<Recipient>,
    /// Recipients of whose mailboxes some are missing in `local`: they are over [`COPIES_MAX`].
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

/// Sorts them.
pub fn sort(addresses: &Addresses, recipients: &[Recipient]) -> Sorted {
    let mut sorted = Sorted::default();
    let mut taken = std::collections::HashSet::new();
    for recipient in recipients {
        match addresses.lead(&recipient.address) {
            Leads::Remote => sorted.remote.push(recipient.clone()),
            Leads::Nowhere => sorted.unknown.push(recipient.clone()),
            Leads::Mailboxes(mailboxes) => {
                for mailbox in mailboxes {
                    if taken.contains(&mailbox) {
                        continue;
                    }
                    if sorted.local.len() == COPIES_MAX {
                        sorted.beyond.push(recipient.clone());
                        break;
                    }
                    taken.insert(mailbox.clone());
                    sorted.local.push(LocalCopy { mailbox, recipient: recipient.address.clone() });
                }
            }
        }
    }
    sorted
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
    fn a_copy_remembers_the_recipient_it_is_for() {
        let list = ["team@example.org", "alice@example.org"]
            .map(|text| Recipient::plain(Address::parse(text).expect("valid")));
        let sorted = sort(&example(), &list);
        assert_eq!(sorted.local[0].recipient.to_string(), "team@example.org");
    }
}
