//! One attempt straight from home to a host the owner named, without any edge.

use std::net::SocketAddr;
use std::time::Duration;

use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::Vouched;
use gatepost_protocol::smtp::client::{ClientConfig, ClientLimits, Protocol, StartTls};
use gatepost_runtime::attempt::pool::Destination;
use gatepost_runtime::attempt::{Attempt, Believed, Finding, Started, Target, Tls};
use gatepost_runtime::random;

use super::Context;
use super::attempt::{self, Begun, Facts};
use super::body::{Reader, Unfit};
use crate::queue::QueueId;
use crate::queue::entry::Place;
use crate::queue::next_hop::{Hop, Host};
use crate::queue::ready::Lane;
use crate::queue::schedule::Ended;

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;
/// Connecting to one address may take this long.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// Sends what is due in this lane.
pub async fn attempt(context: &Context, id: QueueId, lane: &Lane) {
    let Some(begun) = attempt::begin(context, id, lane, Place::Home).await else { return };
    let (attempt, trace) = (begun.id, begun.trace);
    match perform(context, id, begun).await {
        Ok((ended, tls, vouched)) => {
            let facts = Facts { tls: tls.as_deref(), vouched, ..Facts::default() };
            let told = attempt::end(context, id, attempt, ended, facts).await;
            context.tell(told);
        }
        Err(unfit) => attempt::unfit(context, id, attempt, trace, unfit).await,
    }
}

/// An error is what is wrong with the message on our disk; the host then never saw its end.
async fn perform(context: &Context, id: QueueId, begun: Begun) -> Result<(Ended, Option<String>, Vouched), Unfit> {
    let mut reader = Reader::open(context, id, begun.octets, begun.sha256).await?;
    let recipients = begun.envelope.recipients.len();
    let deferred = |reply: Reply| {
        (Ended { outcomes: vec![Outcome::Deferred(reply); recipients], ..Ended::default() }, None, Vouched::Nobody)
    };
    let Hop::Host(host) = begun.hop else {
        return Ok(deferred(Reply::local_error()));
    };
    let Some(mut place) = context.pool.place(destination(&host)).await else {
        return Ok(deferred(Reply::unreachable(&format!("Too many messages wait for {}", host.host))));
    };
    let mut kept = place.kept();
    loop {
        let reused = kept.is_some();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => match connect(context, &host).await {
                Ok(connection) => connection,
                // What the owner's own host says before any transaction is about this config: never the
                // message's fault, so never final.
                Err(reply) => return Ok(deferred(reply)),
            },
        };
        if !reused {
            place.opened();
        }
        let remote = Some(connection.remote());
        let tls = connection.tls().map(ToString::to_string);
        let outcomes = match connection.start(begun.envelope.clone(), begun.octets, begun.eight_bit).await {
            // Nothing was promised on it: the message goes over a new one.
            Started::Done(_) if reused && !connection.is_ready() => continue,
            Started::Done(outcomes) => outcomes,
            Started::Body => {
                while let Some(piece) = reader.next().await? {
                    connection.body(piece).await;
                }
                reader.seal()?;
                connection.finish().await
            }
        };
        let (reports_itself, vouched) = (connection.offered().dsn, connection.vouched());
        place.give_back(connection);
        return Ok((Ended { outcomes, remote, reports_itself }, tls, vouched));
    }
}

/// What messages must share to go over one connection.
fn destination(host: &Host) -> Destination {
    Destination {
        // One home, one owner.
        owner: String::new(),
        hosts: vec![host.host.clone()],
        port: host.port,
        tls: host.tls,
        demands: String::new(),
        roots: host.roots.clone(),
        login: host.login.clone(),
        ipv6: true,
    }
}

/// The first of the host's addresses that answers. An error is why none does.
async fn connect(context: &Context, host: &Host) -> Result<Attempt, Reply> {
    let rules = context.entries.rules();
    let addresses = match host.host.parse() {
        Ok(address) => vec![address],
        Err(_) => {
            context.resolver.addresses(&host.host, true).await.map_err(|error| Reply::dns_failed(&error.to_string()))?
        }
    };
    let mut last = Reply::unreachable(&format!("{} has no address", host.host));
    for address in addresses.into_iter().take(ADDRESSES_MAX) {
        let target = Target {
            host: host.host.clone(),
            address: SocketAddr::new(address, host.port),
            tls: host.tls,
            roots: host.roots.clone(),
            believed: Believed::ByTls,
            finding: Finding::default(),
            connect_wait_max: CONNECT_MAX,
        };
        let config = ClientConfig {
            helo: rules.settings.hostname.clone(),
            protocol: Protocol::Smtp,
            starttls: match host.tls {
                Tls::Opportunistic => StartTls::Opportunistic,
                Tls::StartTls => StartTls::Required,
                Tls::Implicit | Tls::Off => StartTls::Never,
            },
            login: host.login.clone(),
            nonce: random::bytes(),
            limits: ClientLimits::default(),
        };
        match Attempt::connect(&target, config, context.entries.clock().clone()).await {
            Ok(connection) if connection.is_local() && is_own(&rules.settings.own_doors, target.address) => {
                last = Reply::loops_back(&host.host, &connection.remote());
                connection.quit().await;
            }
            Ok(connection) => return Ok(connection),
            Err(failure) => last = failure.reply,
        }
    }
    Err(last)
}

/// True if an address of this machine is one of our own doors, by whatever name it was found.
fn is_own(doors: &[SocketAddr], address: SocketAddr) -> bool {
    doors.iter().any(|door| door.port() == address.port() && (door.ip().is_unspecified() || door.ip() == address.ip()))
}
