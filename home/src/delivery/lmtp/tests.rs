//! A scripted server of mailboxes, and what the client makes of its moods.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Recipient};

use super::*;

/// How it behaves. A recipient's name can ask for more: `gone…` is refused at RCPT (550), `full…` (552 5.2.2) and
/// `later…` (451) after the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Good,
    /// 421 instead of a greeting.
    Closed,
    /// Dies at the first line of the message.
    DiesInData,
    /// Stores the message and dies before it answers.
    DiesAfterDot,
    /// Answers the first recipient only, then dies.
    AnswersOne,
    /// Answers the final dot with what is no reply.
    Garbage,
    /// Stores the message and answers that it is shutting down, as Dovecot does when it is stopped.
    ClosesAfterDot,
}

/// A message as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub recipient: String,
    pub text: String,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct LmtpServer {
    pub path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mood: Mutex<Mood>,
    stored: Mutex<Vec<Stored>>,
    connections: AtomicUsize,
}

impl LmtpServer {
    pub fn start(folder: &Path, mood: Mood) -> Self {
        let path = folder.join("lmtp.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let shared =
            Arc::new(Shared { mood: Mutex::new(mood), stored: Mutex::default(), connections: AtomicUsize::new(0) });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mood = *shared.mood.lock().expect("held by nobody");
                    // What ends a connection early is the client's story to tell.
                    let _ = shared.serve(&stream, mood);
                });
            }
        });
        Self { path, shared }
    }

    pub fn server(&self) -> Server {
        Server::Local(self.path.clone())
    }

    pub fn keepers(&self) -> Keepers {
        Keepers::everything_at(self.server())
    }

    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().expect("held by nobody") = mood;
    }

    pub fn stored(&self) -> Vec<Stored> {
        self.shared.stored.lock().expect("held by nobody").clone()
    }

    /// Who got how many.
    pub fn count(&self, recipient: &str) -> usize {
        self.stored().iter().filter(|stored| stored.recipient == recipient).count()
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, stream: &UnixStream, mood: Mood) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let mut out = stream;
        if mood == Mood::Closed {
            return out.write_all(b"421 4.3.2 closed\r\n");
        }
        out.write_all(b"220 lmtp\r\n")?;
        let mut recipients = Vec::new();
        while let Some(line) = lines.next().transpose()? {
            if line.starts_with("LHLO") {
                out.write_all(b"250-lmtp\r\n250-PIPELINING\r\n250 8BITMIME\r\n")?;
            } else if let Some(recipient) = line.strip_prefix("RCPT TO:<") {
                if recipient.starts_with("gone") {
                    out.write_all(b"550 5.1.1 nobody\r\n")?;
                } else {
                    recipients.push(recipient.trim_end_matches('>').to_owned());
                    out.write_all(b"250 2.1.5 ok\r\n")?;
                }
            } else if line == "DATA" && recipients.is_empty() {
                out.write_all(b"503 5.5.1 nobody\r\n")?;
            } else if line == "DATA" {
                out.write_all(b"354 go\r\n")?;
                let mut text = String::new();
                while let Some(line) = lines.next().transpose()?.filter(|line| line != ".") {
                    if mood == Mood::DiesInData {
                        return Ok(());
                    }
                    text += &(line + "\n");
                }
                if mood == Mood::Garbage {
                    return out.write_all(b"bananas\r\n\0\r\n");
                }
                for recipient in std::mem::take(&mut recipients) {
                    let reply: &[u8] = match &recipient {
                        name if name.starts_with("full") => b"552 5.2.2 full\r\n",
                        name if name.starts_with("later") => b"451 4.2.0 later\r\n",
                        _ => {
                            let stored = Stored { recipient, text: text.clone() };
                            self.stored.lock().expect("held by nobody").push(stored);
                            b"250 2.0.0 stored\r\n"
                        }
                    };
                    if mood == Mood::DiesAfterDot {
                        continue;
                    }
                    if mood == Mood::ClosesAfterDot {
                        return out.write_all(b"421 4.3.2 shutting down\r\n");
                    }
                    out.write_all(reply)?;
                    if mood == Mood::AnswersOne {
                        return Ok(());
                    }
                }
                if mood == Mood::DiesAfterDot {
                    return Ok(());
                }
            } else if line == "QUIT" {
                return out.write_all(b"221 2.0.0 bye\r\n");
            } else {
                out.write_all(b"250 2.0.0 ok\r\n")?;
            }
        }
        Ok(())
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse("x@example.com").expect("valid"),
        recipients: recipients.iter().map(|text| Recipient::plain(Address::parse(text).expect("valid"))).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

/// One message; a letter a recipient: accepted, deferred, refused, `?` in doubt.
async fn deliver(servers: &Servers, server: &Server, recipients: &[&str]) -> String {
    let mut visit = servers.visit(server).await.expect("connected");
    if visit.start(&envelope(recipients), 20, false).await {
        visit.body(Bytes::from_static(b"Subject: x\r\n\r\nhello\r\n")).await;
    }
    let letter = |answer: Answer| match answer.outcome {
        Outcome::Accepted(_) => 'a',
        Outcome::Deferred(_) if answer.in_doubt => '?',
        Outcome::Deferred(_) => 'd',
        Outcome::Refused(_) => 'r',
    };
    visit.finish().await.into_iter().map(letter).collect()
}

const FOUR: [&str; 4] = ["alice@example.org", "gone@example.org", "full@example.org", "later@example.org"];

#[tokio::test]
async fn each_recipient_has_its_answer_whatever_the_servers_mood() {
    for (mood, answers) in [
        (Mood::Good, "arrd"),
        (Mood::DiesInData, "drdd"),
        (Mood::DiesAfterDot, "?r??"),
        (Mood::AnswersOne, "ar??"),
        (Mood::Garbage, "?r??"),
        (Mood::ClosesAfterDot, "?r??"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let lmtp = LmtpServer::start(folder.path(), mood);
        let servers = Servers::of(lmtp.keepers(), Clock::real());
        let came = deliver(&servers, &lmtp.server(), &FOUR).await;
        // It may die before or after the last octet has left: before, nothing is in doubt; after, all is.
        let came = if mood == Mood::DiesInData { came.replace('?', "d") } else { came };
        assert_eq!(came, answers, "{mood:?}");
    }
}

#[tokio::test]
async fn one_connection_carries_many_messages_and_a_dead_one_is_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let lmtp = LmtpServer::start(folder.path(), Mood::Good);
    let servers = Servers::of(lmtp.keepers(), Clock::real());
    for _ in 0..5 {
        assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[..2]).await, "ar");
    }
    assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[1..2]).await, "r");
    assert_eq!(lmtp.connections(), 1);
    drop(lmtp);
    let lmtp = LmtpServer::start(folder.path(), Mood::DiesAfterDot);
    assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[..1]).await, "a", "the old connection still stands");
    let kept: Vec<_> = std::mem::take(&mut servers.pool(&lmtp.server()).state().idle);
    drop(kept);
    assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[..1]).await, "?");
    lmtp.set(Mood::Good);
    assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[..1]).await, "a");
    assert_eq!(lmtp.connections(), 2);
}

#[tokio::test]
async fn a_server_in_trouble_is_left_alone_for_a_while_and_then_looked_at_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let lmtp = LmtpServer::start(folder.path(), Mood::Closed);
    let clock = Clock::still(Duration::from_hours(500_000));
    let servers = Servers::of(lmtp.keepers(), clock.clone());
    let why = servers.visit_soon(&lmtp.server()).await.expect_err("closed");
    assert_eq!(why.code(), 421);
    lmtp.set(Mood::Good);
    for _ in 0..10 {
        assert_eq!(servers.visit_soon(&lmtp.server()).await.expect_err("left alone"), why);
    }
    assert_eq!(lmtp.connections(), 1);
    assert!(servers.status()[0]["trouble"].as_str().is_some_and(|why| why.contains("421")));
    clock.turn(TROUBLE_PAUSE[0]);
    servers.visit_soon(&lmtp.server()).await.expect("it is looked at again");
    assert!(!servers.status()[0]["trouble"].is_null(), "one that only greets is not back");
    assert_eq!(deliver(&servers, &lmtp.server(), &FOUR[..1]).await, "a");
    servers.back().await;
    assert_eq!(servers.trouble(&lmtp.server()), None);
    assert!(servers.status()[0]["trouble"].is_null());
    let (since, until) = servers.overcome(&lmtp.server()).expect("known");
    assert_eq!(until - since, i64::try_from(TROUBLE_PAUSE[0].as_millis()).expect("small"));
}

#[tokio::test]
async fn a_server_that_is_gone_is_never_the_messages_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::Local(folder.path().join("nothing"));
    let servers = Servers::of(Keepers::everything_at(server.clone()), Clock::real());
    let why = servers.visit(&server).await.expect_err("nothing is there");
    assert!(matches!(Outcome::of(why), Outcome::Deferred(_)));
}
