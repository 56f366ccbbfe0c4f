//! How the ACME library asks the CA: by our own bounded questions. It remembers how long the CA asked us to wait,
//! which the library forgets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::RETRY_AFTER;
use hyper::{HeaderMap, Request};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::fmt::rfc2822;

use crate::clock::Clock;
use crate::fetch::{Bounds, Fetcher};

/// Of one answer: a chain of certificates is some ten thousand octets.
const BOUNDS: Bounds = Bounds { octets_max: 1024 * 1024, wait_max: Duration::from_secs(30) };

/// Asks one CA. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CaClient {
    fetcher: Fetcher,
    clock: Clock,
    // Until when the CA wants to be left alone, seconds since 1970.
    not_before: Arc<AtomicI64>,
}

impl CaClient {
    pub(super) fn new(fetcher: Fetcher, clock: Clock) -> Self {
        Self { fetcher, clock, not_before: Arc::default() }
    }

    /// How long the CA said, with its last refusal, that it wants to be left alone, in seconds; said once.
    pub(super) fn asked_to_wait_s(&self) -> i64 {
        self.not_before.swap(0, Ordering::Relaxed).saturating_sub(self.clock.unix_s()).max(0)
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = client.fetcher.ask(request, BOUNDS).await.map_err(|error| Error::Other(Box::new(error)))?;
            let refused = matches!(answer.status().as_u16(), 403 | 429 | 503);
            if refused && let Some(until) = retry_after(answer.headers(), client.clock.unix_s()) {
                client.not_before.store(until, Ordering::Relaxed);
            }
            Ok(answer.map(Full::new).into())
        })
    }
}

/// RFC 9110 §10.2.3: seconds from now, or a date; as seconds since 1970.
fn retry_after(headers: &HeaderMap, now: i64) -> Option<i64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(now.saturating_add(i64::from(seconds)));
    }
    // The date of HTTP is one of mail.
    Some(rfc2822::parse(text).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_wish_to_be_left_alone_is_read_in_both_forms() {
        let said = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, 1_000)
        };
        assert_eq!(said("120"), Some(1_120));
        assert_eq!(said("Wed, 21 Oct 2026 07:28:00 GMT"), Some(1_792_567_680));
        for nonsense in ["", "soon", "-5", "99999999999999999999"] {
            assert_eq!(said(nonsense), None, "{nonsense}");
        }
    }
}
