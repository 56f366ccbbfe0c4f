//! The home's side of the tunnel, played by a test.

use std::collections::HashMap;

use bytes::BytesMut;
use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::directory::{Directory, DomainPolicy, LoginVerifier};
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::seal::container::{Aead, Kdf, Kem, Part, Reader};
use gatepost_protocol::tunnel::frame::{self, Frame, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferId, TransferSeal};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::directory::{DirectoryHeld, WireDirectory};
use gatepost_protocol::tunnel::verb::inbound::Handed;
use gatepost_protocol::tunnel::verb::spool::{SpoolDeleted, SpoolEnd, SpoolListing, SpoolRequest};
use gatepost_protocol::tunnel::wire::WireReply;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::random;
use gatepost_runtime::tunnel::{self, Incoming, Session, Stream, StreamError, TunnelError};
use hpke::{Deserializable as _, Kem as _, Serializable as _};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::edge::{WAIT_MAX, World};

/// A home: its sealing key, and its session while it is connected.
pub struct Home {
    private: <Kem as hpke::Kem>::PrivateKey,
    public: Vec<u8>,
    pub session: Session,
    incoming: mpsc::Receiver<Incoming>,
    pub verifiers: HashMap<String, LoginVerifier>,
    version: u64,
}

/// A message that came through the tunnel or out of a seal.
#[derive(Debug)]
pub struct Message {
    pub request: Request,
    pub body: Vec<u8>,
    pub seal: TransferSeal,
}

impl Message {
    pub fn transfer(&self) -> TransferId {
        match &self.request {
            Request::Inbound(inbound) => inbound.open.transfer,
            Request::Submission(submission) => submission.open.transfer,
            other => panic!("not a message: {other:?}"),
        }
    }
}

impl Home {
    /// Dials the edge and tells it the directory: alice@example.org exists.
    pub async fn connect(world: &World) -> Self {
        let (private, public) = Kem::gen_keypair_with_rng(&mut random::System);
        let (session, incoming) = dial(world).await;
        let public = public.to_bytes().to_vec();
        let mut home = Self { private, public, session, incoming, verifiers: HashMap::new(), version: 0 };
        home.tell_directory(&["alice@example.org", "postmaster@example.org"]).await;
        home
    }

    /// Hangs up, and waits until the edge has seen it.
    pub async fn hang_up(&self, world: &World) {
        self.session.close(TunnelError::Closed);
        world.until_connected(false).await;
    }

    /// Dials again.
    pub async fn reconnect(&mut self, world: &World) {
        (self.session, self.incoming) = dial(world).await;
        world.until_connected(true).await;
    }

    pub async fn tell_directory(&mut self, addresses: &[&str]) {
        self.version += 1;
        let domains = ["example.org", "stolen.example"];
        let domain = |name: &str| (Domain::parse(name).expect("valid"), DomainPolicy::default());
        let directory = Directory {
            version: self.version,
            domains: domains.map(domain).into(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
            subaddress_separator: Some('+'),
            verifiers: self.verifiers.clone(),
            seal_key: self.public.clone(),
            message_octets_max: 60_000_000,
            patterns: Vec::new(),
            tight: std::collections::HashMap::new(),
            srs: None,
            access: gatepost_protocol::mail::access::AccessList::default(),
            policies: gatepost_protocol::mail::policy::Policies::default(),
            hosts: Vec::new(),
            mta_sts: None,
            services: gatepost_protocol::mail::services::Services::default(),
        };
        let request = Request::Directory(Box::new(WireDirectory::from(&directory)));
        let held: DirectoryHeld = self.ask(&request).await.expect("answered");
        assert_eq!(held.version, self.version);
    }

    /// The next exchange the edge begins.
    pub async fn next(&mut self) -> Incoming {
        timeout(WAIT_MAX, self.incoming.recv()).await.expect("in time").expect("connected")
    }

    /// Asks the edge, and gives its first record.
    pub async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, StreamError> {
        let mut stream = self.session.open(request).await?;
        stream.flush().await?;
        timeout(WAIT_MAX, stream.record()).await.expect("in time")
    }

    /// Takes the next message whole, and leaves its reply to the caller.
    pub async fn take(&mut self) -> (Message, Stream) {
        let Incoming { request, mut stream, .. } = self.next().await;
        let (body, seal) = timeout(WAIT_MAX, body(&mut stream)).await.expect("in time").expect("whole");
        (Message { request, body, seal }, stream)
    }

    pub async fn list(&self) -> SpoolListing {
        self.ask(&Request::Spool(SpoolRequest::List)).await.expect("answered")
    }

    /// Fetches a sealed message and opens it.
    pub async fn fetch(&self, transfer: TransferId) -> Message {
        let mut stream = self.session.open(&Request::Spool(SpoolRequest::Fetch(transfer))).await.expect("open");
        stream.flush().await.expect("sent");
        let mut sealed = BytesMut::new();
        loop {
            match timeout(WAIT_MAX, stream.frame()).await.expect("in time").expect("a frame") {
                Frame::Data(data) => sealed.extend_from_slice(&data),
                end @ Frame::Record(_) => {
                    let octets = sealed.len() as u64;
                    assert_eq!(end.record::<SpoolEnd>().expect("an end"), SpoolEnd::Whole { octets });
                    return self.unseal(sealed, transfer);
                }
            }
        }
    }

    pub async fn acknowledge(&self, transfer: TransferId) {
        let _: SpoolDeleted = self.ask(&Request::Spool(SpoolRequest::Acknowledge(transfer))).await.expect("deleted");
    }

    fn unseal(&self, mut sealed: BytesMut, transfer: TransferId) -> Message {
        let mut reader = Reader::default();
        let Ok(Some(Part::Header(header))) = reader.take(&mut sealed) else { panic!("no header") };
        assert_eq!(header.transfer, transfer);
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&header.encapsulated).expect("a key");
        let mode = hpke::OpModeR::Base;
        let mut context =
            hpke::setup_receiver::<Aead, Kdf, Kem>(&mode, &self.private, &encapsulated, &header.info()).expect("ours");
        let mut frames = BytesMut::new();
        while let Some(part) = reader.take(&mut sealed).expect("well formed") {
            let Part::Chunk(chunk) = part else { panic!("a second header") };
            frames.extend_from_slice(&context.open(&chunk.ciphertext, chunk.aad()).expect("unchanged"));
        }
        reader.end(&sealed).expect("whole");
        let mut next = || frame::take(&mut frames, RECORD_OCTETS_MAX).expect("well formed").expect("a frame");
        let request = next().record().expect("a request");
        let mut body = Vec::new();
        loop {
            match next() {
                Frame::Data(data) => body.extend_from_slice(&data),
                end @ Frame::Record(_) => {
                    let end: TransferEnd = end.record().expect("an end");
                    let (seal, _) = end.whole().expect("not given up");
                    assert!(frames.is_empty(), "nothing follows the end");
                    check(&body, &seal);
                    return Message { request, body, seal };
                }
            }
        }
    }
}

/// Answers a message.
pub async fn answer(mut stream: Stream, reply: &Reply) {
    stream.send(&Handed { reply: WireReply::from(reply) }).await.expect("sent");
    stream.finish().await;
}

/// Reads the data and the end of a message; an error if it broke off.
pub async fn body(stream: &mut Stream) -> Result<(Vec<u8>, TransferSeal), StreamError> {
    let mut body = Vec::new();
    loop {
        match stream.frame().await? {
            Frame::Data(data) => body.extend_from_slice(&data),
            end @ Frame::Record(_) => match end.record()? {
                TransferEnd::Whole(seal) | TransferEnd::Judged(seal, _) => {
                    check(&body, &seal);
                    return Ok((body, seal));
                }
                TransferEnd::Abort => return Err(StreamError::Ended),
            },
        }
    }
}

fn check(body: &[u8], seal: &TransferSeal) {
    let mut tally = Tally::default();
    tally.add(body);
    tally.check(seal).expect("digest and count fit");
}

async fn dial(world: &World) -> (Session, mpsc::Receiver<Incoming>) {
    let address = world.tunnel().to_string();
    let keys = [world.edge_key()];
    Box::pin(tunnel::dial(&world.home_identity, "cottage", &address, &keys, Clock::real())).await.expect("connected")
}
