//! What an edge shows to prove a login: a grant of ours, or, sealed while we were away, the password
//! or the whole SCRAM exchange, which is verified here again. An edge's word alone is worth nothing.

use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::sasl::{self, Mechanism, Transcript};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::verb::inbound::Credential;

use super::Accounts;
use super::login::login_key;
use super::password::Scope;

/// Why a credential is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worthless {
    /// The login it claims, if it names one that exists: its owner may be told.
    pub claimed: Option<String>,
    /// What the client is told.
    pub reply: Reply,
}

impl Accounts {
    /// Who is behind a credential that this edge shows.
    pub async fn verify(&self, credential: Credential, edge: NodeKey) -> Result<String, Worthless> {
        match credential {
            Credential::Grant(id) => {
                let grant = self.grants().check(&id, edge, self.inner.clock.now());
                match grant.filter(|grant| self.holds(&grant.login, grant.password)) {
                    Some(grant) => Ok(grant.login),
                    // Perhaps we were restarted since: the client may log in again and come back.
                    None => Err(Worthless { claimed: None, reply: Reply::grant_unknown() }),
                }
            }
            Credential::Password { login, password } => {
                let login = login_key(&login);
                let book = self.book();
                let checked = self.check_password(&book, &login, Secret::new(password), is_for_edges).await;
                match checked {
                    None => Err(Worthless { claimed: None, reply: Reply::login_unavailable() }),
                    Some(matched) => self.proven(login, matched.map(|matched| matched.id)),
                }
            }
            Credential::Scram { mechanism, client_first, server_first, client_final, exporter } => {
                let Some(mechanism) = Mechanism::parse(&mechanism) else {
                    return Err(Worthless { claimed: None, reply: Reply::no_grant() });
                };
                let transcript = Transcript { mechanism, client_first, server_first, client_final };
                let Some(login) = sasl::transcript_login(&transcript).map(|login| login_key(&login)) else {
                    return Err(Worthless { claimed: None, reply: Reply::no_grant() });
                };
                let book = self.book();
                let verifier = self.verifier(&book, &login, is_for_edges);
                let matched = sasl::verify_transcript(&transcript, &verifier, exporter)
                    .and_then(|key| self.matched(&book, &login, key, is_for_edges));
                self.proven(login, matched.map(|matched| matched.id))
            }
        }
    }

    fn proven(&self, login: String, password: Option<i64>) -> Result<String, Worthless> {
        if let Some(password) = password {
            self.note_use(password);
            return Ok(login);
        }
        let claimed = Some(login).filter(|login| self.book().accounts.contains_key(login));
        Err(Worthless { claimed, reply: Reply::no_grant() })
    }

    fn holds(&self, login: &str, password: i64) -> bool {
        let book = self.book();
        book.accounts.get(login).is_some_and(|account| account.passwords.iter().any(|held| held.id == password))
    }
}

/// Edges hold verifiers of these only, so nothing else can have been checked while we were away.
fn is_for_edges(scope: Scope) -> bool {
    scope == Scope::Submission
}
