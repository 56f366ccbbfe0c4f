//! One SASL exchange on 465: carried to the home while it is connected, checked by the directory's
//! verifiers while it is away. The client's first word is read here in any case, for it names the
//! login, and the login's domain names the home.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::{self, Exchange, Mechanism, Transcript, Turn};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::authenticate::{AuthResponse, AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::inbound::Credential;
use gatepost_runtime::random;
use gatepost_runtime::tunnel::{Stream, StreamError};

use super::Desk;
use crate::handover::credential::{CheckGate, Proof, Shown, verifier};
use crate::homes::{Home, Homes};

/// How long the home may take for one turn of a login.
const TURN_MAX: Duration = Duration::from_secs(20);
/// What a client of the LOGIN mechanism is asked first.
const USERNAME: &[u8] = b"Username:";

/// An exchange under way.
pub struct Login {
    mechanism: Mechanism,
    exporter: Option<[u8; 32]>,
    client: IpAddr,
    name: Option<String>,
    stage: Stage,
}

enum Stage {
    /// Waits for the client's first word.
    First,
    /// The home decides.
    AtHome(Box<AtHome>),
    /// The directory's verifiers decide.
    Here(Arc<Home>, Box<Exchange>),
    /// Over.
    Over,
}

struct AtHome {
    home: Arc<Home>,
    session_number: u64,
    stream: Stream,
    first: Secret,
    challenge: Vec<u8>,
    // The client's last word: LOGIN's password, SCRAM's proof.
    last: Option<Secret>,
}

/// What is said next.
#[derive(Debug)]
pub enum Step {
    /// This challenge.
    Challenge(Vec<u8>),
    /// Logged in.
    Done {
        /// Who, and what proves it.
        logged_in: Box<LoggedIn>,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// Not.
    Failed(Reply),
}

/// A session's login.
#[derive(Debug)]
pub struct LoggedIn {
    /// Its name.
    pub login: String,
    /// Whose account it is.
    pub home: Arc<Home>,
    /// What the client showed, in case the home goes away.
    pub proof: Arc<Proof>,
    grant: Option<Grant>,
}

/// The home's word that somebody is logged in: good in the tunnel's session that gave it.
#[derive(Clone, Copy)]
struct Grant {
    session_number: u64,
    token: [u8; 16],
}

impl LoggedIn {
    /// What the home is shown: its own grant if it gave one in the session that lives now, else
    /// what the client showed; `None` if only an absent home could verify that.
    pub async fn credential(&self) -> Option<Credential> {
        let number = self.home.session_number();
        match self.grant {
            Some(grant) if number == Some(grant.session_number) => return Some(Credential::Grant(grant.token)),
            _ => {}
        }
        match (self.proof.credential().await, self.grant) {
            (Some(credential), _) => Some(credential),
            // The home knows its grants best.
            (None, Some(grant)) if number.is_some() => Some(Credential::Grant(grant.token)),
            (None, _) => None,
        }
    }
}

impl Login {
    /// Begins.
    pub fn new(mechanism: Mechanism, exporter: Option<[u8; 32]>, client: IpAddr) -> Self {
        Self { mechanism, exporter, client, name: None, stage: Stage::First }
    }

    /// Who connects.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// By which mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Who says to be logging in, once that was said.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The initial response, or its absence.
    pub async fn start(&mut self, desk: &Desk, initial: Option<Secret>) -> Step {
        match (initial, self.mechanism) {
            (Some(first), _) => self.first(desk, first).await,
            (None, Mechanism::Login) => Step::Challenge(USERNAME.to_vec()),
            // A mechanism in which the client speaks first: an empty challenge asks it to (RFC 4954 §4).
            (None, _) => Step::Challenge(Vec::new()),
        }
    }

    /// The answer to a challenge.
    pub async fn response(&mut self, desk: &Desk, response: Secret) -> Step {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::First => self.first(desk, response).await,
            Stage::AtHome(mut at_home) => {
                let answer = AuthResponse(response.expose().to_vec());
                let sent = desk.clock.timeout(TURN_MAX, async {
                    at_home.stream.send(&answer).await?;
                    at_home.stream.flush().await
                });
                if !matches!(sent.await, Some(Ok(()))) {
                    return Step::Failed(Reply::login_unavailable());
                }
                at_home.last = Some(response);
                self.at_home(desk, at_home).await
            }
            Stage::Here(home, mut exchange) => {
                let turn = exchange.response(response.expose());
                self.here(desk, home, exchange, turn).await
            }
            Stage::Over => Step::Failed(Reply::login_malformed()),
        }
    }

    async fn first(&mut self, desk: &Desk, first: Secret) -> Step {
        let Some(name) = login_name(self.mechanism, first.expose()) else {
            return Step::Failed(Reply::login_malformed());
        };
        let home = home_of(&desk.homes, &name);
        self.name = Some(name);
        let Some(home) = home else { return Step::Failed(Reply::login_refused()) };
        if let Some((session_number, stream)) = self.open(desk, &home, &first).await {
            let at_home = AtHome { home, session_number, stream, first, challenge: Vec::new(), last: None };
            return self.at_home(desk, Box::new(at_home)).await;
        }
        // -PLUS is offered wherever there is a channel to bind to.
        let mut exchange = Exchange::new(self.mechanism, self.exporter, self.exporter.is_some(), random::bytes());
        let turn = exchange.start(Some(first.expose()));
        self.here(desk, home, Box::new(exchange), turn).await
    }

    async fn open(&self, desk: &Desk, home: &Home, first: &Secret) -> Option<(u64, Stream)> {
        let session_number = home.session_number()?;
        let request = Request::Authenticate(Authenticate {
            mechanism: self.mechanism.name().to_owned(),
            initial: Some(first.expose().to_vec()),
            exporter: self.exporter,
            client: self.client,
        });
        let opened = desk.clock.timeout(TURN_MAX, async {
            let mut stream = home.session().ok_or(StreamError::Ended)?.open(&request).await?;
            stream.flush().await?;
            Ok::<_, StreamError>(stream)
        });
        // A home that can't be asked is away.
        opened.await?.ok().map(|stream| (session_number, stream))
    }

    async fn at_home(&mut self, desk: &Desk, mut at_home: Box<AtHome>) -> Step {
        match desk.clock.timeout(TURN_MAX, at_home.stream.record::<AuthStep>()).await {
            Some(Ok(AuthStep::Challenge(challenge))) => {
                at_home.challenge.clone_from(&challenge);
                self.stage = Stage::AtHome(at_home);
                Step::Challenge(challenge)
            }
            Some(Ok(AuthStep::Granted { grant, login, last, expires_s: _ })) => {
                let AtHome { home, session_number, stream, first, challenge, last: client_last } = *at_home;
                stream.finish().await;
                let Some((name, shown)) = self.shown(&first, challenge, client_last) else {
                    return Step::Failed(Reply::login_malformed());
                };
                let proof = Arc::new(Proof::new(home.clone(), name, shown, desk.gate.clone()));
                let grant = Some(Grant { session_number, token: grant });
                Step::Done { logged_in: Box::new(LoggedIn { login, home, proof, grant }), last }
            }
            Some(Ok(AuthStep::Refused(reply))) => {
                let reply = Reply::from(reply);
                Step::Failed(if reply.is_positive() { Reply::login_unavailable() } else { reply })
            }
            Some(Err(_)) | None => Step::Failed(Reply::login_unavailable()),
        }
    }

    /// What the client showed the home, kept in case the home goes away.
    fn shown(&self, first: &Secret, challenge: Vec<u8>, last: Option<Secret>) -> Option<(String, Shown)> {
        let name = self.name.clone()?;
        let shown = match self.mechanism {
            Mechanism::Plain => Shown::Password(Secret::new(plain(first.expose())?.1.to_vec())),
            Mechanism::Login => Shown::Password(last?),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Shown::Scram {
                transcript: Transcript {
                    mechanism: self.mechanism,
                    client_first: first.expose().to_vec(),
                    server_first: challenge,
                    client_final: last?.expose().to_vec(),
                },
                exporter: self.exporter,
            },
        };
        Some((name, shown))
    }

    /// Without the home: only what the directory can verify gets through. Everything else may be
    /// right all the same, so it is to be tried again and no hint is given.
    async fn here(&mut self, desk: &Desk, home: Arc<Home>, mut exchange: Box<Exchange>, mut turn: Turn) -> Step {
        loop {
            match turn {
                Turn::Challenge(challenge) => {
                    self.stage = Stage::Here(home, exchange);
                    return Step::Challenge(challenge);
                }
                Turn::Password { login, password } => {
                    return prove(home, login, Shown::Password(password), &desk.gate, None).await;
                }
                Turn::Verifier { login } => {
                    let Some(directory) = home.directory() else {
                        return Step::Failed(Reply::login_unavailable());
                    };
                    let Some(verifier) = verifier_or_decoy(&directory, &login, &desk.decoy) else {
                        return Step::Failed(Reply::login_unavailable());
                    };
                    turn = exchange.verifier(verifier);
                }
                Turn::Proven { login, last, transcript, .. } => {
                    let shown = Shown::Scram { transcript, exporter: self.exporter };
                    return prove(home, login, shown, &desk.gate, Some(last)).await;
                }
                Turn::Refused => return Step::Failed(Reply::login_unavailable()),
                Turn::Malformed => return Step::Failed(Reply::login_malformed()),
            }
        }
    }
}

async fn prove(home: Arc<Home>, login: String, shown: Shown, gate: &CheckGate, last: Option<Vec<u8>>) -> Step {
    let proof = Arc::new(Proof::new(home.clone(), login.clone(), shown, gate.clone()));
    if proof.credential().await.is_none() {
        return Step::Failed(Reply::login_unavailable());
    }
    Step::Done { logged_in: Box::new(LoggedIn { login, home, proof, grant: None }), last }
}

/// The login's own verifier, or one that nothing fits but that looks like those of this directory.
fn verifier_or_decoy(
    directory: &Directory,
    login: &str,
    decoy: &[u8; 32],
) -> Option<gatepost_protocol::mail::directory::LoginVerifier> {
    let own = verifier(directory, login).cloned();
    own.or_else(|| {
        let like = directory.verifiers.values().next()?;
        Some(sasl::fake_verifier(&login.to_lowercase(), decoy, like.iterations))
    })
}

/// Who wants to log in, by the client's first word.
fn login_name(mechanism: Mechanism, first: &[u8]) -> Option<String> {
    match mechanism {
        Mechanism::Plain => plain(first).map(|(name, _)| name.to_owned()),
        Mechanism::Login => std::str::from_utf8(first).ok().filter(|name| !name.is_empty()).map(str::to_owned),
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => sasl::transcript_login(&Transcript {
            mechanism,
            client_first: first.to_vec(),
            server_first: Vec::new(),
            client_final: Vec::new(),
        }),
    }
}

/// Login name and password of a PLAIN message (RFC 4616 §2): `[authzid] NUL authcid NUL passwd`.
fn plain(message: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = message.splitn(3, |&b| b == 0);
    let (_, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    let name = std::str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    Some((name, password))
}

/// The home of a login: by its domain, or the only one there is.
fn home_of(homes: &Homes, login: &str) -> Option<Arc<Home>> {
    match login.rsplit_once('@') {
        Some((_, domain)) => homes.of_domain(&Domain::parse(domain).ok()?),
        None => match homes.all().as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({} by {})", self.name.as_deref().unwrap_or("?"), self.mechanism)
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Grant([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_names_the_login() {
        for (mechanism, first, name) in [
            (Mechanism::Plain, &b"\0alice@example.org\0secret"[..], Some("alice@example.org")),
            (Mechanism::Plain, b"admin\0alice@example.org\0a\0b", Some("alice@example.org")),
            (Mechanism::Plain, b"alice", None),
            (Mechanism::Plain, b"\0\0secret", None),
            (Mechanism::Plain, b"\0\xff\0secret", None),
            (Mechanism::Login, b"alice@example.org", Some("alice@example.org")),
            (Mechanism::Login, b"", None),
        ] {
            assert_eq!(login_name(mechanism, first).as_deref(), name, "{mechanism} {first:?}");
        }
        assert_eq!(plain(b"\0alice\0pass").map(|(_, password)| password), Some(&b"pass"[..]));
    }
}
