use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gatepost_protocol::machine::{Machine, Output, TlsFacts};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Gives each line as an event, says what it is told to say; silent for a minute, it says so and closes.
#[derive(Default)]
struct Lines {
    queue: VecDeque<Output<String>>,
    partial: Vec<u8>,
    facts: Option<TlsFacts>,
    until: Option<Instant>,
    /// False while its owner has not asked for more.
    paused: bool,
    ended: bool,
}

impl Lines {
    fn say(&mut self, text: &str) {
        self.queue.push_back(Output::Send(Bytes::from(format!("{text}\n"))));
    }

    fn secure(&mut self) {
        self.queue.push_back(Output::Secure);
    }

    fn close(&mut self) {
        self.queue.push_back(Output::Close);
    }
}

impl Machine for Lines {
    type Event = String;

    fn bytes(&mut self, _: Instant, input: &[u8]) {
        assert!(!self.paused, "nothing is read while the machine does not want it");
        self.partial.extend_from_slice(input);
        while let Some(end) = self.partial.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            self.queue.push_back(Output::Event(String::from_utf8(line[..end].to_vec()).unwrap()));
        }
    }

    fn end(&mut self, _: Instant) {
        self.ended = true;
        self.queue.push_back(Output::Event("(end)".into()));
        self.queue.push_back(Output::Close);
    }

    fn deadline(&mut self, now: Instant) {
        assert!(self.until.is_some_and(|until| now >= until));
        self.until = None;
        self.say("too slow");
        self.close();
    }

    fn secured(&mut self, _: Instant, facts: TlsFacts) {
        self.facts = Some(facts);
    }

    fn poll(&mut self, _: Instant) -> Output<String> {
        self.queue.pop_front().unwrap_or(Output::Wait { until: self.until, read: !self.paused })
    }
}

async fn streams() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn tls(versions: &[&'static rustls::SupportedProtocolVersion]) -> (Security, Security) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("mail.example.org").unwrap();
    (Security::Server(Arc::new(server)), Security::Client(Arc::new(client), name))
}

/// Says each line back; knows `STARTTLS` and `QUIT`.
async fn echo(stream: TcpStream, security: Security) -> Result<Connection<Lines>, DriveError> {
    let mut connection = Connection::new(stream, Lines::default(), security, Clock::real());
    while let Some(line) = connection.next().await? {
        let machine = connection.machine();
        match line.as_str() {
            "STARTTLS" => {
                machine.say("go");
                machine.secure();
            }
            "QUIT" => {
                machine.say("bye");
                machine.close();
            }
            "(end)" => {}
            line => machine.say(line),
        }
    }
    Ok(connection)
}

#[tokio::test]
async fn a_connection_speaks_in_the_clear() {
    let (mut near, far) = streams().await;
    let echo = tokio::spawn(echo(far, Security::None));
    near.write_all(b"one\ntwo\nQUIT\n").await.unwrap();
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "one\ntwo\nbye\n");
    echo.await.unwrap().unwrap();
}

async fn upgraded(versions: &[&'static rustls::SupportedProtocolVersion]) -> (TlsFacts, TlsFacts) {
    let (near, far) = streams().await;
    let (server, client) = tls(versions);
    let echo = tokio::spawn(echo(far, server));
    let mut near = Connection::new(near, Lines::default(), client, Clock::real());
    near.machine().say("STARTTLS");
    assert_eq!(near.next().await.unwrap().unwrap(), "go");
    near.machine().secure();
    near.machine().say("hello");
    assert_eq!(near.next().await.unwrap().unwrap(), "hello");
    // Bulk in both directions: more than a record, a read and a socket's buffer.
    let bulk = "x".repeat(3_000_000);
    near.machine().say(&bulk);
    assert_eq!(near.next().await.unwrap().unwrap(), bulk);
    near.machine().say("QUIT");
    assert_eq!(near.next().await.unwrap().unwrap(), "bye");
    assert_eq!(near.next().await.unwrap().unwrap(), "(end)");
    assert!(near.next().await.unwrap().is_none());
    let mut far = echo.await.unwrap().unwrap();
    (near.machine().facts.take().unwrap(), far.machine().facts.take().unwrap())
}

#[tokio::test]
async fn tls_1_3_is_had_in_place_and_both_sides_know_the_same_of_it() {
    let (near, far) = upgraded(&[&rustls::version::TLS13]).await;
    assert_eq!(near, far);
    assert_eq!(near.version, "TLSv1.3");
    assert!(near.cipher.starts_with("TLS_AES_"), "{}", near.cipher);
    assert_eq!(near.group, "X25519MLKEM768");
    assert!(near.exporter.is_some());
}

#[tokio::test]
async fn tls_1_2_has_no_channel_binding() {
    let (near, far) = upgraded(&[&rustls::version::TLS12]).await;
    assert_eq!(near, far);
    assert_eq!(near.version, "TLSv1.2");
    assert!(near.cipher.starts_with("TLS_ECDHE_"), "{}", near.cipher);
    assert_eq!(near.exporter, None);
}

#[tokio::test]
async fn tls_from_the_first_byte() {
    let (near, far) = streams().await;
    let (server, client) = tls(rustls::ALL_VERSIONS);
    let far = tokio::spawn(async move {
        let mut far = Connection::new(far, Lines::default(), server, Clock::real());
        far.secure_first().await.unwrap();
        far.machine().say("welcome");
        assert_eq!(far.next().await.unwrap().unwrap(), "thanks");
        far
    });
    let mut near = Connection::new(near, Lines::default(), client, Clock::real());
    near.secure_first().await.unwrap();
    assert_eq!(near.next().await.unwrap().unwrap(), "welcome");
    near.machine().say("thanks");
    near.flush().await.unwrap();
    assert_eq!(far.await.unwrap().machine().facts, near.machine().facts);
}

#[tokio::test]
async fn a_wrong_certificate_fails_the_handshake() {
    let (near, far) = streams().await;
    let (server, _) = tls(rustls::ALL_VERSIONS);
    let (_, stranger) = tls(rustls::ALL_VERSIONS);
    let far = tokio::spawn(async move {
        Connection::new(far, Lines::default(), server, Clock::real()).secure_first().await.unwrap_err()
    });
    let mut near = Connection::new(near, Lines::default(), stranger, Clock::real());
    let error = near.secure_first().await.unwrap_err();
    assert!(matches!(&error, DriveError::Handshake(_)), "{error}");
    assert!(matches!(far.await.unwrap(), DriveError::Handshake(_)));
    assert!(near.next().await.is_err(), "what failed is not silently begun again");
}

#[tokio::test]
async fn garbage_for_a_handshake_is_an_error() {
    let (mut near, far) = streams().await;
    let (server, _) = tls(rustls::ALL_VERSIONS);
    let echo = tokio::spawn(echo(far, server));
    near.write_all(b"STARTTLS\n").await.unwrap();
    near.read_exact(&mut [0; 3]).await.unwrap();
    near.write_all(b"MAIL FROM:<a@example.org>\n").await.unwrap();
    assert!(matches!(echo.await.unwrap().unwrap_err(), DriveError::Handshake(_)));
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended_by_the_clock() {
    let (near, far) = streams().await;
    let (server, _) = tls(rustls::ALL_VERSIONS);
    let clock = Clock::still(Duration::ZERO);
    let mut far = Connection::new(far, Lines::default(), server, clock.clone());
    let far = tokio::spawn(async move { far.secure_first().await.unwrap_err() });
    tokio::task::yield_now().await;
    clock.turn(HANDSHAKE_WAIT_MAX);
    assert!(matches!(far.await.unwrap(), DriveError::HandshakeTimeout));
    drop(near);
}

#[tokio::test]
async fn the_machine_hears_of_its_deadline_and_has_the_last_word() {
    let (mut near, far) = streams().await;
    let clock = Clock::still(Duration::ZERO);
    let machine = Lines { until: Some(clock.now() + Duration::from_mins(1)), ..Lines::default() };
    let mut far = Connection::new(far, machine, Security::None, clock.clone());
    let far = tokio::spawn(async move { far.next().await.unwrap() });
    tokio::task::yield_now().await;
    clock.turn(Duration::from_secs(59));
    tokio::task::yield_now().await;
    assert!(!far.is_finished());
    clock.turn(Duration::from_secs(1));
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "too slow\n");
    assert_eq!(far.await.unwrap(), None);
}

#[tokio::test]
async fn a_deadline_that_moves_forward_rings_once_at_its_last_place() {
    let (_near, far) = streams().await;
    let clock = Clock::still(Duration::ZERO);
    let start = clock.now();
    let machine = Lines { until: Some(start + Duration::from_mins(1)), ..Lines::default() };
    let mut far = Connection::new(far, machine, Security::None, clock.clone());
    // The timer is set for the first moment, then the machine changes its mind.
    assert!(tokio::time::timeout(Duration::ZERO, far.next()).await.is_err());
    far.machine().until = Some(start + Duration::from_secs(90));
    clock.turn(Duration::from_secs(61));
    assert!(tokio::time::timeout(Duration::ZERO, far.next()).await.is_err());
    assert!(far.machine().until.is_some());
    clock.turn(Duration::from_secs(29));
    assert_eq!(far.next().await.unwrap(), None);
}

#[tokio::test]
async fn nothing_is_read_while_the_machine_pauses() {
    let (mut near, far) = streams().await;
    let mut far = Connection::new(far, Lines::default(), Security::None, Clock::real());
    far.machine().paused = true;
    near.write_all(b"one\n").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), far.next()).await.is_err());
    far.machine().paused = false;
    assert_eq!(far.next().await.unwrap().unwrap(), "one");
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let (near, far) = streams().await;
    let (server, client) = tls(rustls::ALL_VERSIONS);
    let near = tokio::spawn(async move {
        let mut near = Connection::new(near, Lines::default(), client, Clock::real());
        near.secure_first().await.unwrap();
        near.machine().say(&"y".repeat(200_000));
        near.machine().say("QUIT");
        let mut heard = Vec::new();
        while let Some(line) = near.next().await.unwrap() {
            heard.push(line);
        }
        heard
    });
    // Both the handshake and the lines are pieced together from waits that were given up.
    let mut far = Connection::new(far, Lines::default(), server, Clock::real());
    let impatient = async |far: &mut Connection<Lines>| loop {
        tokio::select! {
            biased;
            result = far.next() => return result.unwrap(),
            () = tokio::task::yield_now() => {}
        }
    };
    while tokio::select! { biased; result = far.secure_first() => { result.unwrap(); false }, () = tokio::task::yield_now() => true }
    {
    }
    let long = impatient(&mut far).await.unwrap();
    assert_eq!(long.len(), 200_000);
    far.machine().say(&long);
    assert_eq!(impatient(&mut far).await.unwrap(), "QUIT");
    far.machine().close();
    assert_eq!(impatient(&mut far).await, None);
    assert_eq!(near.await.unwrap(), [long, "(end)".to_owned()]);
}

#[tokio::test]
async fn a_peer_that_never_reads_is_given_up() {
    let (near, far) = streams().await;
    let clock = Clock::still(Duration::ZERO);
    let mut far = Connection::new(far, Lines::default(), Security::None, clock.clone());
    far.machine().say(&"z".repeat(64 * 1024 * 1024));
    let far = tokio::spawn(async move { far.next().await });
    // Past both moments: whenever the writer gets stuck, its limit is at most this far away.
    while !far.is_finished() {
        clock.turn(WRITE_WAIT_MAX);
        tokio::task::yield_now().await;
    }
    let error = far.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("takes nothing we say"), "{error}");
    drop(near);
}

#[tokio::test]
async fn last_words_reach_a_peer_that_was_still_talking() {
    let (mut near, far) = streams().await;
    let mut far = Connection::new(far, Lines::default(), Security::None, Clock::real());
    near.write_all(b"QUIT\n").await.unwrap();
    assert_eq!(far.next().await.unwrap().unwrap(), "QUIT");
    near.write_all(&[b'x'; 10_000]).await.unwrap();
    far.machine().say("bye");
    far.machine().close();
    assert!(far.next().await.unwrap().is_none());
    let mut heard = String::new();
    near.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "bye\n");
}

#[tokio::test]
async fn an_event_met_while_flushing_is_kept() {
    let (near, far) = streams().await;
    let mut near = Connection::new(near, Lines::default(), Security::None, Clock::real());
    near.machine().say("sent");
    near.machine().queue.push_back(Output::Event("kept".into()));
    near.flush().await.unwrap();
    near.flush().await.unwrap();
    assert_eq!(near.next().await.unwrap().unwrap(), "kept");
    drop((near, far));
}

#[tokio::test]
async fn security_that_is_not_set_up_is_an_error_not_a_panic() {
    let (near, _far) = streams().await;
    let mut near = Connection::new(near, Lines::default(), Security::None, Clock::real());
    near.machine().secure();
    let error = near.next().await.unwrap_err().to_string();
    assert!(error.contains("TLS is not set up"), "{error}");
    assert!(near.next().await.unwrap().is_none());
}

#[tokio::test]
async fn an_idle_connection_holds_no_buffer() {
    let (mut near, far) = streams().await;
    let mut far = Connection::new(far, Lines::default(), Security::None, Clock::real());
    near.write_all(&[b'x'; 5000]).await.unwrap();
    near.write_all(b"\n").await.unwrap();
    far.next().await.unwrap();
    far.machine().say(&"x".repeat(5000));
    assert!(tokio::time::timeout(Duration::from_millis(5), far.next()).await.is_err());
    assert!(far.output.capacity() + far.wire.held() <= 1024);
}
