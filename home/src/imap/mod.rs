//! IMAP (RFC 9051, RFC 3501): 993 on the LAN, and what edges carry here from theirs; one session code for both. TLS from
//! the first octet, by the home's own certificate.

pub mod answer;
pub mod append;
pub mod capability;
mod conversation;
mod desk;
mod fetch;
mod folders;
pub mod framing;
mod search;
mod section;
pub mod session;
pub mod view;

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::drive::Socket;
use gatepost_runtime::listen::{self, Admitted, Listening, Places, Refusal};
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::{Notes, Spliced, Stream, StreamError};

use self::conversation::Conversation;
use crate::accounts::Accounts;
use crate::mailbox::Mailboxes;

/// What sessions need. Cheap to clone.
#[derive(Clone)]
pub struct Imap {
    accounts: Accounts,
    mailboxes: Mailboxes,
    /// `mail/` in the state directory.
    mail: Arc<Path>,
    /// `incoming/` there, where large messages lie, unlinked, while they arrive.
    incoming: Arc<Path>,
    served: Served,
    clock: Clock,
    /// The owner wants mail to be read by IMAP at all.
    open: Arc<AtomicBool>,
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Its true address.
    pub(crate) address: SocketAddr,
    /// By which edge it came.
    pub(crate) edge: Option<String>,
    /// For what its edge is to know of it.
    pub(crate) notes: Option<Notes>,
}

impl Imap {
    /// Of these accounts and their mailboxes below `state`, with this certificate.
    pub fn new(accounts: Accounts, mailboxes: Mailboxes, state: &Path, served: Served, clock: Clock) -> Self {
        let (mail, incoming) = (state.join("mail").into(), state.join("incoming").into());
        Self { accounts, mailboxes, mail, incoming, served, clock, open: Arc::default() }
    }

    /// Whether clients that edges carry here are served.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// Serves a listener until it is shut or draining begins; sessions then end at their next safe point.
    pub async fn run(self, listening: Listening, places: Places, signal: Signal) {
        let sessions = signal.clone();
        let serve = move |admitted: Admitted| {
            let (imap, signal) = (self.clone(), sessions.clone());
            async move {
                let client = Client { address: admitted.peer, edge: None, notes: None };
                imap.serve(admitted.stream.into(), client, signal).await;
            }
        };
        listen::serve("imaps", listening, places, signal, Refusal::SILENT, serve).await;
    }

    /// Serves a client that an edge carries here, to its end.
    pub async fn serve_carried(
        &self,
        exchange: Stream,
        address: SocketAddr,
        edge: &str,
        signal: Signal,
    ) -> Result<(), StreamError> {
        if !self.open.load(Ordering::Relaxed) {
            // Dropped, the exchange is reset, and the edge lets the client go.
            return Ok(());
        }
        let spliced = Spliced::take(exchange).await?;
        let client = Client { address, edge: Some(edge.to_owned()), notes: Some(spliced.notes()) };
        self.serve(spliced.into(), client, signal).await;
        Ok(())
    }

    async fn serve(&self, socket: Socket, client: Client, mut signal: Signal) {
        let mut ended = signal.clone();
        tokio::select! {
            () = Conversation::hold(self, socket, client, &mut signal) => {}
            () = ended.ended() => {}
        }
    }
}

impl fmt::Debug for Imap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Imap")
    }
}
