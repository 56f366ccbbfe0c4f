//! Dialling one edge for ever, with full jitter between a quarter of a second and a minute, and
//! telling it the directory: at once, after each change, and again while it did not take it.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::directory::{DirectoryHeld, WireDirectory2};
use gatepost_runtime::random;
use gatepost_runtime::shutdown::{Phase, Signal};
use gatepost_runtime::tunnel::{self, Session, StreamError, TunnelError};

use super::{Connected, Dialling, Inner, Listed};
use crate::queue::ConnectedEdge;

/// Shortest wait before dialling again.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Longest wait before dialling again.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// The protocol version since which an edge is told pattern aliases and the key of return paths. An older one is not
/// told to take everything instead: it would seal mail for nobody while the home is away.
const PATTERNS_SINCE: u16 = 2;
/// Between two tellings passes this many times what the first took, so that many changes of a large directory don't
/// keep home and edge busy.
const TELL_REST: u32 = 9;
/// But never more than this.
const TELL_REST_MAX: Duration = Duration::from_secs(5);
/// A session that lived this long owes nothing to the failures before it.
const GOOD_AFTER: Duration = Duration::from_mins(1);
/// What a shorter one counts for at most, unless it ended in a refusal: an edge that was reached a moment ago
/// is most likely being restarted, and mail waits for it.
const BROKEN_COUNTS: u32 = 3;
/// How long an edge may take to store the directory.
const DIRECTORY_WAIT_MAX: Duration = Duration::from_mins(1);
/// Wait before telling an edge again what it did not take; doubles up to [`WAIT_MAX`].
const TELL_AGAIN_MIN: Duration = Duration::from_secs(1);

/// What ends the dialling of one edge: it is listed no more, or everything ends.
struct Until {
    stop: Signal,
    links: Signal,
}

impl Until {
    fn runs(&self) -> bool {
        self.stop.phase() == Phase::Running && self.links.phase() == Phase::Running
    }

    /// Nothing new is to be begun.
    async fn draining(&mut self) {
        tokio::select! {
            () = self.stop.draining() => {}
            () = self.links.draining() => {}
        }
    }

    /// The session is to end.
    async fn ended(&mut self) {
        tokio::select! {
            () = self.stop.ended() => {}
            () = self.links.ended() => {}
        }
    }
}

/// Keeps a session with an edge until it is listed no more or draining begins.
pub(super) async fn keep(inner: Arc<Inner>, edge: Arc<Listed>, stop: Signal, links: Signal) {
    let mut until = Until { stop, links };
    let dialling = &inner.dialling;
    let mut failures = 0u32;
    while until.runs() {
        let keys = edge.keys();
        let dialled = tokio::select! {
            dialled = tunnel::dial(&dialling.identity, &dialling.node, &edge.address, &keys, dialling.clock.clone()) => dialled,
            () = until.draining() => return,
        };
        let begun = dialling.clock.now();
        let reached = dialled.is_ok();
        let why = match dialled {
            Ok((session, incoming)) => {
                let up = ConnectedEdge { name: edge.name.clone(), key: session.facts().peer, session: session.clone() };
                if !inner.set_connected(&edge, up.clone()) {
                    // Its key was taken off the list meanwhile.
                    session.close(TunnelError::Closed);
                    continue;
                }
                let facts = session.facts();
                tracing::info!(
                    edge = edge.name, address = %facts.address, software = facts.software, key_exchange = facts.group,
                    "edge connected"
                );
                if inner.sessions.send(Connected { edge: up, incoming }).await.is_err() {
                    return;
                }
                let why = serve(&edge, &session, dialling, &mut until).await;
                inner.set_lost(&edge, why.to_string());
                why
            }
            Err(why) => {
                inner.set_lost(&edge, why.to_string());
                why
            }
        };
        if !until.runs() {
            tracing::info!(edge = edge.name, "edge let go");
            return;
        }
        let lived = dialling.clock.now().saturating_duration_since(begun);
        failures = counted(failures, reached.then_some(lived), &why);
        let wait = wait(failures, u64::from_be_bytes(random::bytes()));
        tracing::warn!(edge = edge.name, address = edge.address, why = %why, again_in_ms = wait.as_millis(), "edge not connected");
        tokio::select! {
            () = dialling.clock.sleep(wait) => {}
            () = edge.changed.notified() => {}
            () = until.draining() => return,
        }
    }
}

/// Full jitter: anywhere between the shortest wait and one that doubles with each failure.
/// Failures in a row, this one included. `lived` is how long its session lived, if there was one.
fn counted(before: u32, lived: Option<Duration>, why: &TunnelError) -> u32 {
    match lived {
        Some(lived) if lived >= GOOD_AFTER => 0,
        Some(_) if !matches!(why, TunnelError::Refused(_)) => before.saturating_add(1).min(BROKEN_COUNTS),
        _ => before.saturating_add(1),
    }
}

fn wait(failures: u32, random: u64) -> Duration {
    let most = WAIT_MIN.saturating_mul(1 << failures.min(16)).min(WAIT_MAX);
    let span = u64::try_from(most.saturating_sub(WAIT_MIN).as_millis()).unwrap_or(u64::MAX);
    WAIT_MIN + Duration::from_millis(random % (span + 1))
}

/// Tells the directory until the session ends, or everything does.
async fn serve(listed: &Listed, session: &Session, dialling: &Dialling, until: &mut Until) -> TunnelError {
    let (mut directory, clock) = (dialling.directory.clone(), &dialling.clock);
    let patterns = directory.borrow().patterns();
    if session.facts().version < PATTERNS_SINCE && patterns > 0 {
        tracing::warn!(
            edge = listed.name,
            software = session.facts().software,
            patterns,
            "this edge is too old to know pattern aliases and return paths, and refuses mail for them: update it"
        );
    }
    let rules = directory.borrow().rules();
    if session.facts().version < PATTERNS_SINCE && rules > 0 {
        let software = session.facts().software.as_str();
        tracing::warn!(
            edge = listed.name,
            software,
            rules,
            "this edge is too old to know access lists, and refuses nobody by them: update it"
        );
    }
    let telling = async {
        let mut again = TELL_AGAIN_MIN;
        loop {
            let snapshot = Arc::clone(&directory.borrow_and_update());
            let edge = &listed.name;
            let begun = clock.now();
            let told = match clock.timeout(DIRECTORY_WAIT_MAX, tell(session, &snapshot)).await {
                Some(Ok(held)) => {
                    listed.facts().directory_held = Some(held);
                    tracing::info!(edge, version = held, "directory held by the edge");
                    true
                }
                Some(Err(error)) => {
                    tracing::warn!(edge, %error, "the edge did not take the directory");
                    false
                }
                None => {
                    tracing::warn!(edge, "the edge took too long to store the directory");
                    false
                }
            };
            let changed = if told {
                again = TELL_AGAIN_MIN;
                let took = clock.now().saturating_duration_since(begun);
                clock.sleep((took * TELL_REST).min(TELL_REST_MAX)).await;
                directory.changed().await
            } else {
                // A change comes with its turn: an edge that fails is not asked more often for it.
                clock.sleep(again).await;
                again = (again * 2).min(WAIT_MAX);
                Ok(())
            };
            if changed.is_err() {
                // Nothing will change any more.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        why = session.ended() => why,
        () = telling => TunnelError::Closed,
        // Draining leaves the session alone: what is under way comes to its end over it.
        () = until.ended() => {
            session.close(TunnelError::Closed);
            TunnelError::Closed
        }
    }
}

async fn tell(session: &Session, directory: &WireDirectory2) -> Result<u64, StreamError> {
    let request = Request::Directory2(Box::new(directory.clone()));
    let request = if session.facts().version >= request.since() {
        request
    } else {
        Request::Directory(Box::new(directory.base().clone()))
    };
    let mut stream = session.open(&request).await?;
    stream.flush().await?;
    let held: DirectoryHeld = stream.record().await?;
    stream.finish().await;
    Ok(held.version)
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::tunnel::hello::Refusal;
    use gatepost_runtime::clock::Clock;
    use gatepost_runtime::identity::Identity;
    use gatepost_runtime::shutdown::Shutdown;

    use super::*;
    use crate::edges::{EdgeSettings, Edges};

    #[test]
    fn an_edge_that_was_reached_is_soon_dialled_again_and_one_that_refuses_is_not() {
        let broken = TunnelError::Broken("reset".to_owned());
        let replaced = TunnelError::Refused(Refusal::Replaced);
        let moment = Some(Duration::from_secs(1));
        for (before, lived, why, after) in [
            (0, None, &broken, 1),
            (9, None, &broken, 10),
            (9, moment, &broken, BROKEN_COUNTS),
            (0, moment, &broken, 1),
            (9, moment, &replaced, 10),
            (9, Some(GOOD_AFTER), &replaced, 0),
            (9, Some(GOOD_AFTER), &broken, 0),
        ] {
            assert_eq!(counted(before, lived, why), after, "{before} {lived:?} {why}");
        }
        assert!(wait(BROKEN_COUNTS, u64::MAX) <= Duration::from_secs(2));
    }

    #[tokio::test]
    async fn an_edge_that_fails_is_dialled_again_by_the_clock_it_was_given() {
        let patience = Duration::from_secs(20);
        let state = tempfile::tempdir().expect("a folder");
        let identity = Arc::new(Identity::load_or_create(&state.path().join("key.pem")).expect("made"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let settings = EdgeSettings {
            name: "away".into(),
            address: listener.local_addr().expect("bound").to_string(),
            keys: vec![identity.key()],
        };
        let (shutdown, _signal) = Shutdown::new();
        let clock = Clock::still(Duration::ZERO);
        let dialling = Dialling {
            identity,
            node: "home.example.org".into(),
            directory: crate::accounts::tests::open(state.path()).directory(),
            clock: clock.clone(),
            links: Arc::new(shutdown),
        };
        let (_edges, _sessions) = Edges::start(&[settings], dialling);
        // By any other clock so many waits take minutes.
        for _ in 0..15 {
            let dialled = async {
                loop {
                    tokio::select! {
                        dialled = listener.accept() => break dialled,
                        () = tokio::time::sleep(Duration::from_millis(2)) => clock.turn(WAIT_MAX),
                    }
                }
            };
            // It is let go of at once.
            tokio::time::timeout(patience, dialled).await.expect("in time").expect("dialled");
        }
    }

    #[test]
    fn waits_stay_within_their_bounds_and_grow() {
        for failures in [0, 1, 5, 8, 9, 16, 17, u32::MAX] {
            for random in [0, 1, 59_749, 59_750, 59_751, u64::MAX] {
                let wait = wait(failures, random);
                assert!((WAIT_MIN..=WAIT_MAX).contains(&wait), "{failures} {random} {wait:?}");
            }
        }
        assert_eq!(wait(0, u64::MAX), WAIT_MIN);
        assert_eq!(wait(1, 250), Duration::from_millis(500));
        assert_eq!(wait(u32::MAX, 59_750), WAIT_MAX);
    }
}
