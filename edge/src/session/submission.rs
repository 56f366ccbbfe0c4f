//! What is particular to mail from accounts: who is logged in, and what proves it to the home.

use std::net::IpAddr;
use std::sync::Arc;

use gatepost_protocol::mail::envelope::Recipient;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::Mechanism;
use gatepost_protocol::secret::Secret;
use gatepost_protocol::smtp::server::{AuthAnswer, RcptTo};
use tracing::info;

use super::Desk;
use super::login::{LoggedIn, Login, Step};
use super::transaction::Transaction;
use crate::handover::Cargo;
use crate::homes::Home;
use crate::policy::recipient::judge_submission;

/// The login of one session on 465.
#[derive(Debug, Default)]
pub struct Submitter {
    exchange: Option<Login>,
    logged_in: Option<LoggedIn>,
}

impl Submitter {
    /// A login begins.
    pub async fn auth(
        &mut self,
        desk: &Desk,
        client: IpAddr,
        mechanism: Mechanism,
        exporter: Option<[u8; 32]>,
        initial: Option<Secret>,
    ) -> AuthAnswer {
        let mut exchange = Login::new(mechanism, exporter, client);
        let step = exchange.start(desk, initial).await;
        self.step(exchange, step)
    }

    /// The client's next word.
    pub async fn auth_response(&mut self, desk: &Desk, response: Secret) -> AuthAnswer {
        let Some(mut exchange) = self.exchange.take() else {
            return AuthAnswer::Failure(Reply::login_malformed());
        };
        let step = exchange.response(desk, response).await;
        self.step(exchange, step)
    }

    /// RCPT on 465.
    pub async fn recipient(&self, desk: &Desk, transaction: &mut Transaction, recipient: RcptTo) -> Result<(), Reply> {
        let home = &self.logged_in.as_ref().ok_or_else(Reply::login_required)?.home;
        let RcptTo { path, notify, orcpt, .. } = recipient;
        let address = judge_submission(home, path, transaction.size())?;
        transaction.add(desk, home.clone(), Recipient { address, notify, orcpt }).await
    }

    /// What the home is shown with the next message.
    pub async fn cargo(&self) -> Result<Cargo, Reply> {
        let logged_in = self.logged_in.as_ref().ok_or_else(Reply::login_required)?;
        let shown = logged_in.credential().await.ok_or_else(Reply::login_unavailable)?;
        Ok(Cargo::Submission { shown, proof: logged_in.proof.clone() })
    }

    /// Whose account is logged in.
    pub fn home(&self) -> Option<&Arc<Home>> {
        self.logged_in.as_ref().map(|logged_in| &logged_in.home)
    }

    /// Who is logged in.
    pub fn login(&self) -> Option<&str> {
        self.logged_in.as_ref().map(|logged_in| logged_in.login.as_str())
    }

    fn step(&mut self, exchange: Login, step: Step) -> AuthAnswer {
        match step {
            Step::Challenge(challenge) => {
                self.exchange = Some(exchange);
                AuthAnswer::Challenge(challenge)
            }
            Step::Done { logged_in, last } => {
                let login = logged_in.login.clone();
                info!(client = %exchange.client(), login, home = logged_in.home.name(), mechanism = %exchange.mechanism(), "logged in");
                self.logged_in = Some(*logged_in);
                AuthAnswer::Success { login, last }
            }
            Step::Failed(reply) => {
                info!(client = %exchange.client(), login = exchange.name(), mechanism = %exchange.mechanism(), %reply, "login failed");
                AuthAnswer::Failure(reply)
            }
        }
    }
}
