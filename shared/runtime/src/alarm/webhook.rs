//! One POST of a small JSON text to an address the owner chose, over HTTP/1.1, with a certificate the
//! system vouches for. No redirect is followed, nothing of the answer is kept but its status.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, Uri};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::attempt::trust;
use crate::clock::Clock;
use crate::fetch::exchange;

/// Connecting, asking and the answer's head together.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Where alarms are posted.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook(Uri);

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path is often the secret.
        write!(f, "Webhook({})", self.0.authority().map_or("", |authority| authority.host()))
    }
}

/// Why a post did not arrive.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// No connection.
    #[error("can't connect: {0}")]
    Connect(#[from] std::io::Error),
    /// No TLS.
    #[error("no TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// No HTTP.
    #[error("no proper answer: {0}")]
    Http(#[from] hyper::Error),
    /// Nothing came.
    #[error("no answer for {} s", WAIT_MAX.as_secs())]
    Silent,
    /// It was answered, but not taken.
    #[error("answered {0}")]
    Refused(u16),
}

impl FromStr for Webhook {
    type Err = &'static str;

    /// `https://…`; plain `http://…` too, for what stands beside us.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "not an address of the web")?;
        if !matches!(uri.scheme_str(), Some("https" | "http")) {
            return Err("it must begin with https:// (or http://)");
        }
        match uri.authority() {
            Some(authority) if authority.as_str().contains('@') => Err("it can't carry a user name"),
            Some(authority) if !authority.host().is_empty() => Ok(Self(uri)),
            _ => Err("it names no host"),
        }
    }
}

impl Webhook {
    /// Posts it once. `roots` (DER) are believed besides the system's.
    pub async fn post(&self, json: String, roots: &[Vec<u8>], clock: &Clock) -> Result<(), WebhookError> {
        let status = clock.timeout(WAIT_MAX, self.ask(json, roots)).await.ok_or(WebhookError::Silent)??;
        if (200..300).contains(&status) { Ok(()) } else { Err(WebhookError::Refused(status)) }
    }

    async fn ask(&self, json: String, roots: &[Vec<u8>]) -> Result<u16, WebhookError> {
        // Nobody reads the body.
        let status = async |answer: Response<Incoming>| Ok(answer.status().as_u16());
        let secure = self.0.scheme_str() == Some("https");
        let host = self.0.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']);
        let port = self.0.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await?;
        if !secure {
            return exchange(stream, self.request(json), status).await;
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| std::io::Error::other("no name for TLS"))?;
        let stream = TlsConnector::from(trust::vouched_for(roots)?).connect(name, stream).await?;
        exchange(stream, self.request(json), status).await
    }

    fn request(&self, json: String) -> Request<Full<Bytes>> {
        let path = self.0.path_and_query().map_or("/", |path| path.as_str());
        let host = self.0.authority().map_or("", |authority| authority.as_str());
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("gatepost/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(json)))
            .expect("host and path came out of a checked address")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_what_can_be_posted_to_is_an_address() {
        for good in ["https://hooks.example.org/x?y=z", "http://127.0.0.1:8080", "https://[::1]:8443/"] {
            assert!(good.parse::<Webhook>().is_ok(), "{good}");
        }
        for bad in ["", "hooks.example.org", "ftp://x/", "https://", "https://a:b@c/", "/x"] {
            assert!(bad.parse::<Webhook>().is_err(), "{bad}");
        }
        let hook: Webhook = "https://hooks.example.org/T0P/S3CRET".parse().expect("good");
        assert_eq!(format!("{hook:?}"), "Webhook(hooks.example.org)");
    }

    async fn answered(answer: &'static [u8]) -> (Result<(), WebhookError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hook: Webhook = format!("http://{}/alarm", listener.local_addr().expect("bound")).parse().expect("good");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut seen = Vec::new();
            while !seen.ends_with(b"}") {
                stream.read_buf(&mut seen).await.expect("readable");
            }
            stream.write_all(answer).await.expect("written");
            drop(stream);
            String::from_utf8_lossy(&seen).into_owned()
        });
        let posted = hook.post("{\"a\":1}".to_owned(), &[], &Clock::real()).await;
        (posted, serving.await.expect("served"))
    }

    #[tokio::test]
    async fn a_post_is_taken_or_its_refusal_told() {
        let (posted, seen) = answered(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(posted.is_ok(), "{posted:?}");
        assert!(seen.starts_with("POST /alarm HTTP/1.1\r\n") && seen.ends_with("\r\n\r\n{\"a\":1}"), "{seen}");
        let (posted, _) =
            answered(b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n").await;
        assert!(matches!(posted, Err(WebhookError::Refused(302))), "{posted:?}");
        let (posted, _) = answered(b"garbage\r\n\r\n").await;
        assert!(matches!(posted, Err(WebhookError::Http(_))), "{posted:?}");
    }
}
