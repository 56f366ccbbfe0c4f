//! Directory syncs, shared. One sync makes every name durable that was there when it began, so of
//! many callers that wait for the same directory only one has to sync for all.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use super::DurableError;

/// Those who sync now, by directory as its callers name it. Entries live while somebody syncs.
static GROUPS: LazyLock<Mutex<HashMap<PathBuf, Arc<Group>>>> = LazyLock::new(Mutex::default);

/// Makes the names in a directory durable. Many callers at once share syncs: each returns after a sync
/// that began after its call.
pub fn sync_directory(path: &Path) -> Result<(), DurableError> {
    let group = join(path);
    let result = group.sync(|| {
        // Opened each time: a directory that was replaced must not be synced by its old inode.
        let directory = File::open(path)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that syncs")]
        directory.sync_all()
    });
    leave(path, group);
    result.map_err(|error| DurableError::new("sync", path, error))
}

/// Syncs of one directory, numbered from 1.
#[derive(Debug, Default)]
struct Group {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the sync that began last.
    begun: u64,
    /// Number of the sync that ended last; one runs while it differs from `begun`.
    ended: u64,
    /// The last sync that failed. The system reports a failure once and then forgets it, so a later
    /// success says nothing to those whose own sync failed.
    failed: Option<(u64, Failure)>,
    /// Callers that wait for a sync of somebody else's.
    waiting: usize,
}

/// An `io::Error` that can be told to many.
#[derive(Clone, Debug)]
struct Failure {
    raw: Option<i32>,
    kind: io::ErrorKind,
}

impl Group {
    /// Returns after a `sync` that began after this call, run by this caller or by another.
    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = lock(&self.state);
        // The one that runs now may have begun before our names were there.
        let needed = state.begun + 1;
        while state.begun != state.ended && state.ended < needed {
            state.waiting += 1;
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        if state.ended < needed {
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = sync();
            state = lock(&self.state);
            state.ended = number;
            if let Err(error) = result {
                state.failed = Some((number, Failure { raw: error.raw_os_error(), kind: error.kind() }));
            }
            self.ended.notify_all();
        }
        match &state.failed {
            Some((number, failure)) if *number >= needed => Err(failure.error()),
            _ => Ok(()),
        }
    }
}

impl Failure {
    fn error(&self) -> io::Error {
        self.raw.map_or_else(|| self.kind.into(), io::Error::from_raw_os_error)
    }
}

fn join(path: &Path) -> Arc<Group> {
    let mut groups = lock(&GROUPS);
    if let Some(group) = groups.get(path) {
        return Arc::clone(group);
    }
    Arc::clone(groups.entry(path.to_owned()).or_default())
}

fn leave(path: &Path, group: Arc<Group>) {
    let mut groups = lock(&GROUPS);
    drop(group);
    // Only the map holds it: nobody syncs there any more, and nobody can join while we hold the map.
    if groups.get(path).is_some_and(|group| Arc::strong_count(group) == 1) {
        groups.remove(path);
    }
}

/// No caller leaves state half changed, so a poisoned lock is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn until_waiting(group: &Group, count: usize) {
        while lock(&group.state).waiting != count {
            thread::yield_now();
        }
    }

    /// While one sync runs, `callers` more come; gives their results and the number of syncs after the first.
    fn crowd(callers: usize, second: fn() -> io::Result<()>) -> (Vec<io::Result<()>>, usize) {
        let group = Arc::new(Group::default());
        let (release, released) = mpsc::channel::<()>();
        let (starting, started) = mpsc::channel::<()>();
        let first = thread::spawn({
            let group = Arc::clone(&group);
            move || {
                group.sync(|| {
                    starting.send(()).unwrap();
                    released.recv().unwrap();
                    Ok(())
                })
            }
        });
        started.recv().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (0..callers)
            .map(|_| {
                let (group, count) = (Arc::clone(&group), Arc::clone(&count));
                thread::spawn(move || {
                    group.sync(|| {
                        count.fetch_add(1, Ordering::SeqCst);
                        second()
                    })
                })
            })
            .collect();
        until_waiting(&group, callers);
        assert_eq!(count.load(Ordering::SeqCst), 0, "nobody may rely on a sync that began before its call");
        release.send(()).unwrap();
        first.join().unwrap().unwrap();
        let results = others.into_iter().map(|other| other.join().unwrap()).collect();
        (results, count.load(Ordering::SeqCst))
    }

    #[test]
    fn callers_that_wait_share_one_sync_that_began_after_they_came() {
        let (results, syncs) = crowd(15, || Ok(()));
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(syncs, 1);
    }

    #[test]
    fn a_failed_sync_fails_everyone_who_relied_on_it() {
        let (results, syncs) = crowd(4, || Err(io::Error::from_raw_os_error(5)));
        assert_eq!(syncs, 1);
        assert!(results.iter().all(|result| result.as_ref().is_err_and(|error| error.raw_os_error() == Some(5))));
    }

    #[test]
    fn a_failure_is_not_held_against_later_callers() {
        let group = Group::default();
        group.sync(|| Err(io::Error::other("broken"))).unwrap_err();
        group.sync(|| Ok(())).unwrap();
    }

    #[test]
    fn nothing_is_kept_when_nobody_syncs() {
        let directory = tempfile::tempdir().unwrap();
        sync_directory(directory.path()).unwrap();
        assert!(!lock(&GROUPS).contains_key(directory.path()));
    }
}
