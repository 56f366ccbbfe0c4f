//! Threads that wait for the disk, so that no async thread ever does. A job is one whole delivery,
//! not one system call. Threads are started as they are needed, up to a bound, and kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Deliveries at once: as many disk syncs may be under way.
pub const WORKERS_MAX: usize = 32;
/// Stack of one thread: a delivery holds its buffers on the heap.
const STACK_OCTETS: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Cheap to clone; they end when the last clone is dropped and the last job done.
#[derive(Clone)]
pub struct Workers {
    shared: Arc<Shared>,
    _owner: Arc<Owner>,
}

struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

/// Held by every handle and by no thread: tells the threads when nobody is left to bring jobs.
struct Owner(Arc<Shared>);

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

impl Default for Workers {
    fn default() -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), wanted: Condvar::new() });
        Self { _owner: Arc::new(Owner(Arc::clone(&shared))), shared }
    }
}

impl Workers {
    /// Runs a job on one of the threads, in the order they come. Whoever brings jobs bounds their number.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads == WORKERS_MAX {
            drop(state);
            self.shared.wanted.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let started = std::thread::Builder::new()
            .name("delivery".to_owned())
            .stack_size(STACK_OCTETS)
            .spawn(move || shared.work());
        if let Err(error) = started {
            let mut state = self.shared.state();
            state.threads -= 1;
            tracing::error!(%error, "no thread for a delivery");
            if state.threads == 0 {
                // Nobody would ever do it: its owner hears that it was dropped.
                state.jobs.pop_back();
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Jobs run without the lock, and every change under it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job that panics is a bug of ours; it must not take the thread, or the others, with it.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a delivery panicked; this is a bug");
                }
                state = self.state();
                continue;
            }
            if state.closed {
                state.threads -= 1;
                return;
            }
            state.idle += 1;
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.wanted.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn many_jobs_run_at_once_and_none_is_lost() {
        let workers = Workers::default();
        let barrier = Arc::new(std::sync::Barrier::new(WORKERS_MAX));
        let (done, finished) = mpsc::channel();
        for _ in 0..WORKERS_MAX * 3 {
            let (barrier, done) = (Arc::clone(&barrier), done.clone());
            workers.run(move || {
                // Passes only if a full set of threads runs at once.
                barrier.wait();
                done.send(()).expect("somebody listens");
            });
        }
        drop((workers, done));
        assert_eq!(finished.iter().count(), WORKERS_MAX * 3);
    }

    #[test]
    fn a_panic_hurts_nobody_else() {
        let workers = Workers::default();
        let (done, finished) = mpsc::channel();
        workers.run(|| panic!("on purpose"));
        workers.run(move || done.send(7).expect("somebody listens"));
        assert_eq!(finished.recv(), Ok(7));
    }
}
