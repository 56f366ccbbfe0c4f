//! One TLS session over a stream, pumped by hand: records go in and out in whole reads and writes,
//! and what a server has to say right after the handshake (tickets) leaves with its first words.

use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use gatepost_protocol::machine::TlsFacts;
use rustls::{ClientConnection, Connection, ProtocolVersion, ServerConnection};
use tokio::io::AsyncWrite;

use super::Security;
use super::socket::Socket;

#[derive(Debug)]
pub(super) struct Session {
    tls: Connection,
    /// Only tickets are waiting to be written: they may wait for company.
    unhurried: bool,
}

impl Session {
    /// A handshake that is about to begin.
    pub(super) fn begin(security: &Security) -> io::Result<Self> {
        let mut tls = match security {
            Security::None => return Err(io::Error::other("TLS is not set up for this connection")),
            Security::Server(config) => {
                Connection::Server(ServerConnection::new(config.clone()).map_err(io::Error::other)?)
            }
            Security::Client(config, name) => {
                Connection::Client(ClientConnection::new(config.clone(), name.clone()).map_err(io::Error::other)?)
            }
        };
        // The adapter bounds what it gives; a second bound would only cut it short.
        tls.set_buffer_limit(None);
        Ok(Self { tls, unhurried: false })
    }

    /// What the handshake came to, once it is over and all the other side needs of it is written.
    pub(super) fn facts(&mut self) -> Option<TlsFacts> {
        if self.tls.is_handshaking() {
            return None;
        }
        let tls13 = self.tls.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        self.unhurried = tls13 && matches!(self.tls, Connection::Server(_));
        if self.tls.wants_write() && !self.unhurried {
            return None;
        }
        let cipher = self.tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        let group = self.tls.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        Some(TlsFacts {
            version: if tls13 { "TLSv1.3" } else { "TLSv1.2" }.to_owned(),
            // The library's own prefix for what IANA calls TLS_….
            cipher: cipher.replacen("TLS13_", "TLS_", 1),
            group: group.unwrap_or_default().to_owned(),
            // RFC 9266 §2; in TLS 1.2 it would need the extended master secret and is not defined for us.
            exporter: tls13
                .then(|| self.tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b"")).ok())
                .flatten(),
        })
    }

    /// Takes records, not always all of them; gives how many octets it took. What can't be a record
    /// is answered by an alert (best effort, since the connection is over) and is an error.
    pub(super) fn take(&mut self, records: &[u8], stream: &mut Socket, cx: &mut Context<'_>) -> io::Result<usize> {
        let mut rest = records;
        let count = self.tls.read_tls(&mut rest)?;
        if let Err(error) = self.tls.process_new_packets() {
            self.unhurried = false;
            let _ = self.poll_flush(stream, cx);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        // It takes no more after the other side's goodbye, and a goodbye within the handshake ends it.
        if count == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }

    /// The stream has ended, with or without the goodbye of TLS. SMTP has ends of its own.
    pub(super) fn end(&mut self) {
        // Reading nothing is how the library is told; it can't fail.
        let _ = self.tls.read_tls(&mut io::empty());
    }

    /// Some(true): there is plaintext. Some(false): there will never be more. None: not yet.
    pub(super) fn has_plaintext(&mut self) -> Option<bool> {
        match self.tls.reader().fill_buf() {
            Ok(chunk) => Some(!chunk.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(_) => Some(false),
        }
    }

    /// The next plaintext, up to one record.
    pub(super) fn plaintext(&mut self) -> &[u8] {
        self.tls.reader().into_first_chunk().unwrap_or_default()
    }

    /// The bytes of [`Session::plaintext`] were used.
    pub(super) fn consume(&mut self) {
        let count = self.plaintext().len();
        self.tls.reader().consume(count);
    }

    /// Makes records of the output; they wait for [`Session::poll_flush`].
    pub(super) fn encrypt(&mut self, output: &[u8]) -> io::Result<()> {
        self.unhurried = false;
        self.tls.writer().write_all(output)
    }

    /// Writes all records that wait.
    pub(super) fn poll_flush(&mut self, stream: &mut Socket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() && !self.unhurried {
            match self.tls.write_tls(&mut Polled { stream, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    /// Queues the goodbye.
    pub(super) fn say_goodbye(&mut self) {
        self.tls.send_close_notify();
        self.unhurried = false;
    }
}

/// A stream and who waits for it, as the blocking writer that the TLS library asks for.
struct Polled<'a, 'b> {
    stream: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl Polled<'_, '_> {
    fn ready(result: Poll<io::Result<usize>>) -> io::Result<usize> {
        match result {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::ready(Pin::new(&mut *self.stream).poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::ready(Pin::new(&mut *self.stream).poll_write_vectored(self.cx, slices))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
