//! Serves what an edge begins on its session: each exchange in a task of its own, so that a slow one
//! delays no other. Whatever an edge says is checked; a verb it may not use ends the exchange.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::frame::Frame;
use gatepost_protocol::tunnel::transfer::TransferEnd;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_protocol::tunnel::verb::authenticate::{AuthResponse, AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::challenge::{Challenge, ChallengeAnswer};
use gatepost_protocol::tunnel::verb::events::{BATCH_MAX, EventBatch, EventsOpen, EventsTaken, WireEvent, WireRefused};
use gatepost_protocol::tunnel::verb::inbound::Handed;
use gatepost_protocol::tunnel::wire::WireReply;
use gatepost_runtime::acme::challenges::Challenges;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::{Incoming, Stream, StreamError};
use thiserror::Error;

use super::Router;
use super::intake::{self, Brought, Gathered, Gathering, IntakeError};
use super::spool::rounds::Nudges;
use crate::accounts::Accounts;
use crate::accounts::grant::LIFETIME;
use crate::accounts::login::{Login, Place, Step};
use crate::edges::{Connected, Edges};
use crate::imap::Imap;
use crate::queue::ConnectedEdge;
use crate::reporting::Judged;
use crate::trace::Traces;

/// The longest an edge may let a message or a login stand still.
const FRAME_WAIT_MAX: Duration = Duration::from_mins(5);
/// Octets of a message over the limit that are read and dropped, so that its sender hears the reply.
const DROPPED_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// What an edge says when it has sealed a message.
const SEALED: &str = "sealed";
/// Turns of one login; no mechanism needs more than three.
const TURNS_MAX: usize = 8;

/// Why an exchange ended without its answer.
#[derive(Debug, Error)]
enum ExchangeError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("nothing came for {} s", FRAME_WAIT_MAX.as_secs())]
    Stalled,
    #[error("far more came than a message may have")]
    Flood,
    #[error("an edge may not ask for that")]
    Verb,
}

/// What serving needs.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where messages go.
    pub router: Router,
    /// Who may log in.
    pub accounts: Accounts,
    /// `incoming/` in the state directory.
    pub incoming: Arc<Path>,
    /// What CAs are answered.
    pub challenges: Challenges,
    /// The other edges.
    pub edges: Edges,
    /// Who serves mail clients.
    pub imap: Imap,
    /// Where edges' events are kept.
    pub traces: Traces,
    /// Time.
    pub clock: Clock,
    /// Once draining begins nothing new is taken: the edge seals it.
    pub signal: Signal,
}

impl Server {
    /// Serves a session until it ends. Whoever fetches what the edge has sealed is nudged when it says so.
    pub async fn serve(self, connected: Connected, nudges: Nudges) {
        let Connected { edge, mut incoming } = connected;
        let mut signal = self.signal.clone();
        loop {
            let next = tokio::select! {
                next = incoming.recv() => next,
                () = signal.draining() => break,
            };
            let Some(incoming) = next else { return };
            if let Request::Events(open) = incoming.request {
                // It lasts as long as the session, and holds up no drain.
                let (server, nudges, edge) = (self.clone(), nudges.clone(), edge.name.clone());
                tokio::spawn(async move {
                    if let Err(error) = take_events(&server, &nudges, &edge, open, incoming.stream).await {
                        tracing::debug!(edge, %error, "an edge stopped telling its events");
                    }
                });
                continue;
            }
            let (server, edge) = (self.clone(), edge.clone());
            tokio::spawn(async move {
                if let Err(error) = server.exchange(&edge, incoming).await {
                    tracing::warn!(edge = edge.name, %error, "an exchange with an edge broke off");
                }
            });
        }
        // Nothing new is taken any more; a drain does not wait for this task. What comes is dropped, so that
        // its edge seals it at once instead of waiting for us.
        drop((self, signal));
        while incoming.recv().await.is_some() {}
    }

    async fn exchange(&self, edge: &ConnectedEdge, incoming: Incoming) -> Result<(), ExchangeError> {
        let Incoming { request, stream, .. } = incoming;
        match request {
            Request::Challenge(challenge) => self.challenge(edge, challenge, stream).await,
            Request::Authenticate(authenticate) => self.authenticate(edge, authenticate, stream).await,
            Request::Splice(splice) => {
                Ok(self.imap.serve_carried(stream, splice.client, &edge.name, self.signal.clone()).await?)
            }
            request @ (Request::Inbound(_) | Request::Submission(_)) => self.message(edge, request, stream).await,
            Request::Heartbeat
            | Request::Directory(_)
            | Request::Relay(_)
            | Request::Attempt(_)
            | Request::Spool(_)
            | Request::Directory2(_)
            | Request::Events(_)
            | Request::Admin(_) => Err(ExchangeError::Verb),
        }
    }

    /// A CA asks an edge for the proof of a name of ours; or of another edge's, where one name leads to several.
    async fn challenge(
        &self,
        edge: &ConnectedEdge,
        challenge: Challenge,
        mut stream: Stream,
    ) -> Result<(), ExchangeError> {
        let mut authorization = self.challenges.file(&challenge.token);
        if authorization.is_none() {
            let asked = AdminRequest::Challenge { token: challenge.token };
            let told = self.edges.ask_but(asked, &edge.name, &self.clock).await;
            authorization = told.into_iter().find_map(|(_, told)| told.ok());
        }
        stream.send(&ChallengeAnswer { authorization }).await?;
        stream.finish().await;
        Ok(())
    }

    async fn message(&self, edge: &ConnectedEdge, request: Request, mut stream: Stream) -> Result<(), ExchangeError> {
        let brought = Brought::of(request)?;
        let octets_max = self.accounts.settings().message_octets_max;
        let mut gathering = Gathering::new(Arc::clone(&self.incoming), octets_max);
        let end: TransferEnd = loop {
            match within(stream.frame()).await? {
                Frame::Data(data) => gathering.add(data).await?,
                frame @ Frame::Record(_) => break frame.record().map_err(StreamError::from)?,
            }
            if gathering.octets() > octets_max + DROPPED_OCTETS_MAX {
                return Err(ExchangeError::Flood);
            }
        };
        let trace = gatepost_protocol::mail::received::TraceId::from_random(brought.open.trace);
        let reply = match gathering.end(end).await {
            Ok(Gathered::Aborted) => {
                tracing::debug!(%trace, "taken back by the edge");
                return Ok(());
            }
            Ok(Gathered::TooBig) => Reply::too_big(octets_max),
            Ok(Gathered::Whole(message, verdict)) => {
                let whole = (message, verdict);
                // All of a delivery happens in there: too much to lie in this task.
                Box::pin(intake::take_live(&self.router, &self.accounts, edge.key, brought, whole)).await?
            }
            Err(error) => {
                tracing::error!(%trace, edge = edge.name, %error, "a message did not arrive as it was sent");
                Reply::local_error()
            }
        };
        stream.send(&Handed { reply: WireReply::from(&reply) }).await?;
        stream.finish().await;
        Ok(())
    }

    async fn authenticate(
        &self,
        edge: &ConnectedEdge,
        authenticate: Authenticate,
        mut stream: Stream,
    ) -> Result<(), ExchangeError> {
        let Some(mechanism) = Mechanism::parse(&authenticate.mechanism) else {
            return refuse(stream, &Reply::mechanism_unknown()).await;
        };
        let client: IpAddr = authenticate.client;
        let mut login = Login::new(self.accounts.clone(), Place::Edge, mechanism, authenticate.exporter, client);
        let mut step = login.start(authenticate.initial.map(Secret::new)).await;
        for _ in 0..TURNS_MAX {
            match step {
                Step::Challenge(challenge) => {
                    stream.send(&AuthStep::Challenge(challenge)).await?;
                    stream.flush().await?;
                    let AuthResponse(response) = within(stream.record()).await?;
                    step = login.response(Secret::new(response)).await;
                }
                Step::Granted { login: name, last } => {
                    let grant = random::bytes();
                    let password = login.password().unwrap_or_default();
                    self.accounts.grants().issue(grant, edge.key, name.clone(), password, self.clock.now());
                    let expires_s = u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX);
                    stream.send(&AuthStep::Granted { grant, login: name, last, expires_s }).await?;
                    stream.finish().await;
                    return Ok(());
                }
                Step::Refused(reply) => return refuse(stream, &reply).await,
            }
        }
        refuse(stream, &Reply::login_malformed()).await
    }
}

/// `Events`: each batch is answered once it is durable here; an edge that can't be answered keeps it.
async fn take_events(
    Server { traces, router, .. }: &Server,
    nudges: &Nudges,
    edge: &str,
    open: EventsOpen,
    mut stream: Stream,
) -> Result<(), StreamError> {
    let unkept = || StreamError::Broken("events can't be kept now".to_owned());
    let mut last = traces.last(edge, open.journal).await.ok_or_else(unkept)?;
    loop {
        stream.send(&EventsTaken { last }).await?;
        stream.flush().await?;
        let mut batch: EventBatch = match stream.record().await {
            Err(StreamError::Ended) => return Ok(()),
            other => other?,
        };
        if batch.events.len() > BATCH_MAX {
            return Err(StreamError::Broken(format!("a batch of {} events", batch.events.len())));
        }
        let sealed = batch.events.iter().any(|event| event.what == SEALED);
        let refused = refused_since(last, &mut batch.events);
        last = traces.keep_told(edge, open.journal, batch.events).await.ok_or_else(unkept)?;
        for (at_unix_s, WireRefused { client, sender, findings }) in refused {
            let verdict = findings.verdict(0);
            router.reporting().note(Judged { client, sender: &sender, verdict: &verdict, refused: true, at_unix_s });
        }
        if sealed {
            nudges.nudge(edge);
        }
    }
}

/// What was refused since the event of this number, and when.
fn refused_since(last: u64, events: &mut [WireEvent]) -> Vec<(i64, WireRefused)> {
    let new = events.iter_mut().filter(|event| event.number > last);
    new.filter_map(|event| Some((event.at_unix_ms.div_euclid(1000), *event.refused.take()?))).collect()
}

async fn refuse(mut stream: Stream, reply: &Reply) -> Result<(), ExchangeError> {
    stream.send(&AuthStep::Refused(WireReply::from(reply))).await?;
    stream.finish().await;
    Ok(())
}

async fn within<T>(next: impl Future<Output = Result<T, StreamError>>) -> Result<T, ExchangeError> {
    match tokio::time::timeout(FRAME_WAIT_MAX, next).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ExchangeError::Stalled),
    }
}
