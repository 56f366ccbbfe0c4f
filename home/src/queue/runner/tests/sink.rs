//! A host that takes mail: the server machine over TCP, with an opinion on each recipient.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_protocol::mail::address::ForwardPath;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{Event, Profile, Server};
use gatepost_runtime::attempt::Tls;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::drive::{Connection, Security};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::queue::next_hop::{Host, Routes, Via};

/// A transaction the sink took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub sender: String,
    pub recipients: Vec<String>,
    pub bytes: Vec<u8>,
}

type Opinion = dyn Fn(&str) -> Reply + Send + Sync;

pub struct Sink {
    pub address: SocketAddr,
    pub taken: watch::Receiver<Vec<Taken>>,
    /// Sessions open now.
    pub sessions: watch::Receiver<usize>,
    /// Sessions there ever were.
    pub opened: Arc<AtomicUsize>,
    /// Final replies wait for permits.
    pub gate: Arc<Semaphore>,
}

impl Sink {
    /// `opinion` answers each RCPT.
    pub async fn start(opinion: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, taken) = watch::channel(Vec::new());
        let (count, sessions) = watch::channel(0);
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let opinion: Arc<Opinion> = Arc::new(opinion);
        let opened = Arc::new(AtomicUsize::new(0));
        let ever = Arc::clone(&opened);
        let (sender, count, held) = (Arc::new(sender), Arc::new(count), Arc::clone(&gate));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (opinion, sender, count, gate) =
                    (Arc::clone(&opinion), Arc::clone(&sender), Arc::clone(&count), Arc::clone(&held));
                let ever = Arc::clone(&ever);
                tokio::spawn(async move {
                    ever.fetch_add(1, Ordering::Relaxed);
                    count.send_modify(|count| *count += 1);
                    serve(stream, &*opinion, &sender, &gate).await;
                    count.send_modify(|count| *count -= 1);
                });
            }
        });
        Self { address, taken, sessions, opened, gate }
    }

    pub async fn takes_all() -> Self {
        Self::start(|_| Reply::recipient_ok()).await
    }

    pub fn routes(&self) -> Routes {
        routes(self.address)
    }
}

pub fn routes(address: SocketAddr) -> Routes {
    Routes::everything_to(Host {
        host: address.ip().to_string(),
        port: address.port(),
        tls: Tls::Off,
        login: None,
        via: Via::Home,
        roots: Vec::new(),
    })
}

async fn serve(stream: TcpStream, opinion: &Opinion, taken: &watch::Sender<Vec<Taken>>, gate: &Semaphore) {
    let clock = Clock::real();
    let profile = Profile {
        hostname: "sink.example".into(),
        starttls: false,
        mechanisms: Vec::new(),
        dsn: true,
        login_required: false,
        qualify: None,
        limits: Limits::default(),
    };
    let server = Server::new(profile, clock.now());
    let mut connection = Connection::new(stream, server, Security::None, clock.clone());
    let empty = || Taken { sender: String::new(), recipients: Vec::new(), bytes: Vec::new() };
    let mut now = empty();
    while let Ok(Some(event)) = connection.next().await {
        let answer = match event {
            Event::Connected => Some(Reply::greeting("sink.example")),
            Event::Sender(from) => {
                now = Taken { sender: from.reverse_path.to_string(), ..empty() };
                Some(Reply::sender_ok())
            }
            Event::Recipient(recipient) => {
                let ForwardPath::Address(address) = recipient.path else { panic!("an address") };
                let reply = opinion(&address.to_string());
                if reply.is_positive() {
                    now.recipients.push(address.to_string());
                }
                Some(reply)
            }
            Event::Data => Some(Reply::start_data()),
            Event::Body(bytes) => {
                now.bytes.extend_from_slice(&bytes);
                None
            }
            Event::BodyEnd { .. } => {
                taken.send_modify(|taken| taken.push(now.clone()));
                gate.acquire().await.expect("never closed").forget();
                Some(Reply::accepted("sink"))
            }
            _ => None,
        };
        if let Some(reply) = answer {
            connection.machine().answer(clock.now(), reply);
        }
    }
}
