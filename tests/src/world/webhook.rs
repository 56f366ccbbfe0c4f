//! A web address that takes alarms: answers each post well, and gives what was posted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::Context as _;

use crate::observe::PATIENCE;

/// Octets of one post: an alarm is small.
const POST_OCTETS_MAX: usize = 64 * 1024;

/// A listener on loopback that lives as long as the test program.
#[derive(Debug)]
pub struct Webhook {
    address: SocketAddr,
    posts: Receiver<String>,
}

impl Webhook {
    /// Listens.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port for the webhook")?;
        let address = listener.local_addr()?;
        let (sender, posts) = mpsc::channel();
        thread::spawn(move || serve(&listener, &sender));
        Ok(Self { address, posts })
    }

    /// What to write into the config.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The next post: its head and its body.
    pub fn next(&self) -> anyhow::Result<String> {
        self.posts.recv_timeout(PATIENCE).context("nothing was posted")
    }
}

fn serve(listener: &TcpListener, posts: &Sender<String>) {
    for stream in listener.incoming().flatten() {
        let Ok(post) = take(stream) else { continue };
        if posts.send(post).is_err() {
            return;
        }
    }
}

fn take(mut stream: TcpStream) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(b"}") {
        let octets = stream.read(&mut piece)?;
        anyhow::ensure!(octets > 0 && seen.len() < POST_OCTETS_MAX, "ended early, or never");
        seen.extend_from_slice(&piece[..octets]);
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    Ok(String::from_utf8_lossy(&seen).into_owned())
}
