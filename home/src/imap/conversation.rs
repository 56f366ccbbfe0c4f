//! One client's session from TLS to its end: what the machine asks is answered from accounts and mailboxes. Names no socket
//! beyond the connection it is given.

use gatepost_runtime::drive::{Connection, Security, Socket};
use gatepost_runtime::shutdown::{Phase, Signal};
use imap_types::command::CommandBody;

use super::answer::Status;
use super::session::{AuthAnswer, Event, Session};
use super::{Client, Imap};
use crate::accounts::login::{Login, Place, Step};

/// A session and what it works with.
pub(super) struct Conversation<'a> {
    imap: &'a Imap,
    client: Client,
    connection: Connection<Session>,
    login: Option<Login>,
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
        let mut conversation = Self { imap, client, connection, login: None };
        conversation.go_on(signal).await;
    }

    async fn go_on(&mut self, signal: &mut Signal) {
        let mut draining = signal.phase() >= Phase::Draining;
        if draining {
            self.connection.machine().shut_down();
        }
        loop {
            let event = tokio::select! {
                event = self.connection.next() => event,
                () = signal.draining(), if !draining => {
                    draining = true;
                    self.connection.machine().shut_down();
                    continue;
                }
            };
            match event {
                Ok(Some(event)) => self.event(event).await,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(client = %self.client.address, %error, "an IMAP session broke");
                    return;
                }
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Auth { mechanism, initial } => {
                let exporter = self.connection.view().tls().and_then(|tls| tls.exporter);
                let (accounts, client) = (self.imap.accounts.clone(), self.client.address.ip());
                let login = Login::new(accounts, Place::Mailbox, mechanism, exporter, client);
                let step = self.login.insert(login).start(initial).await;
                self.answer_auth(step);
            }
            Event::AuthResponse(response) => {
                let Some(login) = &mut self.login else { return };
                let step = login.response(response).await;
                self.answer_auth(step);
            }
            Event::Command(body) => self.command(*body),
            Event::Append(_) | Event::Idle | Event::Done | Event::AppendEnd => {
                self.finish(&Status::no("Not yet"));
            }
            Event::AppendBody(_) | Event::AppendBrokenOff => {}
        }
    }

    fn answer_auth(&mut self, step: Step) {
        let answer = match step {
            Step::Challenge(challenge) => AuthAnswer::Challenge(challenge),
            Step::Granted { login, last } => AuthAnswer::Success { login, last },
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

    fn command(&mut self, body: CommandBody<'static>) {
        match body {
            CommandBody::Namespace => {
                self.connection.machine().say(b"* NAMESPACE ((\"\" \".\")) NIL NIL\r\n");
                self.finish(&Status::ok("NAMESPACE"));
            }
            _ => self.finish(&Status::no("Not yet")),
        }
    }

    fn finish(&mut self, status: &Status) {
        let now = self.imap.clock.now();
        self.connection.machine().finish(now, status);
    }
}
