//! Who we are to a CA: a key that is made and kept before the CA hears of it, so that no crash leaves an account whose
//! key is lost.

use instant_acme::{Account, Error, ExternalAccountKey, Key, NewAccount};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tracing::info;
use zeroize::Zeroizing;

use super::AcmeError;
use super::client::CaClient;
use super::folder::{Folder, KeptAccount};
use super::keys;
use super::settings::{ExternalAccount, Settings};

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
    let account = match (&settings.external_account, key) {
        // The library wants to make the key of such an account itself.
        (Some(external), None) => create_known(builder(), settings, external, &contact, folder).await?,
        (_, key) => {
            let key = match key {
                Some(key) => key,
                None => make_key(folder).await?,
            };
            let pair = (Key::from_pkcs8_der(pkcs8(&key)?)?, PrivateKeyDer::from(pkcs8(&key)?));
            let (account, _) = builder().create_from_key(pair, settings.directory.clone()).await?;
            account.update_contacts(&[&contact]).await?;
            account
        }
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
    let made = keys::make()?;
    let (folder, pem) = (folder.clone(), made.clone());
    super::blocking(move || folder.keep_account_key(&pem)).await?;
    Ok(made)
}

async fn create_known(
    builder: instant_acme::AccountBuilder,
    settings: &Settings,
    external: &ExternalAccount,
    contact: &str,
    folder: &Folder,
) -> Result<Account, AcmeError> {
    let new = NewAccount { contact: &[contact], terms_of_service_agreed: true, only_return_existing: false };
    let external = ExternalAccountKey::new(external.id.clone(), external.key.expose());
    let (account, credentials) = builder.create(&new, settings.directory.clone(), Some(&external)).await?;
    let pem = keys::pem(credentials.private_key())?;
    let folder = folder.clone();
    super::blocking(move || folder.keep_account_key(&pem)).await?;
    Ok(account)
}

fn pkcs8(pem: &str) -> Result<PrivatePkcs8KeyDer<'static>, AcmeError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AcmeError::Key(format!("the account's key can't be read: {error}")))
}
