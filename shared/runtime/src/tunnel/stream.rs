//! One exchange: frames both ways over one stream of the multiplexer. What is queued leaves as few
//! frames of the multiplexer as its window lets through; what arrives is bounded per frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::io::AsyncWrite as _;
use gatepost_protocol::tunnel::frame::{self, DATA_OCTETS_MAX, Frame, RECORD_OCTETS_MAX};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::StreamError;
use super::session::End;

/// Octets queued before they are sent without being asked.
const QUEUED_OCTETS_MAX: usize = 64 * 1024;

/// One exchange: frames both ways. Dropping it without [`Stream::finish`] resets it.
pub struct Stream {
    inner: yamux::Stream,
    queued: BytesMut,
    arrived: BytesMut,
    sending_ended: bool,
    end: Arc<End>,
    // Counts against STREAMS_MAX for as long as this lives.
    _place: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", self.inner.id())
    }
}

impl Stream {
    pub(super) fn new(inner: yamux::Stream, end: Arc<End>, place: OwnedSemaphorePermit) -> Self {
        Self { inner, queued: BytesMut::new(), arrived: BytesMut::new(), sending_ended: false, end, _place: place }
    }

    /// Queues a record; it goes out with [`Stream::flush`], or when enough has gathered.
    pub async fn send<T: Serialize + Sync>(&mut self, record: &T) -> Result<(), StreamError> {
        self.queue(record, RECORD_OCTETS_MAX)?;
        self.send_surplus().await
    }

    /// Queues message bytes as one or more data frames.
    pub async fn send_data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(DATA_OCTETS_MAX));
            self.queued.extend_from_slice(&frame::data_header(piece.len()));
            self.queued.extend_from_slice(&piece);
            self.send_surplus().await?;
        }
        Ok(())
    }

    /// Sends what is queued. Returns when the multiplexer has it all, which waits for the other side's
    /// window. Cancel-safe: what was not sent stays queued.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.queued.is_empty() {
            let (inner, queued) = (&mut self.inner, &self.queued);
            let written = poll_fn(|cx| Pin::new(&mut *inner).poll_write(cx, queued)).await;
            match written {
                Ok(octets) => self.queued.advance(octets),
                Err(_) => return Err(self.broken()),
            }
        }
        Ok(())
    }

    /// Flushes and ends our side; the other side's answer can still be read. Best called right after
    /// the last record of a request: the end then leaves together with it.
    pub async fn end_sending(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        if !self.sending_ended {
            self.sending_ended = true;
            let inner = &mut self.inner;
            let closed = poll_fn(|cx| Pin::new(&mut *inner).poll_close(cx)).await;
            if closed.is_err() {
                return Err(self.broken());
            }
        }
        Ok(())
    }

    /// Flushes and ends our side; does not wait for the other's. The last word of an exchange.
    pub async fn finish(mut self) {
        // Who finishes has nothing left to do about a failure: the other side sees it as one.
        let _ = self.end_sending().await;
    }

    /// The next frame; `Ended` if the other side finished. Cancel-safe.
    pub async fn frame(&mut self) -> Result<Frame, StreamError> {
        self.bounded_frame(RECORD_OCTETS_MAX).await
    }

    /// The next frame, which must be this record. Cancel-safe.
    pub async fn record<T: DeserializeOwned>(&mut self) -> Result<T, StreamError> {
        Ok(self.frame().await?.record()?)
    }

    /// Queues a record of at most `octets_max`.
    pub(super) fn queue<T: Serialize>(&mut self, record: &T, octets_max: usize) -> Result<(), StreamError> {
        Ok(frame::put_record(&mut self.queued, record, octets_max)?)
    }

    /// The next frame; a record may have `octets_max`. After `TooBig` it may be asked again with a larger bound.
    pub(super) async fn bounded_frame(&mut self, octets_max: usize) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = frame::take(&mut self.arrived, octets_max)? {
                return Ok(frame);
            }
            match self.inner.next().await {
                Some(Ok(packet)) => self.arrived.extend_from_slice(packet.as_ref()),
                Some(Err(_)) => return Err(self.broken()),
                None => return Err(self.ended()),
            }
        }
    }

    async fn send_surplus(&mut self) -> Result<(), StreamError> {
        if self.queued.len() >= QUEUED_OCTETS_MAX { self.flush().await } else { Ok(()) }
    }

    /// Why no more bytes come.
    fn ended(&self) -> StreamError {
        // A reset closes both directions; the other side's end only its own.
        let reset = self.inner.is_closed() && !self.sending_ended;
        if reset || !self.arrived.is_empty() || self.end.is_set() { self.broken() } else { StreamError::Ended }
    }

    fn broken(&self) -> StreamError {
        StreamError::Broken(match self.end.reason() {
            Some(reason) => reason.to_string(),
            None => "reset by the other side".to_owned(),
        })
    }
}
