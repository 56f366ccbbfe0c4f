//! Who waits for changes of a folder: delivery and sessions ring, sessions hear. A bell nobody listens to is not there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The bells, by the folder's directory. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Bells(Arc<Mutex<HashMap<PathBuf, watch::Sender<u64>>>>);

impl Bells {
    /// Something in this folder is new, changed or gone.
    pub fn ring(&self, folder: &Path) {
        let mut bells = self.bells();
        if let Some(bell) = bells.get(folder) {
            if bell.is_closed() {
                bells.remove(folder);
            } else {
                bell.send_modify(|rung| *rung += 1);
            }
        }
    }

    /// Hears of every change from now on.
    pub fn listen(&self, folder: &Path) -> watch::Receiver<u64> {
        let mut bells = self.bells();
        bells.retain(|_, bell| !bell.is_closed());
        bells.entry(folder.to_owned()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<PathBuf, watch::Sender<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        assert!(bells.bells().is_empty(), "a bell nobody listens to is taken down");
    }
}
