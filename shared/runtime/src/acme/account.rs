//! Who we are to a CA: a key that is made and kept before the CA hears of it, so that no crash leaves an account whose
//! key is lost.

use instant_acme::{Account, Error, Key};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::info;
use zeroize::Zeroizing;

use super::AcmeError;
use super::client::CaClient;
use super::customer;
use super::folder::{Folder, KeptAccount};
use super::keys::{self, KeyKind};
use super::settings::Settings;

/// The CA's word for an account it does not know.
const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// The account: the one that is kept, or a new one.
pub(super) async fn open(settings: &Settings, folder: &Folder, client: &CaClient) -> Result<Account, AcmeError> {
    let kept = folder.clone();
    let (account, key) = super::blocking(move || Ok((kept.account()?, kept.account_key()?))).await?;
    let builder = || Account::builder_with_http(Box::new(client.clone()));
    if let (Some(account), Some(key)) = (account, &key) {
        return Ok(builder().from_parts(account.url, pkcs8(key)?, settings.directory.clone()).await?);
    }
    let contact = format!("mailto:{}", settings.email);
    let key = match key {
        Some(key) => key,
        None => make_key(folder).await?,
    };
    let account = if let Some(external) = &settings.external_account {
        let url = customer::become_one(client, &settings.directory, &pkcs8(&key)?, external, &contact).await?;
        builder().from_parts(url, pkcs8(&key)?, settings.directory.clone()).await?
    } else {
        let pair = (Key::from_pkcs8_der(pkcs8(&key)?)?, PrivateKeyDer::from(pkcs8(&key)?));
        let (account, _) = builder().create_from_key(pair, settings.directory.clone()).await?;
        account.update_contacts(&[&contact]).await?;
        account
    };
    let (kept, url) = (folder.clone(), account.id().to_owned());
    super::blocking(move || kept.keep_account(Some(&KeptAccount { url }))).await?;
    info!(
        account = account.id(),
        ca = settings.directory,
        "the CA has an account for us; using it means that you accept its terms"
    );
    Ok(account)
}

/// Forgets that the CA knows us, if it said that it does not: the next try tells it the same key again.
pub(super) async fn forget_if_unknown(error: &AcmeError, folder: &Folder) -> Result<(), AcmeError> {
    let AcmeError::Ca(Error::Api(problem)) = error else { return Ok(()) };
    if problem.r#type.as_deref() != Some(UNKNOWN) {
        return Ok(());
    }
    let folder = folder.clone();
    super::blocking(move || folder.keep_account(None)).await
}

async fn make_key(folder: &Folder) -> Result<Zeroizing<String>, AcmeError> {
    let made = keys::make(KeyKind::Ecdsa)?;
    let (folder, pem) = (folder.clone(), made.clone());
    super::blocking(move || folder.keep_account_key(&pem)).await?;
    Ok(made)
}

fn pkcs8(pem: &str) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AcmeError::Key(format!("the account's key can't be read: {error}")))
}
