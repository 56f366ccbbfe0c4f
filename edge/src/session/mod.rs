//! One SMTP connection, on 25 or 465: the machine's questions go to policy and hand-over, their
//! answers become replies. Names no socket and no TLS type; the connection is handed in.

pub mod inbound;
pub mod judging;
pub mod login;
pub mod submission;
pub mod transaction;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::mail::address::{Domain, ForwardPath};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{AuthAnswer, Ending, Event, MailFrom, Profile, RcptTo, Server};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::drive::{Connection, DriveError};
use gatepost_runtime::random;
use gatepost_runtime::shutdown::{Phase, Signal};
use tracing::{debug, info};

use self::inbound::Visitor;
use self::judging::Judging;
use self::submission::Submitter;
use self::transaction::{ClientFacts, Ended, Transaction};
use crate::admission::{Admission, Arrival, Hold};
use crate::bans::{Bans, Kind};
use crate::handover::credential::CheckGate;
use crate::handover::{Cargo, Handover};
use crate::homes::Homes;
use crate::journal::Journals;
use crate::policy::access;

/// Waiting for a command at a door that is nearly full.
const CROWDED_COMMAND_WAIT_MAX: Duration = Duration::from_secs(10);
/// Waiting for the next bytes of a message there.
const CROWDED_DATA_WAIT_MAX: Duration = Duration::from_secs(30);

/// What every session works with.
#[derive(Debug)]
pub struct Desk {
    hostname: Domain,
    homes: Homes,
    handover: Handover,
    judging: Judging,
    bans: Bans,
    admission: Admission,
    journals: Journals,
    clock: Clock,
    limits: Limits,
    gate: CheckGate,
    // Makes the salts of logins that do not exist, so that nobody learns which do.
    decoy: [u8; 32],
}

/// Which door a session came in by: what differs between 25 and 465.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// 25: mail from the world.
    Smtp,
    /// 465: mail from accounts.
    Submissions,
}

impl Door {
    /// For log and limits.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submissions => "submissions",
        }
    }
}

impl Desk {
    /// Puts together what sessions need.
    pub fn new(
        hostname: Domain,
        homes: Homes,
        handover: Handover,
        judging: Judging,
        (bans, admission, journals): (Bans, Admission, Journals),
        clock: Clock,
        limits: Limits,
    ) -> Self {
        let (gate, decoy) = (CheckGate::default(), random::bytes());
        Self { hostname, homes, handover, judging, bans, admission, journals, clock, limits, gate, decoy }
    }

    /// The same for sessions to come, with other bounds; those that are open keep theirs.
    pub fn with(&self, handover: Handover, limits: Limits) -> Self {
        Self {
            hostname: self.hostname.clone(),
            homes: self.homes.clone(),
            handover,
            judging: self.judging.clone(),
            bans: self.bans.clone(),
            admission: self.admission.clone(),
            journals: self.journals.clone(),
            clock: self.clock.clone(),
            limits,
            gate: self.gate.clone(),
            decoy: self.decoy,
        }
    }

    /// The machine for a new connection; at a door that is nearly full it waits less.
    pub fn server(&self, door: Door, crowded: bool) -> Server {
        let profile = Profile {
            hostname: self.hostname.to_string(),
            starttls: door == Door::Smtp,
            mechanisms: match door {
                Door::Smtp => Vec::new(),
                Door::Submissions => {
                    vec![Mechanism::ScramSha256Plus, Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login]
                }
            },
            dsn: door == Door::Submissions,
            login_required: door == Door::Submissions,
            qualify: None,
            limits: if crowded { hurried(self.limits) } else { self.limits },
        };
        Server::new(profile, self.clock.now())
    }

    /// Who is banned, for who accepts connections.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// One that is banned came, for who accepts connections.
    pub fn note_banned(&self) {
        self.admission.held(Hold::Ban);
    }

    /// Time, for who accepts connections.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The same bounds with less patience: at a nearly full door who dawdles keeps others out.
fn hurried(limits: Limits) -> Limits {
    Limits {
        command_wait_max: limits.command_wait_max.min(CROWDED_COMMAND_WAIT_MAX),
        data_wait_max: limits.data_wait_max.min(CROWDED_DATA_WAIT_MAX),
        ..limits
    }
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who connects.
    pub client: IpAddr,
    /// Where it connected to.
    pub local: Option<IpAddr>,
}

/// One connection's course, from greeting to end.
pub async fn run(
    desk: &Desk,
    door: Door,
    connection: &mut Connection<Server>,
    Ends { client, local }: Ends,
    mut signal: Signal,
) -> Result<(), DriveError> {
    let arrival = match door {
        Door::Smtp => desk.admission.begin(client),
        Door::Submissions => Arrival::default(),
    };
    let mut session = Session {
        desk,
        door,
        client,
        local,
        arrival,
        submitter: Submitter::default(),
        transaction: None,
        struck: false,
        unknown: 0,
    };
    // Who comes too late is not greeted first.
    let mut draining = signal.phase() >= Phase::Draining;
    if draining {
        connection.machine().shut_down(desk.clock.now());
    }
    // What is waited for before the client is greeted.
    let mut patience: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    loop {
        let event = tokio::select! {
            // A busy client is not kept waiting by the question whether to stop.
            biased;
            event = connection.next() => event?,
            () = signal.draining(), if !draining => {
                draining = true;
                connection.machine().shut_down(desk.clock.now());
                if patience.take().is_some() {
                    session.answer(connection.machine(), Reply::shutting_down());
                }
                continue;
            }
            () = patiently(&mut patience), if patience.is_some() => {
                session.greet(connection.machine());
                continue;
            }
        };
        let Some(event) = event else { return Ok(()) };
        // Here or in another session: who is banned hears nothing more, but a message that comes may come to its end.
        if asks_for_more(&event) && desk.bans.is_banned(client) {
            session.drop_transaction();
            return Ok(());
        }
        match (&event, door) {
            // What it says meanwhile is heard: who speaks first is turned away.
            (Event::Connected, Door::Smtp) => {
                let struck = desk.bans.is_suspect(client);
                patience = Some(Box::pin(desk.admission.patience(&session.arrival, client, struck)));
            }
            (Event::Connected, Door::Submissions) => session.greet(connection.machine()),
            _ => {
                // The question is gone with the connection.
                patience = None;
                session.event(connection.machine(), event).await;
            }
        }
    }
}

/// Once; then it is gone.
async fn patiently(patience: &mut Option<Pin<Box<dyn Future<Output = ()> + Send>>>) {
    if let Some(waiting) = patience {
        waiting.await;
    }
    *patience = None;
}

fn asks_for_more(event: &Event) -> bool {
    match event {
        Event::Auth { .. } | Event::AuthResponse(_) | Event::Sender(_) | Event::Recipient(_) | Event::Data => true,
        Event::Connected
        | Event::Hello { .. }
        | Event::Body(_)
        | Event::BodyEnd { .. }
        | Event::Reset
        | Event::Closing(_) => false,
    }
}

struct Session<'a> {
    desk: &'a Desk,
    door: Door,
    client: IpAddr,
    local: Option<IpAddr>,
    arrival: Arrival,
    submitter: Submitter,
    transaction: Option<Transaction>,
    // Had a strike already: that too many of them end the session is no other.
    struck: bool,
    // Recipients who do not exist.
    unknown: u32,
}

impl Session<'_> {
    async fn event(&mut self, machine: &mut Server, event: Event) {
        match event {
            Event::Connected | Event::Hello { .. } => {}
            Event::Auth { mechanism, initial } => {
                let exporter = machine.tls().and_then(|tls| tls.exporter);
                let answer = self.submitter.auth(self.desk, self.client, mechanism, exporter, initial).await;
                self.weigh(&answer);
                machine.answer_auth(self.desk.clock.now(), answer);
            }
            Event::AuthResponse(response) => {
                let answer = self.submitter.auth_response(self.desk, response).await;
                self.weigh(&answer);
                machine.answer_auth(self.desk.clock.now(), answer);
            }
            Event::Sender(mail) => {
                let helo = machine.hello().unwrap_or_default().to_owned();
                let reply = self.sender(mail, &helo).await;
                self.answer(machine, reply);
            }
            Event::Recipient(recipient) => {
                let helo = machine.hello().unwrap_or_default().to_owned();
                let reply = self.recipient(recipient, &helo).await;
                self.answer(machine, reply);
            }
            Event::Data => {
                let reply = self.data(machine).await;
                self.answer(machine, reply);
            }
            Event::Body(bytes) => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.body(&bytes).await;
                }
            }
            Event::BodyEnd { .. } => {
                let Ended { reply, welcome } = match self.transaction.take() {
                    Some(transaction) => transaction.end(self.desk).await,
                    None => Ended { reply: Reply::local_error(), welcome: false },
                };
                if self.door == Door::Smtp && reply.is_positive() {
                    self.desk.bans.message_taken(self.client);
                    if welcome {
                        self.desk.admission.note_good(self.client);
                    }
                }
                self.answer(machine, reply);
            }
            Event::Reset => self.drop_transaction(),
            Event::Closing(ending) => {
                self.drop_transaction();
                if ending == Ending::Abuse && !self.struck {
                    self.strike(Kind::Abuse);
                }
                match ending {
                    Ending::Abuse | Ending::Refused => info!(client = %self.client, ?ending, "session ended"),
                    Ending::Quit | Ending::HungUp | Ending::TimedOut => {
                        debug!(client = %self.client, ?ending, "session ended");
                    }
                }
            }
        }
    }

    fn greet(&self, machine: &mut Server) {
        let desk = self.desk;
        let refused = match self.door {
            Door::Smtp if !desk.admission.takes_connection(self.client) => Some(Reply::connecting_too_often()),
            Door::Smtp => {
                access::client_refused(&desk.homes, self.client).inspect(|_| desk.admission.held(Hold::Access))
            }
            Door::Submissions => None,
        };
        if let Some(reply) = &refused {
            info!(client = %self.client, %reply, "client refused");
        }
        let greeting = || Reply::greeting(self.desk.hostname.as_str());
        self.answer(machine, refused.unwrap_or_else(greeting));
    }

    fn drop_transaction(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            transaction.broken_off();
        }
    }

    fn strike(&mut self, kind: Kind) {
        self.struck = true;
        self.desk.bans.strike(self.client, kind);
    }

    /// A login that failed is a strike, unless it was right in the wrong place, or no login at all.
    fn weigh(&mut self, answer: &AuthAnswer) {
        match answer {
            AuthAnswer::Failure(reply) if *reply == Reply::password_not_for_here() => {}
            AuthAnswer::Failure(reply) if reply.code() == 535 => self.strike(Kind::Login),
            AuthAnswer::Failure(reply) if *reply == Reply::login_unavailable() => self.strike(Kind::Unchecked),
            AuthAnswer::Failure(_) | AuthAnswer::Challenge(_) | AuthAnswer::Success { .. } => {}
        }
    }

    fn answer(&self, machine: &mut Server, reply: Reply) {
        machine.answer(self.desk.clock.now(), reply);
    }

    /// What is announced as larger than any home it may be for has room for is better refused now than after it came.
    async fn sender(&mut self, mail: MailFrom, helo: &str) -> Reply {
        let mut transaction = Transaction::new(mail);
        let homes = match self.submitter.home() {
            Some(home) => vec![Arc::clone(home)],
            None => self.desk.homes.all(),
        };
        if let Some(size) = transaction.size()
            && let Err(reply) = self.desk.handover.room_at_any(&homes, size).await
        {
            let home = if homes.len() == 1 { homes.first() } else { None }.map(|home| home.name());
            info!(trace = %transaction.trace(), home, client = %self.client, sender = %transaction.sender(), size, %reply, "sender refused");
            return reply;
        }
        // Mail of the world is judged; who logs in is known.
        if self.door == Door::Smtp {
            let desk = self.desk;
            if let Some(reply) = access::sender_refused(&desk.homes, self.client, transaction.sender()) {
                desk.admission.held(Hold::Access);
                info!(trace = %transaction.trace(), client = %self.client, sender = %transaction.sender(), %reply, "sender refused");
                return reply;
            }
            if !desk.admission.takes_message(self.client) {
                let reply = Reply::sending_too_fast();
                info!(trace = %transaction.trace(), client = %self.client, sender = %transaction.sender(), %reply, "sender refused");
                return reply;
            }
            let inquiry = desk.judging.begin(self.client, helo, transaction.sender());
            transaction.judge_by(inquiry);
        }
        self.transaction = Some(transaction);
        Reply::sender_ok()
    }

    async fn recipient(&mut self, recipient: RcptTo, helo: &str) -> Reply {
        let Some(transaction) = &mut self.transaction else { return Reply::local_error() };
        let path = recipient.path.clone();
        let judged = match self.door {
            Door::Smtp => {
                let visitor = Visitor { client: self.client, local: self.local, helo };
                inbound::recipient(self.desk, visitor, &mut self.arrival, transaction, recipient).await
            }
            Door::Submissions => self.submitter.recipient(self.desk, transaction, recipient).await,
        };
        match judged {
            Ok(()) => Reply::recipient_ok(),
            Err(reply) => {
                // The home whose recipient it would be, and no other, is told of it.
                let (recipient, home) = match (&path, self.door) {
                    (ForwardPath::Postmaster, _) => ("postmaster".to_owned(), transaction.home().cloned()),
                    (ForwardPath::Address(address), Door::Smtp) => {
                        (address.to_string(), self.desk.homes.of_domain(address.domain()))
                    }
                    (ForwardPath::Address(address), Door::Submissions) => {
                        (address.to_string(), self.submitter.home().cloned())
                    }
                };
                let home = home.as_ref().map(|home| home.name());
                info!(trace = %transaction.trace(), home, client = %self.client, sender = %transaction.sender(), recipient, %reply, "recipient refused");
                if self.door == Door::Smtp && reply == Reply::unknown_recipient() {
                    self.strike(Kind::Recipient);
                    // It keeps its own place at the door waiting, and nobody else.
                    self.unknown = self.unknown.saturating_add(1);
                    let wait = self.desk.admission.tarpit(self.client, self.unknown);
                    if !wait.is_zero() {
                        self.desk.clock.sleep(wait).await;
                    }
                }
                reply
            }
        }
    }

    async fn data(&mut self, machine: &Server) -> Reply {
        let Some(transaction) = &mut self.transaction else { return Reply::local_error() };
        let cargo = match self.door {
            Door::Smtp => Ok(Cargo::Inbound),
            Door::Submissions => self.submitter.cargo().await,
        };
        let facts = ClientFacts {
            address: self.client,
            helo: machine.hello().unwrap_or_default().to_owned(),
            with: machine.with_protocol(),
            tls: machine.tls().cloned(),
            private: self.door == Door::Submissions,
            login: self.submitter.login().map(str::to_owned),
        };
        let opened = match cargo {
            Ok(cargo) => transaction.open(self.desk, cargo, facts).await,
            Err(reply) => Err(reply),
        };
        match opened {
            Ok(()) => Reply::start_data(),
            Err(reply) => {
                let home = transaction.home().map(|home| home.name());
                info!(trace = %transaction.trace(), home, client = %self.client, sender = %transaction.sender(), recipient = transaction.recipients(), %reply, "message refused before its data");
                self.transaction = None;
                reply
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_door_waits_less_and_never_longer() {
        let hurried_default = hurried(Limits::default());
        assert_eq!(hurried_default.command_wait_max, CROWDED_COMMAND_WAIT_MAX);
        assert_eq!(hurried_default.data_wait_max, CROWDED_DATA_WAIT_MAX);
        let brief = Limits { command_wait_max: Duration::from_secs(1), ..Limits::default() };
        assert_eq!(hurried(brief).command_wait_max, Duration::from_secs(1));
        assert_eq!(hurried_default.session_max, Limits::default().session_max);
    }
}
