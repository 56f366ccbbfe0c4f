//! One order, from its beginning, or from wherever it stands, to the certificate. Whatever must survive a crash is kept
//! before the CA is asked to go on: the order's address, and the key before a certificate is made for it.

use std::path::Path;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::challenge::is_token;
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use tokio::process::Command;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::challenges::{Challenges, Prepared};
use super::folder::{Folder, KeptOrder};
use super::keys::KeyKind;
use super::settings::{Proof, Settings};
use super::{AcmeError, blocking, keys};
use crate::certificate::Loaded;
use crate::clock::Clock;

/// How long the CA may look for a proof, or make a certificate, before the order is left for later.
const POLL: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.6).timeout(Duration::from_mins(3));
/// How long the owner's program for the DNS may take.
const HOOK_WAIT_MAX: Duration = Duration::from_mins(5);
/// Names of an order that are proven.
const AUTHORIZATIONS_MAX: usize = 100;

/// What an order needs.
pub(super) struct Ordering<'a> {
    pub(super) account: &'a Account,
    pub(super) settings: &'a Settings,
    pub(super) names: &'a [String],
    /// The kind of key that is made if there is none yet.
    pub(super) kind: KeyKind,
    pub(super) folder: &'a Folder,
    pub(super) challenges: &'a Challenges,
    pub(super) clock: &'a Clock,
    /// What is served now.
    pub(super) current: Option<&'a Loaded>,
    /// The key to use again, PEM.
    pub(super) key: Option<Zeroizing<String>>,
}

/// A record in the DNS, until somebody takes it off.
struct Record<'a> {
    hook: &'a Path,
    name: String,
    value: String,
}

impl Ordering<'_> {
    /// The certificate, kept on disk.
    pub(super) async fn obtain(self) -> Result<Loaded, AcmeError> {
        let (mut order, kept) = match self.resumed().await? {
            Some(resumed) => resumed,
            None => self.begin().await?,
        };
        if order.state().status == OrderStatus::Pending {
            self.prove(&mut order).await?;
        }
        if order.state().status == OrderStatus::Ready {
            order.finalize_csr(&keys::request(self.names, &kept.key)?).await?;
        }
        let chain = match order.state().status {
            OrderStatus::Valid => order.certificate().await?.ok_or(Error::Str("no certificate"))?,
            _ => order.poll_certificate(&POLL).await?,
        };
        let pem = Zeroizing::new(format!("{}{chain}", *kept.key));
        let loaded = Loaded::of_pem(&pem, "the CA's certificate").map_err(|error| AcmeError::Useless(error.why))?;
        if !loaded.covers(self.names) {
            return Err(AcmeError::Useless(format!("it is not for {}", self.names.join(", "))));
        }
        let folder = self.folder.clone();
        blocking(move || {
            folder.keep_certificate(&pem)?;
            folder.keep_order(None)
        })
        .await?;
        Ok(loaded)
    }

    /// The order that a crash or a failure left, if it can go on.
    async fn resumed(&self) -> Result<Option<(Order, KeptOrder)>, AcmeError> {
        let folder = self.folder.clone();
        let Some(kept) = blocking(move || Ok(folder.order())).await? else { return Ok(None) };
        if kept.names == self.names {
            match self.account.order(kept.url.clone()).await {
                Ok(mut order) => {
                    if self.goes_on(&mut order).await? {
                        info!(order = kept.url, "an order goes on where it stood");
                        return Ok(Some((order, kept)));
                    }
                }
                Err(Error::Api(problem)) => debug!(order = kept.url, %problem, "the CA does not know the order"),
                Err(error) => return Err(error.into()),
            }
        }
        self.end_order().await?;
        Ok(None)
    }

    /// False for one that failed, and for the one whose certificate is served already.
    async fn goes_on(&self, order: &mut Order) -> Result<bool, AcmeError> {
        match order.state().status {
            OrderStatus::Invalid => Ok(false),
            OrderStatus::Valid => {
                let chain = order.certificate().await?.unwrap_or_default();
                Ok(self.current.is_none_or(|current| !current.is_leaf_of(&chain)))
            }
            _ => Ok(true),
        }
    }

    async fn begin(&self) -> Result<(Order, KeptOrder), AcmeError> {
        let key = match &self.key {
            Some(key) => key.clone(),
            None => keys::make(self.kind)?,
        };
        let identifiers: Vec<_> = self.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
        let plain = || {
            let new = NewOrder::new(&identifiers);
            match &self.settings.profile {
                Some(profile) => new.profile(profile),
                None => new,
            }
        };
        let replaced = self.current.and_then(|current| CertificateIdentifier::try_from(current.leaf()?).ok());
        let order = match replaced {
            None => self.account.new_order(&plain()).await?,
            Some(replaced) => match self.account.new_order(&plain().replaces(replaced)).await {
                Ok(order) => order,
                // A CA without renewal information, or one that does not know the old certificate (RFC 9773 §5).
                Err(error @ (Error::Unsupported(_) | Error::Api(_) | Error::Other(_))) => {
                    debug!(%error, "ordering without naming the certificate that is replaced");
                    self.account.new_order(&plain()).await?
                }
                Err(error) => return Err(error.into()),
            },
        };
        let kept = KeptOrder { url: order.url().to_owned(), names: self.names.to_vec(), key };
        let (folder, keeping) = (self.folder.clone(), kept.clone());
        blocking(move || folder.keep_order(Some(&keeping))).await?;
        info!(order = kept.url, names = self.names.join(" "), "a certificate is ordered");
        Ok((order, kept))
    }

    async fn end_order(&self) -> Result<(), AcmeError> {
        let folder = self.folder.clone();
        blocking(move || folder.keep_order(None)).await
    }

    /// Shows the CA that all names are ours.
    async fn prove(&self, order: &mut Order) -> Result<(), AcmeError> {
        let (mut shown, mut records) = (Vec::new(), Vec::new());
        let proven = self.show(order, &mut shown, &mut records).await;
        drop(shown);
        for record in records {
            if let Err(error) = self.call(&record, "remove").await {
                warn!(%error, "a record for the CA stays in the DNS");
            }
        }
        proven
    }

    async fn show<'a>(
        &'a self,
        order: &mut Order,
        shown: &mut Vec<Prepared>,
        records: &mut Vec<Record<'a>>,
    ) -> Result<(), AcmeError> {
        let kind = match self.settings.proof {
            Proof::Http => ChallengeType::Http01,
            Proof::TlsAlpn => ChallengeType::TlsAlpn01,
            Proof::Dns(_) => ChallengeType::Dns01,
        };
        let mut authorizations = order.authorizations();
        for _ in 0..AUTHORIZATIONS_MAX {
            let Some(authorization) = authorizations.next().await else { break };
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(kind.clone()) else {
                return Err(AcmeError::NoChallenge { name, kind: self.settings.proof.name() });
            };
            if !is_token(&challenge.token) {
                return Err(AcmeError::Useless("its token is no token".to_owned()));
            }
            let proof = challenge.key_authorization();
            match &self.settings.proof {
                Proof::Http => {
                    shown.push(self.challenges.answer_file(challenge.token.clone(), proof.as_str().to_owned()));
                }
                Proof::TlsAlpn => {
                    let digest = proof.digest();
                    let digest = digest.as_ref().try_into().map_err(|_| Error::Crypto)?;
                    shown.push(self.challenges.answer_handshake(&name, keys::proof(&name, digest)?));
                }
                Proof::Dns(hook) => {
                    let record = Record { hook, name: format!("_acme-challenge.{name}"), value: proof.dns_value() };
                    self.call(&record, "add").await?;
                    records.push(record);
                }
            }
            challenge.set_ready().await?;
        }
        match order.poll_ready(&POLL).await {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => Err(self.refusal(order.url(), None).await),
            Err(Error::Api(problem)) => Err(self.refusal(order.url(), Some(problem.to_string())).await),
            Err(error) => Err(error.into()),
        }
    }

    /// Why the CA was not convinced, in its own words: they stand with each name, not with the order.
    async fn refusal(&self, order: &str, otherwise: Option<String>) -> AcmeError {
        let mut words = Vec::new();
        if let Ok(mut order) = self.account.order(order.to_owned()).await {
            let mut authorizations = order.authorizations();
            while let Some(Ok(authorization)) = authorizations.next().await {
                let said = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
                for problem in said {
                    words.push(format!(
                        "{}: {}",
                        authorization.identifier(),
                        problem.detail.clone().unwrap_or_default()
                    ));
                }
            }
        }
        if words.is_empty() {
            words.extend(otherwise);
        }
        // An order that failed stays failed.
        if let Err(error) = self.end_order().await {
            return error;
        }
        AcmeError::NotProven(words.join("; "))
    }

    async fn call(&self, record: &Record<'_>, verb: &str) -> Result<(), AcmeError> {
        let failed = |why: String| AcmeError::Hook { hook: record.hook.display().to_string(), why };
        let mut command = Command::new(record.hook);
        command.args([verb, &record.name, &record.value]).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = self.clock.timeout(HOOK_WAIT_MAX, command.output()).await;
        let output = output.ok_or_else(|| failed("it did not end in time".to_owned()))?;
        let output = output.map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&output.stderr).chars().take(500).collect();
        Err(failed(format!("{}: {}", output.status, said.trim())))
    }
}
