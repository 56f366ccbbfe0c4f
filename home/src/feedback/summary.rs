//! What many reports say together: by source, who passes and who does not. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use gatepost_protocol::mail::report::Disposition;
use gatepost_protocol::network::Network;

use super::store::Seen;

/// Names told of one source, of each kind.
const NAMES_MAX: usize = 8;
/// Sources told; the messages of the others are told together.
pub const SOURCES_MAX: usize = 200;

/// An edge, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What all reports say together.
#[derive(Debug, Default)]
pub struct Summary {
    edges: Vec<Edge>,
    all: Counts,
    sources: HashMap<Network, Source>,
}

/// Messages, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub messages: u64,
    /// Those that passed, by DKIM or by SPF.
    pub passed: u64,
    /// Those with a signature of ours.
    pub dkim: u64,
    /// Those that came from where our SPF record says.
    pub spf: u64,
    /// What was done, in the words of reports.
    pub done: BTreeMap<Disposition, u64>,
    /// Why something else was done than we asked for.
    pub reasons: BTreeMap<&'static str, u64>,
}

/// Where messages came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Whose it is, as far as we know.
    pub whose: Whose,
    /// What came from there.
    pub counts: Counts,
    /// Its addresses, some of them.
    pub addresses: BTreeSet<IpAddr>,
    /// Who told of it, some of them.
    pub reporters: BTreeSet<String>,
    /// Domains in From, some of them.
    pub from: BTreeSet<String>,
    /// Whose signatures passed, some of them.
    pub signers: BTreeSet<String>,
}

/// Whose a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Whose {
    /// An edge of ours.
    Edge(String),
    /// Nobody's we know; but a signature of ours passed, so it sends on what we sent, or sends for us.
    Signed,
    /// Nobody's we know; but our SPF record names it.
    Listed,
    /// Somebody who uses our name, or a service of ours that does not sign.
    #[default]
    Stranger,
}

impl Whose {
    /// For people.
    pub fn told(&self) -> String {
        match self {
            Self::Edge(name) => format!("your edge {name}"),
            Self::Signed => "sends on what you signed".to_owned(),
            Self::Listed => "named in your SPF record".to_owned(),
            Self::Stranger => "a stranger".to_owned(),
        }
    }

    /// For programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Edge(_) => "edge",
            Self::Signed => "signed",
            Self::Listed => "listed",
            Self::Stranger => "stranger",
        }
    }
}

impl Summary {
    /// Of nothing yet; these edges are ours.
    pub fn new(edges: Vec<Edge>) -> Self {
        Self { edges, ..Self::default() }
    }

    /// One more row.
    pub fn add(&mut self, seen: &Seen) {
        let edge = self.edges.iter().find(|edge| edge.addresses.contains(&seen.source));
        let network = match edge {
            Some(_) => Network::of_host(seen.source),
            None => Network::of_neighbours(seen.source),
        };
        let known = edge.map(|edge| Whose::Edge(edge.name.clone()));
        // An edge's neighbours are strangers, and counted apart from it.
        let source = self.sources.entry(network).or_default();
        if let Some(known) = known {
            source.whose = known;
        }
        source.add(seen);
        self.all.add(seen);
    }

    /// All messages.
    pub fn all(&self) -> &Counts {
        &self.all
    }

    /// The sources, edges of ours first, then those with most messages, at most [`SOURCES_MAX`]; and how many more
    /// there are.
    pub fn sources(self) -> (Vec<(Network, Source)>, usize) {
        let mut sources: Vec<_> = self.sources.into_iter().collect();
        sources.sort_by(|(a_network, a), (b_network, b)| {
            let key = |source: &Source| (matches!(source.whose, Whose::Edge(_)), source.counts.messages);
            key(b).cmp(&key(a)).then(a_network.cmp(b_network))
        });
        let more = sources.len().saturating_sub(SOURCES_MAX);
        sources.truncate(SOURCES_MAX);
        (sources, more)
    }
}

impl Source {
    fn add(&mut self, seen: &Seen) {
        self.counts.add(seen);
        if !matches!(self.whose, Whose::Edge(_)) {
            self.whose = match (self.counts.dkim, self.counts.spf) {
                (0, 0) => Whose::Stranger,
                (0, _) => Whose::Listed,
                _ => Whose::Signed,
            };
        }
        put(&mut self.addresses, &seen.source);
        put(&mut self.reporters, &seen.reporter);
        put(&mut self.from, &seen.header_from);
        seen.signers.iter().for_each(|signer| put(&mut self.signers, signer));
    }
}

impl Counts {
    fn add(&mut self, seen: &Seen) {
        let count = |passed: bool| if passed { seen.count } else { 0 };
        let add = |sum: &mut u64, count: u64| *sum = sum.saturating_add(count);
        add(&mut self.messages, seen.count);
        add(&mut self.passed, count(seen.dkim || seen.spf));
        add(&mut self.dkim, count(seen.dkim));
        add(&mut self.spf, count(seen.spf));
        add(self.done.entry(seen.disposition).or_default(), seen.count);
        for reason in &seen.reasons {
            add(self.reasons.entry(reason.word()).or_default(), seen.count);
        }
    }
}

fn put<T: Ord + Clone>(set: &mut BTreeSet<T>, one: &T) {
    if set.len() < NAMES_MAX {
        set.insert(one.clone());
    }
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::report::ReasonKind;

    use super::*;

    fn seen(source: [u8; 4], count: u64, dkim: bool, spf: bool) -> Seen {
        let disposition = if dkim || spf { Disposition::None } else { Disposition::Reject };
        Seen {
            reporter: "receiver.example".into(),
            source: source.into(),
            count,
            disposition,
            dkim,
            spf,
            header_from: "example.org".into(),
            reasons: if dkim { Vec::new() } else { vec![ReasonKind::MailingList] },
            signers: if dkim { vec!["example.org".into()] } else { Vec::new() },
        }
    }

    #[test]
    fn sources_are_told_apart_by_whose_they_are() {
        let edge = Edge { name: "vps1".into(), addresses: vec![[203, 0, 113, 5].into()] };
        let mut summary = Summary::new(vec![edge]);
        for row in [
            seen([203, 0, 113, 5], 10, true, true),
            seen([203, 0, 113, 5], 2, false, true),
            // A neighbour of the edge is not the edge.
            seen([203, 0, 113, 6], 50, false, false),
            seen([198, 51, 100, 1], 3, false, false),
            seen([198, 51, 100, 200], 4, true, false),
            seen([192, 0, 2, 1], 1, false, true),
        ] {
            summary.add(&row);
        }
        let all = summary.all().clone();
        assert_eq!((all.messages, all.passed, all.dkim, all.spf), (70, 17, 14, 13));
        assert_eq!(all.done, BTreeMap::from([(Disposition::None, 17), (Disposition::Reject, 53)]));
        assert_eq!(all.reasons, BTreeMap::from([("mailing_list", 56)]));
        let (sources, more) = summary.sources();
        let told: Vec<_> = sources
            .iter()
            .map(|(network, source)| (network.to_string(), source.whose.clone(), source.counts.messages))
            .collect();
        let expected = [
            ("203.0.113.5".to_owned(), Whose::Edge("vps1".into()), 12),
            ("203.0.113.0/24".to_owned(), Whose::Stranger, 50),
            ("198.51.100.0/24".to_owned(), Whose::Signed, 7),
            ("192.0.2.0/24".to_owned(), Whose::Listed, 1),
        ];
        assert_eq!((told, more), (expected.to_vec(), 0));
        assert_eq!(sources[2].1.addresses.len(), 2);
    }

    #[test]
    fn what_is_told_is_bounded() {
        let mut summary = Summary::new(Vec::new());
        for n in 0..=u16::try_from(SOURCES_MAX).expect("small") {
            let [high, low] = n.to_be_bytes();
            for host in 0..20 {
                let reporter = format!("r{host}.example");
                summary.add(&Seen { reporter, ..seen([10, high, low, host], u64::MAX, true, true) });
            }
        }
        assert_eq!(summary.all().messages, u64::MAX);
        let (sources, more) = summary.sources();
        assert_eq!((sources.len(), more), (SOURCES_MAX, 1));
        assert!(sources.iter().all(|(_, source)| source.reporters.len() == NAMES_MAX));
    }
}
