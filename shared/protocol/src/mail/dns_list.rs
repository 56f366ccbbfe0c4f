//! DNS block and allow lists (RFC 5782): what is asked about a client, which answers count, and what is made of them.
//! Pure. An answer that is an error code, or no code at all, is never a hit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::address::Domain;
use super::verdict::Listed;
use crate::network::{Network, reversed};

/// What a list answers that means *you may not ask* or *ask otherwise*: 127.255.255.0/24.
const ERROR_CODES: [u8; 3] = [127, 255, 255];
/// Never said of a client by a list of §2.1, and said by some to whom they refuse.
const NO_LISTING: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Octets of a list's own words that are passed on.
const WORDS_OCTETS_MAX: usize = 200;

/// What is asked of a list, and how much its answer weighs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsList {
    /// Where it is in the DNS. It may hold a key of the owner's: not for others' eyes.
    pub zone: Domain,
    /// What it is called in replies and in the log.
    pub name: String,
    /// What a hit adds to a client's score; below 0 it speaks for the client.
    pub weight: i32,
    /// The answers that count; all there can be, if empty.
    pub codes: Vec<Network>,
    /// Of the answer's last octet at least one of these bits must be set.
    pub mask: Option<u8>,
}

impl DnsList {
    /// Whether this answer is a hit.
    pub fn is_hit(&self, code: Ipv4Addr) -> bool {
        let named = self.codes.iter().any(|codes| codes.contains(code.into()));
        let expected = if self.codes.is_empty() { code != NO_LISTING } else { named };
        is_listing(code) && expected && self.mask.is_none_or(|mask| code.octets()[3] & mask != 0)
    }
}

/// What all lists say of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Those that know it.
    pub hits: Vec<Listed>,
}

impl Standing {
    /// All weights together.
    pub fn score(&self) -> i32 {
        self.hits.iter().fold(0, |sum, hit| sum.saturating_add(hit.weight))
    }

    /// The hit that speaks most against the client.
    pub fn worst(&self) -> Option<&Listed> {
        self.hits.iter().filter(|hit| hit.weight > 0).max_by_key(|hit| hit.weight)
    }

    /// In a few words, for the log: `zen.example+2 allow.example-1`.
    pub fn brief(&self) -> String {
        let words: Vec<String> = self.hits.iter().map(|hit| format!("{}{:+}", hit.list, hit.weight)).collect();
        words.join(" ")
    }
}

/// The name to ask for: the address backwards, below the list's zone (RFC 5782 §2.1, §2.4).
pub fn question(address: IpAddr, zone: &Domain) -> String {
    format!("{}.{zone}", reversed(address))
}

/// The test points of a family of addresses: one that every list has, one that none may have (RFC 5782 §5).
pub fn test_points(ipv6: bool) -> (IpAddr, IpAddr) {
    let point = |last: u8| {
        let v4 = Ipv4Addr::new(127, 0, 0, last);
        // Not the IPv4 address it maps: its 32 nibbles are asked for.
        if ipv6 { Ipv6Addr::from_bits(0xffff_0000_0000 | u128::from(v4.to_bits())).into() } else { v4.into() }
    };
    (point(2), point(1))
}

/// Whether an answer says that something is listed at all.
pub fn is_listing(code: Ipv4Addr) -> bool {
    code.is_loopback() && code.octets()[..3] != ERROR_CODES
}

/// A list's words, fit for a reply: printable ASCII, so many octets. None if nothing is left.
pub fn words(texts: &[String]) -> Option<String> {
    let printable = texts.iter().flat_map(|text| text.chars()).filter(|c| c.is_ascii_graphic() || *c == ' ');
    let text: String = printable.take(WORDS_OCTETS_MAX).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(text: &str) -> Domain {
        Domain::parse(text).expect("a domain")
    }

    fn list(codes: &[&str], mask: Option<u8>) -> DnsList {
        let codes = codes.iter().map(|code| code.parse().expect("a network")).collect();
        DnsList { zone: zone("list.example"), name: "list.example".into(), weight: 1, codes, mask }
    }

    fn hits(list: &DnsList, code: &str) -> bool {
        list.is_hit(code.parse().expect("an address"))
    }

    #[test]
    fn the_address_is_asked_for_backwards() {
        let ask = |address: &str| question(address.parse().expect("an address"), &zone("list.example"));
        assert_eq!(ask("192.0.2.99"), "99.2.0.192.list.example");
        assert_eq!(
            ask("2001:db8:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.list.example"
        );
        let (listed, unlisted) = test_points(true);
        let points = [listed, unlisted].map(|point| question(point, &zone("x")));
        assert_eq!(points[0], "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.x");
        assert_eq!(points[1], "1.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.x");
        let (listed, unlisted) = test_points(false);
        assert_eq!(
            (question(listed, &zone("x")), question(unlisted, &zone("x"))),
            ("2.0.0.127.x".into(), "1.0.0.127.x".into())
        );
    }

    #[test]
    fn only_a_code_that_was_agreed_upon_is_a_hit() {
        let any = list(&[], None);
        for (code, hit) in [
            ("127.0.0.2", true),
            ("127.0.10.3", true),
            ("127.255.254.255", true),
            ("127.0.0.1", false),
            ("127.255.255.0", false),
            ("127.255.255.254", false),
            ("127.255.255.255", false),
            ("128.0.0.2", false),
            ("192.0.2.1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(hits(&any, code), hit, "{code}");
        }
        let some = list(&["127.0.0.2", "127.0.0.8/29"], None);
        assert!(hits(&some, "127.0.0.2") && hits(&some, "127.0.0.15"));
        assert!(!hits(&some, "127.0.0.3") && !hits(&some, "127.0.0.16"));
        assert!(hits(&list(&["127.0.0.1"], None), "127.0.0.1"), "where it is named it counts");
        assert!(!hits(&list(&["0.0.0.0/0"], None), "127.255.255.254"), "an error never does");
        assert!(!hits(&list(&["0.0.0.0/0"], None), "10.0.0.1"));
        let bits = list(&[], Some(0b0110));
        assert!(hits(&bits, "127.0.0.2") && hits(&bits, "127.0.0.5") && !hits(&bits, "127.0.0.9"));
        assert!(!hits(&list(&["127.0.0.8/29"], Some(1)), "127.0.0.8"), "both are wanted");
    }

    #[test]
    fn lists_that_speak_for_a_client_count_against_those_that_speak_against_it() {
        let hit = |list: &str, weight| Listed { list: list.into(), weight, words: None };
        let standing = Standing { hits: vec![hit("a", 1), hit("b", 3), hit("c", -2)] };
        assert_eq!((standing.score(), standing.worst().map(|hit| hit.list.as_str())), (2, Some("b")));
        assert_eq!(standing.brief(), "a+1 b+3 c-2");
        assert_eq!(Standing::default().worst(), None);
        assert_eq!(Standing { hits: vec![hit("a", i32::MAX), hit("b", i32::MAX)] }.score(), i32::MAX);
    }

    #[test]
    fn a_lists_words_are_bounded_and_printable() {
        assert_eq!(words(&["a\r\n550 b\u{7f}é".into()]), Some("a550 b".into()));
        assert_eq!(words(&["x".repeat(100_000)]).map(|words| words.len()), Some(200));
        assert_eq!(words(&["\n".into()]), None);
        assert_eq!(words(&[]), None);
    }
}
