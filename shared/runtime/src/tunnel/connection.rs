//! One connection: the task that owns the multiplexer, and the handle others open streams by.
//! Nothing anybody does with a stream can stall the task: it never waits for a reader, and what a
//! peer may make us hold is bounded by streams and windows.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use gatepost_protocol::tunnel::frame::{DATA_OCTETS_MAX, DIRECTORY_OCTETS_MAX, Frame, FrameError, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::hello::Role;
use gatepost_protocol::tunnel::verb::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::pulse::{self, Stopped};
use super::session::End;
use super::wire::{Life, Wire};
use super::{Incoming, STREAMS_MAX, Stream, StreamError, TunnelError};
use crate::clock::Clock;

/// Time for the first record of an exchange.
const FIRST_RECORD_DEADLINE: Duration = Duration::from_secs(10);
/// Time for a whole directory.
const DIRECTORY_DEADLINE: Duration = Duration::from_mins(2);
/// Time for our last words when we close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Streams kept ready, so that opening one waits for nobody.
const READY_STREAMS: usize = 4;
/// Where the multiplexer itself gives the connection up: both sides' streams, and some that were
/// dropped and not yet cleared away. Ours are refused, one by one, long before.
const MULTIPLEXER_STREAMS_MAX: usize = 3 * STREAMS_MAX;
/// A stream's window before it has grown.
const WINDOW_OCTETS: usize = yamux::DEFAULT_CREDIT as usize;
/// What all windows of a connection together may grow by.
const WINDOW_GROWTH_OCTETS_MAX: usize = 16 * 1024 * 1024;
/// Octets in one frame of the multiplexer: a whole chunk of data, and a little in front of it.
const MULTIPLEXER_FRAME_OCTETS: usize = DATA_OCTETS_MAX + 1024;

/// Which end of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The home.
    Dialling,
    /// The edge.
    Accepting,
}

/// A handle to one connection.
#[derive(Debug)]
pub(super) struct Link {
    role: Role,
    side: Side,
    clock: Clock,
    end: Arc<End>,
    ready: Mutex<Vec<yamux::Stream>>,
    // Somebody found no stream ready; some are ready again.
    wanted: Notify,
    refilled: Notify,
    outgoing: Arc<Semaphore>,
    incoming: Arc<Semaphore>,
    // Only one directory may be arriving at a time.
    directory: Semaphore,
    heartbeat: Mutex<Option<oneshot::Sender<Stream>>>,
    round_trip_us: AtomicU64,
    life: Arc<Life>,
}

/// Starts the tasks that own one greeted connection.
pub(super) fn start<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    io: IO,
    role: Role,
    side: Side,
    end: Arc<End>,
    arrivals: mpsc::Sender<Incoming>,
    clock: &Clock,
) -> Arc<Link> {
    let (heartbeat, heartbeat_arrives) = oneshot::channel();
    let life = Arc::new(Life::new(clock.clone()));
    let link = Arc::new(Link {
        role,
        side,
        clock: clock.clone(),
        end,
        ready: Mutex::default(),
        wanted: Notify::new(),
        refilled: Notify::new(),
        outgoing: Arc::new(Semaphore::new(STREAMS_MAX)),
        incoming: Arc::new(Semaphore::new(STREAMS_MAX)),
        directory: Semaphore::new(1),
        heartbeat: Mutex::new((side == Side::Accepting).then_some(heartbeat)),
        round_trip_us: AtomicU64::new(0),
        life: Arc::clone(&life),
    });
    let wire = Wire::new(io, Arc::clone(&life));
    let mode = match side {
        Side::Dialling => yamux::Mode::Client,
        Side::Accepting => yamux::Mode::Server,
    };
    let multiplexer = yamux::Connection::new(wire, config(), mode);
    let source = match side {
        Side::Dialling => pulse::Source::Ours,
        Side::Accepting => pulse::Source::Theirs(heartbeat_arrives),
    };
    let pulse = tokio::spawn(pulse::beat(Arc::clone(&link), life, source, clock.clone()));
    tokio::spawn(own(multiplexer, Arc::clone(&link), arrivals, pulse));
    link
}

fn config() -> yamux::Config {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MULTIPLEXER_STREAMS_MAX);
    config.set_max_connection_receive_window(Some(MULTIPLEXER_STREAMS_MAX * WINDOW_OCTETS + WINDOW_GROWTH_OCTETS_MAX));
    config.set_split_send_size(MULTIPLEXER_FRAME_OCTETS);
    config
}

impl Link {
    /// Begins an exchange.
    pub(super) async fn open(&self, request: &Request) -> Result<Stream, StreamError> {
        let octets_max = match request {
            Request::Directory(_) | Request::Directory2(_) => DIRECTORY_OCTETS_MAX,
            _ => RECORD_OCTETS_MAX,
        };
        let place = Arc::clone(&self.outgoing).acquire_owned().await.map_err(|_| self.dead())?;
        let inner = self.take_ready().await.ok_or_else(|| self.dead())?;
        let mut stream = Stream::new(inner, Arc::clone(&self.end), place);
        stream.queue(request, octets_max)?;
        Ok(stream)
    }

    /// The last round trip of the heartbeat.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        match self.round_trip_us.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// When the last octet came.
    pub(super) fn heard(&self) -> Instant {
        self.life.heard()
    }

    pub(super) fn set_round_trip(&self, round_trip: Duration) {
        // Zero means none, and nothing is faster than a microsecond.
        let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip_us.store(us, Ordering::Relaxed);
    }

    pub(super) fn end(&self) -> &End {
        &self.end
    }

    async fn take_ready(&self) -> Option<yamux::Stream> {
        loop {
            // Listening begins before the look, so that no refill falls between.
            let mut refilled = std::pin::pin!(self.refilled.notified());
            refilled.as_mut().enable();
            if let Some(stream) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                return Some(stream);
            }
            if self.end.is_set() {
                return None;
            }
            self.wanted.notify_one();
            refilled.await;
        }
    }

    /// Keeps streams ready. Opening one is a local matter: it is announced with its first bytes.
    fn refill<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        multiplexer: &mut yamux::Connection<Wire<IO>>,
        cx: &mut Context<'_>,
    ) -> Result<(), yamux::ConnectionError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let before = ready.len();
        while ready.len() < READY_STREAMS {
            match multiplexer.poll_new_outbound(cx) {
                Poll::Ready(stream) => ready.push(stream?),
                Poll::Pending => break,
            }
        }
        let grown = ready.len() > before;
        drop(ready);
        if grown {
            self.refilled.notify_waiters();
        }
        Ok(())
    }

    fn dead(&self) -> StreamError {
        let reason = self.end.reason().unwrap_or(TunnelError::Closed);
        StreamError::Broken(reason.to_string())
    }

    /// Takes a stream the other side opened. Never waits: what can't go on at once goes on in a task
    /// of its own, of which there are as many as streams at most.
    fn arrived(self: &Arc<Self>, stream: yamux::Stream, arrivals: &mpsc::Sender<Incoming>) {
        let Ok(place) = Arc::clone(&self.incoming).try_acquire_owned() else {
            tracing::warn!(role = %self.role, "the other side opened more than {STREAMS_MAX} streams at once: one was reset");
            return;
        };
        let mut stream = Stream::new(stream, Arc::clone(&self.end), place);
        // Nearly always the first record came with the opening.
        let now = stream.bounded_frame(RECORD_OCTETS_MAX).now_or_never();
        let link = Arc::clone(self);
        let arrivals = arrivals.clone();
        match now {
            Some(Ok(frame)) => {
                let Some(incoming) = link.admit(&frame, stream) else { return };
                if let Err(mpsc::error::TrySendError::Full(incoming)) = arrivals.try_send(incoming) {
                    tokio::spawn(async move {
                        let _ = arrivals.send(incoming).await;
                    });
                }
            }
            Some(Err(StreamError::Frame(FrameError::TooBig { .. }))) | None => {
                tokio::spawn(async move {
                    let Some(frame) = link.first_frame(&mut stream).await else { return };
                    let Some(incoming) = link.admit(&frame, stream) else { return };
                    let _ = arrivals.send(incoming).await;
                });
            }
            Some(Err(error)) => link.discard(&error.to_string()),
        }
    }

    async fn first_frame(&self, stream: &mut Stream) -> Option<Frame> {
        let small = self.clock.timeout(FIRST_RECORD_DEADLINE, stream.bounded_frame(RECORD_OCTETS_MAX)).await;
        let frame = match small {
            Some(Err(StreamError::Frame(FrameError::TooBig { .. }))) if self.may_take_directory() => {
                let _one_at_a_time = self.directory.acquire().await.ok()?;
                self.clock.timeout(DIRECTORY_DEADLINE, stream.bounded_frame(DIRECTORY_OCTETS_MAX)).await
            }
            small => small,
        };
        match frame {
            Some(Ok(frame)) => Some(frame),
            Some(Err(error)) => {
                self.discard(&error.to_string());
                None
            }
            None => {
                self.discard("its first record did not come in time");
                None
            }
        }
    }

    fn may_take_directory(&self) -> bool {
        (self.role, self.side) == (Role::Control, Side::Accepting)
    }

    /// What the first record asks, if it may be asked here.
    fn admit(&self, frame: &Frame, stream: Stream) -> Option<Incoming> {
        let request: Request = match frame.record() {
            Ok(request) => request,
            Err(error) => {
                self.discard(&error.to_string());
                return None;
            }
        };
        match request.role() {
            None => {
                let heartbeat = self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).take();
                match heartbeat {
                    // If nobody listens any more, the connection is ending.
                    Some(heartbeat) => drop(heartbeat.send(stream)),
                    None => self.discard("a heartbeat that is not due"),
                }
                None
            }
            Some(role) if role == self.role => {
                let big = matches!(frame, Frame::Record(body) if body.len() > RECORD_OCTETS_MAX);
                if big && !matches!(request, Request::Directory(_) | Request::Directory2(_)) {
                    self.discard("its first record is too big for its verb");
                    return None;
                }
                Some(Incoming { role, request, stream })
            }
            Some(role) => {
                self.discard(&format!("its verb belongs on the {role} connection"));
                None
            }
        }
    }

    fn discard(&self, why: &str) {
        if !self.end.is_set() {
            tracing::warn!(role = %self.role, "an exchange the other side began was reset: {why}");
        }
    }
}

/// Owns the multiplexer until the session ends.
async fn own<IO: AsyncRead + AsyncWrite + Unpin>(
    mut multiplexer: yamux::Connection<Wire<IO>>,
    link: Arc<Link>,
    arrivals: mpsc::Sender<Incoming>,
    mut pulse: JoinHandle<Stopped>,
) {
    let over = Over(&link);
    let reason = serve(&mut multiplexer, &link, &arrivals, &mut pulse).await;
    drop(arrivals);
    link.end.set(reason);
    if matches!(link.end.reason(), Some(TunnelError::Closed | TunnelError::Refused(_))) {
        let close = poll_fn(|cx| multiplexer.poll_close(cx));
        // Late or broken, it is over.
        let _ = link.clock.timeout(CLOSE_DEADLINE, close).await;
    }
    drop(over);
}

/// The system's words, where the cause is the system.
fn words(error: yamux::ConnectionError) -> String {
    match error {
        yamux::ConnectionError::Io(error) | yamux::ConnectionError::Decode(yamux::FrameDecodeError::Io(error)) => {
            error.to_string()
        }
        error => error.to_string(),
    }
}

/// What has to happen when a connection's task is over, even by a panic.
struct Over<'a>(&'a Link);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let Self(link) = self;
        if std::thread::panicking() {
            tracing::error!(role = %link.role, "the task of a tunnel connection failed: this is a bug of ours");
        }
        link.end.set(TunnelError::Broken("its task failed".to_owned()));
        // Whoever waits for a stream must not wait for ever; the ready ones go with the connection.
        link.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
        link.outgoing.close();
        link.refilled.notify_waiters();
    }
}

/// Serves the multiplexer until the connection breaks or the session is over; says why.
async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(
    multiplexer: &mut yamux::Connection<Wire<IO>>,
    link: &Arc<Link>,
    arrivals: &mpsc::Sender<Incoming>,
    pulse: &mut JoinHandle<Stopped>,
) -> TunnelError {
    loop {
        let arrival = poll_fn(|cx| match link.refill(multiplexer, cx) {
            Ok(()) => multiplexer.poll_next_inbound(cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        });
        let broken = tokio::select! {
            biased;
            arrival = arrival => match arrival {
                Some(Ok(stream)) => {
                    link.arrived(stream, arrivals);
                    continue;
                }
                Some(Err(yamux::ConnectionError::Closed)) | None => "the other side closed it".to_owned(),
                Some(Err(error)) => words(error),
            },
            stopped = &mut *pulse => return match stopped {
                Ok(Stopped::Over(reason)) => reason,
                Ok(Stopped::Told) => TunnelError::Closed,
                Ok(Stopped::Broken) => TunnelError::Broken("the other side ended its heartbeat".to_owned()),
                Err(_) => TunnelError::Broken("our heartbeat failed".to_owned()),
            },
            // Refilled at the top of the loop.
            () = link.wanted.notified() => continue,
        };
        // The heartbeat's stream has ended with the connection, and may hold the other side's last word;
        // if it has not come yet, it never will.
        drop(link.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).take());
        return match pulse.await {
            Ok(Stopped::Over(reason)) => reason,
            _ => TunnelError::Broken(broken),
        };
    }
}
