//! The thread that writes, and group commit: it takes whatever waits, commits once, then answers
//! each. While it commits, the next group gathers by itself.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::DatabaseError;

/// Writes in one commit.
const GROUP_MAX: usize = 256;
/// Writes that may wait for the thread before whoever brings another waits too.
const WAITING_MAX: usize = 4096;
/// Lazy writes gathered before they are committed for their own sake.
const LAZY_MAX: usize = 512;
/// How long lazy writes wait for a commit to join.
const LAZY_WAIT: Duration = Duration::from_millis(500);

/// Tells one writer what became of its write, once its commit's fate is known.
type Answer = Box<dyn FnOnce(Result<(), DatabaseError>) + Send>;
/// A write; gets the connection inside a transaction, or the reason why there is none.
type Work = Box<dyn FnOnce(Result<&Connection, DatabaseError>) -> Answer + Send>;
type LazyWork = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

enum Order {
    Write(Work),
    Lazy(LazyWork),
}

/// A handle on the thread. Dropping it commits what waits and ends the thread.
pub struct Writer {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// A write that may not be durable yet.
#[derive(Debug)]
pub struct Pending<T>(Receiver<Result<T, DatabaseError>>);

impl<T> Pending<T> {
    /// Waits for the commit. Blocking.
    pub fn wait(self) -> Result<T, DatabaseError> {
        self.0.recv().unwrap_or(Err(DatabaseError::Closed))
    }
}

impl Writer {
    /// Starts the thread on this connection.
    pub fn start(connection: Connection) -> Self {
        let (orders, receiver) = sync_channel(WAITING_MAX);
        let thread = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || run(&connection, &receiver))
            .expect("a program that can't start one thread can't start at all");
        Self { orders: Some(orders), thread: Some(thread) }
    }

    pub fn write<T, F>(&self, savepoint: bool, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (sender, receiver) = sync_channel(1);
        let work: Work = Box::new(move |connection| {
            let result = connection.and_then(|connection| {
                let result = if savepoint { within_savepoint(connection, work) } else { work(connection) };
                Ok(result?)
            });
            // Who no longer waits needs no answer.
            Box::new(move |committed| drop(sender.send(result.and_then(|value| committed.map(|()| value)))))
        });
        self.order(Order::Write(work));
        Pending(receiver)
    }

    pub fn write_lazily<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        self.order(Order::Lazy(Box::new(work)));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // Without its thread the write is dropped, and with it the sender: the waiter hears `Closed`.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, orders: &Receiver<Order>) {
    let mut lazy: Vec<LazyWork> = Vec::new();
    let mut group: Vec<Work> = Vec::new();
    let mut open = true;
    while open || !lazy.is_empty() {
        let mut next = if !open {
            None
        } else if lazy.is_empty() {
            orders.recv().map_err(|_| open = false).ok()
        } else {
            match orders.recv_timeout(LAZY_WAIT) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    None
                }
            }
        };
        let waited = next.is_none();
        while let Some(order) = next {
            match order {
                Order::Write(work) => group.push(work),
                Order::Lazy(work) => lazy.push(work),
            }
            next = if group.len() < GROUP_MAX && lazy.len() < LAZY_MAX { orders.try_recv().ok() } else { None };
        }
        // Lazy writes ride along, or go alone once nothing else came for a while.
        if !group.is_empty() || waited || lazy.len() >= LAZY_MAX {
            commit(connection, &mut group, &mut lazy);
        }
    }
}

/// One transaction for all of them, then the answers.
fn commit(connection: &Connection, group: &mut Vec<Work>, lazy: &mut Vec<LazyWork>) {
    if group.is_empty() && lazy.is_empty() {
        return;
    }
    if let Err(error) = statement(connection, "BEGIN IMMEDIATE") {
        tracing::error!(%error, "a transaction could not begin");
        for work in group.drain(..) {
            work(Err(error.clone()))(Err(error.clone()));
        }
        lazy.clear();
        return;
    }
    let answers: Vec<Answer> = group.drain(..).map(|work| work(Ok(connection))).collect();
    for work in lazy.drain(..) {
        if let Err(error) = work(connection) {
            tracing::warn!(%error, "a note in home.db could not be written");
        }
    }
    let committed = statement(connection, "COMMIT");
    if let Err(error) = &committed {
        tracing::error!(%error, "a commit failed");
        // After some failures the transaction is already gone; then there is nothing to roll back.
        let _ = statement(connection, "ROLLBACK");
    }
    for answer in answers {
        answer(committed.clone());
    }
}

fn within_savepoint<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.prepare_cached("SAVEPOINT one")?.execute([])?;
    let result = work(connection);
    if result.is_err() {
        connection.prepare_cached("ROLLBACK TO one")?.execute([])?;
    }
    connection.prepare_cached("RELEASE one")?.execute([])?;
    result
}

fn statement(connection: &Connection, sql: &str) -> Result<(), DatabaseError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
