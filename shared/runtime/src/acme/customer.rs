//! Becoming a customer of a CA that wants to know its customers (RFC 8555 §7.3.4). Done here, not by the library, which
//! makes the account's key itself and would hand it over only after the CA has heard of it: a crash between the two
//! would use up the owner's words with the CA for nothing.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderName, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response};
use instant_acme::{BodyWrapper, Error, Problem};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::AcmeError;
use super::client::CaClient;
use super::settings::ExternalAccount;
use crate::random;

/// How often a nonce is refused before we give up for now.
const NONCES_MAX: usize = 6;
/// What we call ourselves.
const AGENT: &str = concat!("gatepost/", env!("CARGO_PKG_VERSION"));
/// The CA's word for a nonce it does not like, which another one mends.
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";

const NONCE: HeaderName = HeaderName::from_static("replay-nonce");

/// What is needed of a CA's directory.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
}

/// A key that signs, and its public half as JSON.
struct Signer {
    pair: EcdsaKeyPair,
    public: Value,
}

/// Makes the account of this key known to the CA, or finds it there. Gives the account's address.
pub(super) async fn become_one(
    client: &CaClient,
    directory: &str,
    key: &PrivatePkcs8KeyDer<'_>,
    external: &ExternalAccount,
    contact: &str,
) -> Result<String, AcmeError> {
    let signer = Signer::of(key)?;
    let asked = client.ask(request(Method::GET, directory, None)?).await?;
    let directory: Directory = serde_json::from_slice(asked.body()).map_err(Error::Json)?;
    let mut nonce = String::new();
    for _ in 0..NONCES_MAX {
        if nonce.is_empty() {
            let given = client.ask(request(Method::HEAD, &directory.new_nonce, None)?).await?;
            nonce = nonce_of(&given).ok_or(Error::Str("no nonce found"))?;
        }
        let payload = json!({
            "contact": [contact],
            "termsOfServiceAgreed": true,
            "externalAccountBinding": binding(external, &signer.public, &directory.new_account),
        });
        let body = signer.signed(&payload, &nonce, &directory.new_account)?;
        let answer = client.ask(request(Method::POST, &directory.new_account, Some(body))?).await?;
        if answer.status().is_success() {
            let url = answer.headers().get(LOCATION).and_then(|url| url.to_str().ok());
            return Ok(url.ok_or(Error::Str("failed to get account URL"))?.to_owned());
        }
        let problem: Problem = serde_json::from_slice(answer.body()).map_err(Error::Json)?;
        if problem.r#type.as_deref() != Some(BAD_NONCE) {
            return Err(Error::Api(problem).into());
        }
        nonce = nonce_of(&answer).unwrap_or_default();
    }
    Err(Error::Str("the CA refuses each of its nonces").into())
}

impl Signer {
    fn of(key: &PrivatePkcs8KeyDer<'_>) -> Result<Self, AcmeError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
        let pair = pair.map_err(|error| AcmeError::Key(format!("the account's key can't be read: {error}")))?;
        // An uncompressed point: 4, then both coordinates of 32 octets each.
        let point = pair.public_key().as_ref();
        let coordinate = |range| point.get(range).map(|octets| URL_SAFE_NO_PAD.encode(octets));
        let public = json!({ "crv": "P-256", "kty": "EC", "x": coordinate(1..33), "y": coordinate(33..65) });
        Ok(Self { pair, public })
    }

    /// RFC 8555 §6.2, as it is before there is an account.
    fn signed(&self, payload: &Value, nonce: &str, url: &str) -> Result<Value, AcmeError> {
        let header = json!({ "alg": "ES256", "jwk": self.public, "nonce": nonce, "url": url });
        let (header, payload) = (encoded(&header), encoded(payload));
        let signed = self.pair.sign(&random::for_signing(), format!("{header}.{payload}").as_bytes());
        let signature = signed.map_err(|_| Error::Crypto)?;
        Ok(json!({ "protected": header, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()) }))
    }
}

/// The owner's words with the CA, signed for this key.
fn binding(external: &ExternalAccount, public: &Value, url: &str) -> Value {
    let header = encoded(&json!({ "alg": "HS256", "kid": external.id, "url": url }));
    let payload = encoded(public);
    let key = hmac::Key::new(hmac::HMAC_SHA256, external.key.expose());
    let signature = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    json!({ "protected": header, "payload": payload, "signature": URL_SAFE_NO_PAD.encode(signature.as_ref()) })
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    Some(answer.headers().get(NONCE)?.to_str().ok()?.to_owned())
}

fn request(method: Method, url: &str, body: Option<Value>) -> Result<Request<BodyWrapper<Bytes>>, AcmeError> {
    let mut request = Request::builder().method(method).uri(url).header(USER_AGENT, AGENT);
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/jose+json");
    }
    let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    Ok(request.body(BodyWrapper::from(body)).map_err(Error::Http)?)
}
