//! One SASL exchange against the accounts, whether the client sits on the LAN or at an edge. Logins
//! that do not exist take as long and look the same as those that do.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::address::Address;
use gatepost_protocol::mail::directory::LoginVerifier;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::{self, Exchange, Mechanism, Turn};
use gatepost_protocol::secret::Secret;
use gatepost_runtime::random;

use super::Accounts;
use super::book::Book;
use super::password::{ITERATIONS, Scope};

/// Where a password is typed: bounds what it can do (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At an edge: submission-only app passwords by any mechanism, others only by SCRAM.
    Edge,
    /// At home.
    Home,
    /// Where mail is read: never a password that can only submit.
    Mailbox,
}

impl Place {
    /// Which passwords count there.
    fn takes(self) -> impl Fn(Scope) -> bool + Copy {
        move |scope| self != Self::Mailbox || scope != Scope::Submission
    }
}

/// What the client is told next.
#[derive(Debug)]
pub enum Step {
    /// This challenge.
    Challenge(Vec<u8>),
    /// Logged in.
    Granted {
        /// Login name: the account's address.
        login: String,
        /// The mechanism's last word.
        last: Option<Vec<u8>>,
    },
    /// Not.
    Refused(Reply),
}

/// A login under way.
#[derive(Debug)]
pub struct Login {
    accounts: Accounts,
    place: Place,
    mechanism: Mechanism,
    exchange: Exchange,
    client: IpAddr,
    // The picture the verifier was taken from: the keys' order is its.
    book: Arc<Book>,
    password: Option<i64>,
}

/// A password that was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Matched {
    pub id: i64,
    pub scope: Scope,
}

impl Login {
    /// Begins.
    pub fn new(
        accounts: Accounts,
        place: Place,
        mechanism: Mechanism,
        exporter: Option<[u8; 32]>,
        client: IpAddr,
    ) -> Self {
        // -PLUS is offered exactly where there is something to bind to.
        let exchange = Exchange::new(mechanism, exporter, exporter.is_some(), random::bytes());
        let book = accounts.book();
        Self { accounts, place, mechanism, exchange, client, book, password: None }
    }

    /// The initial response, or its absence.
    pub async fn start(&mut self, initial: Option<Secret>) -> Step {
        let turn = self.exchange.start(initial.as_ref().map(Secret::expose));
        self.step(turn).await
    }

    /// The answer to a challenge.
    pub async fn response(&mut self, response: Secret) -> Step {
        let turn = self.exchange.response(response.expose());
        self.step(turn).await
    }

    /// The row of the password that was used, once [`Step::Granted`].
    pub fn password(&self) -> Option<i64> {
        self.password
    }

    async fn step(&mut self, turn: Turn) -> Step {
        let mut turn = turn;
        loop {
            match turn {
                Turn::Challenge(challenge) => return Step::Challenge(challenge),
                Turn::Password { login, password } => return self.check(&login, password).await,
                Turn::Verifier { login } => {
                    let verifier = self.accounts.verifier(&self.book, &login_key(&login), self.place.takes());
                    turn = self.exchange.verifier(verifier);
                }
                Turn::Proven { login, key, last, .. } => {
                    let login = login_key(&login);
                    let matched = self.accounts.matched(&self.book, &login, key, self.place.takes());
                    return match matched {
                        Some(matched) => self.granted(login, matched, Some(last)),
                        None => self.refused(&login),
                    };
                }
                Turn::Refused => return self.refused("?"),
                Turn::Malformed => return Step::Refused(Reply::login_malformed()),
            }
        }
    }

    async fn check(&mut self, login: &str, password: Secret) -> Step {
        let login = login_key(login);
        let Some(matched) = self.accounts.check_password(&self.book, &login, password, self.place.takes()).await else {
            return Step::Refused(Reply::login_unavailable());
        };
        match matched {
            None => self.refused(&login),
            Some(matched)
                if self.place == Place::Edge
                    && matched.scope != Scope::Submission
                    && !self.accounts.settings().account_passwords_at_edge =>
            {
                tracing::warn!(login, client = %self.client, "a password that opens the mailbox was typed at an edge; refused");
                Step::Refused(Reply::password_not_for_here())
            }
            Some(matched) => self.granted(login, matched, None),
        }
    }

    fn granted(&mut self, login: String, matched: Matched, last: Option<Vec<u8>>) -> Step {
        tracing::info!(login, client = %self.client, mechanism = %self.mechanism, scope = matched.scope.name(), "logged in");
        self.password = Some(matched.id);
        self.accounts.note_use(matched.id);
        Step::Granted { login, last }
    }

    fn refused(&self, login: &str) -> Step {
        tracing::warn!(login, client = %self.client, mechanism = %self.mechanism, "login refused");
        Step::Refused(Reply::login_refused())
    }
}

impl Accounts {
    /// The verifier of those passwords of a login that `take` wants; a false one if there is none.
    pub(super) fn verifier(&self, book: &Book, login: &str, take: impl Fn(Scope) -> bool) -> LoginVerifier {
        book.accounts
            .get(login)
            .map(|account| account.verifier(take))
            .filter(|verifier| !verifier.keys.is_empty())
            .unwrap_or_else(|| sasl::fake_verifier(login, &self.inner.fake_secret, ITERATIONS))
    }

    /// Which password a key index of [`Accounts::verifier`] means.
    pub(super) fn matched(
        &self,
        book: &Book,
        login: &str,
        key: usize,
        take: impl Fn(Scope) -> bool,
    ) -> Option<Matched> {
        let account = book.accounts.get(login)?;
        let password = account.passwords.iter().filter(|password| take(password.scope)).nth(key)?;
        // Revoked while the exchange ran: the picture it began with is not today's.
        let now = self.book();
        let alive = now.accounts.get(login)?.passwords.iter().any(|other| other.id == password.id);
        alive.then_some(Matched { id: password.id, scope: password.scope })
    }

    /// Checks a password off the async threads. `None`: too many are waiting to be checked.
    pub(super) async fn check_password(
        &self,
        book: &Book,
        login: &str,
        password: Secret,
        take: impl Fn(Scope) -> bool + Copy,
    ) -> Option<Option<Matched>> {
        let _waiting = self.inner.derivations_waiting.try_acquire().ok()?;
        let _running = self.inner.derivations.acquire().await.ok()?;
        let verifier = self.verifier(book, login, take);
        let checked = tokio::task::spawn_blocking(move || sasl::check_password(password.expose(), &verifier)).await;
        let key = checked.ok()?;
        Some(key.and_then(|key| self.matched(book, login, key, take)))
    }

    /// Notes when a password was used; a crash may forget it.
    pub(super) fn note_use(&self, password: i64) {
        let now = self.inner.clock.unix_s();
        self.inner.database.write_lazily(move |connection| {
            connection
                .prepare_cached("UPDATE password SET last_used = ?2 WHERE id = ?1")?
                .execute((password, now))
                .map(|_| ())
        });
    }
}

/// The name under which a login is looked up: addresses in their canonical form, anything else in lower case.
pub(super) fn login_key(login: &str) -> String {
    Address::parse(login).map_or_else(|_| login.to_lowercase(), |address| address.lookup_key())
}
