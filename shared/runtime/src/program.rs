//! What both programs start with and end by: the threads they run on, and the signals they obey.

use std::future::Future;
use std::io;
use std::num::NonZero;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Threads that serve connections. Both programs wait for others most of the time.
const WORKERS_MAX: usize = 4;
/// Stack of each thread, in octets. Sessions live on the heap.
const STACK_OCTETS: usize = 1024 * 1024;

/// Runs `program` to its end on threads of this name, with at most `blocking_max` more for blocking work.
/// What the program gave up on in its drain is dropped, not waited for.
pub fn run<F: Future>(name: &str, blocking_max: usize, program: F) -> io::Result<F::Output> {
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(WORKERS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(blocking_max)
        .thread_stack_size(STACK_OCTETS)
        .thread_name(name)
        .enable_all()
        .build()?;
    let done = runtime.block_on(program);
    runtime.shutdown_background();
    Ok(done)
}

/// The signals of the system that a program obeys.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// SIGTERM or SIGINT: finish what runs and end; told again: end at once.
    End,
    /// SIGHUP: take the config as it is now.
    Reload,
}

impl Signals {
    /// Obeys them from now on. To be called inside the runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
            _ = self.hangup.recv() => Told::Reload,
        }
    }

    /// The next that wants the end; others count for nothing any more.
    pub async fn end(&mut self) {
        while self.next().await != Told::End {}
    }
}
