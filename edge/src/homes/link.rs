//! A home's link: sessions as they come from the acceptor, the verbs a home may use, and the
//! directory it sends. A home that asks for anything else is logged and its stream dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatepost_protocol::tunnel::hello::Refusal;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::directory::{DirectoryHeld, WireDirectory2};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::tunnel::{Acceptor, Incoming, Session, Stream, TunnelError};
use tokio::sync::{Mutex, mpsc};
use tracing::{info, warn};

use super::{Ask, Asked, Home, Homes};
use crate::journal::{Journals, tell};

/// Sessions waiting to be taken up; the acceptor waits beyond it.
const SESSIONS_WAITING_MAX: usize = 4;

/// Takes homes in. The acceptor is for the door of the tunnel; the future serves until the edge ends.
pub fn gate(
    homes: &Homes,
    identity: Arc<Identity>,
    node: &str,
    asked: mpsc::Sender<Asked>,
    journals: Journals,
    clock: Clock,
) -> (Acceptor, impl Future<Output = ()> + Send + 'static) {
    let (sender, mut sessions) = mpsc::channel(SESSIONS_WAITING_MAX);
    let paired = {
        let homes = homes.clone();
        Arc::new(move |key| homes.of_key(key).is_some())
    };
    let acceptor = Acceptor::new(identity, node.to_owned(), paired, sender, clock.clone());
    let homes = homes.clone();
    let serve = async move {
        let number = AtomicU64::new(0);
        while let Some((session, incoming)) = sessions.recv().await {
            let Some(home) = homes.of_key(session.facts().peer) else {
                // The acceptor asked `paired` already; a key that is none of ours gets nothing.
                session.close(TunnelError::Closed);
                continue;
            };
            let (number, version) = (number.fetch_add(1, Ordering::Relaxed), session.facts().version);
            let journal = journals.of(home.name());
            let (told, telling) = (session.clone(), clock.clone());
            let (homes, asked, clock) = (homes.clone(), asked.clone(), clock.clone());
            let link = Link { homes, home, number, version, asked, clock };
            tokio::spawn(async move {
                let Some(journal) = journal else { return link.run(session, incoming).await };
                tokio::select! {
                    () = link.run(session, incoming) => {}
                    () = tell::tell(journal, told, telling) => {}
                }
            });
        }
    };
    (acceptor, serve)
}

struct Link {
    homes: Homes,
    home: Arc<Home>,
    number: u64,
    version: u16,
    asked: mpsc::Sender<Asked>,
    clock: Clock,
}

impl Link {
    async fn run(self, session: Session, mut incoming: mpsc::Receiver<Incoming>) {
        let facts = session.facts();
        let address = facts.address;
        info!(home = self.home.name(), address = %facts.address, software = facts.software, group = facts.group, "home connected");
        if let Some(old) = self.home.connect(self.number, session.clone()) {
            // A home that changes its key may still have a session with the old one.
            old.close(TunnelError::Refused(Refusal::Replaced));
        }
        // It may have been taken off the list since its key was looked up.
        self.homes.check(&self.home);
        let link = Arc::new(self);
        link.note_arrival();
        // Held while a snapshot is stored: the newest of this session.
        let newest = Arc::new(Mutex::new(0));
        let admit = async {
            while let Some(incoming) = incoming.recv().await {
                link.admit(incoming, &newest).await;
            }
        };
        let why = tokio::select! {
            why = session.ended() => why,
            () = admit => session.ended().await,
        };
        link.home.disconnect(link.number, link.clock.now());
        info!(home = link.home.name(), %address, %why, "home disconnected");
    }

    /// That the home is back must outlive a crash: its absence is over.
    fn note_arrival(self: &Arc<Self>) {
        let link = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = link.home.presence.keep(link.clock.now()) {
                warn!(home = link.home.name(), %error, "that the home is back can't be noted");
            }
        });
    }

    async fn admit(self: &Arc<Self>, incoming: Incoming, newest: &Arc<Mutex<u64>>) {
        let Incoming { role, request, stream } = incoming;
        let what = match request {
            request if request.role() != Some(role) => Err(request),
            Request::Directory(wire) => return self.spawn_directory((*wire).into(), newest, stream),
            Request::Directory2(wire) => return self.spawn_directory(*wire, newest, stream),
            Request::Relay(relay) => Ok(Ask::Relay(relay)),
            Request::Attempt(request) => Ok(Ask::Attempt(request)),
            Request::Spool(request) => Ok(Ask::Spool(request)),
            Request::Admin(request) => Ok(Ask::Admin(request)),
            request => Err(request),
        };
        match what {
            // Bounded by the streams a session may have open; a full channel only slows this home's next request.
            Ok(what) => {
                drop(self.asked.send(Asked { home: self.home.clone(), what, version: self.version, stream }).await);
            }
            Err(request) => {
                warn!(home = self.home.name(), verb = verb(&request), connection = %role, "a home asked for what it may not");
            }
        }
    }

    fn spawn_directory(self: &Arc<Self>, wire: WireDirectory2, newest: &Arc<Mutex<u64>>, stream: Stream) {
        let (link, newest) = (self.clone(), newest.clone());
        tokio::spawn(async move { link.take_directory(wire, &newest, stream).await });
    }

    /// Stores a snapshot and answers with the version now held. An older one that was overtaken in
    /// this session changes nothing.
    async fn take_directory(&self, wire: WireDirectory2, newest: &Mutex<u64>, mut stream: Stream) {
        let mut newest = newest.lock().await;
        let mut version = *newest;
        if wire.version() >= *newest {
            let home = self.home.clone();
            let stored = tokio::task::spawn_blocking(move || home.shelf.put(wire)).await;
            match stored {
                Ok(Ok(stored)) => version = stored,
                Ok(Err(error)) => {
                    warn!(home = self.home.name(), %error, "the home's directory was not taken");
                    return;
                }
                Err(error) => {
                    warn!(home = self.home.name(), %error, "storing the home's directory failed");
                    return;
                }
            }
            *newest = version;
            self.homes.note_learned();
            info!(home = self.home.name(), version, "directory stored");
        }
        drop(newest);
        if stream.send(&DirectoryHeld { version }).await.is_ok() {
            stream.finish().await;
        }
    }
}

fn verb(request: &Request) -> &'static str {
    match request {
        Request::Heartbeat => "Heartbeat",
        Request::Directory(_) | Request::Directory2(_) => "Directory",
        Request::Inbound(_) => "Inbound",
        Request::Submission(_) => "Submission",
        Request::Authenticate(_) => "Authenticate",
        Request::Relay(_) => "Relay",
        Request::Attempt(_) => "Attempt",
        Request::Spool(_) => "Spool",
        Request::Events(_) => "Events",
        Request::Admin(_) => "Admin",
        Request::Challenge(_) => "Challenge",
        Request::Splice(_) => "Splice",
    }
}
