//! Networks of IP addresses as people write them, `192.168.1.0/24`, `fd00::/8` or one address, and what counts as one
//! client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// Of IPv6 one customer has at least so many bits' worth.
const CUSTOMER_IPV6_BITS: u8 = 64;
/// A large sender's servers of IPv4 are neighbours within so many bits.
const NEIGHBOURS_IPV4_BITS: u8 = 24;
/// Nobody's on the internet: loopback, private (RFC 1918), carrier NAT (RFC 6598), link-local, unique local
/// (RFC 4193).
const PRIVATE: [Network; 9] = [
    Network::v4([127, 0, 0, 0], 8),
    Network::v4([10, 0, 0, 0], 8),
    Network::v4([172, 16, 0, 0], 12),
    Network::v4([192, 168, 0, 0], 16),
    Network::v4([100, 64, 0, 0], 10),
    Network::v4([169, 254, 0, 0], 16),
    Network::v6(Ipv6Addr::LOCALHOST, 128),
    Network::v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Network::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// One network: an address whose bits after the prefix are zero. Never IPv4 in IPv6 clothes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network; it says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Something else.
    #[error("a network such as \"192.168.1.0/24\" or \"fd00::/8\", or one address")]
    Malformed,
    /// `::ffff:10.0.0.0/104`.
    #[error("IPv4 as IPv4, such as \"{0}/{1}\"")]
    Mapped(Ipv4Addr, u8),
    /// `192.168.1.7/24`.
    #[error("a network without host bits: \"{0}\"")]
    HostBits(Network),
}

impl Network {
    const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(address: Ipv6Addr, bits: u8) -> Self {
        Self { address: IpAddr::V6(address), bits }
    }

    /// The network of so many bits an address is in.
    pub fn around(address: IpAddr, bits: u8) -> Self {
        let address = address.to_canonical();
        let bits = bits.min(if address.is_ipv4() { 32 } else { 128 });
        Self { address: masked(address, bits), bits }
    }

    /// One address alone.
    pub fn of_host(address: IpAddr) -> Self {
        Self::around(address, 128)
    }

    /// What counts as one client: an IPv4 address in whatever form, or the /64 that one customer of IPv6 has.
    pub fn of_client(address: IpAddr) -> Self {
        Self::around(address, if address.to_canonical().is_ipv4() { 32 } else { CUSTOMER_IPV6_BITS })
    }

    /// What counts as one sender, for a large one tries again from another address of its own: /24 or /64.
    pub fn of_neighbours(address: IpAddr) -> Self {
        let bits = if address.to_canonical().is_ipv4() { NEIGHBOURS_IPV4_BITS } else { CUSTOMER_IPV6_BITS };
        Self::around(address, bits)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length of its prefix, in bits.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether an address is in it, whatever it wears.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == self.address
    }

    /// Whether all of it is in another.
    pub fn is_within(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.address)
    }

    /// Whether no address of it is anybody's on the internet.
    pub fn is_private(&self) -> bool {
        PRIVATE.iter().any(|private| self.is_within(private))
    }

    /// Whether it is of the machine itself.
    pub fn is_loopback(&self) -> bool {
        self.is_within(&PRIVATE[0]) || self.is_within(&PRIVATE[6])
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Reads `address/bits` or a single address.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            None => most,
            Some(bits) if !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or(NetworkError::Malformed)?
            }
            Some(_) => return Err(NetworkError::Malformed),
        };
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(NetworkError::Mapped(v4, bits.saturating_sub(96)));
        }
        let network = Self { address: masked(address, bits), bits };
        if network.address == address { Ok(network) } else { Err(NetworkError::HostBits(network)) }
    }
}

impl fmt::Display for Network {
    /// As it is read: an address alone stands without its bits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = if self.address.is_ipv4() { 32 } else { 128 };
        if self.bits == most { write!(f, "{}", self.address) } else { write!(f, "{}/{}", self.address, self.bits) }
    }
}

/// The address with zeros after its first `bits` bits.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

/// An address as names of the DNS are made of it, backwards: octets of IPv4, nibbles of IPv6 (RFC 1035 §3.5, RFC 3596 §2.5).
pub fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// True for an address of the public internet.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        // This network (RFC 1122), shared address space (RFC 6598), IETF protocols (RFC 6890),
        // benchmarks (RFC 2544), reserved (RFC 1112).
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    // Global unicast (RFC 4291 §2.4) is 2000::/3 so far; in it lie documentation and 6to4, and in
    // 6to4 an IPv4 address that may be anything.
    let documentation = segments[0] == 0x2001 && segments[1] == 0xdb8;
    let six_to_four = segments[0] == 0x2002;
    let teredo = segments[0] == 0x2001 && segments[1] == 0;
    segments[0] & 0xe000 == 0x2000 && !documentation && !six_to_four && !teredo
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn holds_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("192.168.1.0/24", &["192.168.1.0", "192.168.1.255"][..], &["192.168.0.255", "192.168.2.0", "::1"][..]),
            ("10.1.2.3", &["10.1.2.3", "::ffff:10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
            ("10.0.0.0/8", &["10.255.255.255"], &["11.0.0.0", "9.255.255.255"]),
            ("fd00::/8", &["fd00::1", "fdff:ffff::"], &["fc00::1", "fe80::1", "192.168.1.1"]),
            ("2001:db8:1:2::/64", &["2001:db8:1:2:ffff::"], &["2001:db8:1:3::"]),
            ("::1", &["::1"], &["::", "::2"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::"]),
        ] {
            assert!(inside.iter().all(|address| network(text).contains(ip(address))), "{text}");
            assert!(!outside.iter().any(|address| network(text).contains(ip(address))), "{text}");
        }
    }

    #[test]
    fn says_what_would_be_right() {
        for (text, right) in [
            ("192.168.1.7/24", "\"192.168.1.0/24\""),
            ("192.168.1.0/33", "such as"),
            ("192.168.1.0/", "such as"),
            ("192.168.1.0/+8", "such as"),
            ("lan", "such as"),
            ("fd00::1/64", "\"fd00::/64\""),
            ("::ffff:10.0.0.0/104", "\"10.0.0.0/8\""),
            ("", "such as"),
        ] {
            let error = text.parse::<Network>().expect_err(text).to_string();
            assert!(error.contains(right), "{text}: {error}");
        }
    }

    #[test]
    fn a_public_network_is_told_from_a_private_one() {
        for (text, private) in [
            ("0.0.0.0/0", false),
            ("::/0", false),
            ("9.0.0.0/8", false),
            ("203.0.113.0/24", false),
            ("fc00::/7", true),
            ("fe80::/10", true),
            ("127.0.0.2", true),
            ("172.16.0.0/12", true),
            ("172.0.0.0/8", false),
            ("10.0.0.0/8", true),
        ] {
            assert_eq!(network(text).is_private(), private, "{text}");
        }
        assert!(network("127.0.0.0/8").is_loopback() && network("::1").is_loopback());
        assert!(!network("10.0.0.0/8").is_loopback() && !network("126.0.0.0/7").is_loopback());
    }

    #[test]
    fn one_address_is_what_it_is_whatever_lies_around_it() {
        assert!(Network::of_host(ip("::1")).is_loopback() && !Network::of_client(ip("::1")).is_loopback());
        assert_eq!(Network::of_host(ip("::ffff:192.0.2.7")), network("192.0.2.7"));
        assert_eq!(Network::of_host(ip("2001:db8::7")), network("2001:db8::7"));
    }

    #[test]
    fn the_dns_spells_an_address_backwards() {
        assert_eq!(reversed(ip("192.0.2.99")), "99.2.0.192");
        let v6 = reversed(ip("2001:db8:1:2:3:4:567:89ab"));
        assert_eq!(v6, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2", "RFC 5782 §2.4");
    }

    #[test]
    fn one_customer_is_one_client() {
        for (address, client, neighbours) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(Network::of_client(ip(address)), network(client));
            assert_eq!(Network::of_neighbours(ip(address)), network(neighbours));
        }
    }

    proptest! {
        #[test]
        fn a_network_reads_as_it_is_written(bits: u128, length in 0u8..=128, four: bool) {
            let four_bits = u32::try_from(bits >> 96).expect("32 bits are left");
            let address: IpAddr = if four { four_bits.to_be_bytes().into() } else { bits.to_be_bytes().into() };
            let made = Network::around(address, length);
            prop_assert!(made.contains(address));
            if !made.address().to_string().starts_with("::ffff:") {
                prop_assert_eq!(made.to_string().parse::<Network>(), Ok(made));
            }
            prop_assert!(made.is_within(&Network::around(address, length.saturating_sub(1))));
        }
    }

    #[test]
    fn only_public_addresses() {
        for ip in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::1",
            "2001:db8::1",
        ] {
            assert!(!is_public(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["9.9.9.9", "100.63.0.1", "100.128.0.1", "172.32.0.1", "2620:fe::fe", "::ffff:9.9.9.9"] {
            assert!(is_public(ip.parse().expect("an address")), "{ip}");
        }
    }
}
