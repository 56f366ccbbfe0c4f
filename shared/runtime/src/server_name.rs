//! Which server a TLS client asks for (RFC 6066 §3), read without answering: for who carries the connection on. What was
//! read is given along, so that whoever answers gets all of it.

use std::io::Cursor;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::clock::Clock;

/// A client's first words may take this long.
const WORDS_WAIT_MAX: Duration = Duration::from_secs(10);
/// Octets of a client's first words.
const WORDS_OCTETS_MAX: usize = 16 * 1024;

/// What a client said first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name it asks for.
    pub name: String,
    /// All that was read.
    pub read: Vec<u8>,
}

/// Reads a client's first words; `None` if they are not TLS, name nobody, are too long or too slow.
pub async fn wanted(stream: &mut TcpStream, clock: &Clock) -> Option<Wanted> {
    clock.timeout(WORDS_WAIT_MAX, read(stream)).await?
}

async fn read(stream: &mut TcpStream) -> Option<Wanted> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.ok()? == 0 || read.len() > WORDS_OCTETS_MAX {
            return None;
        }
        match name(&read) {
            Heard::Name(name) => return Some(Wanted { name, read }),
            Heard::Nobody => return None,
            Heard::More => {}
        }
    }
}

enum Heard {
    Name(String),
    Nobody,
    More,
}

/// What the words so far say.
fn name(words: &[u8]) -> Heard {
    let mut acceptor = Acceptor::default();
    let mut rest = Cursor::new(words);
    while rest.position() < words.len() as u64 {
        match acceptor.read_tls(&mut rest) {
            Ok(count) if count > 0 => {}
            _ => return Heard::Nobody,
        }
    }
    match acceptor.accept() {
        Ok(Some(accepted)) => match accepted.client_hello().server_name() {
            Some(name) => Heard::Name(name.to_owned()),
            None => Heard::Nobody,
        },
        Ok(None) => Heard::More,
        Err(_) => Heard::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn first_words(name: &'static str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("usual versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = name.try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut words = Vec::new();
        client.write_tls(&mut words).expect("written");
        words
    }

    #[test]
    fn the_name_is_heard_once_it_is_whole() {
        let words = first_words("home.example.org");
        assert!(matches!(name(&words), Heard::Name(name) if name == "home.example.org"));
        for cut in 1..words.len() {
            assert!(matches!(name(&words[..cut]), Heard::More), "{cut}");
        }
    }

    #[test]
    fn what_names_nobody_is_nobodys() {
        assert!(matches!(name(&first_words("192.0.2.1")), Heard::Nobody), "an address is no name");
        assert!(matches!(name(b"A1 LOGIN alice secret\r\n"), Heard::Nobody));
        assert!(matches!(name(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]), Heard::Nobody));
    }
}
