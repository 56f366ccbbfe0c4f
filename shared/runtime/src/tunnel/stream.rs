//! One exchange: frames both ways over one stream of the multiplexer. What is queued leaves as few
//! frames of the multiplexer as its window lets through; what arrives is bounded per frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

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
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.queued.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.queued)) {
                Ok(octets) => self.queued.advance(octets),
                Err(_) => return Poll::Ready(Err(self.broken())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes and ends our side; the other side's answer can still be read. Best called right after
    /// the last record of a request: the end then leaves together with it.
    pub async fn end_sending(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_end_sending(cx)).await
    }

    pub(super) fn poll_end_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        ready!(self.poll_flush(cx))?;
        if !self.sending_ended {
            let closed = ready!(Pin::new(&mut self.inner).poll_close(cx));
            self.sending_ended = true;
            if closed.is_err() {
                return Poll::Ready(Err(self.broken()));
            }
        }
        Poll::Ready(Ok(()))
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
        poll_fn(|cx| self.poll_frame(cx, octets_max)).await
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>, octets_max: usize) -> Poll<Result<Frame, StreamError>> {
        loop {
            if let Some(frame) = frame::take(&mut self.arrived, octets_max)? {
                return Poll::Ready(Ok(frame));
            }
            match ready!(self.inner.poll_next_unpin(cx)) {
                Some(Ok(packet)) => self.arrived.extend_from_slice(packet.as_ref()),
                Some(Err(_)) => return Poll::Ready(Err(self.broken())),
                None => return Poll::Ready(Err(self.ended())),
            }
        }
    }

    /// Queues message bytes, at most [`DATA_OCTETS_MAX`], as one frame.
    pub(super) fn queue_data(&mut self, data: &[u8]) {
        self.queued.extend_from_slice(&frame::data_header(data.len()));
        self.queued.extend_from_slice(data);
    }

    /// Gives back what empty buffers hold: for an exchange that may stand still for hours.
    pub(super) fn rest(&mut self) {
        for buffer in [&mut self.queued, &mut self.arrived] {
            if buffer.is_empty() {
                *buffer = BytesMut::new();
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
