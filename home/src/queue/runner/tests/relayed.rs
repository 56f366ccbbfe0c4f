//! Through an edge, over a real tunnel. The edge is a script: what it does with each attempt, and
//! what it answers when it is asked.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Mutex;

use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::tunnel::frame::Frame;
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::relay::{AttemptRequest, AttemptState, Relay, RelayDone, RelayStep, WireHop};
use gatepost_runtime::identity::Identity;
use gatepost_runtime::tunnel::{Acceptor, Incoming, Stream, TunnelError, dial};
use tokio::net::TcpListener;

use super::*;
use crate::queue::entry::State;
use crate::queue::tests::TEXT;

const MINUTE: Duration = Duration::from_mins(1);

/// What the edge does with the next attempt.
enum Act {
    /// Takes the message and tells the end.
    End(Vec<Outcome>),
    /// Ends it without asking for the message.
    EndAtOnce(Vec<Outcome>),
    /// Takes the message, breaks the stream off; will answer so when it is asked.
    Break(AttemptState),
}

/// What the edge saw.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Relay(Vec<String>, String),
    Message(Vec<u8>),
    Asked,
    Forget,
}

struct Script {
    acts: Mutex<VecDeque<Act>>,
    states: Mutex<HashMap<AttemptId, AttemptState>>,
    seen: watch::Sender<Vec<Seen>>,
    database: PathBuf,
}

struct Edge {
    name: &'static str,
    key: NodeKey,
    address: String,
    home: Identity,
    script: Arc<Script>,
    _keys: tempfile::TempDir,
}

fn done(outcomes: &[Outcome]) -> RelayDone {
    RelayDone {
        outcomes: outcomes.iter().map(Into::into).collect(),
        remote: Some("mx.example.com [192.0.2.1]:25".into()),
        tls: None,
    }
}

fn accepted() -> Vec<Outcome> {
    vec![Outcome::Accepted(Reply::ok())]
}

impl Edge {
    async fn start(name: &'static str, state: &Path, acts: Vec<Act>) -> Self {
        let keys = tempfile::tempdir().expect("a folder");
        let own = Identity::load_or_create(&keys.path().join("edge.pem")).expect("a key");
        let home = Identity::load_or_create(&keys.path().join("home.pem")).expect("a key");
        let key = own.key();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (sender, mut sessions) = mpsc::channel(4);
        let acceptor = Arc::new(Acceptor::new(Arc::new(own), name.into(), Arc::new(|_| true), sender, Clock::real()));
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let acceptor = Arc::clone(&acceptor);
                tokio::spawn(async move { acceptor.accept(stream, peer).await });
            }
        });
        let script = Arc::new(Script {
            acts: Mutex::new(acts.into()),
            states: Mutex::default(),
            seen: watch::Sender::new(Vec::new()),
            database: state.join("home.db"),
        });
        let serving = Arc::clone(&script);
        tokio::spawn(async move {
            while let Some((session, mut exchanges)) = sessions.recv().await {
                let script = Arc::clone(&serving);
                tokio::spawn(async move {
                    while let Some(Incoming { request, stream, .. }) = exchanges.recv().await {
                        let script = Arc::clone(&script);
                        tokio::spawn(async move { script.serve(request, stream).await });
                    }
                    drop(session);
                });
            }
        });
        Self { name, key, address, home, script, _keys: keys }
    }

    async fn connect(&self) -> ConnectedEdge {
        let (session, mut exchanges) =
            Box::pin(dial(&self.home, "cottage", &self.address, &[self.key], Clock::real())).await.expect("connected");
        tokio::spawn(async move { while exchanges.recv().await.is_some() {} });
        ConnectedEdge { name: self.name.into(), key: self.key, session }
    }

    async fn until(&self, what: &str, reached: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut seen = self.script.seen.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| reached(seen))).await;
        match waited {
            Ok(seen) => seen.expect("open").clone(),
            Err(late) => panic!("{what} never came ({late}); {} saw {:#?}", self.name, self.script.seen.borrow()),
        }
    }

    fn relays(&self) -> usize {
        self.script.seen.borrow().iter().filter(|seen| matches!(seen, Seen::Relay(..))).count()
    }
}

impl Script {
    fn saw(&self, seen: Seen) {
        self.seen.send_modify(|all| all.push(seen));
    }

    async fn serve(&self, request: Request, mut stream: Stream) {
        match request {
            Request::Relay(relay) => self.relay(*relay, stream).await,
            Request::Attempt(request) => {
                let state = match request {
                    AttemptRequest::State(id) => {
                        self.saw(Seen::Asked);
                        self.states.lock().expect("whole").get(&id).cloned().unwrap_or(AttemptState::Unknown)
                    }
                    AttemptRequest::Forget(_) => {
                        self.saw(Seen::Forget);
                        AttemptState::Unknown
                    }
                };
                stream.send(&state).await.expect("sent");
                stream.finish().await;
            }
            other => panic!("{other:?}"),
        }
    }

    async fn relay(&self, relay: Relay, mut stream: Stream) {
        let kept: String = rusqlite::Connection::open(&self.database)
            .and_then(|rows| rows.query_row("SELECT CAST(record AS TEXT) FROM queue", [], |row| row.get(0)))
            .expect("there");
        assert!(kept.contains(&relay.attempt.to_string()), "the attempt is on disk before the edge hears of it");
        let envelope = Envelope::try_from(relay.envelope).expect("well formed");
        let hop = match relay.hop {
            WireHop::Domain(domain) | WireHop::Demanding { domain, .. } => domain,
            WireHop::Host { .. } => "a host".into(),
        };
        let recipients = envelope.recipients.iter().map(|recipient| recipient.address.to_string()).collect();
        self.saw(Seen::Relay(recipients, hop));
        let act = self.acts.lock().expect("whole").pop_front().expect("an act for every attempt");
        if let Act::EndAtOnce(outcomes) = &act {
            stream.send(&RelayStep::Done(done(outcomes))).await.expect("sent");
            stream.finish().await;
            return;
        }
        stream.send(&RelayStep::Ready).await.expect("sent");
        stream.flush().await.expect("sent");
        let (mut tally, mut bytes) = (Tally::default(), Vec::new());
        let end = loop {
            match stream.frame().await.expect("a frame") {
                Frame::Data(data) => {
                    tally.add(&data);
                    bytes.extend_from_slice(&data);
                }
                record @ Frame::Record(_) => break record.record::<TransferEnd>().expect("an end"),
            }
        };
        let TransferEnd::Whole(seal) = end else { return };
        tally.check(&seal).expect("whole");
        self.saw(Seen::Message(bytes));
        match act {
            Act::Break(state) => {
                self.states.lock().expect("whole").insert(relay.attempt, state);
            }
            Act::End(outcomes) | Act::EndAtOnce(outcomes) => {
                stream.send(&RelayStep::Done(done(&outcomes))).await.expect("sent");
                stream.finish().await;
            }
        }
    }
}

fn start(state: &Path) -> Running {
    Running::start(state, settings(), Routes::default(), clock())
}

#[tokio::test]
async fn a_message_goes_out_when_an_edge_connects_and_is_forgotten_there_afterwards() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    running.put(1, &["bob@example.com", "carol@example.com"]);
    let edge = Edge::start("vps1", state.path(), vec![Act::End([accepted(), accepted()].concat())]).await;
    assert_eq!(edge.relays(), 0, "without an edge it waits");
    running.edges.send_replace(vec![edge.connect().await]);
    let seen = edge.until("Forget", |seen| seen.contains(&Seen::Forget)).await;
    let recipients = vec!["bob@example.com".into(), "carol@example.com".into()];
    assert_eq!(seen, [Seen::Relay(recipients, "example.com".into()), Seen::Message(TEXT.to_vec()), Seen::Forget]);
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn each_domain_gets_an_attempt_of_its_own_and_ends_on_its_own() {
    let state = tempfile::tempdir().expect("a folder");
    let mut running = start(state.path());
    let refused = vec![Outcome::Refused(Reply::null_mx("example.net"))];
    let edge = Edge::start("vps1", state.path(), vec![Act::EndAtOnce(refused.clone()), Act::EndAtOnce(refused)]).await;
    running.edges.send_replace(vec![edge.connect().await]);
    running.put(1, &["bob@example.com", "carol@example.net"]);
    // One report tells of both.
    let bounce = running.bounce().await;
    assert_eq!(edge.relays(), 2);
    bounce.accepted.send(Reply::ok()).expect("awaited");
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_and_delivers_once() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    let ended = AttemptState::Ended(done(&accepted()));
    let edge = Edge::start("vps1", state.path(), vec![Act::Break(ended)]).await;
    running.edges.send_replace(vec![edge.connect().await]);
    running.put(1, &["bob@example.com"]);
    running.until_gone().await;
    let seen = edge.until("Forget", |seen| seen.contains(&Seen::Forget)).await;
    assert_eq!(seen[2..], [Seen::Asked, Seen::Forget]);
    assert_eq!(edge.relays(), 1);
    running.kill().await;
}

#[tokio::test]
async fn after_a_restart_the_edge_is_asked_before_anything_is_tried() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    let edge = Edge::start("vps1", state.path(), vec![Act::Break(AttemptState::Running)]).await;
    let connected = edge.connect().await;
    running.edges.send_replace(vec![connected.clone()]);
    running.put(1, &["bob@example.com"]);
    edge.until("a question", |seen| seen.contains(&Seen::Asked)).await;
    running.kill().await;
    for state in edge.script.states.lock().expect("whole").values_mut() {
        *state = AttemptState::Ended(done(&accepted()));
    }
    let running = start(state.path());
    running.edges.send_replace(vec![connected]);
    running.until_gone().await;
    assert_eq!(edge.relays(), 1);
    running.kill().await;
}

#[tokio::test]
async fn an_attempt_the_edge_knows_nothing_of_is_made_again() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    let acts = vec![Act::Break(AttemptState::Unknown), Act::End(accepted())];
    let edge = Edge::start("vps1", state.path(), acts).await;
    running.edges.send_replace(vec![edge.connect().await]);
    running.put(1, &["bob@example.com"]);
    running.until_deferred(1).await;
    running.clock.turn(2 * MINUTE);
    running.until_gone().await;
    assert_eq!(edge.relays(), 2);
    running.kill().await;
}

#[tokio::test]
async fn an_attempt_in_doubt_waits_half_an_hour_and_is_marked() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    let acts = vec![Act::Break(AttemptState::InDoubt), Act::Break(AttemptState::Running)];
    let edge = Edge::start("vps1", state.path(), acts).await;
    running.edges.send_replace(vec![edge.connect().await]);
    running.put(1, &["bob@example.com"]);
    let is_put_off = |entry: Option<&Entry>| {
        entry.and_then(|entry| entry.attempts.first()).is_some_and(|attempt| {
            let ask = attempt.ask_unix_ms.unwrap_or_default();
            attempt.lost_unix_ms.is_some_and(|lost| ask >= lost + 30 * 60_000)
        })
    };
    running.until("doubt", is_put_off).await;
    running.clock.turn(29 * MINUTE);
    tokio::task::yield_now().await;
    assert_eq!(edge.relays(), 1);
    running.clock.turn(2 * MINUTE);
    edge.until("a second attempt", |seen| seen.iter().filter(|seen| matches!(seen, Seen::Message(_))).count() == 2)
        .await;
    let entry = running.entry(ID).expect("still open");
    assert!(matches!(&entry.recipients[0].state, State::Waiting(waiting) if waiting.in_doubt));
    edge.until("Forget", |seen| seen.contains(&Seen::Forget)).await;
    running.kill().await;
}

#[tokio::test]
async fn another_edge_takes_over_only_after_half_an_hour() {
    let state = tempfile::tempdir().expect("a folder");
    let running = start(state.path());
    let first = Edge::start("vps1", state.path(), vec![Act::Break(AttemptState::InDoubt)]).await;
    let second = Edge::start("vps2", state.path(), vec![Act::End(accepted())]).await;
    let (one, two) = (first.connect().await, second.connect().await);
    running.edges.send_replace(vec![one.clone(), two.clone()]);
    running.put(1, &["bob@example.com"]);
    first.until("the message", |seen| seen.len() >= 2).await;
    one.session.close(TunnelError::Closed);
    running.edges.send_replace(vec![two]);
    running
        .until("doubt", |entry| {
            entry.and_then(|entry| entry.attempts.first()).is_some_and(|attempt| attempt.lost_unix_ms.is_some())
        })
        .await;
    running.clock.turn(29 * MINUTE);
    tokio::task::yield_now().await;
    assert_eq!(second.relays(), 0);
    running.clock.turn(2 * MINUTE);
    running.until_gone().await;
    assert_eq!((first.relays(), second.relays()), (1, 1));
    // The first edge is back: nothing is asked of it, nothing sent.
    running.edges.send_replace(vec![first.connect().await]);
    running.kill().await;
}

#[tokio::test]
async fn without_any_edge_a_message_expires() {
    let state = tempfile::tempdir().expect("a folder");
    let silent = Settings { warn: None, ..settings() };
    let mut running = Running::start(state.path(), silent, Routes::default(), clock());
    running.put(1, &["bob@example.com"]);
    let clock = running.clock.clone();
    let turning = tokio::spawn(async move {
        loop {
            clock.turn(Duration::from_hours(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let bounce = running.bounce().await;
    turning.abort();
    assert!(running.clock.unix_s() >= crate::queue::tests::RECEIVED_UNIX_S + 5 * 24 * 3600, "not earlier");
    bounce.accepted.send(Reply::ok()).expect("awaited");
    running.until_gone().await;
    running.kill().await;
}
