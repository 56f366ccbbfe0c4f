//! A played edge: the real accepting side of the tunnel over loopback, a directory it was told, a spool
//! of prepared bytes. And the home that dials it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gatepost_home::administration::Request as Administration;
use gatepost_home::config::Config;
use gatepost_home::run::{self, Home, Store};
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Recipient};
use gatepost_protocol::tunnel::transfer::{Tally, TransferEnd, TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::admin::{AdminAnswer, AdminRequest};
use gatepost_protocol::tunnel::verb::directory::DirectoryHeld;
use gatepost_protocol::tunnel::verb::spool::{SpoolDeleted, SpoolEnd, SpoolItem, SpoolPage, SpoolRequest};
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireVerdict};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use gatepost_runtime::tunnel::{Acceptor, Incoming, Session, Stream};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

pub const ALICE: &str = "alice@example.org";
pub const PASSWORD: &str = "down the rabbit hole";
pub const TEXT: &[u8] = b"From: alice@example.org\r\nSubject: Hi\r\n\r\nHello\r\n";
const PATIENCE: Duration = Duration::from_secs(20);

/// What the played edge holds.
#[derive(Default)]
struct Held {
    spool: BTreeMap<u8, Vec<u8>>,
    acknowledged: Vec<TransferId>,
    /// Directories still to be left without an answer.
    deaf: usize,
    /// Entries that are listed and not there, of many more to come.
    ghosts: bool,
    listings: usize,
}

/// Entries of one page.
const PAGE: usize = 2;

impl Held {
    /// Those with a number above `after`, a few at a time. What has no octets can't be read.
    fn page(&self, after: u8) -> SpoolPage {
        let item = |(n, bytes): (&u8, &Vec<u8>)| SpoolItem {
            transfer: TransferId([*n; 16]),
            octets: bytes.len() as u64,
            sealed_unix_s: 1_800_000_000,
        };
        let rest: Vec<SpoolItem> = self.spool.range(after + 1..).map(item).collect();
        let next = (rest.len() > PAGE).then(|| rest[PAGE - 1].transfer.0[0].to_string());
        let mut entries: Vec<SpoolItem> = rest.into_iter().take(PAGE).collect();
        let mut total = self.spool.len() as u64;
        if self.ghosts {
            let transfer = TransferId([0xff; 16]);
            entries.push(SpoolItem { transfer, octets: 1, sealed_unix_s: 1_800_000_000 });
            total += 1000;
        }
        let total_octets = self.spool.values().map(|bytes| bytes.len() as u64).sum();
        SpoolPage { entries, next, total, total_octets, damaged: Vec::new(), damaged_total: 0 }
    }
}

/// The played edge and the home that dials it.
pub struct Played {
    pub home: Option<Home>,
    pub session: Session,
    pub state: PathBuf,
    directory: watch::Receiver<Option<Directory>>,
    held: Arc<Mutex<Held>>,
    sessions: mpsc::Receiver<(Session, mpsc::Receiver<Incoming>)>,
    told: watch::Sender<Option<Directory>>,
    _folder: tempfile::TempDir,
}

/// Makes alice's account, seals what `spool` prepares for this home, starts both.
pub async fn play(spool: impl FnOnce(&[u8]) -> BTreeMap<u8, Vec<u8>> + Send + 'static) -> Played {
    let folder = tempfile::tempdir().expect("a folder");
    let edge_identity = Arc::new(Identity::load_or_create(&folder.path().join("edge.pem")).expect("made"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let state = folder.path().join("home");
    let text = format!(
        "hostname = \"home.example.org\"\ndomains = [\"example.org\"]\npostmaster = \"{ALICE}\"\nstate = \"{}\"\n[listen]\n\
         submissions = \"off\"\nimaps = \"off\"\n[[edge]]\nname = \"played\"\naddress = \"{address}\"\nkey = \"{}\"\n[dns]\nservers = \
         [\"127.0.0.1:9\"]\n",
        state.display(),
        edge_identity.key()
    );
    let file = folder.path().join("home.toml");
    std::fs::write(&file, text).expect("written");
    let read = move || Config::read(&file, None).expect("good");
    let config = read();
    let (public, home_key) = tokio::task::spawn_blocking(move || prepare(&config)).await.expect("prepared");

    let held = Arc::new(Mutex::new(Held { spool: spool(&public), ..Held::default() }));
    let (sender, mut sessions) = mpsc::channel(4);
    let paired = Arc::new(move |key| key == home_key);
    let acceptor = Arc::new(Acceptor::new(edge_identity, "edge.example.org".into(), paired, sender, Clock::real()));
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let acceptor = Arc::clone(&acceptor);
            tokio::spawn(async move { acceptor.accept(stream, peer).await });
        }
    });
    let home = Home::start(read(), None, Clock::real()).await.expect("started");
    let (told, directory) = watch::channel(None);
    let (session, incoming) = next_session(&mut sessions).await;
    tokio::spawn(serve(incoming, Arc::clone(&held), told.clone()));
    Played { home: Some(home), session, state, directory, held, sessions, told, _folder: folder }
}

/// The home's sealing key and its node key, after making alice's account.
fn prepare(config: &Config) -> (Vec<u8>, gatepost_protocol::pairing::NodeKey) {
    let store = Store::open(config, &Clock::real()).expect("opened");
    let request = Administration::AccountAdd { address: ALICE.into(), password: Some(PASSWORD.into()) };
    store.administer(request).expect("an account");
    (store.seal_key.public().to_vec(), run::identity(&config.state).expect("made").key())
}

async fn next_session(
    sessions: &mut mpsc::Receiver<(Session, mpsc::Receiver<Incoming>)>,
) -> (Session, mpsc::Receiver<Incoming>) {
    tokio::time::timeout(PATIENCE, sessions.recv()).await.expect("in time").expect("a session")
}

async fn serve(mut incoming: mpsc::Receiver<Incoming>, held: Arc<Mutex<Held>>, told: watch::Sender<Option<Directory>>) {
    while let Some(Incoming { request, mut stream, .. }) = incoming.recv().await {
        match request {
            Request::Directory2(directory) => {
                let deaf = {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    let deaf = held.deaf > 0;
                    held.deaf = held.deaf.saturating_sub(1);
                    deaf
                };
                if deaf {
                    // Its disk is full: it breaks off.
                    continue;
                }
                let version = directory.version();
                told.send_replace(Some(directory.into_directory().expect("well formed").0));
                stream.send(&DirectoryHeld { version }).await.expect("sent");
            }
            Request::Spool(SpoolRequest::Page { after }) => {
                let page = {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.listings += 1;
                    held.page(after.parse().unwrap_or(0))
                };
                stream.send(&page).await.expect("sent");
            }
            Request::Spool(SpoolRequest::Fetch(transfer)) => {
                let bytes = {
                    let held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.spool.get(&transfer.0[0]).cloned()
                };
                let end = match bytes {
                    Some(bytes) if bytes.is_empty() => SpoolEnd::Unreadable,
                    Some(bytes) => {
                        let octets = bytes.len() as u64;
                        stream.send_data(Bytes::from(bytes)).await.expect("sent");
                        SpoolEnd::Whole { octets }
                    }
                    None => SpoolEnd::Unknown,
                };
                // A home that is stopped or has seen enough hangs up.
                let _ = stream.send(&end).await;
            }
            Request::Spool(SpoolRequest::Acknowledge(transfer)) => {
                {
                    let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                    held.spool.remove(&transfer.0[0]);
                    held.acknowledged.push(transfer);
                }
                stream.send(&SpoolDeleted).await.expect("sent");
            }
            Request::Admin(AdminRequest::Status) => {
                stream.send(&AdminAnswer::Answer("{}".to_owned())).await.expect("sent");
            }
            other => panic!("the home asked {other:?}"),
        }
        stream.finish().await;
    }
}

impl Played {
    /// Waits for a directory that satisfies.
    pub async fn directory(&self, wanted: impl Fn(&Directory) -> bool) -> Directory {
        let mut directory = self.directory.clone();
        let seen = directory.wait_for(|held| held.as_ref().is_some_and(&wanted));
        let seen = tokio::time::timeout(PATIENCE, seen).await.expect("in time").expect("the edge is there");
        seen.clone().expect("just seen")
    }

    /// From now on lists an entry that is not there, and tells of many more; gives how often it was listed in
    /// the next second.
    pub async fn haunt(&mut self) -> usize {
        let count = |held: &Mutex<Held>| held.lock().unwrap_or_else(PoisonError::into_inner).listings;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).ghosts = true;
        let before = count(&self.held);
        self.come_back().await;
        let busy = async {
            while count(&self.held) < before + 20 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), busy).await;
        count(&self.held) - before
    }

    /// Leaves the next directory without an answer.
    pub fn ignore_a_directory(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).deaf += 1;
    }

    /// Performs a command as the running home is asked to, over its control socket.
    pub async fn administer(&self, request: Administration) -> serde_json::Value {
        self.ask(serde_json::json!({ gatepost_home::administration::KEY: request })).await
    }

    /// Asks the running home over its control socket.
    pub async fn ask(&self, wire: serde_json::Value) -> serde_json::Value {
        let state = self.state.clone();
        let asked = tokio::task::spawn_blocking(move || gatepost_runtime::control::ask(&state, &wire));
        asked.await.expect("no panic").expect("performed")
    }

    /// Begins an exchange.
    pub async fn open(&self, request: Request) -> Stream {
        self.session.open(&request).await.expect("opened")
    }

    /// Waits until the home has acknowledged so many entries; gives them, sorted.
    pub async fn acknowledged(&self, count: usize) -> Vec<TransferId> {
        let waiting = async {
            loop {
                {
                    let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                    if held.acknowledged.len() >= count {
                        let mut acknowledged = held.acknowledged.clone();
                        acknowledged.sort();
                        return acknowledged;
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time")
    }

    /// Puts something into the spool again, as an edge does that lost an acknowledgement; then cuts the tunnel
    /// and waits until the home is back.
    pub async fn come_back_with(&mut self, n: u8, sealed: Vec<u8>) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).spool.insert(n, sealed);
        self.come_back().await;
    }

    async fn come_back(&mut self) {
        self.session.close(gatepost_runtime::tunnel::TunnelError::Closed);
        let (session, incoming) = next_session(&mut self.sessions).await;
        tokio::spawn(serve(incoming, Arc::clone(&self.held), self.told.clone()));
        self.session = session;
    }

    /// Messages in a folder's `new/`.
    pub fn mail(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.state.join("mail").join(folder).join("new")) else {
            return Vec::new();
        };
        entries.map(|entry| std::fs::read_to_string(entry.expect("read").path()).expect("text")).collect()
    }

    /// Stops the home.
    pub async fn stop(mut self) {
        self.home.take().expect("running").stop().await;
    }
}

pub fn opening(n: u8, sender: &str, recipients: &[&str]) -> TransferOpen {
    let envelope = Envelope {
        reverse_path: ReversePath::parse(sender).expect("valid"),
        recipients: recipients.iter().map(|text| Recipient::plain(Address::parse(text).expect("valid"))).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    TransferOpen {
        transfer: TransferId([n; 16]),
        trace: [n; 10],
        envelope: WireEnvelope::from(&envelope),
        client: WireClient {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            helo: "client.example".into(),
            with: "ESMTPS".into(),
            tls: None,
        },
        received_unix_s: 1_800_000_000,
    }
}

/// The end of these bytes, as an honest edge sends it.
pub fn whole(bytes: &[u8]) -> TransferEnd {
    let mut tally = Tally::default();
    tally.add(bytes);
    TransferEnd::Whole(tally.seal(WireVerdict::default(), b"X-Edge: played\r\n".to_vec()))
}
