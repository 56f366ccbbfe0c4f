//! An edge on loopback, in a directory of its own, paired with one home.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use gatepost_edge::config::Config;
use gatepost_edge::run::Edge;
use gatepost_protocol::pairing::NodeKey;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::identity::Identity;
use tempfile::TempDir;

/// Nothing takes longer than this unless it is broken.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// The domain of the senders, as it is asked for (RFC 1035 §3.1).
const SENDERS: &[u8] = b"\x05world\x07example\0";

/// A DNS server to which no other name exists; one for all.
static KNOWS_SENDERS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            if length < 12 {
                continue;
            }
            // Bit 15 of the flags: an answer; code 3: no such name, else none or one address (RFC 1035 §4.1.1). The question stays, additional
            // records are not repeated.
            let question = 12 + packet[12..length].iter().position(|octet| *octet == 0).map_or(0, |root| root + 5);
            let known =
                packet[12..question].get(..SENDERS.len()).is_some_and(|name| name.eq_ignore_ascii_case(SENDERS));
            packet[2] |= 0x80;
            packet[3] = if known { 0x80 } else { 0x83 };
            packet[10..12].fill(0);
            let mut answer = packet[..question].to_vec();
            if known && packet[question - 4..question] == [0, 1, 0, 1] {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            }
            let _ = socket.send_to(&answer, peer);
        }
    });
    address
});

/// The directory of an edge, and the edge while it runs.
pub struct World {
    directory: TempDir,
    pub home_identity: Arc<Identity>,
    edge: Option<Edge>,
}

impl World {
    /// Starts an edge that waits `home_wait` for its home.
    pub fn start(home_wait: &str) -> Self {
        Self::start_with(home_wait, "")
    }

    /// The same, with more limits.
    pub fn start_with(home_wait: &str, limits: &str) -> Self {
        Self::start_asking(*KNOWS_SENDERS, home_wait, limits)
    }

    /// The same, with a DNS server to ask.
    pub fn start_asking(dns: SocketAddr, home_wait: &str, limits: &str) -> Self {
        Self::start_asking_with(dns, home_wait, limits, "")
    }

    /// The same, with more settings of its own.
    pub fn start_asking_with(dns: SocketAddr, home_wait: &str, limits: &str, settings: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("home.pem");
        let home_identity = Arc::new(Identity::load_or_create(&path).expect("an identity"));
        let certificate = rcgen::generate_simple_self_signed(["mail.example.org".to_owned()]).expect("a certificate");
        std::fs::write(directory.path().join("cert.pem"), certificate.cert.pem()).expect("written");
        std::fs::write(directory.path().join("key.pem"), certificate.signing_key.serialize_pem()).expect("written");
        let config = format!(
            "hostname = \"mail.example.org\"\nstate = \"{state}\"\n{settings}\
             [listen]\nsmtp = \"127.0.0.1:0\"\nsubmissions = \"127.0.0.1:0\"\nimaps = \"127.0.0.1:0\"\ntunnel = \"127.0.0.1:0\"\n\
             [tls]\ncertificate = \"{base}/cert.pem\"\nkey = \"{base}/key.pem\"\n\
             [dns]\nservers = [\"{dns}\"]\n\
             [limits]\nhome_wait = \"{home_wait}\"\ndisk_reserve = 0\n{limits}\n\
             [[home]]\nname = \"cottage\"\nkey = \"{key}\"\ndomains = [\"example.org\"]\n",
            state = directory.path().join("state").display(),
            base = directory.path().display(),
            key = home_identity.key(),
        );
        std::fs::write(directory.path().join("edge.toml"), config).expect("written");
        let mut world = Self { directory, home_identity, edge: None };
        world.start_edge();
        world
    }

    /// Starts the edge (again).
    pub fn start_edge(&mut self) {
        self.start_edge_by(&Clock::real());
    }

    /// The same, by this clock.
    pub fn start_edge_by(&mut self, clock: &Clock) {
        let config = Config::load(&self.config(), None).expect("a good config");
        self.edge = Some(Edge::start(config, None, clock).expect("started"));
    }

    /// Ends the edge.
    pub async fn stop_edge(&mut self) {
        self.edge.take().expect("it runs").stop().await;
    }

    pub fn edge(&self) -> &Edge {
        self.edge.as_ref().expect("it runs")
    }

    pub fn smtp(&self) -> SocketAddr {
        self.edge().status().doors().smtp.expect("open")
    }

    pub fn submissions(&self) -> SocketAddr {
        self.edge().status().doors().submissions.expect("open")
    }

    pub fn tunnel(&self) -> SocketAddr {
        self.edge().status().doors().tunnel.expect("open")
    }

    pub fn edge_key(&self) -> NodeKey {
        self.edge().status().key
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("edge.toml")
    }

    /// Changes the config file; the edge does not know yet.
    pub fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(self.config()).expect("readable");
        std::fs::write(self.config(), change(text)).expect("written");
    }

    /// Changes the config file and has it taken: the changes, a line each, or why not.
    pub async fn reload(&self, change: impl FnOnce(String) -> String) -> Result<Vec<String>, String> {
        self.rewrite(change);
        let changes = self.edge().reload().await.map_err(|error| error.to_string())?;
        Ok(changes.iter().map(ToString::to_string).collect())
    }

    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }

    /// Waits until the edge sees its home as connected, or as away.
    pub async fn until_connected(&self, connected: bool) {
        until(|| self.edge().status().json()["homes"][0]["connected"] == connected).await;
    }

    /// Messages held sealed.
    pub fn sealed(&self) -> u64 {
        self.edge().status().json()["homes"][0]["spool"]["messages"].as_u64().expect("a number")
    }

    /// Every file under the edge's state, with its contents.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.state()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("readable") {
                let entry = entry.expect("readable");
                match entry.file_type().expect("known") {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => {
                        files.push((entry.path(), std::fs::read(entry.path()).expect("readable")));
                    }
                    _ => {}
                }
            }
        }
        files
    }
}

/// Waits for a state.
pub async fn until(mut reached: impl FnMut() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, wait).await.expect("the state is reached");
}
