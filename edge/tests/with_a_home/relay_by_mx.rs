//! `Relay` to a domain: where its mail goes, by a DNS that is played here.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{AttemptId, Relay, RelayStep, WireHop};
use gatepost_protocol::tunnel::wire::WireOutcome;
use tokio::net::UdpSocket;

use crate::admission::envelope;
use crate::edge::World;
use crate::home::Home;

const A: u16 = 1;
const MX: u16 = 15;
const AAAA: u16 = 28;

/// A DNS server: `neighbour.example` has our edge as its exchanger, `six.example` a host that has only an
/// IPv6 address. Nothing else has any record.
async fn dns() -> SocketAddr {
    answering(records).await
}

/// A DNS server by which every name has these addresses.
pub async fn hosts_dns(addresses: &[&str]) -> SocketAddr {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    answering(move |_, kind| {
        addresses.iter().find_map(|address| match address {
            IpAddr::V4(ip) if kind == A => Some(ip.octets().to_vec()),
            IpAddr::V6(ip) if kind == AAAA => Some(ip.octets().to_vec()),
            _ => None,
        })
    })
    .await
}

async fn answering(records: impl Fn(&str, u16) -> Option<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((octets, peer)) = socket.recv_from(&mut packet).await {
            socket.send_to(&answer(&packet[..octets], &records), peer).await.expect("sent");
        }
    });
    address
}

/// RFC 1035 §4: the header, the question as it came, one answer or none.
fn answer(query: &[u8], records: &impl Fn(&str, u16) -> Option<Vec<u8>>) -> Vec<u8> {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        name += &String::from_utf8_lossy(&query[at + 1..end]).to_ascii_lowercase();
        name.push('.');
        at = end;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let data = records(&name, kind);
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    reply.extend(&query[12..at + 5]);
    if let Some(data) = data {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        reply.extend(data);
    }
    reply
}

fn records(name: &str, kind: u16) -> Option<Vec<u8>> {
    match (name, kind) {
        ("loop.example.", MX) => Some([&[0, 10][..], &labels("mx.loop.example")].concat()),
        ("mx.loop.example.", A) => Some(vec![127, 0, 0, 1]),
        ("lan.example.", A) => Some(vec![192, 168, 1, 9]),
        ("neighbour.example.", MX) => Some([&[0, 10][..], &labels("mail.example.org")].concat()),
        ("six.example.", MX) => Some([&[0, 10][..], &labels("mx.six.example")].concat()),
        ("mx.six.example.", AAAA) => Some("2620:fe::fe".parse::<Ipv6Addr>().expect("an address").octets().to_vec()),
        _ => None,
    }
}

fn labels(name: &str) -> Vec<u8> {
    let label = |label: &str| [&[u8::try_from(label.len()).expect("short")], label.as_bytes()].concat();
    name.split('.').flat_map(label).chain([0]).collect()
}

/// Sends to somebody in this domain; gives what became of it.
async fn relay(home: &Home, domain: &str) -> WireOutcome {
    let relay = Request::Relay(Box::new(Relay {
        attempt: AttemptId([1; 16]),
        trace: [1; 10],
        envelope: envelope("alice@example.org", &[&format!("x@{domain}")]),
        octets: 10,
        eight_bit: false,
        hop: WireHop::Domain(domain.into()),
    }));
    let RelayStep::Ended(done, _) = home.ask(&relay).await.expect("answered") else { panic!("nobody takes it") };
    done.outcomes.into_iter().next().expect("one recipient")
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_for_a_neighbour_goes_in_by_our_own_door() {
    let key = NodeKey::of_spki(b"cabin");
    let cabin = format!("[[home]]\nname = \"cabin\"\nkey = \"{key}\"\ndomains = [\"neighbour.example\"]\n");
    let world = World::start_asking(dns().await, "60 s", &cabin);
    let home = Home::connect(&world).await;
    // The neighbour has never told its addresses: that is for our own door to say.
    let WireOutcome::Deferred(reply) = relay(&home, "neighbour.example").await else { panic!("refused") };
    assert_eq!(Reply::from(reply), Reply::directory_missing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_domain_that_points_at_us_is_refused() {
    let world = World::start_asking(dns().await, "60 s", "");
    let home = Home::connect(&world).await;
    let WireOutcome::Refused(reply) = relay(&home, "neighbour.example").await else { panic!("sent in circles") };
    assert_eq!(Reply::from(reply), Reply::loops_back("neighbour.example", "mail.example.org"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_reached_by_ipv6_only_is_not_said_to_be_missing() {
    let world = World::start_asking(dns().await, "60 s", "");
    let home = Home::connect(&world).await;
    let WireOutcome::Deferred(reply) = relay(&home, "six.example").await else { panic!("refused") };
    assert_eq!(Reply::from(reply), Reply::only_ipv6("six.example"));
    let WireOutcome::Refused(reply) = relay(&home, "missing.example").await else { panic!("it takes no mail") };
    assert_eq!(Reply::from(reply), Reply::no_such_domain("missing.example"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanger_on_this_very_machine_is_a_loop_and_one_in_our_network_is_not_ours_to_reach() {
    let world = World::start_asking(dns().await, "60 s", "");
    let home = Home::connect(&world).await;
    for domain in ["loop.example", "[127.0.0.1]"] {
        let WireOutcome::Refused(reply) = relay(&home, domain).await else { panic!("sent in circles") };
        assert_eq!(Reply::from(reply), Reply::loops_back(domain, "mail.example.org"));
    }
    let WireOutcome::Refused(reply) = relay(&home, "lan.example").await else { panic!("sent into the network") };
    assert_eq!(Reply::from(reply), Reply::forbidden_target("lan.example"));
}
