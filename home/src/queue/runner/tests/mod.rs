//! The runner against a real server machine over TCP, and against an edge behind a real tunnel.

mod dates;
mod direct;
mod relayed;
mod sink;

use std::path::Path;
use std::time::Duration;

use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::delivery::config::Keepers;
use crate::queue::Queue;
use crate::queue::config::Settings;
use crate::queue::entry::Entry;
use crate::queue::next_hop::Routes;
use crate::queue::tests::{clock, message, new_entry, open_with, settings};

/// Longest wait for anything in these tests; only a failing one takes it.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const ID: QueueId = QueueId([1; 16]);

/// A queue that runs.
struct Running {
    queue: Queue,
    clock: Clock,
    edges: watch::Sender<Vec<ConnectedEdge>>,
    bounces: mpsc::Receiver<Bounce>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Running {
    fn start(state: &Path, settings: Settings, routes: Routes, clock: Clock) -> Self {
        let (queue, _) = open_with(state, settings, routes, clock.clone());
        Self::run(queue, clock)
    }

    fn run(queue: Queue, clock: Clock) -> Self {
        let (edges, connected) = watch::channel(Vec::new());
        let (sender, bounces) = mpsc::channel(1);
        let (shutdown, signal) = Shutdown::new();
        let resolver = Resolver::new(&[]);
        let servers = Servers::of(Keepers::default(), clock.clone());
        let task = tokio::spawn(queue.clone().run(connected, sender, resolver, servers, signal));
        Self { queue, clock, edges, bounces, shutdown, task }
    }

    fn put(&self, n: u8, recipients: &[&str]) {
        self.queue.prepare(new_entry(n, recipients), &message()).expect("prepared").commit().expect("committed");
    }

    fn entry(&self, id: QueueId) -> Option<Arc<Entry>> {
        self.queue.entries.entry(id)
    }

    async fn until(&self, what: &str, reached: impl Fn(Option<&Entry>) -> bool) {
        let waiting = async {
            while !reached(self.entry(ID).as_deref()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "{what} never came; the entry is {:#?}", self.entry(ID));
    }

    async fn until_gone(&self) {
        self.until("the end of the entry", |entry| entry.is_none()).await;
    }

    async fn until_deferred(&self, attempts: u32) {
        self.until("a deferral", |entry| {
            entry.is_some_and(|entry| {
                entry.attempts.is_empty()
                    && entry.recipients.iter().map(super::super::entry::Addressee::attempts).max() >= Some(attempts)
            })
        })
        .await;
    }

    async fn bounce(&mut self) -> Bounce {
        tokio::time::timeout(PATIENCE, self.bounces.recv()).await.expect("in time").expect("a bounce")
    }

    /// As a crash would end it.
    async fn kill(self) {
        self.shutdown.end();
        self.task.abort();
        let _ = self.task.await;
    }
}
