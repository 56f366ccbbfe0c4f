//! One attempt through an edge. Its id and edge are in the entry, durably, before the edge hears of
//! it; it is forgotten there after its outcomes are durable here.

use std::time::Duration;

use gatepost_protocol::mail::demand::Floor;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::mail::transport::{Sessions, Vouched};
use gatepost_protocol::tunnel::frame::DATA_OCTETS_MAX;
use gatepost_protocol::tunnel::transfer::TransferEnd;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{AttemptId, Relay, RelayDone, RelayFacts, RelayStep, WireHop, WireHopTls};
use gatepost_protocol::tunnel::wire::WireOutcome;
use gatepost_runtime::attempt::Tls;
use gatepost_runtime::tunnel::{Session, Stream, StreamError};

use super::attempt::{self, Begun, Facts};
use super::body::{Reader, Unfit};
use super::{Context, Told, inquiry};
use crate::queue::entry::{Addressee, Place};
use crate::queue::next_hop::Hop;
use crate::queue::ready::Lane;
use crate::queue::schedule::Ended;
use crate::queue::usual::Level;
use crate::queue::{ConnectedEdge, QueueId};

/// How long an edge may take over one attempt: many hosts, each as slow as RFC 5321 §4.5.3.2 allows.
/// After that it is asked what it is doing.
const ATTEMPT_MAX: Duration = Duration::from_hours(2);

/// Since this version of the tunnel an edge can be told what to demand.
const DEMANDS_SINCE: u16 = 2;

/// How following an attempt ended.
enum Followed {
    /// The edge told its end.
    Done(RelayDone, RelayFacts),
    /// The edge never heard of it.
    Unsaid(StreamError),
    /// The tunnel broke: the edge must be asked.
    Lost(StreamError),
    /// The edge is too old to keep to what is demanded of the domain's hosts.
    Unable,
    /// The message on our disk can't be sent; the edge never saw its end.
    Unfit(Unfit),
}

/// Sends what is due in this lane through this edge.
pub async fn attempt(context: &Context, id: QueueId, lane: &Lane, edges: &[ConnectedEdge]) {
    let Some(edge) = choose(context, id, edges).await else { return };
    let place = Place::Edge { key: edge.key, name: edge.name.clone() };
    let Some(begun) = attempt::begin(context, id, lane, place).await else { return };
    let (attempt, trace) = (begun.id, begun.trace);
    tracing::debug!(%trace, queue = %id, %attempt, edge = edge.name, hop = %begun.hop, "attempt begins");
    let clock = context.entries.clock();
    let followed = clock
        .timeout(ATTEMPT_MAX, follow(context, id, begun, &edge.session))
        .await
        .unwrap_or_else(|| Followed::Lost(StreamError::Broken("no answer for two hours".to_owned())));
    match followed {
        Followed::Done(done, facts) => {
            let told = end(context, id, attempt, (done, facts)).await;
            context.tell(told);
            inquiry::forget(context, &edge, attempt).await;
        }
        Followed::Unsaid(error) => {
            tracing::warn!(%trace, queue = %id, edge = edge.name, %error, "an attempt could not begin");
            attempt::nothing(context, id, attempt, Reply::connection_lost("The tunnel broke")).await;
        }
        Followed::Unable => {
            tracing::warn!(%trace, queue = %id, edge = edge.name, "an edge is too old to keep to queue.tls; bring it up to date");
            let why = format!("Edge {} is too old to demand the TLS that queue.tls asks for", edge.name);
            attempt::nothing(context, id, attempt, Reply::tls_failed(&why)).await;
        }
        Followed::Lost(error) => {
            tracing::warn!(%trace, queue = %id, %attempt, edge = edge.name, %error, "lost sight of an attempt");
            let schedule = context.entries.rules().schedule.clone();
            context.record(id, move |entry, now| schedule.lost(entry, attempt, now)).await;
        }
        Followed::Unfit(unfit) => {
            attempt::unfit(context, id, attempt, trace, unfit).await;
            inquiry::forget(context, &edge, attempt).await;
        }
    }
}

/// The first edge for a first attempt, then the others in turn: one may reach what another can't.
async fn choose(context: &Context, id: QueueId, edges: &[ConnectedEdge]) -> Option<ConnectedEdge> {
    if edges.len() < 2 {
        return edges.first().cloned();
    }
    let entry = context.blocking(move |entries| entries.entry(id)).await?;
    let attempts = entry.recipients.iter().map(Addressee::attempts).max().unwrap_or_default();
    edges.get(usize::try_from(attempts).unwrap_or(0) % edges.len()).cloned()
}

/// Records what an edge says of an attempt.
pub async fn end(context: &Context, id: QueueId, attempt: AttemptId, (done, facts): (RelayDone, RelayFacts)) -> Told {
    watch(context, id, attempt, &done, &facts);
    let tls = done.tls.map(|tls| tls.to_string());
    let ended = Ended {
        outcomes: done.outcomes.into_iter().map(Outcome::from).collect(),
        remote: done.remote,
        reports_itself: facts.dsn,
    };
    attempt::end(
        context,
        id,
        attempt,
        ended,
        Facts { tls: tls.as_deref(), vouched: facts.vouched.into(), receiver: facts.exchanger.as_deref() },
    )
    .await
}

/// Learns how secure this attempt was, if it was one at a domain's hosts.
fn watch(context: &Context, id: QueueId, attempt: AttemptId, done: &RelayDone, facts: &RelayFacts) {
    let (rules, watch) = (context.entries.rules(), &context.entries.watch);
    let Some(entry) = context.entries.entry(id) else { return };
    let first = entry.attempts.iter().find(|open| open.id == attempt).and_then(|open| open.recipients.first());
    let Some(address) = first.map(|place| &entry.recipients[*place].recipient.address) else { return };
    let Hop::Domain(domain) = rules.routes.hop(address) else { return };
    if done.outcomes.iter().any(|outcome| matches!(outcome, WireOutcome::Accepted(_))) {
        let level = match (&done.tls, Vouched::from(facts.vouched)) {
            (None, _) => Level::Clear,
            (Some(_), Vouched::Nobody) => Level::Encrypted,
            (Some(_), _) => Level::Vouched,
        };
        watch.had(entry.trace, &domain, level);
    } else if done.tls.is_none() && Sessions::from(&facts.sessions).each().any(|(_, session)| session.failure.is_some())
    {
        watch.held(&rules.settings, &domain);
    }
}

async fn follow(context: &Context, id: QueueId, begun: Begun, session: &Session) -> Followed {
    let mut reader = match Reader::open(context, id, begun.octets, begun.sha256).await {
        Ok(reader) => reader,
        Err(unfit) => return Followed::Unfit(unfit),
    };
    let Some(hop) = demanded(context, begun.hop, session.facts().version) else { return Followed::Unable };
    let request = Request::Relay(Box::new(Relay {
        attempt: begun.id,
        trace: begun.trace.to_bytes(),
        envelope: (&begun.envelope).into(),
        octets: begun.octets,
        eight_bit: begun.eight_bit,
        hop,
    }));
    let mut stream = match session.open(&request).await {
        Ok(stream) => stream,
        Err(error) => return Followed::Unsaid(error),
    };
    if let Err(error) = stream.flush().await {
        return Followed::Lost(error);
    }
    match stream.record::<RelayStep>().await {
        Ok(RelayStep::Ready) => {}
        Ok(RelayStep::Done(done)) => return Followed::Done(done, RelayFacts::default()),
        Ok(RelayStep::Ended(done, facts)) => return Followed::Done(done, facts),
        Err(error) => return Followed::Lost(error),
    }
    let sent = match send(&mut stream, &mut reader).await {
        Ok(()) => match reader.seal() {
            Ok(seal) => end_transfer(&mut stream, &TransferEnd::Whole(seal)).await,
            Err(unfit) => return take_back(stream, unfit).await,
        },
        Err(Sent::Unfit(unfit)) => return take_back(stream, unfit).await,
        Err(Sent::Stream(error)) => Err(error),
    };
    // A remote that broke off early may have ended the attempt already: its words come first.
    match stream.record::<RelayStep>().await {
        Ok(RelayStep::Done(done)) => Followed::Done(done, RelayFacts::default()),
        Ok(RelayStep::Ended(done, facts)) => Followed::Done(done, facts),
        Ok(RelayStep::Ready) => Followed::Lost(StreamError::Broken("the edge said Ready twice".to_owned())),
        Err(error) => Followed::Lost(sent.err().unwrap_or(error)),
    }
}

async fn take_back(mut stream: Stream, unfit: Unfit) -> Followed {
    // The edge forgets a message whose end it never sees, too.
    let _ = end_transfer(&mut stream, &TransferEnd::Abort).await;
    Followed::Unfit(unfit)
}

async fn end_transfer(stream: &mut Stream, end: &TransferEnd) -> Result<(), StreamError> {
    stream.send(end).await?;
    stream.end_sending().await
}

enum Sent {
    Unfit(Unfit),
    Stream(StreamError),
}

async fn send(stream: &mut Stream, reader: &mut Reader) -> Result<(), Sent> {
    while let Some(mut piece) = reader.next().await.map_err(Sent::Unfit)? {
        while !piece.is_empty() {
            let chunk = piece.split_to(piece.len().min(DATA_OCTETS_MAX));
            stream.send_data(chunk).await.map_err(Sent::Stream)?;
        }
    }
    Ok(())
}

/// Where to, and what is demanded there; `None` if this version of the tunnel has no word for it.
fn demanded(context: &Context, hop: Hop, version: u16) -> Option<WireHop> {
    let Hop::Domain(domain) = hop else { return Some(wire(hop)) };
    let floor = context.entries.watch.floor(&context.entries.rules().settings, &domain);
    match floor {
        Floor::None => Some(wire(Hop::Domain(domain))),
        floor if version >= DEMANDS_SINCE => {
            Some(WireHop::Demanding { domain: domain.to_string(), floor: floor.into() })
        }
        _ => None,
    }
}

fn wire(hop: Hop) -> WireHop {
    match hop {
        Hop::Domain(domain) => WireHop::Domain(domain.to_string()),
        Hop::Host(host) => WireHop::Host {
            host: host.host,
            port: host.port,
            tls: match host.tls {
                Tls::Opportunistic => WireHopTls::Opportunistic,
                Tls::StartTls => WireHopTls::StartTls,
                Tls::Implicit => WireHopTls::Implicit,
                Tls::Off => WireHopTls::Off,
            },
            login: host.login.map(|(user, password)| (user, password.expose().to_vec())),
        },
    }
}
