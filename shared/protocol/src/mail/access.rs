//! Access lists: from whom the owner takes mail whatever else is found, and from whom never. Where several rules fit,
//! the most specific counts. Pure, and asked at each moment of a session with what is known by then.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

use super::address::{Address, AddressError, Domain, ReversePath, is_below};
use crate::network::{Network, NetworkError};

/// Rules of one list: it is looked through at every recipient.
pub const RULES_MAX: usize = 2000;

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Clients of this network.
    Network(Network),
    /// Senders of this domain.
    Domain(Domain),
    /// Senders of the domains below this one.
    Below(Domain),
    /// This sender, in lower case.
    Address(Address),
}

/// Why a text is no subject; it says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SubjectError {
    /// It looked like a network.
    #[error("write {0}")]
    Network(NetworkError),
    /// It looked like an address or a domain.
    #[error("{0}; write an IP address or network, an address, a domain, or *.domain")]
    Address(AddressError),
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is taken.
    Allow,
    /// It is refused.
    Refuse,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub subject: Subject,
    /// Only mail for this domain.
    pub recipient: Option<Domain>,
    /// What is done.
    pub access: Access,
}

/// What is known of who sends.
#[derive(Clone, Copy, Debug)]
pub enum Sender<'a> {
    /// Nothing yet.
    Unknown,
    /// What MAIL said.
    Said(&'a ReversePath),
}

/// What is known at one moment of a session.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Who connects.
    pub client: IpAddr,
    /// Who sends.
    pub sender: Sender<'a>,
    /// For which domain, once that is known.
    pub recipient: Option<&'a Domain>,
}

/// Whether a rule fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    No,
    /// That is not known yet.
    Perhaps,
    Yes,
}

/// The rules of one home.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList(Vec<Rule>);

impl AccessList {
    /// Of these rules, as many as there may be.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self(rules.into_iter().take(RULES_MAX).collect())
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.0
    }

    /// Keeps those that are wanted.
    pub fn retain(&mut self, wanted: impl FnMut(&Rule) -> bool) {
        self.0.retain(wanted);
    }

    /// The rule that decides, whatever is not known yet; `None` if there is none, or if it may still be another that
    /// says the contrary.
    pub fn decide(&self, case: &Case<'_>) -> Option<&Rule> {
        let fitting = |fit| self.0.iter().filter(move |rule| rule.fits(case) == fit);
        let decisive = fitting(Fit::Yes).max_by_key(|rule| rule.specificity())?;
        let mut doubts = fitting(Fit::Perhaps);
        let open = doubts.any(|other| other.access != decisive.access && other.specificity() > decisive.specificity());
        (!open).then_some(decisive)
    }

    /// Whether this client is never banned: by what is said of its networks for all mail.
    pub fn spares(&self, client: IpAddr) -> bool {
        self.allows(|network| network.contains(client))
    }

    /// Whether all clients of this network are.
    pub fn spares_all_of(&self, network: &Network) -> bool {
        let narrower = |rule: &Rule| {
            let within = |of: &Network| of.is_within(network);
            rule.access == Access::Refuse && matches!(&rule.subject, Subject::Network(of) if within(of))
        };
        self.allows(|of| network.is_within(of)) && !self.0.iter().any(narrower)
    }

    fn allows(&self, concerns: impl Fn(&Network) -> bool) -> bool {
        let general = |rule: &&Rule| {
            rule.recipient.is_none() && matches!(&rule.subject, Subject::Network(network) if concerns(network))
        };
        let decisive = self.0.iter().filter(general).max_by_key(|rule| rule.specificity());
        decisive.is_some_and(|rule| rule.access == Access::Allow)
    }
}

impl Rule {
    /// What is proven of a client counts less than what its owner said of one sender: of the most particular the
    /// owner has thought last. The longer prefix, the longer name, and mail for one domain come before others.
    fn specificity(&self) -> (u8, usize, bool, bool) {
        let labels = |domain: &Domain| domain.as_str().split('.').count();
        let (class, length, exact) = match &self.subject {
            Subject::Network(network) => (0, usize::from(network.bits()), true),
            Subject::Below(domain) => (1, labels(domain), false),
            Subject::Domain(domain) => (1, labels(domain), true),
            Subject::Address(_) => (2, 0, true),
        };
        (class, length, exact, self.recipient.is_some())
    }

    fn fits(&self, case: &Case<'_>) -> Fit {
        let subject = match (&self.subject, case.sender) {
            (Subject::Network(network), _) => Fit::of(network.contains(case.client)),
            (_, Sender::Unknown) => Fit::Perhaps,
            (_, Sender::Said(ReversePath::Null)) => Fit::No,
            (Subject::Domain(domain), Sender::Said(ReversePath::Address(sender))) => Fit::of(sender.domain() == domain),
            (Subject::Below(domain), Sender::Said(ReversePath::Address(sender))) => {
                Fit::of(is_below(sender.domain().as_str(), domain.as_str()))
            }
            (Subject::Address(address), Sender::Said(ReversePath::Address(sender))) => {
                let same = |sender: &Address| sender.local().as_str().to_lowercase() == address.local().as_str();
                Fit::of(sender.domain() == address.domain() && same(sender))
            }
        };
        let recipient = match (&self.recipient, case.recipient) {
            (None, _) => Fit::Yes,
            (Some(_), None) => Fit::Perhaps,
            (Some(domain), Some(recipient)) => Fit::of(domain == recipient),
        };
        match (subject, recipient) {
            (Fit::No, _) | (_, Fit::No) => Fit::No,
            (Fit::Yes, Fit::Yes) => Fit::Yes,
            _ => Fit::Perhaps,
        }
    }
}

impl Fit {
    fn of(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

impl Access {
    /// `allow` or `refuse`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Refuse => "refuse",
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        if text.contains('/') && !text.contains('@') || text.parse::<IpAddr>().is_ok() {
            return text.parse().map(Self::Network).map_err(SubjectError::Network);
        }
        let domain = |text| {
            // A literal is an address of a client, and is written as one.
            let named = Domain::parse(text).and_then(|domain| match domain.literal() {
                Some(_) => Err(AddressError::BadDomain),
                None => Ok(domain),
            });
            named.map_err(SubjectError::Address)
        };
        match (text.strip_prefix("*."), text.strip_prefix('@'), text.contains('@')) {
            (Some(below), _, _) => domain(below).map(Self::Below),
            (_, Some(of), _) => domain(of).map(Self::Domain),
            (_, _, true) => {
                // Local parts are compared without regard to case.
                let lower =
                    Address::parse(text).and_then(|address| Address::parse(&address.to_string().to_lowercase()));
                lower.map(Self::Address).map_err(SubjectError::Address)
            }
            _ => domain(text).map(Self::Domain),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => write!(f, "{network}"),
            Self::Domain(domain) => write!(f, "{domain}"),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(text: &str) -> Rule {
        let mut words = text.split(' ');
        let access = if words.next() == Some("allow") { Access::Allow } else { Access::Refuse };
        let subject = words.next().expect("a subject").parse().expect(text);
        let recipient = words.next().map(|domain| Domain::parse(domain).expect(text));
        Rule { subject, recipient, access }
    }

    fn decided(rules: &[&str], client: &str, sender: Option<&str>, recipient: Option<&str>) -> Option<Access> {
        let list = AccessList::new(rules.iter().map(|text| rule(text)));
        let path = sender.map(|text| ReversePath::parse(text).expect("valid"));
        let domain = recipient.map(|text| Domain::parse(text).expect("valid"));
        let case = Case {
            client: client.parse().expect("an address"),
            sender: path.as_ref().map_or(Sender::Unknown, Sender::Said),
            recipient: domain.as_ref(),
        };
        list.decide(&case).map(|rule| rule.access)
    }

    const ALLOW: Option<Access> = Some(Access::Allow);
    const REFUSE: Option<Access> = Some(Access::Refuse);

    #[test]
    fn the_most_specific_rule_counts() {
        let at_rcpt = |rules: &[&str]| decided(rules, "192.0.2.7", Some("Bob@News.Shop.Example"), Some("example.org"));
        for (rules, expected) in [
            (&[][..], None),
            (&["refuse 192.0.2.0/24"], REFUSE),
            (&["refuse 192.0.2.0/24", "allow 192.0.2.7"], ALLOW),
            (&["allow 192.0.2.0/24", "refuse 192.0.2.0/28"], REFUSE),
            (&["refuse 192.0.3.0/24"], None),
            (&["refuse shop.example"], None),
            (&["refuse *.shop.example"], REFUSE),
            (&["refuse *.example", "allow *.shop.example"], ALLOW),
            (&["refuse *.shop.example", "allow news.shop.example"], ALLOW),
            (&["refuse news.shop.example", "allow bob@news.shop.example"], ALLOW),
            (&["allow 192.0.2.7", "refuse bob@news.shop.example"], REFUSE),
            (&["refuse 192.0.2.7", "allow *.example"], ALLOW),
            (&["refuse *.shop.example", "allow *.shop.example example.org"], ALLOW),
            (&["refuse *.shop.example example.net"], None),
            (&["refuse @news.shop.example"], REFUSE),
            (&["refuse *.news.shop.example"], None),
            (&["refuse \"BOB\"@news.shop.example"], REFUSE),
        ] {
            assert_eq!(at_rcpt(rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn nothing_is_decided_before_it_is_certain() {
        let rules = &["refuse 192.0.2.0/24", "allow bob@a.example"];
        let client = "192.0.2.7";
        assert_eq!(decided(rules, client, None, None), None, "it may be Bob");
        assert_eq!(decided(rules, client, Some("eve@a.example"), None), Some(Access::Refuse));
        assert_eq!(decided(rules, client, Some(""), None), Some(Access::Refuse), "nobody is nobody");
        assert_eq!(decided(rules, client, Some("bob@a.example"), None), Some(Access::Allow));
        let rules = &["refuse 192.0.2.0/24", "allow 192.0.2.0/24 example.net", "refuse b.example"];
        assert_eq!(decided(rules, client, None, None), None, "it may be for the other domain");
        assert_eq!(decided(rules, client, Some("x@b.example"), None), Some(Access::Refuse));
        assert_eq!(decided(rules, client, None, Some("example.org")), Some(Access::Refuse));
        assert_eq!(decided(rules, client, Some("x@c.example"), Some("example.net")), Some(Access::Allow));
    }

    #[test]
    fn a_client_is_spared_by_its_networks_alone() {
        let spares = |rules: &[&str]| {
            AccessList::new(rules.iter().map(|text| rule(text))).spares("2001:db8::7".parse().expect("an address"))
        };
        assert!(spares(&["allow 2001:db8::/32", "refuse eve@a.example"]));
        assert!(!spares(&["allow 2001:db8::/32", "refuse 2001:db8::7"]));
        assert!(!spares(&["allow 2001:db8::/32 example.org"]));
        assert!(!spares(&["allow a.example"]));
        let all_of = |rules: &[&str], network: &str| {
            AccessList::new(rules.iter().map(|text| rule(text))).spares_all_of(&network.parse().expect("a network"))
        };
        assert!(all_of(&["allow 192.0.2.0/24"], "192.0.2.0/28") && !all_of(&["allow 192.0.2.0/24"], "192.0.2.0/23"));
        assert!(!all_of(&["allow 192.0.2.0/24", "refuse 192.0.2.7"], "192.0.2.0/28"));
    }

    #[test]
    fn says_what_would_be_right() {
        for (text, words) in [
            ("192.0.2.7/24", "a network without host bits: \"192.0.2.0/24\""),
            ("::ffff:192.0.2.1", "IPv4 as IPv4"),
            ("", "the domain is not a valid name"),
            ("a..b", "the domain is not a valid name"),
            ("[192.0.2.1]", "an IP address or network"),
            ("*.", "the domain is not a valid name"),
            ("bob smith@a.example", "a character that is not allowed"),
        ] {
            let error = text.parse::<Subject>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_subject_reads_as_it_is_written(text in "[a-z0-9@*./:_-]{1,30}") {
            if let Ok(subject) = text.parse::<Subject>() {
                prop_assert_eq!(subject.to_string().parse::<Subject>(), Ok(subject));
            }
        }

        #[test]
        fn what_is_decided_early_is_decided_so_in_the_end(
            picks in proptest::collection::vec((0usize..8, 0usize..3, any::<bool>()), 0..8),
            who in 0usize..3,
            to in 0usize..2,
        ) {
            let subjects = ["192.0.2.0/24", "192.0.2.7", "192.0.3.0/24", "a.example", "*.example", "x@a.example", "b.example", "y@b.example"];
            let recipients = ["", " example.org", " example.net"];
            let mut rules: Vec<String> = Vec::new();
            for (subject, recipient, allow) in picks {
                let tail = format!("{}{}", subjects[subject], recipients[recipient]);
                if rules.iter().all(|rule| rule.split_once(' ').is_none_or(|(_, rest)| rest != tail)) {
                    rules.push(format!("{} {tail}", if allow { "allow" } else { "refuse" }));
                }
            }
            let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
            let (sender, recipient) = (["x@a.example", "y@b.example", ""][who], ["example.org", "example.net"][to]);
            let end = decided(&rules, "192.0.2.7", Some(sender), Some(recipient));
            for early in [decided(&rules, "192.0.2.7", None, None), decided(&rules, "192.0.2.7", Some(sender), None)] {
                prop_assert!(early.is_none() || early == end, "{:?} then {:?} by {:?}", early, end, rules);
            }
        }
    }
}
