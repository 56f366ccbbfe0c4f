//! How this edge stands with DNS lists (RFC 5782): mail from a listed address is refused by many.

use std::net::{IpAddr, Ipv4Addr};

use gatepost_protocol::tunnel::verb::examination::Standing;
use gatepost_runtime::resolver::Resolver;
use tokio::task::JoinSet;

/// Listed in every list that works, and in none (RFC 5782 §5).
const ALWAYS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const NEVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Longest text of a list that is passed on, in characters.
const TEXT_CHARACTERS_MAX: usize = 200;

/// Asks all lists about all addresses at once.
pub(super) async fn ask(resolver: &Resolver, lists: &[String], addresses: &[IpAddr]) -> Vec<Standing> {
    let mut running = JoinSet::new();
    for (place, list) in lists.iter().enumerate() {
        let (resolver, list, addresses) = (resolver.clone(), list.clone(), addresses.to_vec());
        running.spawn(async move { (place, one(&resolver, &list, &addresses).await) });
    }
    let mut found = running.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().flat_map(|(_, standings)| standings).collect()
}

async fn one(resolver: &Resolver, list: &str, addresses: &[IpAddr]) -> Vec<Standing> {
    let standing = |address: IpAddr, listed: Option<bool>, told: String| Standing {
        list: list.to_owned(),
        address: address.to_string(),
        listed,
        told,
    };
    let works = match tokio::join!(look(resolver, list, ALWAYS), look(resolver, list, NEVER)) {
        (Ok(Some(_)), Ok(None)) => Ok(()),
        (_, Ok(Some(_))) => Err("it lists everything".to_owned()),
        (Err(why), _) | (_, Err(why)) => Err(why),
        (Ok(None), _) => {
            Err("it does not even list its test entry: it may refuse the resolver this edge asks".to_owned())
        }
    };
    let mut standings = Vec::new();
    for address in addresses {
        standings.push(match &works {
            Err(why) => standing(*address, None, why.clone()),
            Ok(()) => match look(resolver, list, *address).await {
                Ok(Some(text)) => standing(*address, Some(true), text),
                Ok(None) => standing(*address, Some(false), String::new()),
                Err(why) => standing(*address, None, why),
            },
        });
    }
    standings
}

/// What the list says of the address, if it lists it. An error: it could not be asked, or says so itself.
async fn look(resolver: &Resolver, list: &str, address: IpAddr) -> Result<Option<String>, String> {
    let name = format!("{}.{list}", reversed(address));
    let answers = resolver.addresses(&name, false).await.map_err(|error| error.to_string())?;
    let code = |answer: &IpAddr| match answer {
        IpAddr::V4(code) if code.is_loopback() => Some(*code),
        _ => None,
    };
    let codes: Vec<Ipv4Addr> = answers.iter().filter_map(code).collect();
    if let Some(error) = codes.iter().find(|code| code.octets()[..3] == [127, 255, 255]) {
        return Err(format!("it answers with the error {error}: it may refuse the resolver this edge asks"));
    }
    if codes.is_empty() {
        return Ok(None);
    }
    let texts = resolver.texts(&name).await.unwrap_or_default();
    let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
    let text: String = texts.first().map_or("", String::as_str).chars().take(TEXT_CHARACTERS_MAX).collect();
    Ok(Some(format!("{} {text}", codes.join(" ")).trim_end().to_owned()))
}

/// The address as lists spell it.
fn reversed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
            let mut labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            labels.reverse();
            labels.join(".")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_asked_for_backwards() {
        assert_eq!(reversed(IpAddr::from([192, 0, 2, 99])), "99.2.0.192");
        let v6 = reversed("2001:db8:1:2:3:4:567:89ab".parse().expect("an address"));
        assert_eq!(v6, "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2", "RFC 5782 §2.4");
    }
}
