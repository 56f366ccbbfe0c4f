//! Who waits for changes of a folder: delivery and sessions ring, and so does the system when another program puts a file
//! there or takes one away. A bell nobody listens to is not there, and while there is none nothing is watched.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Octets of what the system tells at once.
const TOLD_OCTETS: usize = 4096;

/// The bells. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Bells(Arc<Mutex<Hung>>);

#[derive(Debug, Default)]
struct Hung {
    by_folder: HashMap<PathBuf, Bell>,
    /// Folders by what the system calls them.
    watched: HashMap<i32, PathBuf>,
    system: Option<Arc<AsyncFd<OwnedFd>>>,
}

#[derive(Debug)]
struct Bell {
    rung: watch::Sender<u64>,
    watches: Vec<i32>,
}

impl Bells {
    /// Something in this folder is new, changed or gone.
    pub fn ring(&self, folder: &Path) {
        let mut hung = self.hung();
        let Some(bell) = hung.by_folder.get(folder) else { return };
        if bell.rung.is_closed() {
            hung.take_down(folder);
        } else {
            bell.rung.send_modify(|rung| *rung += 1);
        }
    }

    /// Hears of every change from now on; of those by other programs only within the runtime.
    pub fn listen(&self, folder: &Path) -> watch::Receiver<u64> {
        let mut hung = self.hung();
        let silent: Vec<PathBuf> =
            hung.by_folder.iter().filter(|(_, bell)| bell.rung.is_closed()).map(|(folder, _)| folder.clone()).collect();
        for folder in &silent {
            hung.take_down(folder);
        }
        if let Some(bell) = hung.by_folder.get(folder) {
            return bell.rung.subscribe();
        }
        let watches = self.watch(&mut hung, folder);
        let rung = watch::Sender::new(0);
        let ear = rung.subscribe();
        hung.by_folder.insert(folder.to_owned(), Bell { rung, watches });
        ear
    }

    /// Has the system watch a folder. Where it can't, other programs' changes are found at the next command.
    fn watch(&self, hung: &mut Hung, folder: &Path) -> Vec<i32> {
        if hung.system.is_none() && Handle::try_current().is_ok() {
            match system() {
                Ok(system) => {
                    let system = Arc::new(system);
                    tokio::spawn(self.clone().hear(Arc::clone(&system)));
                    hung.system = Some(system);
                }
                Err(error) => tracing::warn!(%error, "the system can't tell of changes in mailboxes"),
            }
        }
        let Some(system) = &hung.system else { return Vec::new() };
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE;
        let mut watches = Vec::new();
        for part in ["new", "cur"] {
            match inotify::add_watch(system.get_ref(), folder.join(part), flags) {
                Ok(number) => watches.push(number),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "the system can't tell of changes here");
                }
            }
        }
        hung.watched.extend(watches.iter().map(|number| (*number, folder.to_owned())));
        watches
    }

    /// Rings for what the system tells.
    async fn hear(self, system: Arc<AsyncFd<OwnedFd>>) {
        loop {
            let Ok(mut ready) = system.readable().await else { return };
            let mut buffer = [MaybeUninit::uninit(); TOLD_OCTETS];
            let mut reader = Reader::new(system.get_ref().as_fd(), &mut buffer);
            let mut changed = Vec::new();
            loop {
                match reader.next() {
                    Ok(told) => {
                        let hung = self.hung();
                        changed.extend(hung.watched.get(&told.wd()).cloned());
                        // Too much happened to be told: anything may have changed.
                        if told.wd() < 0 {
                            changed.extend(hung.by_folder.keys().cloned());
                        }
                    }
                    Err(Errno::INTR) => {}
                    Err(_) => {
                        ready.clear_ready();
                        break;
                    }
                }
            }
            changed.sort_unstable();
            changed.dedup();
            for folder in &changed {
                self.ring(folder);
            }
        }
    }

    fn hung(&self) -> MutexGuard<'_, Hung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hung {
    fn take_down(&mut self, folder: &Path) {
        let Some(bell) = self.by_folder.remove(folder) else { return };
        for number in bell.watches {
            self.watched.remove(&number);
            if let Some(system) = &self.system {
                // A folder that is gone is watched no more by itself.
                let _ = inotify::remove_watch(system.get_ref(), number);
            }
        }
    }
}

/// What the system tells through. To be called inside the runtime.
#[expect(deprecated, reason = "unsound only for what lies about its descriptor; an OwnedFd does not")]
fn system() -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_listens_hears() {
        let bells = Bells::default();
        let (inbox, junk) = (Path::new("a"), Path::new("a/.Junk"));
        bells.ring(inbox);
        let mut ear = bells.listen(inbox);
        assert!(!ear.has_changed().expect("open"));
        bells.ring(junk);
        assert!(!ear.has_changed().expect("open"));
        bells.ring(inbox);
        assert!(ear.has_changed().expect("open"));
        ear.mark_unchanged();
        drop(ear);
        bells.ring(inbox);
        assert!(bells.hung().by_folder.is_empty(), "a bell nobody listens to is taken down");
    }

    #[tokio::test]
    async fn what_another_program_does_is_heard() {
        let mailbox = tempfile::tempdir().expect("a folder");
        for part in ["new", "cur"] {
            std::fs::create_dir(mailbox.path().join(part)).expect("made");
        }
        let bells = Bells::default();
        let mut ear = bells.listen(mailbox.path());
        std::fs::write(mailbox.path().join("new/1.a"), "x").expect("written");
        ear.changed().await.expect("heard");
        drop(ear);
        bells.ring(mailbox.path());
        assert!(bells.hung().watched.is_empty(), "nothing is watched for nobody");
    }
}
