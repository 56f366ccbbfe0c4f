//! A server of mailboxes that takes mail by LMTP and lies when a test wants it to: it dies, hangs, talks nonsense.
//! What it stores lies in a Maildir for each recipient.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How it behaves towards whoever speaks to it from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Good,
    /// This instead of a greeting.
    Greets(&'static [u8]),
    /// Reads so many lines of a message, stores nothing, and is gone.
    DiesInData(usize),
    /// Stores the message and says nothing until it is told to be gone.
    Hangs,
    /// Stores the message, says this instead of its replies, and is gone.
    Says(&'static [u8]),
    /// Stores the message for the first recipient only, answers for that one, and is gone.
    AnswersOne,
}

/// Runs until dropped.
#[derive(Debug)]
pub struct LyingLmtp {
    shared: Arc<Shared>,
    _base: tempfile::TempDir,
}

#[derive(Debug)]
struct Shared {
    base: PathBuf,
    mood: Mutex<Mood>,
    changed: Condvar,
    lies: AtomicUsize,
    stored: AtomicUsize,
}

impl LyingLmtp {
    /// Takes mail for anybody.
    pub fn start(mood: Mood) -> anyhow::Result<Self> {
        let base = tempfile::Builder::new().prefix("gatepost-lmtp-").tempdir()?;
        let shared = Arc::new(Shared {
            base: base.path().to_owned(),
            mood: Mutex::new(mood),
            changed: Condvar::new(),
            lies: AtomicUsize::new(0),
            stored: AtomicUsize::new(0),
        });
        let listener = UnixListener::bind(base.path().join("socket"))?;
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&served);
                std::thread::spawn(move || {
                    // What ends a connection early is the client's story to tell.
                    let _ = shared.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { shared, _base: base })
    }

    /// Its setting for the home.
    pub fn setting(&self) -> String {
        format!("delivery.lmtp=\"unix:{}\"", self.shared.base.join("socket").display())
    }

    /// From now on; one that hangs is gone.
    pub fn set(&self, mood: Mood) {
        *self.shared.mood() = mood;
        self.shared.changed.notify_all();
    }

    /// How often it lied.
    pub fn lies(&self) -> usize {
        self.shared.lies.load(Ordering::SeqCst)
    }

    /// Where the mail of a recipient lies.
    pub fn maildir(&self, recipient: &str) -> PathBuf {
        self.shared.base.join(recipient)
    }
}

impl Shared {
    fn mood(&self) -> MutexGuard<'_, Mood> {
        self.mood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &UnixStream) -> std::io::Result<()> {
        let mut input = BufReader::new(stream);
        let mut out = stream;
        if let Mood::Greets(words) = *self.mood() {
            self.lies.fetch_add(1, Ordering::SeqCst);
            return out.write_all(words);
        }
        out.write_all(b"220 lmtp\r\n")?;
        let mut recipients: Vec<String> = Vec::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&line).trim_end().to_owned();
            if said.starts_with("LHLO") {
                out.write_all(b"250-lmtp\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n")?;
            } else if let Some(rest) = said.strip_prefix("RCPT TO:<") {
                recipients.push(rest.split('>').next().unwrap_or_default().to_owned());
                out.write_all(b"250 2.1.5 ok\r\n")?;
            } else if said == "DATA" {
                out.write_all(b"354 go\r\n")?;
                if !self.message(&mut input, out, &std::mem::take(&mut recipients))? {
                    self.lies.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
            } else if said == "QUIT" {
                return out.write_all(b"221 2.0.0 bye\r\n");
            } else {
                if said.starts_with("MAIL") || said == "RSET" {
                    recipients.clear();
                }
                out.write_all(b"250 2.0.0 ok\r\n")?;
            }
        }
    }

    /// False if this was the last of the connection.
    fn message(&self, input: &mut impl BufRead, mut out: &UnixStream, recipients: &[String]) -> std::io::Result<bool> {
        let (mut text, mut lines, mut line) = (Vec::new(), 0, Vec::new());
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" {
                break;
            }
            lines += 1;
            if matches!(*self.mood(), Mood::DiesInData(enough) if lines >= enough) {
                return Ok(false);
            }
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        let mood = *self.mood();
        let taken = if mood == Mood::AnswersOne { &recipients[..1] } else { recipients };
        for recipient in taken {
            let new = self.base.join(recipient).join("new");
            fs::create_dir_all(&new)?;
            self.store(&new, &text)?;
        }
        match mood {
            Mood::Good | Mood::Greets(_) | Mood::DiesInData(_) => {
                recipients.iter().try_for_each(|_| out.write_all(b"250 2.0.0 stored\r\n"))?;
                return Ok(true);
            }
            Mood::AnswersOne => out.write_all(b"250 2.0.0 stored\r\n")?,
            Mood::Says(words) => out.write_all(words)?,
            Mood::Hangs => {
                self.lies.fetch_add(1, Ordering::SeqCst);
                let hangs = |mood: &mut Mood| *mood == Mood::Hangs;
                drop(self.changed.wait_while(self.mood(), hangs).unwrap_or_else(PoisonError::into_inner));
            }
        }
        Ok(false)
    }

    #[expect(clippy::disallowed_methods, reason = "whoever counts its mail must see each message whole or not at all")]
    fn store(&self, new: &Path, text: &[u8]) -> std::io::Result<()> {
        let name = format!("{}.lmtp", self.stored.fetch_add(1, Ordering::SeqCst));
        let draft = self.base.join(&name);
        fs::write(&draft, text)?;
        fs::rename(draft, new.join(name))
    }
}
