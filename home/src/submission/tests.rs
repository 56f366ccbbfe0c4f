//! Dialogs with a real client's bytes over TCP, up to real mailboxes and a real queue. TLS is taken as
//! given: the machine is told that it is there.

use std::fs;
use std::time::Duration;

use base64::Engine;
use gatepost_protocol::machine::{Machine, TlsFacts};
use gatepost_protocol::smtp::server::Server;
use gatepost_runtime::drive::{Connection, Security};
use gatepost_runtime::durable;
use gatepost_runtime::shutdown::Shutdown;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;
use crate::accounts;
use crate::database::Database;
use crate::delivery::config::Keepers;
use crate::delivery::lmtp::Servers;
use crate::delivery::maildir::Maildirs;
use crate::feedback::Feedback;
use crate::queue::next_hop::Routes;
use crate::queue::{Queue, tests as queued};
use crate::router::ledger::Ledger;
use crate::router::promise::Promises;

const PATIENCE: Duration = Duration::from_secs(20);

struct Dialog {
    stream: TcpStream,
    queue: Queue,
    shutdown: Shutdown,
    session: JoinHandle<()>,
    state: tempfile::TempDir,
}

fn build(state: &std::path::Path) -> (Submission, Queue) {
    let clock = Clock::real();
    let accounts = accounts::tests::open(state);
    let (queue, _) = queued::open_with(state, queued::settings(), Routes::default(), clock.clone());
    let database = Database::open(state).expect("opened");
    let feedback = Feedback::new(database.clone(), clock.clone());
    let reports = crate::reporting::config::RawReports::default().check(&[]);
    let reporting =
        crate::reporting::Reporting::new(database.clone(), "home.example.org".into(), reports, clock.clone());
    let ledger = Ledger::new(database);
    let maildirs = Maildirs::new(state, "home.example.org", clock.clone());
    let promises = Arc::new(Promises::new(maildirs, ledger, queue.clone(), clock.clone()));
    let servers = Servers::of(Keepers::default(), clock.clone());
    let router = Router::new(
        "home.example.org".into(),
        accounts.clone(),
        promises,
        servers,
        crate::signing::Signing::open(state, &[], clock.clone()).expect("no keys"),
        (feedback, reporting),
        clock.clone(),
    );
    let incoming: Arc<Path> = state.join("incoming").into();
    durable::create_directory(&incoming).expect("made");
    let door = Submission {
        hostname: "home.example.org".into(),
        limits: Limits::default(),
        accounts,
        router,
        served: Served::new(None, "home.example.org", None).expect("self-signed"),
        trust: None,
        incoming,
        clock,
    };
    (door, queue)
}

impl Dialog {
    async fn start() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().to_owned();
        let (door, queue) = tokio::task::spawn_blocking(move || build(&folder)).await.expect("built");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (accepted, peer) = listener.accept().await.expect("accepted");
        let (shutdown, signal) = Shutdown::new();
        let session = tokio::spawn(async move {
            let clock = door.clock.clone();
            let mut server = Server::new(session::profile(&door), clock.now());
            server.secured(clock.now(), TlsFacts { version: "TLSv1.3".into(), ..TlsFacts::default() });
            let mut connection = Connection::new(accepted, server, Security::None, clock);
            session::converse(&Arc::new(door), &mut connection, peer.ip(), signal).await;
        });
        let mut dialog = Self { stream, queue, shutdown, session, state };
        dialog.hear("220").await;
        dialog.say("EHLO client.lan", "250").await;
        dialog
    }

    async fn logged_in() -> Self {
        let mut dialog = Self::start().await;
        let plain = base64::engine::general_purpose::STANDARD.encode("\0alice@example.org\0secret-alice");
        dialog.say(&format!("AUTH PLAIN {plain}"), "235").await;
        dialog
    }

    async fn hear(&mut self, code: &str) -> String {
        let mut heard = String::new();
        let read = async {
            let mut bytes = [0; 4096];
            loop {
                let count = self.stream.read(&mut bytes).await.expect("read");
                heard.push_str(&String::from_utf8_lossy(&bytes[..count]));
                let last = heard.trim_end().lines().last().unwrap_or("");
                if count == 0 || (heard.ends_with("\r\n") && last.as_bytes().get(3) != Some(&b'-')) {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("in time");
        assert!(heard.starts_with(code), "{code} was due: {heard}");
        heard
    }

    async fn say(&mut self, line: &str, code: &str) -> String {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.expect("sent");
        self.hear(code).await
    }

    /// Envelope and message; the reply to its end must begin so.
    async fn submit(&mut self, recipients: &[&str], message: &str, code: &str) -> String {
        self.say("MAIL FROM:<alice@example.org>", "250").await;
        for recipient in recipients {
            self.say(&format!("RCPT TO:<{recipient}>"), "250").await;
        }
        self.say("DATA", "354").await;
        self.say(&format!("{message}\r\n."), code).await
    }

    fn delivered(&self, account: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.state.path().join("mail")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("read").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.parent().is_some_and(|parent| parent.ends_with("new"))
                    && path.to_string_lossy().contains(account)
                {
                    found.push(fs::read_to_string(path).expect("read"));
                }
            }
        }
        found
    }
}

const MESSAGE: &str = "From: Alice <alice@example.org>\r\nSubject: Hi\r\nBcc: bob@example.org\r\n\r\nHello";

#[tokio::test]
async fn a_submission_goes_to_mailboxes_and_to_the_queue() {
    let mut dialog = Dialog::logged_in().await;
    let reply = dialog.submit(&["bob@example.org", "carol@example.com"], MESSAGE, "250").await;
    assert_eq!(dialog.queue.waiting(), 1);
    let delivered = dialog.delivered("bob");
    assert_eq!(delivered.len(), 1, "{reply}");
    let text = &delivered[0];
    assert!(text.contains("Received: by home.example.org with ESMTPSA id "), "{text}");
    for private in ["Bcc", "127.0.0.1", "client.lan"] {
        assert!(!text.contains(private), "{private} in {text}");
    }
    assert!(text.contains("Message-ID: <") && text.contains("Date: ") && text.ends_with("\r\n\r\nHello\r\n"), "{text}");
    dialog.say("QUIT", "221").await;
    tokio::time::timeout(PATIENCE, dialog.session).await.expect("in time").expect("ended");
}

#[tokio::test]
async fn nothing_is_taken_without_a_login_or_under_another_name() {
    let mut dialog = Dialog::start().await;
    dialog.say("MAIL FROM:<alice@example.org>", "530").await;
    let mut dialog = Dialog::logged_in().await;
    let reply = dialog.say("MAIL FROM:<bob@example.org>", "550 5.7.1").await;
    assert!(reply.contains("bob@example.org does not belong to this login"), "{reply}");
    dialog.say("MAIL FROM:<alice+shop@example.org>", "250").await;
    dialog.say("RCPT TO:<nobody@example.org>", "550 5.1.1").await;
    dialog.say("RCPT TO:<postmaster>", "250").await;
    dialog.say("RSET", "250").await;
    let forged = MESSAGE.replace("alice@", "bob@");
    dialog.submit(&["carol@example.com"], &forged, "550 5.7.1").await;
    let long = format!("{MESSAGE}\r\n{}", "x".repeat(999));
    let reply = dialog.submit(&["carol@example.com"], &long, "554 5.6.0").await;
    assert!(reply.contains("Line 6 "), "{reply}");
    assert_eq!(dialog.queue.waiting(), 0);
    assert_eq!(dialog.delivered("bob").len(), 0);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_a_large_message_taken() {
    let mut dialog = Dialog::start().await;
    let wrong = base64::engine::general_purpose::STANDARD.encode("\0alice@example.org\0wrong");
    dialog.say(&format!("AUTH PLAIN {wrong}"), "535").await;
    let right = base64::engine::general_purpose::STANDARD.encode("alice@example.org");
    dialog.say("AUTH LOGIN", "334").await;
    dialog.say(&right, "334").await;
    dialog.say(&base64::engine::general_purpose::STANDARD.encode("secret-alice"), "235").await;
    let large =
        format!("{MESSAGE}\r\n{}", "seventy-six octets or so of text that nobody will ever read\r\n".repeat(30_000));
    dialog.submit(&["bob@example.org"], &large, "250").await;
    assert!(dialog.delivered("bob")[0].len() > 1_800_000);
    assert_eq!(fs::read_dir(dialog.state.path().join("incoming")).expect("there").count(), 0);
}

#[tokio::test]
async fn draining_ends_a_session_between_messages() {
    let mut dialog = Dialog::logged_in().await;
    dialog.shutdown.drain();
    dialog.say("NOOP", "421").await;
    tokio::time::timeout(PATIENCE, dialog.session).await.expect("in time").expect("ended");
}
