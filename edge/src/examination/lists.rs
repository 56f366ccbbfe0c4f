//! How this edge stands with DNS lists (RFC 5782): mail from a listed address is refused by many.

use std::net::{IpAddr, Ipv4Addr};

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::dns_list;
use gatepost_protocol::tunnel::verb::examination::Standing;
use gatepost_runtime::resolver::Resolver;
use tokio::task::JoinSet;

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
    let Ok(zone) = Domain::parse(list) else {
        let told = || "it is no name of the DNS".to_owned();
        return addresses.iter().map(|address| standing(*address, None, told())).collect();
    };
    let (always, never) = dns_list::test_points(false);
    let works = match tokio::join!(look(resolver, &zone, always), look(resolver, &zone, never)) {
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
            Ok(()) => match look(resolver, &zone, *address).await {
                Ok(Some(text)) => standing(*address, Some(true), text),
                Ok(None) => standing(*address, Some(false), String::new()),
                Err(why) => standing(*address, None, why),
            },
        });
    }
    standings
}

/// What the list says of the address, if it lists it. An error: it could not be asked, or says so itself.
async fn look(resolver: &Resolver, zone: &Domain, address: IpAddr) -> Result<Option<String>, String> {
    let question = dns_list::question(address, zone);
    let answers = resolver.addresses(&question, false).await.map_err(|error| error.to_string())?;
    let code = |answer: &IpAddr| match answer {
        IpAddr::V4(code) if code.is_loopback() => Some(*code),
        _ => None,
    };
    let codes: Vec<Ipv4Addr> = answers.iter().filter_map(code).collect();
    if let Some(error) = codes.iter().find(|code| !dns_list::is_listing(**code)) {
        return Err(format!("it answers with the error {error}: it may refuse the resolver this edge asks"));
    }
    if codes.is_empty() {
        return Ok(None);
    }
    let words = resolver.texts(&question).await.ok().and_then(|texts| dns_list::words(&texts)).unwrap_or_default();
    let codes: Vec<String> = codes.iter().map(ToString::to_string).collect();
    Ok(Some(format!("{} {words}", codes.join(" ")).trim_end().to_owned()))
}
