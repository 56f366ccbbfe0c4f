//! Where a domain's mail goes: null MX, implicit MX, order of preference, and the addresses mail is
//! never sent to. The choice is pure; only [`names`] and [`targets`] ask the DNS.

use std::net::{IpAddr, SocketAddr};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::network::{Network, is_public};
use gatepost_runtime::random;
use gatepost_runtime::resolver::{CouldNotTell, Exchanger, ExchangersAnswer, Resolver};

/// SMTP (RFC 5321 §4.5.4.2).
pub const PORT: u16 = 25;
/// Exchangers of one domain that are looked at.
const EXCHANGERS_MAX: usize = 16;
/// Octets of a receiver's domain: as long as a domain can be.
const GROUP_OCTETS_MAX: usize = 255;
/// The second label of a country's public suffixes (`co.uk`, `com.au`) has so many octets at most.
const SUFFIX_LABEL_OCTETS_MAX: usize = 3;
/// Addresses of one domain that are tried.
pub const TARGETS_MAX: usize = 10;

/// One address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The exchanger's name.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
}

/// Why a domain has no host to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// The domain's mail comes to this very edge.
    Ourselves,
    /// For this reason; the reply for every recipient.
    Reply(Reply),
}

impl From<Reply> for Nowhere {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// The exchangers of a domain, in the order they are to be tried; of an address literal, itself.
pub async fn names(resolver: &Resolver, domain: &Domain, ours: &Domain) -> Result<Vec<String>, Nowhere> {
    if domain.literal().is_some() {
        // RFC 5321 §5.1: an address literal is its own exchanger.
        return Ok(vec![domain.to_string()]);
    }
    let answer = resolver.exchangers(domain).await.map_err(|error| could_not_tell(&error))?;
    in_order(answer, domain, ours)
}

/// The same of an answer that is there.
pub fn in_order(answer: ExchangersAnswer, domain: &Domain, ours: &Domain) -> Result<Vec<String>, Nowhere> {
    order(answer, domain, ours, random::bytes())
}

/// The addresses of a domain's exchangers, in the order they are to be tried.
pub async fn targets(
    resolver: &Resolver,
    domain: &Domain,
    names: &[String],
    ours: &Domain,
    ipv6: bool,
) -> Result<Vec<Target>, Nowhere> {
    let own = own_addresses(resolver, ours).await;
    let allowed = |ip: &IpAddr| is_public(*ip) && !own.contains(ip);
    if let Some(literal) = domain.literal() {
        let target = Target { host: domain.to_string(), address: SocketAddr::new(literal, PORT) };
        return match literal {
            ip if own.contains(&ip) => Err(Nowhere::Ourselves),
            ip if !allowed(&ip) => Err(Reply::forbidden_target(domain.as_str()).into()),
            IpAddr::V6(_) if !ipv6 => Err(Reply::only_ipv6(domain.as_str()).into()),
            _ => Ok(vec![target]),
        };
    }
    let mut targets = Vec::new();
    let (mut forbidden, mut ourselves, mut only_ipv6) = (false, false, false);
    let mut failed = None;
    for host in names.iter().take(EXCHANGERS_MAX) {
        match resolver.addresses(host, ipv6).await {
            Ok(addresses) => {
                let (good, bad): (Vec<_>, Vec<_>) = addresses.into_iter().partition(allowed);
                forbidden |= !bad.is_empty();
                ourselves |= bad.iter().any(|ip| own.contains(ip));
                only_ipv6 |= !ipv6
                    && good.is_empty()
                    && bad.is_empty()
                    && resolver.addresses(host, true).await.is_ok_and(|addresses| !addresses.is_empty());
                let target = |ip| Target { host: host.clone(), address: SocketAddr::new(ip, PORT) };
                targets.extend(by_turns(good).into_iter().map(target));
            }
            Err(error) => failed = Some(could_not_tell(&error)),
        }
        if targets.len() >= TARGETS_MAX {
            break;
        }
    }
    targets.truncate(TARGETS_MAX);
    match (targets.is_empty(), failed) {
        (false, _) => Ok(targets),
        // A host that could not be looked up may be a good one.
        (true, Some(reply)) => Err(reply.into()),
        (true, None) if ourselves => Err(Nowhere::Ourselves),
        // The owner may yet turn IPv6 on.
        (true, None) if only_ipv6 => Err(Reply::only_ipv6(domain.as_str()).into()),
        (true, None) if forbidden => Err(Reply::forbidden_target(domain.as_str()).into()),
        (true, None) => Err(Reply::no_such_domain(domain.as_str()).into()),
    }
}

/// Where this edge is reached: what the DNS says, and this machine itself.
pub async fn own_addresses(resolver: &Resolver, ours: &Domain) -> Own {
    Own(resolver.addresses(ours.as_str(), true).await.unwrap_or_default())
}

/// Addresses that lead to this edge.
#[derive(Debug)]
pub struct Own(Vec<IpAddr>);

impl Own {
    /// True if this one does: as the DNS says, or because it is this machine's by its kind.
    pub fn contains(&self, ip: &IpAddr) -> bool {
        let canonical = ip.to_canonical();
        canonical.is_loopback() || canonical.is_unspecified() || self.0.contains(ip)
    }
}

/// Both families by turns, IPv6 first (RFC 8305 §4), each in its order: a family that leads nowhere costs
/// one try.
pub fn by_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut all = Vec::new();
    loop {
        let (one, other) = (six.next(), four.next());
        if one.is_none() && other.is_none() {
            return all;
        }
        all.extend(one.into_iter().chain(other));
    }
}

fn could_not_tell(error: &CouldNotTell) -> Reply {
    Reply::dns_failed(&error.to_string())
}

/// Orders a domain's exchangers: by preference, equal ones shuffled by `chance` (RFC 5321 §5.1).
/// If we are one of them, only those preferred to us remain: anything else would send in circles.
pub fn order(
    answer: ExchangersAnswer,
    domain: &Domain,
    ours: &Domain,
    chance: [u8; 32],
) -> Result<Vec<String>, Nowhere> {
    let mut found = match answer {
        ExchangersAnswer::NoSuchDomain => return Err(Reply::no_such_domain(domain.as_str()).into()),
        ExchangersAnswer::None => return Ok(vec![domain.to_string()]),
        ExchangersAnswer::Found(found) => found,
    };
    if found.iter().all(|exchanger| exchanger.host.is_empty()) {
        // RFC 7505 §3: a single exchanger that is the root.
        return Err(Reply::null_mx(domain.as_str()).into());
    }
    found.retain(|exchanger| !exchanger.host.is_empty());
    let is_ours = |exchanger: &&Exchanger| exchanger.host.eq_ignore_ascii_case(ours.as_str());
    if let Some(own) = found.iter().filter(is_ours).map(|exchanger| exchanger.preference).min() {
        found.retain(|exchanger| exchanger.preference < own);
        if found.is_empty() {
            return Err(Nowhere::Ourselves);
        }
    }
    shuffle(&mut found, chance);
    found.sort_by_key(|exchanger| exchanger.preference);
    Ok(found.into_iter().map(|exchanger| exchanger.host).collect())
}

/// Fisher–Yates over the first exchangers; there are never more that count.
fn shuffle(found: &mut [Exchanger], chance: [u8; 32]) {
    for (i, byte) in (1..found.len()).zip(chance) {
        found.swap(i, usize::from(byte) % (i + 1));
    }
}

/// By what a receiver counts us: its hosts' domain, or the network of one that has only an address. Told
/// without a list of public suffixes: two labels, three where the second is as short as in `co.uk`.
pub fn group(host: &str, address: IpAddr) -> String {
    let host = host.trim_end_matches('.');
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Network::of_neighbours(address).to_string();
    }
    let labels: Vec<&str> = host.split('.').collect();
    let kept = match labels.as_slice() {
        [.., second, top] if top.len() == 2 && second.len() <= SUFFIX_LABEL_OCTETS_MAX => 3,
        _ => 2,
    };
    let mut group = labels[labels.len().saturating_sub(kept)..].join(".").to_ascii_lowercase();
    group.truncate(group.floor_char_boundary(GROUP_OCTETS_MAX));
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).expect("valid")
    }

    fn found(exchangers: &[(u16, &str)]) -> ExchangersAnswer {
        let exchanger = |&(preference, host): &(u16, &str)| Exchanger { preference, host: host.into() };
        ExchangersAnswer::Found(exchangers.iter().map(exchanger).collect())
    }

    fn ordered(answer: ExchangersAnswer, chance: u8) -> Result<Vec<String>, Nowhere> {
        order(answer, &domain("example.com"), &domain("mail.example.org"), [chance; 32])
    }

    #[test]
    fn null_missing_and_implicit() {
        assert_eq!(ordered(found(&[(0, "")]), 0), Err(Reply::null_mx("example.com").into()));
        assert_eq!(ordered(ExchangersAnswer::NoSuchDomain, 0), Err(Reply::no_such_domain("example.com").into()));
        assert_eq!(ordered(ExchangersAnswer::None, 0), Ok(vec!["example.com".to_owned()]));
        assert_eq!(ordered(found(&[(0, ""), (5, "a")]), 0), Ok(vec!["a".to_owned()]));
    }

    #[test]
    fn by_preference_and_equal_ones_shuffled() {
        let answer = || found(&[(20, "c"), (10, "a"), (10, "b"), (30, "d")]);
        let mut firsts = std::collections::HashSet::new();
        for chance in 0..=255 {
            let hosts = ordered(answer(), chance).expect("some");
            assert_eq!(hosts[2..], ["c", "d"]);
            firsts.insert(hosts[0].clone());
        }
        assert_eq!(firsts.len(), 2, "each of the equals comes first at times");
    }

    #[test]
    fn never_to_ourselves_or_behind_us() {
        let answer = found(&[(10, "a"), (20, "MAIL.example.org"), (20, "b"), (30, "c")]);
        assert_eq!(ordered(answer, 1), Ok(vec!["a".to_owned()]));
        let only = found(&[(10, "mail.example.org"), (20, "c")]);
        assert_eq!(ordered(only, 1), Err(Nowhere::Ourselves));
    }

    #[test]
    fn families_take_turns_and_keep_their_order() {
        let ips = |list: &[&str]| list.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let turns = by_turns(ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"]));
        assert_eq!(turns, ips(&["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3"]));
        assert_eq!(by_turns(ips(&["192.0.2.1"])), ips(&["192.0.2.1"]));
    }

    #[test]
    fn this_machine_is_ours_whatever_the_dns_says() {
        let own = Own(vec!["192.0.2.1".parse().expect("an address")]);
        for ip in ["192.0.2.1", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(own.contains(&ip.parse().expect("an address")), "{ip}");
        }
        assert!(!own.contains(&"192.168.0.1".parse().expect("an address")));
    }

    #[test]
    fn receivers_are_told_apart_by_domain_or_network() {
        let ip = "198.51.100.77".parse().expect("an address");
        for (host, expected) in [
            ("alt1.gmail-smtp-in.l.google.com", "google.com"),
            ("Example-com.mail.protection.outlook.com.", "outlook.com"),
            ("mx.example.co.uk", "example.co.uk"),
            ("mx.example.de", "example.de"),
            ("localhost", "localhost"),
            ("198.51.100.77", "198.51.100.0/24"),
            ("[198.51.100.77]", "198.51.100.0/24"),
        ] {
            assert_eq!(group(host, ip), expected);
        }
        let six = "2001:db8:1:2:3::4".parse().expect("an address");
        assert_eq!(group("[2001:db8:1:2:3::4]", six), "2001:db8:1:2::/64");
    }
}
