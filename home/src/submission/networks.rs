//! Networks whose devices may relay without a login, as written in the config: `192.168.1.0/24`, `fd00::/8`,
//! or a single address. What is so wide that it lets strangers in is refused. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gatepost_runtime::config::{ConfigError, Placed, Source};

/// The widest network of IPv4 that can be trusted, in bits of its prefix: as wide as 10.0.0.0/8.
const IPV4_BITS_MIN: u8 = 8;
/// The widest network of public IPv6 addresses, in bits of its prefix: a site has 48 or more.
const PUBLIC_IPV6_BITS_MIN: u8 = 32;
/// Networks that can be listed.
const NETWORKS_MAX: usize = 1000;
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

/// One network: an address whose bits after the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// All that are trusted. Nobody, unless the owner names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Network {
    const fn v4([a, b, c, d]: [u8; 4], bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    const fn v6(address: Ipv6Addr, bits: u8) -> Self {
        Self { address: IpAddr::V6(address), bits }
    }

    /// Reads `address/bits` or a single address. An error says what would be right.
    fn parse(text: &str) -> Result<Self, String> {
        let right = || "a network such as \"192.168.1.0/24\" or \"fd00::/8\", or one address".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| right())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = match bits {
            None => most,
            Some(bits) if !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(right)?
            }
            Some(_) => return Err(right()),
        };
        if let IpAddr::V6(v6) = address
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            return Err(format!("IPv4 as IPv4, such as \"{v4}/{}\"", bits.saturating_sub(96)));
        }
        let network = Self { address: masked(address, bits), bits };
        if network.address == address {
            Ok(network)
        } else {
            Err(format!("a network without host bits: \"{network}\""))
        }
    }

    /// Whether an address is in it. Never an IPv4 address in IPv6 clothes.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == self.address
    }

    fn is_within(&self, other: &Self) -> bool {
        self.bits >= other.bits && other.contains(self.address)
    }

    fn is_private(&self) -> bool {
        PRIVATE.iter().any(|private| self.is_within(private))
    }

    fn is_too_wide(&self) -> bool {
        let least = if self.address.is_ipv4() { IPV4_BITS_MIN } else { PUBLIC_IPV6_BITS_MIN };
        self.bits < least && !self.is_private()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Networks {
    /// Those of the config, and a warning for each that strangers can be in.
    pub fn check(written: &[Placed<String>], source: &Source) -> Result<(Self, Vec<String>), ConfigError> {
        let mut networks = Vec::new();
        let mut warnings = Vec::new();
        for written in written {
            let network =
                Network::parse(written.get_ref()).map_err(|right| source.error(written, "not a network", &right))?;
            if network.is_too_wide() {
                return Err(source.error(
                    written,
                    "this is (much of) the internet: everybody could send mail in your name",
                    "the network of your own devices, such as \"192.168.1.0/24\"",
                ));
            }
            if networks.len() == NETWORKS_MAX {
                return Err(source.error(written, "too many networks", "at most 1000; name them by a wider prefix"));
            }
            if !network.is_private() {
                warnings.push(format!(
                    "trusted_networks: {network} is public; whoever has an address there may send in your name"
                ));
            }
            networks.push(network);
        }
        Ok((Self(networks), warnings))
    }

    /// True if nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).expect(text)
    }

    #[test]
    fn holds_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("192.168.1.0/24", &["192.168.1.0", "192.168.1.255"][..], &["192.168.0.255", "192.168.2.0", "::1"][..]),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]),
            ("10.0.0.0/8", &["10.255.255.255"], &["11.0.0.0", "9.255.255.255"]),
            ("fd00::/8", &["fd00::1", "fdff:ffff::"], &["fc00::1", "fe80::1", "192.168.1.1"]),
            ("2001:db8:1:2::/64", &["2001:db8:1:2:ffff::"], &["2001:db8:1:3::"]),
            ("::1", &["::1"], &["::", "::2"]),
        ] {
            let list = Networks(vec![network(text)]);
            assert!(inside.iter().all(|address| list.contain(address.parse().expect("valid"))), "{text}");
            assert!(!outside.iter().any(|address| list.contain(address.parse().expect("valid"))), "{text}");
        }
        assert!(!Networks::default().contain(IpAddr::V4(Ipv4Addr::LOCALHOST)), "nobody is trusted unasked");
        let clothes = "::ffff:192.168.1.7".parse().expect("valid");
        assert!(Networks(vec![network("192.168.1.0/24")]).contain(clothes), "IPv4 in IPv6 clothes is known");
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
            let error = Network::parse(text).expect_err(text);
            assert!(error.contains(right), "{text}: {error}");
        }
    }

    #[test]
    fn the_internet_is_too_wide_and_a_public_network_is_told_from_a_private_one() {
        for (text, too_wide, private) in [
            ("0.0.0.0/0", true, false),
            ("::/0", true, false),
            ("128.0.0.0/1", true, false),
            ("2000::/3", true, false),
            ("8.0.0.0/7", true, false),
            ("9.0.0.0/8", false, false),
            ("203.0.113.0/24", false, false),
            ("2001:db8::/32", false, false),
            ("2001:d00::/24", true, false),
            ("fc00::/7", false, true),
            ("fe80::/10", false, true),
            ("127.0.0.2", false, true),
            ("172.16.0.0/12", false, true),
            ("172.0.0.0/8", false, false),
            ("10.0.0.0/8", false, true),
        ] {
            let network = network(text);
            assert_eq!((network.is_too_wide(), network.is_private()), (too_wide, private), "{text}");
        }
    }
}
