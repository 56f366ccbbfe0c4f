//! Whose an address is: accounts, aliases (to many, and to aliases), subaddresses, postmaster,
//! catch-all. Pure. The most specific wins: the address itself, then its base without the
//! subaddress, then the domain's catch-all.

use std::collections::{BTreeSet, HashMap, HashSet};

use gatepost_protocol::mail::address::{Address, Domain};

/// Aliases that lead to aliases are followed this far; a longer chain, or a circle, ends nowhere.
pub const ALIAS_DEPTH_MAX: usize = 10;

/// Everything that decides where an address leads. Keys are [`Address::lookup_key`]s.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Domains served here.
    pub domains: HashSet<Domain>,
    /// Accounts: each has a mailbox.
    pub mailboxes: HashSet<String>,
    /// Aliases and where they lead.
    pub aliases: HashMap<String, Vec<String>>,
    /// Catch-alls and where they lead.
    pub catch_alls: HashMap<Domain, Vec<String>>,
    /// Separator of subaddresses.
    pub separator: Option<char>,
    /// Who gets mail for `postmaster` at each domain, unless an account or alias of that name exists.
    pub postmaster: String,
}

/// Where an address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leads {
    /// To these mailboxes (lookup keys, sorted, at least one).
    Mailboxes(Vec<String>),
    /// Its domain is ours, and it leads nowhere.
    Nowhere,
    /// Its domain is not ours.
    Remote,
}

impl Addresses {
    /// Where this address leads.
    pub fn lead(&self, address: &Address) -> Leads {
        if !self.domains.contains(address.domain()) {
            return Leads::Remote;
        }
        let key = address.lookup_key();
        let mut found = BTreeSet::new();
        self.follow(&key, &mut found);
        if let Some(base) = self.base(address).filter(|_| found.is_empty()) {
            self.follow(&base, &mut found);
        }
        if found.is_empty() && is_postmaster(address) {
            self.follow(&self.postmaster, &mut found);
            if found.is_empty() {
                // Every domain must take mail for it (RFC 5321 §4.5.1): its mailbox may wait for its account.
                found.insert(self.postmaster.clone());
            }
        }
        if let Some(targets) = self.catch_alls.get(address.domain()).filter(|_| found.is_empty()) {
            for target in targets {
                self.follow(target, &mut found);
            }
        }
        if found.is_empty() { Leads::Nowhere } else { Leads::Mailboxes(found.into_iter().collect()) }
    }

    /// True if `login` may send under this address: its own, an alias that leads to it, or a subaddress of
    /// these. Another account's own address is that account's alone, whoever gets copies of its mail.
    pub fn may_send_as(&self, login: &str, address: &Address) -> bool {
        let key = address.lookup_key();
        let owner = if self.mailboxes.contains(&key) { Some(key) } else { self.base(address) };
        match owner.filter(|owner| self.mailboxes.contains(owner)) {
            Some(owner) if owner != login => false,
            _ => matches!(self.lead(address), Leads::Mailboxes(found) if found.iter().any(|mailbox| mailbox == login)),
        }
    }

    /// The address without its subaddress, if it has one.
    fn base(&self, address: &Address) -> Option<String> {
        let (name, _) = address.local().split_detail(self.separator?)?;
        Some(format!("{}@{}", name.to_lowercase(), address.domain()))
    }

    /// Every address and alias that leads somewhere, for the directory. Catch-alls are not among them.
    pub fn known(&self) -> HashSet<String> {
        let mut known = self.mailboxes.clone();
        for source in self.aliases.keys() {
            let mut found = BTreeSet::new();
            self.follow(source, &mut found);
            if !found.is_empty() {
                known.insert(source.clone());
            }
        }
        known.insert(self.postmaster.clone());
        known.extend(self.domains.iter().map(|domain| format!("postmaster@{domain}")));
        known
    }

    /// Nearest first, each address once, however many aliases lead there.
    fn follow(&self, key: &str, found: &mut BTreeSet<String>) {
        let mut seen = HashSet::from([key]);
        let mut near = vec![key];
        for depth in 0..=ALIAS_DEPTH_MAX {
            let mut far = Vec::new();
            for key in near {
                if self.mailboxes.contains(key) {
                    found.insert(key.to_owned());
                }
                // An alias of an account's own name adds to it: `alice` may lead to alice and to bob.
                let targets = self.aliases.get(key).filter(|_| depth < ALIAS_DEPTH_MAX);
                far.extend(targets.into_iter().flatten().map(String::as_str).filter(|target| seen.insert(target)));
            }
            if far.is_empty() {
                return;
            }
            near = far;
        }
    }
}

fn is_postmaster(address: &Address) -> bool {
    address.local().as_str().eq_ignore_ascii_case("postmaster")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// alice and bob at example.org; carol has no account any more.
    pub fn example() -> Addresses {
        let domain = |name| Domain::parse(name).expect("valid");
        let alias = |source: &str, targets: &[&str]| {
            (source.to_owned(), targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>())
        };
        Addresses {
            domains: [domain("example.org"), domain("all.example"), domain("second.example")].into(),
            mailboxes: ["alice@example.org".to_owned(), "bob@example.org".to_owned()].into(),
            aliases: [
                alias("team@example.org", &["alice@example.org", "bob@example.org", "carol@example.org"]),
                alias("everybody@example.org", &["team@example.org", "alice@example.org"]),
                alias("gone@example.org", &["carol@example.org"]),
                alias("circle@example.org", &["round@example.org"]),
                alias("round@example.org", &["circle@example.org"]),
                alias("bob@example.org", &["alice@example.org"]),
                alias("alice+lists@example.org", &["bob@example.org"]),
            ]
            .into(),
            catch_alls: [(domain("all.example"), vec!["bob@example.org".to_owned()])].into(),
            separator: Some('+'),
            postmaster: "alice@example.org".to_owned(),
        }
    }

    #[test]
    fn leads() {
        let to = |mailboxes: &[&str]| Leads::Mailboxes(mailboxes.iter().map(|m| format!("{m}@example.org")).collect());
        for (address, expected) in [
            ("alice@example.org", to(&["alice"])),
            ("ALICE@Example.Org", to(&["alice"])),
            ("alice+shop@example.org", to(&["alice"])),
            ("alice+lists@example.org", to(&["alice", "bob"])),
            ("team@example.org", to(&["alice", "bob"])),
            ("team+x@example.org", to(&["alice", "bob"])),
            ("everybody@example.org", to(&["alice", "bob"])),
            ("bob@example.org", to(&["alice", "bob"])),
            ("gone@example.org", Leads::Nowhere),
            ("circle@example.org", Leads::Nowhere),
            ("nobody@example.org", Leads::Nowhere),
            ("+x@example.org", Leads::Nowhere),
            ("postmaster@example.org", to(&["alice"])),
            ("Postmaster@second.example", to(&["alice"])),
            ("anything@all.example", to(&["alice", "bob"])),
            ("nobody@second.example", Leads::Nowhere),
            ("alice@example.com", Leads::Remote),
        ] {
            let parsed = Address::parse(address).expect("valid");
            assert_eq!(example().lead(&parsed), expected, "{address}");
        }
    }

    #[test]
    fn sends_only_under_addresses_of_its_own() {
        for (login, address, may) in [
            ("alice@example.org", "alice@example.org", true),
            ("alice@example.org", "Alice+shop@example.org", true),
            ("alice@example.org", "team@example.org", true),
            ("alice@example.org", "postmaster@second.example", true),
            ("bob@example.org", "anything@all.example", true),
            ("bob@example.org", "postmaster@second.example", false),
            ("bob@example.org", "alice@example.org", false),
            ("bob@example.org", "alice+x@example.org", false),
            ("alice@example.org", "bob@example.org", false),
            ("alice@example.org", "nobody@example.org", false),
            ("alice@example.org", "alice@example.com", false),
        ] {
            let parsed = Address::parse(address).expect("valid");
            assert_eq!(example().may_send_as(login, &parsed), may, "{login} as {address}");
        }
    }

    #[test]
    fn postmaster_is_known_even_before_its_account() {
        let addresses = Addresses { mailboxes: HashSet::new(), ..example() };
        let postmaster = Address::parse("postmaster@second.example").expect("valid");
        assert_eq!(addresses.lead(&postmaster), Leads::Mailboxes(vec!["alice@example.org".to_owned()]));
    }

    #[test]
    fn the_directory_knows_what_leads_somewhere() {
        let known = example().known();
        for (key, expected) in [
            ("alice@example.org", true),
            ("team@example.org", true),
            ("postmaster@second.example", true),
            ("gone@example.org", false),
            ("circle@example.org", false),
        ] {
            assert_eq!(known.contains(key), expected, "{key}");
        }
    }

    #[test]
    fn aliases_that_all_name_each_other_are_followed_once() {
        let mut addresses = example();
        let names: Vec<String> = (0..40).map(|n| format!("a{n}@example.org")).collect();
        for name in &names {
            let mut targets = names.clone();
            targets.push("alice@example.org".to_owned());
            addresses.aliases.insert(name.clone(), targets);
        }
        // One after the other this would take 40^10 steps.
        let lead = addresses.lead(&Address::parse("a0@example.org").expect("valid"));
        assert_eq!(lead, Leads::Mailboxes(vec!["alice@example.org".to_owned()]));
    }

    #[test]
    fn an_alias_near_enough_by_one_way_is_followed_though_another_is_too_long() {
        let mut addresses = example();
        for n in 0..ALIAS_DEPTH_MAX {
            addresses.aliases.insert(format!("a{n}@example.org"), vec![format!("a{}@example.org", n + 1)]);
        }
        let last = format!("a{}@example.org", ALIAS_DEPTH_MAX - 1);
        addresses.aliases.get_mut("a0@example.org").expect("there").push(last.clone());
        addresses.aliases.insert(last, vec!["team@example.org".to_owned()]);
        let lead = addresses.lead(&Address::parse("a0@example.org").expect("valid"));
        assert!(matches!(lead, Leads::Mailboxes(found) if found.len() == 2));
    }

    #[test]
    fn a_long_chain_ends() {
        let mut addresses = example();
        for n in 0..50 {
            addresses.aliases.insert(format!("a{n}@example.org"), vec![format!("a{}@example.org", n + 1)]);
        }
        addresses.aliases.insert("a50@example.org".to_owned(), vec!["alice@example.org".to_owned()]);
        let lead = |text: &str| addresses.lead(&Address::parse(text).expect("valid"));
        assert_eq!(lead("a0@example.org"), Leads::Nowhere);
        assert!(matches!(lead("a45@example.org"), Leads::Mailboxes(_)));
    }
}
