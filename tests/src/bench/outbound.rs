//! Out to the world: a sink that takes everything at once and remembers which messages came.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{Event, Profile, Server};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::drive::{Connection, Security};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};

/// Octets of a message that are looked at for its Message-ID.
const HEAD_OCTETS: usize = 4096;

/// Takes all mail by STARTTLS, and counts.
#[derive(Debug)]
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<HashMap<String, usize>>>,
}

impl Sink {
    /// Listens on loopback.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let made = rcgen::generate_simple_self_signed(vec!["sink.example".to_owned()])?;
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let (config, seen) = (Arc::new(config), Arc::new(Mutex::default()));
        let sink = Self { address, seen: Arc::clone(&seen) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, seen) = (Arc::clone(&config), Arc::clone(&seen));
                tokio::spawn(async move {
                    // What ends a connection early is the client's story to tell.
                    let _ = serve(stream, config, &seen).await;
                });
            }
        });
        Ok(sink)
    }

    /// How many messages of `run` came; fails if one came twice.
    pub fn count(&self, run: &str) -> Result<usize> {
        let marker = format!("<{run}.");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_run = || seen.iter().filter(|(id, _)| id.starts_with(&marker));
        if let Some((id, times)) = of_run().find(|(_, times)| **times != 1) {
            anyhow::bail!("{id} came {times} times");
        }
        Ok(of_run().count())
    }
}

async fn serve(
    stream: TcpStream,
    config: Arc<rustls::ServerConfig>,
    seen: &Mutex<HashMap<String, usize>>,
) -> Result<()> {
    let clock = Clock::real();
    let profile = Profile {
        hostname: "sink.example".to_owned(),
        starttls: true,
        mechanisms: Vec::new(),
        login_required: false,
        dsn: false,
        qualify: None,
        limits: Limits::default(),
    };
    let machine = Server::new(profile, clock.now());
    let mut connection = Connection::new(stream, machine, Security::Server(config), clock.clone());
    let mut head = Vec::new();
    while let Some(event) = connection.next().await? {
        let reply = match event {
            Event::Connected => Reply::greeting("sink.example"),
            Event::Sender(_) => Reply::sender_ok(),
            Event::Recipient(_) => Reply::recipient_ok(),
            Event::Data => {
                head.clear();
                Reply::start_data()
            }
            Event::Body(bytes) => {
                let room = HEAD_OCTETS.saturating_sub(head.len());
                head.extend_from_slice(&bytes[..bytes.len().min(room)]);
                continue;
            }
            Event::BodyEnd { .. } => {
                let id = message_id(&head).context("a message without a Message-ID")?;
                *seen.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
                Reply::accepted("sink")
            }
            _ => continue,
        };
        connection.machine().answer(clock.now(), reply);
    }
    Ok(())
}

fn message_id(head: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix("Message-ID:"));
    line.map(|id| id.trim().to_owned())
}
