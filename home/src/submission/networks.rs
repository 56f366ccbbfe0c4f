//! Networks whose devices may relay without a login, as written in the config. What is so wide that it lets strangers
//! in is refused. Pure.

use std::net::IpAddr;

use gatepost_protocol::network::Network;
use gatepost_runtime::config::{ConfigError, Placed, Source};

/// The widest network of IPv4 that can be trusted, in bits of its prefix: as wide as 10.0.0.0/8.
const IPV4_BITS_MIN: u8 = 8;
/// The widest network of public IPv6 addresses, in bits of its prefix: a site has 48 or more.
const PUBLIC_IPV6_BITS_MIN: u8 = 32;
/// Networks that can be listed.
const NETWORKS_MAX: usize = 1000;

/// All that are trusted. Nobody, unless the owner names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

/// Whether it is so wide that strangers are in it.
pub fn is_too_wide(network: &Network) -> bool {
    let least = if network.address().is_ipv4() { IPV4_BITS_MIN } else { PUBLIC_IPV6_BITS_MIN };
    network.bits() < least && !network.is_private()
}

impl Networks {
    /// Those of the config, and a warning for each that strangers can be in.
    pub fn check(written: &[Placed<String>], source: &Source) -> Result<(Self, Vec<String>), ConfigError> {
        let mut networks = Vec::new();
        let mut warnings = Vec::new();
        for written in written {
            let parsed = written.get_ref().parse::<Network>();
            let network = parsed.map_err(|right| source.error(written, "not a network", &right.to_string()))?;
            if is_too_wide(&network) {
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
        self.0.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    #[test]
    fn nobody_is_trusted_unasked() {
        assert!(!Networks::default().contain(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let clothes = "::ffff:192.168.1.7".parse().expect("valid");
        assert!(Networks(vec![network("192.168.1.0/24")]).contain(clothes), "IPv4 in IPv6 clothes is known");
        assert!(!Networks(vec![network("192.168.2.0/24")]).contain(clothes));
    }

    #[test]
    fn the_internet_is_too_wide() {
        for (text, too_wide) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("128.0.0.0/1", true),
            ("2000::/3", true),
            ("8.0.0.0/7", true),
            ("9.0.0.0/8", false),
            ("203.0.113.0/24", false),
            ("2001:db8::/32", false),
            ("2001:d00::/24", true),
            ("fc00::/7", false),
            ("fe80::/10", false),
            ("172.0.0.0/8", false),
        ] {
            assert_eq!(is_too_wide(&network(text)), too_wide, "{text}");
        }
    }
}
