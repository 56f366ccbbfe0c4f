//! Waiting for a state: asked again and again until it holds, with a limit. Who runs into the limit
//! gets to see what was seen last.

use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost_runtime::clock::Clock;

use crate::world::message;

/// Most things happen within milliseconds; a loaded machine may need far longer.
pub const PATIENCE: Duration = Duration::from_mins(3);
const PAUSE: Duration = Duration::from_millis(20);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait, present and future, by a panic, so that whoever waits puts its things away (Ctrl-C).
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Waits can be had again: what is put away may take its time.
pub fn resume() {
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// True after [`interrupt`].
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

fn pause() {
    assert!(!is_interrupted(), "interrupted");
    std::thread::sleep(PAUSE);
}

/// Asks `look` until `enough` holds for its answer, which is given back.
///
/// # Panics
/// After [`PATIENCE`], with what was waited for and what was seen last.
pub fn until<T: Debug>(what: &str, look: impl FnMut() -> T, enough: impl Fn(&T) -> bool) -> T {
    until_within(PATIENCE, what, look, enough)
}

/// The same with a limit of the caller's.
///
/// # Panics
/// After `limit`, with what was waited for and what was seen last.
pub fn until_within<T: Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> T,
    enough: impl Fn(&T) -> bool,
) -> T {
    let clock = Clock::real();
    let end = clock.now() + limit;
    loop {
        let seen = look();
        if enough(&seen) {
            return seen;
        }
        assert!(clock.now() < end, "waited {limit:?} for {what}; seen last: {seen:#?}");
        pause();
    }
}

/// Waits until `look` answers `Ok`.
///
/// # Panics
/// After [`PATIENCE`], with the last error.
pub fn until_ok<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<T>) -> T {
    let clock = Clock::real();
    let end = clock.now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(error) => assert!(clock.now() < end, "waited {PATIENCE:?} for {what}; seen last: {error:#}"),
        }
        pause();
    }
}

/// Waits until exactly these numbered messages lie in a Maildir, each whole and once.
///
/// # Panics
/// After [`PATIENCE`], with what lies there.
pub fn until_delivered(maildir: &Path, numbers: &[u64]) {
    until_ok(&format!("messages {numbers:?} in {}", maildir.display()), || {
        let found = message::numbers(maildir)?;
        anyhow::ensure!(found == numbers, "{found:?}");
        Ok(())
    });
}
