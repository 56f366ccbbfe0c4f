//! One client's session from TLS to its end: what the machine asks is answered from accounts and mailboxes. Names no socket
//! beyond the connection it is given.

use gatepost_runtime::drive::{Connection, DriveError, Security, Socket};
use gatepost_runtime::shutdown::{Phase, Signal};
use imap_types::command::CommandBody;
use tokio::sync::watch;

use super::answer::Status;
use super::append::Append;
use super::desk::{Desk, Done};
use super::session::{AuthAnswer, Event, Session};
use super::{Client, Imap};
use crate::accounts::login::{Login, Place, Step};
use crate::assembly::Assembly;
use crate::delivery::maildir::Folder;
use crate::mailbox::MailboxError;
use crate::message::Message;

/// A session and what it works with.
pub(super) struct Conversation<'a> {
    imap: &'a Imap,
    client: Client,
    connection: Connection<Session>,
    login: Option<Login>,
    desk: Option<Desk>,
    arriving: Option<Arriving>,
    /// While the client idles: hears of changes of the open folder.
    bell: Option<watch::Receiver<u64>>,
}

/// A message that is being appended.
struct Arriving {
    append: Box<Append>,
    assembly: Assembly,
    failed: Option<Status>,
}

/// What happens next.
enum Next {
    Event(Event),
    Rung,
    Draining,
    Over,
}

impl<'a> Conversation<'a> {
    /// Holds it to its end.
    pub(super) async fn hold(imap: &'a Imap, socket: Socket, client: Client, signal: &mut Signal) {
        let session = Session::new(imap.clock.now());
        let security = Security::Server(imap.served.server_config());
        let mut connection = Connection::new(socket, session, security, imap.clock.clone());
        if let Err(error) = connection.secure_first().await {
            tracing::debug!(client = %client.address, edge = client.edge, %error, "no TLS at IMAP");
            return;
        }
        let mut conversation = Self { imap, client, connection, login: None, desk: None, arriving: None, bell: None };
        if let Err(error) = conversation.go_on(signal).await {
            tracing::debug!(client = %conversation.client.address, %error, "an IMAP session broke");
        }
    }

    async fn go_on(&mut self, signal: &mut Signal) -> Result<(), DriveError> {
        let mut draining = signal.phase() >= Phase::Draining;
        if draining {
            self.connection.machine().shut_down();
        }
        loop {
            let bell = &mut self.bell;
            let rung = async {
                match bell {
                    Some(bell) => bell.changed().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                event = self.connection.next() => match event? {
                    Some(event) => Next::Event(event),
                    None => Next::Over,
                },
                // A bell that was taken down rings no more.
                alive = rung => if alive { Next::Rung } else { Next::Over },
                () = signal.draining(), if !draining => Next::Draining,
            };
            match next {
                Next::Event(event) => self.event(event).await?,
                Next::Rung => self.tell().await,
                Next::Draining => {
                    draining = true;
                    self.connection.machine().shut_down();
                }
                Next::Over => return Ok(()),
            }
        }
    }

    async fn event(&mut self, event: Event) -> Result<(), DriveError> {
        match event {
            Event::Auth { mechanism, initial } => {
                let exporter = self.connection.view().tls().and_then(|tls| tls.exporter);
                let (accounts, client) = (self.imap.accounts.clone(), self.client.address.ip());
                let login = Login::new(accounts, Place::Mailbox, mechanism, exporter, client);
                let step = self.login.insert(login).start(initial).await;
                self.answer_auth(step).await;
            }
            Event::AuthResponse(response) => {
                let Some(login) = &mut self.login else { return Ok(()) };
                let step = login.response(response).await;
                self.answer_auth(step).await;
            }
            Event::Command(body) => self.command(*body).await?,
            Event::Append(append) => self.announced(append).await,
            Event::AppendBody(bytes) => {
                if let Some(Arriving { assembly, failed: failed @ None, .. }) = &mut self.arriving
                    && let Err(error) = assembly.add(bytes).await
                {
                    tracing::error!(%error, "a message that a client appends can't be kept");
                    *failed = Some(Status::no_code("OVERQUOTA", "The message can't be kept"));
                }
            }
            Event::AppendEnd => self.append().await,
            Event::AppendBrokenOff => self.arriving = None,
            Event::Idle => {
                if let Some(Desk { mailbox, view: Some(view) }) = &self.desk {
                    self.bell = Some(mailbox.listen(&view.folder));
                }
                let now = self.imap.clock.now();
                self.connection.machine().idle(now);
                // What came before it listened is told, too.
                self.tell().await;
            }
            Event::Done => {
                self.bell = None;
                self.finish(&Status::ok("IDLE"));
            }
        }
        Ok(())
    }

    async fn answer_auth(&mut self, step: Step) {
        let answer = match step {
            Step::Challenge(challenge) => AuthAnswer::Challenge(challenge),
            Step::Granted { login, last } => match self.open(&login).await {
                Ok(desk) => {
                    self.desk = Some(desk);
                    AuthAnswer::Success { login, last }
                }
                Err(error) => {
                    tracing::error!(login, %error, "a mailbox can't be opened");
                    AuthAnswer::Failure(Status::no_code("UNAVAILABLE", "The mailbox can't be opened now"))
                }
            },
            Step::Refused(reply) if reply.code() == 535 => {
                if let Some(notes) = &self.client.notes {
                    notes.wrong_login();
                }
                AuthAnswer::Failure(Status::no_code("AUTHENTICATIONFAILED", "The login name or the password is wrong"))
            }
            Step::Refused(_) => AuthAnswer::Failure(Status::no_code("UNAVAILABLE", "Try again in a moment")),
        };
        if !matches!(answer, AuthAnswer::Challenge(_)) {
            self.login = None;
        }
        let now = self.imap.clock.now();
        self.connection.machine().answer_auth(now, answer);
    }

    async fn open(&self, login: &str) -> Result<Desk, MailboxError> {
        let (mailboxes, path) = (self.imap.mailboxes.clone(), self.imap.mail.join(Folder::inbox(login).as_str()));
        let opened = tokio::task::spawn_blocking(move || mailboxes.open(&path)).await;
        let mailbox = opened.map_err(|error| MailboxError::Disk(std::io::Error::other(error)))??;
        Ok(Desk { mailbox, view: None })
    }

    /// Works at the desk off the async threads; what is to be said is said.
    async fn at_desk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Desk, &mut Vec<u8>) -> T + Send + 'static,
    ) -> Option<T> {
        let mut desk = self.desk.take()?;
        let worked = tokio::task::spawn_blocking(move || {
            let mut said = Vec::new();
            let done = work(&mut desk, &mut said);
            (desk, said, done)
        });
        let (desk, said, done) = worked.await.ok()?;
        let selected = desk.view.is_some();
        self.desk = Some(desk);
        let session = self.connection.machine();
        session.set_selected(selected);
        session.say(&said);
        Some(done)
    }

    async fn command(&mut self, body: CommandBody<'static>) -> Result<(), DriveError> {
        let mut long = match self.at_desk(move |desk, said| desk.obey(body, said)).await {
            Some(Done::Over(status)) => {
                self.finish(&status);
                return Ok(());
            }
            Some(Done::Long(long)) => long,
            None => {
                self.finish(&broken());
                return Ok(());
            }
        };
        loop {
            // Nothing more is made before the client has taken what there is.
            self.connection.flush().await?;
            let went = self.at_desk(move |desk, said| {
                let status = desk.go_on(&mut long, said);
                (long, status)
            });
            match went.await {
                Some((_, Some(status))) => {
                    self.finish(&status);
                    return Ok(());
                }
                Some((rest, None)) => long = rest,
                None => {
                    self.finish(&broken());
                    return Ok(());
                }
            }
        }
    }

    async fn announced(&mut self, append: Box<Append>) {
        let octets_max = self.imap.accounts.settings().message_octets_max;
        if append.octets > octets_max {
            return self.finish(&Status::no_code("TOOBIG", "The message is too large"));
        }
        if append.octets == 0 {
            return self.finish(&Status::no("A message has at least an octet"));
        }
        let wanted = append.clone();
        match self.at_desk(move |desk, _| desk.may_append(&wanted)).await {
            Some(Ok(())) => {
                let assembly = Assembly::new(self.imap.incoming.clone());
                self.arriving = Some(Arriving { append, assembly, failed: None });
                let now = self.imap.clock.now();
                self.connection.machine().take_message(now);
            }
            Some(Err(status)) => self.finish(&status),
            None => self.finish(&broken()),
        }
    }

    async fn append(&mut self) {
        let Some(Arriving { append, assembly, failed }) = self.arriving.take() else {
            return self.finish(&broken());
        };
        if let Some(status) = failed {
            return self.finish(&status);
        }
        let body = match assembly.finish().await {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "a message that a client appends can't be kept");
                return self.finish(&Status::no_code("OVERQUOTA", "The message can't be kept"));
            }
        };
        let message = Message { front: bytes::Bytes::new(), body };
        let status = self.at_desk(move |desk, said| desk.append(&append, &message, said)).await;
        self.finish(&status.unwrap_or_else(broken));
    }

    /// Tells a client that idles what has changed.
    async fn tell(&mut self) {
        if let Some(bell) = &mut self.bell {
            bell.mark_unchanged();
        }
        self.at_desk(|desk, said| drop(desk.told(said, "IDLE", true, None))).await;
    }

    fn finish(&mut self, status: &Status) {
        let now = self.imap.clock.now();
        self.connection.machine().finish(now, status);
    }
}

/// Our own fault: a task was lost.
fn broken() -> Status {
    Status::no_code("SERVERBUG", "The server can't do this now; its log says why")
}
