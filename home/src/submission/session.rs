//! One session on home:465 or home:25: answers the machine's questions from accounts and router. Names no
//! socket beyond the connection it is given.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ForwardPath, ReversePath};
use gatepost_protocol::mail::envelope::{Envelope, Recipient};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::smtp::server::{AuthAnswer, Event, MailFrom, Profile, RcptTo, Server};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_runtime::drive::{Connection, Security};
use gatepost_runtime::listen::Admitted;
use gatepost_runtime::pace::{Pace, Sender};
use gatepost_runtime::random;
use gatepost_runtime::shutdown::{Phase, Signal};

use super::Submission;
use crate::accounts::login::{Login, Place, Step};
use crate::assembly::Assembly;
use crate::message::Message;
use crate::router::{Arrival, Origin, Trusted};

/// Strongest first: many clients take the first they know.
pub(super) const MECHANISMS: [Mechanism; 4] =
    [Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];

/// Serves one connection to its end.
pub async fn serve(door: Arc<Submission>, admitted: Admitted, signal: Signal) {
    let (stream, peer) = (admitted.stream, admitted.peer.ip());
    let server = Server::new(profile(&door), door.clock.now());
    let security = Security::Server(door.served.server_config());
    let mut connection = Connection::new(stream, server, security, door.clock.clone());
    let mut ended = signal.clone();
    let session = async {
        if door.trust.is_none()
            && let Err(error) = connection.secure_first().await
        {
            tracing::debug!(%peer, %error, "no TLS at submission");
            return;
        }
        converse(&door, &mut connection, peer, signal).await;
    };
    tokio::select! {
        () = session => {}
        () = ended.ended() => {}
    }
}

/// What a door offers: with trust, TLS and logins are the client's choice.
pub(super) fn profile(door: &Submission) -> Profile {
    let trusting = door.trust.is_some();
    Profile {
        hostname: door.hostname.clone(),
        starttls: trusting,
        mechanisms: MECHANISMS.to_vec(),
        login_required: !trusting,
        dsn: true,
        qualify: door.accounts.settings().domains.first().filter(|_| trusting).cloned(),
        limits: door.limits,
    }
}

/// The session.
pub(super) async fn converse(
    door: &Arc<Submission>,
    connection: &mut Connection<Server>,
    peer: IpAddr,
    mut signal: Signal,
) {
    let mut session = Session { door: Arc::clone(door), peer, login: None, transaction: None };
    // Who comes too late is not greeted first.
    let mut draining = signal.phase() >= Phase::Draining;
    if draining {
        connection.machine().shut_down(door.clock.now());
    }
    loop {
        let event = tokio::select! {
            event = connection.next() => event,
            () = signal.draining(), if !draining => {
                draining = true;
                connection.machine().shut_down(door.clock.now());
                continue;
            }
        };
        match event {
            Ok(Some(event)) => session.event(connection.machine(), event).await,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%peer, %error, "a submission session broke");
                return;
            }
        }
    }
}

/// Recipients named in one log line.
const NAMED_MAX: usize = 5;

/// How a client may send.
enum Standing {
    /// As this account.
    Account(String),
    /// Without a login, for where it is.
    Trusted(Arc<Pace>),
}

struct Session {
    door: Arc<Submission>,
    peer: IpAddr,
    login: Option<Login>,
    transaction: Option<Transaction>,
}

/// MAIL to the end of data.
struct Transaction {
    trace: TraceId,
    from: MailFrom,
    recipients: Vec<Recipient>,
    assembly: Assembly,
    // Why the message can't be taken; told at its end.
    failed: Option<Reply>,
}

impl Session {
    async fn event(&mut self, server: &mut Server, event: Event) {
        match event {
            Event::Connected => {
                let greeting = match &self.door.trust {
                    Some(trust) if !trust.networks.contain(self.peer) => {
                        tracing::info!(remote = %self.peer, "turned away: in no trusted network");
                        Reply::untrusted_network(&self.peer.to_string())
                    }
                    _ => Reply::greeting(&self.door.hostname),
                };
                self.answer(server, greeting);
            }
            Event::Auth { mechanism, initial } => {
                let exporter = server.tls().and_then(|tls| tls.exporter);
                let accounts = self.door.accounts.clone();
                let login = Login::new(accounts, Place::Home, mechanism, exporter, self.peer);
                let step = self.login.insert(login).start(initial).await;
                self.answer_auth(server, step);
            }
            Event::AuthResponse(response) => {
                let step = match &mut self.login {
                    Some(login) => login.response(response).await,
                    None => Step::Refused(Reply::login_malformed()),
                };
                self.answer_auth(server, step);
            }
            Event::Sender(from) => {
                let reply = self.sender(server, from).await;
                self.answer(server, reply);
            }
            Event::Recipient(recipient) => {
                let reply = self.recipient(server, recipient).await;
                self.answer(server, reply);
            }
            Event::Data => self.answer(server, Reply::start_data()),
            Event::Body(bytes) => self.body(bytes).await,
            Event::BodyEnd { .. } => {
                let reply = self.message(server).await;
                self.answer(server, reply);
            }
            Event::Reset => self.broken_off(server),
            Event::Hello { .. } => {}
            Event::Closing(ending) => {
                self.broken_off(server);
                tracing::debug!(peer = %self.peer, ?ending, "a submission session ended");
            }
        }
    }

    fn answer(&self, server: &mut Server, reply: Reply) {
        server.answer(self.door.clock.now(), reply);
    }

    fn answer_auth(&mut self, server: &mut Server, step: Step) {
        let answer = match step {
            Step::Challenge(challenge) => AuthAnswer::Challenge(challenge),
            Step::Granted { login, last } => {
                self.login = None;
                AuthAnswer::Success { login, last }
            }
            Step::Refused(reply) => {
                self.login = None;
                AuthAnswer::Failure(reply)
            }
        };
        server.answer_auth(self.door.clock.now(), answer);
    }

    /// How the client may send: as the account it logged in to, or as what it is trusted for.
    fn standing(&self, server: &Server) -> Result<Standing, Reply> {
        match (server.login(), &self.door.trust) {
            (Some(login), _) => Ok(Standing::Account(login.to_owned())),
            (None, Some(trust)) => Ok(Standing::Trusted(Arc::clone(&trust.pace))),
            (None, None) => Err(Reply::login_required()),
        }
    }

    async fn sender(&mut self, server: &Server, mut from: MailFrom) -> Reply {
        let standing = match self.standing(server) {
            Ok(standing) => standing,
            Err(reply) => return reply,
        };
        // The null sender belongs to everyone: read receipts have it (RFC 8098 §3). Who is in From is
        // checked either way.
        if let ReversePath::Address(address) = from.reverse_path {
            let address = match &standing {
                Standing::Account(_) => address,
                Standing::Trusted(_) => self.door.accounts.qualify(address).0,
            };
            if let Err(reply) = self.check_sender(&standing, &address).await {
                tracing::info!(remote = %self.peer, login = server.login(), sender = %address, %reply, "sender refused");
                return reply;
            }
            from.reverse_path = ReversePath::Address(address);
        }
        self.transaction = Some(Transaction {
            trace: TraceId::from_random(random::bytes()),
            from,
            recipients: Vec::new(),
            assembly: Assembly::new(Arc::clone(&self.door.incoming)),
            failed: None,
        });
        Reply::sender_ok()
    }

    async fn check_sender(&self, standing: &Standing, sender: &Address) -> Result<(), Reply> {
        let accounts = &self.door.accounts;
        match standing {
            Standing::Account(login) if accounts.may_send_as(login, sender).await => Ok(()),
            Standing::Account(_) => Err(Reply::sender_not_yours(&sender.to_string())),
            Standing::Trusted(_) if accounts.is_trusted_sender(sender) => Ok(()),
            Standing::Trusted(_) => Err(Reply::sender_not_trusted(&sender.to_string())),
        }
    }

    async fn recipient(&mut self, server: &Server, recipient: RcptTo) -> Reply {
        let standing = match self.standing(server) {
            Ok(standing) => standing,
            Err(reply) => return reply,
        };
        let accounts = &self.door.accounts;
        let address: Address = match (recipient.path, &standing) {
            (ForwardPath::Postmaster, _) => accounts.settings().postmaster.clone(),
            (ForwardPath::Address(address), Standing::Account(_)) => address,
            (ForwardPath::Address(address), Standing::Trusted(_)) => match accounts.qualify(address) {
                (address, local) if local || recipient.unqualified => accounts.local_recipient(address),
                (address, _) => address,
            },
        };
        let Some(transaction) = &mut self.transaction else { return Reply::local_error() };
        let checked = match self.door.router.check_recipient(&address).await {
            Ok(()) => match &standing {
                Standing::Trusted(pace) if !pace.take(self.door.clock.now(), Sender::Address(self.peer), 1) => {
                    Err(Reply::trusted_share_used())
                }
                _ => Ok(()),
            },
            refused => refused,
        };
        if let Err(refusal) = checked {
            tracing::info!(
                trace = %transaction.trace, client = %self.peer, sender = %transaction.from.reverse_path,
                recipient = %address, reply = %refusal, "recipient refused"
            );
            return refusal;
        }
        let recipient = Recipient { address, notify: recipient.notify, orcpt: recipient.orcpt };
        transaction.recipients.push(recipient);
        Reply::recipient_ok()
    }

    async fn body(&mut self, bytes: Bytes) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.failed.is_none()
            && let Err(error) = transaction.assembly.add(bytes).await
        {
            transaction.failed = Some(cannot_keep(transaction.trace, &error));
        }
    }

    /// The client goes, or begins anew: what of a message had come is told of, and not kept.
    fn broken_off(&mut self, server: &Server) {
        let Some(transaction) = self.transaction.take().filter(|open| open.assembly.octets() > 0) else { return };
        tracing::info!(
            trace = %transaction.trace,
            client = %self.peer,
            helo = server.hello(),
            login = server.login(),
            sender = %transaction.from.reverse_path,
            recipient = named(&transaction.recipients),
            octets = transaction.assembly.octets(),
            "broken off before its end"
        );
    }

    /// The message is whole: the client's reply, and the line that tells of it.
    async fn message(&mut self, server: &Server) -> Reply {
        let Some(transaction) = self.transaction.take() else { return Reply::local_error() };
        let begun = self.door.clock.now();
        let (trace, sender) = (transaction.trace, transaction.from.reverse_path.clone());
        let (recipient, recipients) = (named(&transaction.recipients), transaction.recipients.len());
        let octets = transaction.assembly.octets();
        let reply = self.hand_over(server, transaction).await;
        let took = self.door.clock.now().saturating_duration_since(begun);
        tracing::info!(
            %trace,
            client = %self.peer,
            helo = server.hello(),
            tls = server.tls().map_or_else(|| "none".to_owned(), ToString::to_string),
            login = server.login(),
            %sender,
            recipient,
            recipients,
            octets,
            took_ms = u64::try_from(took.as_millis()).ok(),
            %reply,
            "answered"
        );
        reply
    }

    async fn hand_over(&mut self, server: &Server, transaction: Transaction) -> Reply {
        let Transaction { trace, from, recipients, assembly, failed } = transaction;
        let origin = match self.standing(server) {
            Ok(Standing::Account(login)) => Origin::Account { login, edge: None, spooled: false },
            Ok(Standing::Trusted(_)) => {
                tracing::info!(%trace, remote = %self.peer, sender = %from.reverse_path, "from a trusted network");
                let by = Trusted::Network { with: server.with_protocol() };
                Origin::Trusted { by, transfer: TransferId(random::bytes()) }
            }
            Err(reply) => return reply,
        };
        if let Some(reply) = failed {
            return reply;
        }
        let body = match assembly.finish().await {
            Ok(body) => body,
            Err(error) => return cannot_keep(trace, &error),
        };
        let arrival = Arrival {
            origin,
            trace,
            envelope: Envelope {
                reverse_path: from.reverse_path,
                recipients,
                body: from.body,
                smtputf8: from.smtputf8,
                ret: from.ret,
                envid: from.envid,
            },
            message: Message { front: Bytes::new(), body },
            received_unix_s: self.door.clock.unix_s(),
        };
        self.door.router.accept(arrival).await
    }
}

/// The first recipients, for the log.
fn named(recipients: &[Recipient]) -> String {
    let mut names: Vec<String> = recipients.iter().take(NAMED_MAX).map(|one| one.address.to_string()).collect();
    if recipients.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    names.join(" ")
}

/// What a client is told whose message the disk refuses.
fn cannot_keep(trace: TraceId, error: &io::Error) -> Reply {
    tracing::error!(%trace, %error, "a submission can't be kept");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reply::no_room(),
        _ => Reply::local_error(),
    }
}
