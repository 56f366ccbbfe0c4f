//! A small file of what is learnt while running and may be forgotten by a crash: read once at the start, written whole
//! some time after it has changed, and at the end. What it says is its owner's business.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tracing::error;

use crate::clock::Clock;
use crate::durable::{self, DurableError};
use crate::shutdown::Signal;

/// The file, and whether what is in it is still so.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    clock: Clock,
    gather: Duration,
    /// Something is not written down.
    changed: AtomicBool,
    grown: Notify,
    /// Held while the file is written, so that the last word stays.
    writing: Mutex<()>,
}

impl Kept {
    /// In this file; changes are written down `gather` after the first of them, so that many are one write.
    pub fn new(path: PathBuf, gather: Duration, clock: Clock) -> Self {
        Self { path, clock, gather, changed: AtomicBool::new(false), grown: Notify::new(), writing: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// So many of its octets at most, or none if there is no file yet. Blocking.
    pub fn read(&self, octets_max: u64) -> io::Result<Option<String>> {
        let mut text = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(octets_max).read_to_end(&mut text)) {
            Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Something has changed: the next [`Self::write`] has something to do.
    pub fn mark(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// The same, and [`Self::keep_up`] sees to it.
    pub fn note(&self) {
        self.mark();
        self.grown.notify_one();
    }

    /// Writes `text` down if something has changed. Durable when it returns; what could not be written counts as changed
    /// still. Blocking.
    pub fn write(&self, text: impl FnOnce() -> String) -> Result<(), DurableError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.changed.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        durable::write_file(&self.path, text().as_bytes()).inspect_err(|_| self.mark())
    }

    /// Calls `write`, where it may block, after what was noted; until draining begins.
    pub async fn keep_up(&self, mut signal: Signal, write: impl Fn() + Clone + Send + 'static) {
        loop {
            tokio::select! {
                () = self.grown.notified() => {}
                () = signal.draining() => return,
            }
            tokio::select! {
                () = self.clock.sleep(self.gather) => {}
                () = signal.draining() => return,
            }
            if tokio::task::spawn_blocking(write.clone()).await.is_err() {
                error!(path = %self.path.display(), "writing it down failed; this is a bug");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_only_changes_are_written() {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::new(directory.path().join("learnt"), Duration::ZERO, Clock::real());
        assert_eq!(kept.read(9).unwrap(), None);
        kept.write(|| unreachable!("nothing has changed")).unwrap();
        kept.mark();
        kept.write(|| "one two three".to_owned()).unwrap();
        assert_eq!(kept.read(7).unwrap().as_deref(), Some("one two"), "bounded");
        kept.write(|| unreachable!("it is written down")).unwrap();
    }

    #[test]
    fn what_could_not_be_written_is_not_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("absent");
        let kept = Kept::new(place.join("learnt"), Duration::ZERO, Clock::real());
        kept.mark();
        assert!(kept.write(|| "x".to_owned()).is_err());
        std::fs::create_dir(&place).unwrap();
        kept.write(|| "x".to_owned()).unwrap();
        assert_eq!(kept.read(9).unwrap().as_deref(), Some("x"));
    }

    #[tokio::test]
    async fn what_is_noted_is_written_after_a_while_without_being_asked() {
        let (begin, signal) = crate::shutdown::Shutdown::new();
        let kept = std::sync::Arc::new(Kept::new(PathBuf::from("nowhere"), Duration::from_millis(1), Clock::real()));
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let keeping = std::sync::Arc::clone(&kept);
        let task = tokio::spawn(async move {
            keeping.keep_up(signal, move || tell.send(()).expect("somebody waits")).await;
        });
        kept.note();
        told.recv().await.unwrap();
        begin.drain();
        task.await.unwrap();
    }
}
