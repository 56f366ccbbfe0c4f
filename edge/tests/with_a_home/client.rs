//! A mail client of few words.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::edge::WAIT_MAX;

trait Wire: AsyncBufRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncBufRead + AsyncWrite + Unpin + Send> Wire for T {}

pub struct Client {
    wire: Box<dyn Wire>,
    /// What SCRAM-SHA-256-PLUS binds to (RFC 9266).
    pub exporter: Option<[u8; 32]>,
}

impl Client {
    /// Connects in the clear and says EHLO.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        Self::greeted(Box::new(BufReader::new(stream)), None).await
    }

    /// Connects by TLS, trusting this certificate, and says EHLO.
    pub async fn connect_tls(address: SocketAddr, certificate: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("added");
        let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.expect("connected");
        let name = ServerName::try_from("mail.example.org").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("TLS");
        let tls = stream.get_ref().1;
        let exporter = tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).expect("TLS 1.3");
        Self::greeted(Box::new(BufReader::new(stream)), Some(exporter)).await
    }

    async fn greeted(wire: Box<dyn Wire>, exporter: Option<[u8; 32]>) -> Self {
        let mut client = Self { wire, exporter };
        assert!(client.reply().await.starts_with("220 "));
        assert!(client.say("EHLO client.example").await.starts_with("250"));
        client
    }

    /// Says a command, gives the last line of the reply.
    pub async fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes()).await;
        self.reply().await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.expect("sent");
        self.wire.flush().await.expect("sent");
    }

    pub async fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            timeout(WAIT_MAX, self.wire.read_line(&mut line)).await.expect("in time").expect("a line");
            assert!(line.len() >= 4, "the connection ended: {line:?}");
            if line.as_bytes()[3] == b' ' {
                return line.trim_end().to_owned();
            }
        }
    }

    /// From MAIL to 354.
    pub async fn begin(&mut self, to: &str) {
        self.begin_from("sender@world.example", to).await;
    }

    pub async fn begin_from(&mut self, from: &str, to: &str) {
        assert!(self.say(&format!("MAIL FROM:<{from}>")).await.starts_with("250"));
        let reply = self.say(&format!("RCPT TO:<{to}>")).await;
        assert!(reply.starts_with("250"), "{reply}");
        let reply = self.say("DATA").await;
        assert!(reply.starts_with("354"), "{reply}");
    }

    /// Sends a message whole; gives the last reply.
    pub async fn deliver(&mut self, to: &str, message: &[u8]) -> String {
        self.begin(to).await;
        self.send(message).await;
        self.say(".").await
    }
}

/// A message of so many octets at least, without a dot at the start of a line.
pub fn message(octets: usize) -> Vec<u8> {
    let mut message = b"From: sender@world.example\r\nSubject: a test\r\nReceived: from elsewhere\r\n\r\n".to_vec();
    let mut number = 0;
    while message.len() < octets {
        message.extend_from_slice(format!("line {number} of the secret plaintext\r\n").as_bytes());
        number += 1;
    }
    message
}
