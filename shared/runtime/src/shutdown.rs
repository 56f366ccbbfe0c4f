//! One signal for a whole program: stop accepting, finish what runs, end.

use tokio::sync::watch;

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new work; what runs may finish.
    Draining,
    /// Drop everything.
    Ended,
}

/// Held by who decides.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<Phase>);

/// Held by everybody else. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Signal(watch::Receiver<Phase>);

impl Shutdown {
    /// Running.
    pub fn new() -> (Self, Signal) {
        let (sender, receiver) = watch::channel(Phase::Running);
        (Self(sender), Signal(receiver))
    }

    /// Another signal of this shutdown.
    pub fn signal(&self) -> Signal {
        Signal(self.0.subscribe())
    }

    /// No new work.
    pub fn drain(&self) {
        self.0.send_replace(Phase::Draining);
    }

    /// Drop everything.
    pub fn end(&self) {
        self.0.send_replace(Phase::Ended);
    }

    /// Waits until every [`Signal`] was dropped: nobody works any more.
    pub async fn idle(&self) {
        self.0.closed().await;
    }
}

impl Signal {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Resolves when draining (or later) begins. A dropped [`Shutdown`] counts as the end.
    pub async fn draining(&mut self) {
        let _ = self.0.wait_for(|phase| *phase >= Phase::Draining).await;
    }

    /// Resolves when everything must be dropped.
    pub async fn ended(&mut self) {
        let _ = self.0.wait_for(|phase| *phase >= Phase::Ended).await;
    }
}
