//! How the ACME library asks the CA: by our own bounded questions. It remembers how long the CA asked us to wait,
//! which the library forgets, and what date it has; and it shows the library no wait that would make no sense there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{DATE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::fmt::rfc2822;

use crate::clock::Clock;
use crate::fetch::{Bounds, FetchError, Fetcher};

/// Of one answer: a chain of certificates is some ten thousand octets.
const BOUNDS: Bounds = Bounds { octets_max: 1024 * 1024, wait_max: Duration::from_secs(30) };

/// What a CA that does not say when to ask again is taken to mean, in seconds (RFC 9773 §4.3.2 has it six hours).
const AGAIN_S: i64 = 6 * 3600;
/// The longest wait the library is shown, in seconds.
const AGAIN_MAX_S: i64 = 7 * 24 * 3600;
/// So far our date may be off that of the CA, in seconds: it is none of our business to keep the time.
const DATE_OFF_MAX_S: i64 = 24 * 3600;

/// Asks one CA. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct CaClient {
    fetcher: Fetcher,
    clock: Clock,
    // Until when the CA wants to be left alone, seconds since 1970.
    not_before: Arc<AtomicI64>,
    // How far ahead of the CA's date ours is, in seconds.
    ahead_s: Arc<AtomicI64>,
}

impl CaClient {
    pub(super) fn new(fetcher: Fetcher, clock: Clock) -> Self {
        Self { fetcher, clock, not_before: Arc::default(), ahead_s: Arc::default() }
    }

    /// How long the CA said, with its last refusal, that it wants to be left alone, in seconds; said once.
    pub(super) fn asked_to_wait_s(&self) -> i64 {
        self.not_before.swap(0, Ordering::Relaxed).saturating_sub(self.clock.unix_s()).max(0)
    }

    /// By how many days our date is ahead of the CA's, or behind it, if that is too much.
    pub(super) fn date_off_days(&self) -> Option<i64> {
        let ahead_s = self.ahead_s.load(Ordering::Relaxed);
        (ahead_s.saturating_abs() > DATE_OFF_MAX_S).then_some(ahead_s / DATE_OFF_MAX_S)
    }

    /// Asks once.
    pub(super) async fn ask(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Bytes>, FetchError> {
        let mut answer = self.fetcher.ask(request, BOUNDS).await?;
        let now = self.clock.unix_s();
        if let Some(theirs) = answer.headers().get(DATE).and_then(date) {
            self.ahead_s.store(now.saturating_sub(theirs), Ordering::Relaxed);
        }
        let until = retry_after(answer.headers(), now);
        if matches!(answer.status().as_u16(), 403 | 429 | 503)
            && let Some(until) = until
        {
            self.not_before.store(until, Ordering::Relaxed);
        }
        let again_s = until.map_or(AGAIN_S, |until| until.saturating_sub(now).clamp(0, AGAIN_MAX_S));
        // Polls of an order may do without; answers about renewals may not.
        if until.is_some() || answer.headers_mut().remove(RETRY_AFTER).is_some() || is_renewal_info(&answer) {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(again_s));
        }
        Ok(answer)
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            let answer = client.ask(request).await.map_err(|error| Error::Other(Box::new(error)))?;
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
    date(headers.get(RETRY_AFTER)?)
}

/// The date of HTTP is one of mail.
fn date(value: &HeaderValue) -> Option<i64> {
    Some(rfc2822::parse(value.to_str().ok()?.trim()).ok()?.timestamp().as_second())
}

fn is_renewal_info(answer: &Response<Bytes>) -> bool {
    const MARK: &[u8] = b"\"suggestedWindow\"";
    answer.status().is_success() && answer.body().windows(MARK.len()).any(|window| window == MARK)
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
