//! One transaction: its envelope as it grows, then its message as it flows to the hand-over. Dies
//! at RSET, EHLO, the end of data, or with the connection, and what came of it is forgotten.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use gatepost_protocol::machine::TlsFacts;
use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{Envelope, Recipient};
use gatepost_protocol::mail::policy::Policy;
use gatepost_protocol::mail::received::{Received, TraceId};
use gatepost_protocol::mail::reply::{Class, Reply};
use gatepost_protocol::mail::verdict::Verdict;
use gatepost_protocol::smtp::server::MailFrom;
use gatepost_protocol::tunnel::transfer::{TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::events::WireRefused;
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireTls};
use gatepost_runtime::clock::mail_date;
use gatepost_runtime::random;
use tracing::info;

use super::Desk;
use super::judging::{Client, Inquiry, Judged, Told, Wanted};
use crate::handover::{Cargo, Transfer};
use crate::homes::Home;
use crate::policy::access::Allowed;
use crate::policy::message::{MessageScan, Passed};

/// Recipients named in one log line.
const NAMED_MAX: usize = 5;

/// What is known of the client when it sends a message.
#[derive(Debug)]
pub struct ClientFacts {
    /// Its address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: String,
    /// `ESMTPS` and the like.
    pub with: &'static str,
    /// The TLS it speaks.
    pub tls: Option<TlsFacts>,
    /// Keep its name and address out of the message: it is a person's device.
    pub private: bool,
    /// Who is logged in.
    pub login: Option<String>,
}

/// One transaction.
#[derive(Debug)]
pub struct Transaction {
    trace: TraceId,
    mail: MailFrom,
    home: Option<Arc<Home>>,
    recipients: Vec<Recipient>,
    /// When the message was announced by DATA.
    begun: Option<Instant>,
    // Of who sends, where that is in question.
    inquiry: Option<Inquiry>,
    // By the access list, for every recipient so far.
    allowed: Option<Allowed>,
    // The same for every recipient so far.
    policy: Option<Arc<Policy>>,
    flow: Flow,
}

/// What became of a message.
#[derive(Debug)]
pub struct Ended {
    /// What the client hears.
    pub reply: Reply,
    /// Nothing speaks against it, if it was taken.
    pub welcome: bool,
}

/// How far the message has come.
#[derive(Debug)]
enum Flow {
    /// Not begun.
    Closed,
    /// On its way.
    Open(Box<Open>),
    /// Refused; what still comes is passed over until its end, where the client hears why.
    Refused(Box<ClientFacts>, Reply),
}

#[derive(Debug)]
struct Open {
    transfer: Transfer,
    scan: MessageScan,
    facts: Box<ClientFacts>,
    received_unix_s: i64,
    octets: u64,
}

impl Transaction {
    /// MAIL was said.
    pub fn new(mail: MailFrom) -> Self {
        Self {
            trace: TraceId::from_random(random::bytes()),
            mail,
            home: None,
            recipients: Vec::new(),
            begun: None,
            inquiry: None,
            allowed: None,
            policy: None,
            flow: Flow::Closed,
        }
    }

    /// Its message is to be judged by what these questions find out.
    pub fn judge_by(&mut self, inquiry: Inquiry) {
        self.inquiry = Some(inquiry);
    }

    /// What the access list says of who writes to one more recipient: a message has what all of them have. And what is
    /// done with mail for it, which is the same for all.
    pub fn note(&mut self, allowed: Allowed, policy: Arc<Policy>) {
        self.allowed = Some(self.allowed.map_or(allowed, |before| before.min(allowed)));
        self.policy = Some(policy);
    }

    /// What is done with mail for the recipients taken so far.
    pub fn policy(&self) -> Option<&Arc<Policy>> {
        self.policy.as_ref()
    }

    /// What is known of who sends.
    pub fn note_client(&mut self, client: Client) {
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.note_client(client);
        }
    }

    /// Names the message in every log line.
    pub fn trace(&self) -> TraceId {
        self.trace
    }

    /// MAIL FROM.
    pub fn sender(&self) -> &ReversePath {
        &self.mail.reverse_path
    }

    /// What MAIL announced, in octets.
    pub fn size(&self) -> Option<u64> {
        self.mail.size
    }

    /// Whose mail it is, once a recipient was taken.
    pub fn home(&self) -> Option<&Arc<Home>> {
        self.home.as_ref()
    }

    /// Its first recipients, for the log.
    pub fn recipients(&self) -> String {
        named(&self.recipients)
    }

    /// Takes a recipient. The first of a home is refused if there is no room for the message: all others are the
    /// same home's.
    pub async fn add(&mut self, desk: &Desk, home: Arc<Home>, recipient: Recipient) -> Result<(), Reply> {
        if self.home.is_none() {
            desk.handover.room(&home, self.mail.size.unwrap_or(0)).await?;
        }
        self.home = Some(home);
        self.recipients.push(recipient);
        Ok(())
    }

    /// DATA: opens the way to the home. An error is the reply, and the end of the transaction.
    pub async fn open(&mut self, desk: &Desk, cargo: Cargo, facts: ClientFacts) -> Result<(), Reply> {
        let home = self.home.clone().ok_or_else(Reply::no_recipients)?;
        self.begun = Some(desk.clock.now());
        let received_unix_s = desk.clock.unix_s();
        let envelope = Envelope {
            reverse_path: self.mail.reverse_path.clone(),
            recipients: self.recipients.clone(),
            body: self.mail.body,
            smtputf8: self.mail.smtputf8,
            ret: self.mail.ret,
            envid: self.mail.envid.clone(),
        };
        let open = TransferOpen {
            transfer: TransferId(random::bytes()),
            trace: self.trace.to_bytes(),
            envelope: WireEnvelope::from(&envelope),
            client: WireClient {
                address: facts.address,
                helo: facts.helo.clone(),
                with: facts.with.to_owned(),
                tls: facts.tls.as_ref().map(WireTls::from),
            },
            received_unix_s,
        };
        let mut hosts = vec![desk.hostname.to_string()];
        hosts.extend(home.directory().iter().flat_map(|directory| directory.hosts.clone()));
        let transfer = desk.handover.begin(home, cargo, open).await?;
        let scan = MessageScan::new(hosts, self.inquiry.is_some());
        self.flow = Flow::Open(Box::new(Open { transfer, scan, facts: Box::new(facts), received_unix_s, octets: 0 }));
        Ok(())
    }

    /// The next bytes of the message; waits while the home or the disk is slow.
    pub async fn body(&mut self, bytes: &[u8]) {
        let Flow::Open(open) = &mut self.flow else { return };
        open.octets += bytes.len() as u64;
        let Open { scan, transfer, .. } = &mut **open;
        let taken = match scan.take(bytes) {
            Ok(Passed { section, body }) if section.is_empty() => transfer.data(body).await,
            Ok(Passed { section, body }) => match transfer.data(&section).await {
                Ok(()) => transfer.data(body).await,
                Err(reply) => Err(reply),
            },
            Err(reply) => Err(reply),
        };
        if let Err(reply) = taken
            && let Flow::Open(open) = std::mem::replace(&mut self.flow, Flow::Closed)
        {
            // The transfer is dropped here: the home and the disk forget it.
            self.flow = Flow::Refused(open.facts, reply);
        }
    }

    /// The client goes, or begins anew, before the message is whole: nothing was answered, nothing is kept. Says nothing of a
    /// transaction whose message has not begun.
    pub fn broken_off(self) {
        let (facts, octets) = match self.flow {
            Flow::Open(open) => (open.facts, open.octets),
            Flow::Refused(facts, _) => (facts, 0),
            Flow::Closed => return,
        };
        info!(
            trace = %self.trace,
            home = self.home.as_ref().map(|home| home.name()),
            client = %facts.address,
            helo = facts.helo,
            login = facts.login,
            sender = %self.mail.reverse_path,
            recipient = named(&self.recipients),
            octets,
            "broken off before its end"
        );
    }

    /// The message is whole: the client's reply.
    pub async fn end(self, desk: &Desk) -> Ended {
        let only_recipient = match self.recipients.as_slice() {
            [recipient] => Some(&recipient.address),
            _ => None,
        };
        let mut octets = 0;
        let mut found = Told::default();
        let mut welcome = false;
        let (facts, reply) = match self.flow {
            Flow::Open(mut open) => {
                octets = open.octets;
                let rest = open.scan.rest().into_owned();
                let judged = match (self.inquiry, &self.home) {
                    (Some(inquiry), Some(home)) => {
                        let hops = open.scan.hops();
                        let scan = MessageScan::new(Vec::new(), false);
                        let (section, body) = std::mem::replace(&mut open.scan, scan).finish();
                        let allowed = self.allowed.unwrap_or_default();
                        let policy = self.policy.unwrap_or_default();
                        let wanted = Wanted { home, allowed, policy: &policy };
                        Some(desk.judging.judge(inquiry, wanted, hops, &section, body).await)
                    }
                    _ => None,
                };
                found = judged.as_ref().map(|judged| judged.told.clone()).unwrap_or_default();
                let Open { mut transfer, facts, received_unix_s, scan, .. } = *open;
                let received = Received {
                    helo: (!facts.private).then_some(facts.helo.as_str()),
                    client: (!facts.private).then_some(facts.address),
                    by: desk.hostname.as_str(),
                    with: facts.with,
                    trace: self.trace,
                    tls: facts.tls.as_ref(),
                    only_recipient,
                    date: &mail_date(received_unix_s),
                }
                .to_string();
                let reply = match judged {
                    // The transfer is dropped: the home and the disk forget it.
                    Some(Judged { refused: Some(reply), verdict, .. }) => {
                        if reply.class() == Class::Permanent {
                            note_refused(desk, self.trace, facts.address, &self.mail.reverse_path, &verdict);
                        }
                        reply
                    }
                    judged => {
                        let (verdict, fields) = match judged {
                            Some(Judged { verdict, fields, .. }) => (verdict, fields),
                            None => (Verdict { hops: scan.hops(), ..Verdict::default() }, String::new()),
                        };
                        welcome = verdict.junk.is_none();
                        match transfer.data(&rest).await {
                            Ok(()) => transfer.finish(&verdict, (fields + &received).into_bytes()).await,
                            Err(reply) => reply,
                        }
                    }
                };
                (facts, reply)
            }
            Flow::Refused(facts, reply) => (facts, reply),
            Flow::Closed => return Ended { reply: Reply::local_error(), welcome: false },
        };
        let took = self.begun.map(|begun| desk.clock.now().saturating_duration_since(begun).as_millis());
        info!(
            trace = %self.trace,
            home = self.home.as_ref().map(|home| home.name()),
            client = %facts.address,
            helo = facts.helo,
            tls = facts.tls.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            login = facts.login,
            sender = %self.mail.reverse_path,
            recipient = named(&self.recipients),
            recipients = self.recipients.len(),
            octets,
            spf = found.spf,
            dkim = found.dkim,
            arc = found.arc,
            dmarc = found.dmarc,
            lists = found.lists,
            odd = found.odd,
            done = found.done,
            why = found.why,
            spared = found.spared,
            took_ms = took.and_then(|took| u64::try_from(took).ok()),
            %reply,
            "answered"
        );
        Ended { reply, welcome }
    }
}

/// The home reports on what it never sees, too, if the domain it names wants to hear of it.
fn note_refused(desk: &Desk, trace: TraceId, client: IpAddr, sender: &ReversePath, verdict: &Verdict) {
    if verdict.evidence.as_deref().is_some_and(|evidence| evidence.dmarc.reported.is_some()) {
        let sender = sender.address().map(|address| address.domain().to_string()).unwrap_or_default();
        desk.journals.note_refused(trace, WireRefused { client, sender, findings: verdict.into() });
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
