//! The name a client gives in EHLO (RFC 5321 §4.1.1.1). Many honest hosts give a bad one, so that it is evidence and
//! no more; but nobody else has our own name or address. Pure.

use std::net::IpAddr;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::verdict::Oddity;

/// Who we are to this client.
#[derive(Clone, Copy, Debug)]
pub struct Ourselves<'a> {
    /// Our host name.
    pub hostname: &'a Domain,
    /// The address the client connected to.
    pub address: Option<IpAddr>,
}

/// What is odd about this name, said by this client.
pub fn judge(helo: &str, client: IpAddr, ourselves: Ourselves<'_>) -> Option<Oddity> {
    let Ok(name) = Domain::parse(helo.trim_end_matches('.')) else { return Some(Oddity::NoName) };
    let own = ourselves.address.map(|address| address.to_canonical());
    if let Some(literal) = name.literal() {
        let literal = literal.to_canonical();
        return match literal == client.to_canonical() {
            true => None,
            false if Some(literal) == own => Some(Oddity::OurName),
            false => Some(Oddity::OtherAddress),
        };
    }
    // An address without its brackets is none, and no host's name either.
    if helo.parse::<IpAddr>().is_ok() {
        return Some(Oddity::NoName);
    }
    if name == *ourselves.hostname {
        return Some(Oddity::OurName);
    }
    (!name.as_str().contains('.')).then_some(Oddity::Unqualified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_name_is_nobody_elses() {
        let hostname = Domain::parse("mail.example.org").expect("a name");
        let address = Some(IpAddr::from([203, 0, 113, 5]));
        for (helo, oddity) in [
            ("mx.friend.example", None),
            ("mx.friend.example.", None),
            ("mail.example.org.friend.example", None),
            ("[192.0.2.1]", None),
            ("[IPv6:2001:db8::1]", Some(Oddity::OtherAddress)),
            ("[192.0.2.2]", Some(Oddity::OtherAddress)),
            ("[203.0.113.5]", Some(Oddity::OurName)),
            ("Mail.Example.ORG", Some(Oddity::OurName)),
            ("mail.example.org.", Some(Oddity::OurName)),
            ("localhost", Some(Oddity::Unqualified)),
            ("WIN-7F3A", Some(Oddity::Unqualified)),
            ("192.0.2.1", Some(Oddity::NoName)),
            ("a..b", Some(Oddity::NoName)),
            ("", Some(Oddity::NoName)),
        ] {
            let ourselves = Ourselves { hostname: &hostname, address };
            assert_eq!(judge(helo, [192, 0, 2, 1].into(), ourselves), oddity, "{helo}");
        }
        let ourselves = Ourselves { hostname: &hostname, address: None };
        assert_eq!(judge("[203.0.113.5]", [192, 0, 2, 1].into(), ourselves), Some(Oddity::OtherAddress));
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().expect("an address");
        assert_eq!(judge("[192.0.2.1]", mapped, ourselves), None);
    }
}
