//! What homes ask for, each request given to the part that serves it.

use gatepost_runtime::shutdown::Signal;
use tokio::sync::mpsc;

use crate::homes::{Ask, Asked};
use crate::relay::Sender;
use crate::spool::{self, Spool};

/// Gives each request of a home to the part that serves it. The tasks hold the signal, so that a
/// drain waits for mail that is on its way out.
pub(super) async fn serve_homes(mut requests: mpsc::Receiver<Asked>, spool: Spool, sender: Sender, mut signal: Signal) {
    loop {
        let asked = tokio::select! {
            asked = requests.recv() => asked,
            () = signal.draining() => return,
        };
        let Some(Asked { home, what, version, stream }) = asked else { return };
        let (spool, sender, held) = (spool.clone(), sender.clone(), signal.clone());
        tokio::spawn(async move {
            match what {
                Ask::Relay(relay) => sender.relay(home, *relay, version, stream).await,
                Ask::Attempt(request) => sender.attempt(home, request, version, stream).await,
                Ask::Spool(request) => spool::serve::serve(spool, home.name().to_owned(), request, stream).await,
            }
            drop(held);
        });
    }
}
