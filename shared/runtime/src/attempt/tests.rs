use std::path::Path;
mod hostile;

use std::sync::Arc;

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Recipient};
use gatepost_protocol::smtp::client::{ClientLimits, Protocol};
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_protocol::smtp::server::{self, Profile, Server};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

/// A host and the certificate that vouches for it.
struct Host {
    listener: TcpListener,
    tls: Security,
    root: Vec<u8>,
}

impl Host {
    async fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["mail.example.org".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls: Security::Server(Arc::new(config)),
            root: made.cert.der().to_vec(),
        }
    }

    fn target(&self, host: &str, tls: Tls) -> Target {
        Target {
            host: host.to_owned(),
            address: self.listener.local_addr().unwrap(),
            tls,
            roots: vec![self.root.clone()],
            believed: Believed::ByTls,
            finding: Finding::default(),
            connect_wait_max: Duration::from_secs(10),
        }
    }

    /// Takes one connection with the real server machine; gives the messages it got.
    fn serve(self, implicit: bool) -> JoinHandle<Vec<Vec<u8>>> {
        tokio::spawn(async move {
            let (stream, _) = self.listener.accept().await.unwrap();
            let profile = Profile {
                hostname: "mail.example.org".into(),
                starttls: !implicit,
                mechanisms: vec![],
                login_required: false,
                dsn: false,
                qualify: None,
                limits: Limits::default(),
            };
            let clock = Clock::real();
            let machine = Server::new(profile, clock.now());
            let mut connection = Connection::new(stream, machine, self.tls, clock.clone());
            let (mut messages, mut message) = (Vec::new(), Vec::new());
            if implicit && connection.secure_first().await.is_err() {
                return messages;
            }
            while let Ok(Some(event)) = connection.next().await {
                let reply = match event {
                    server::Event::Connected => Reply::greeting("mail.example.org"),
                    server::Event::Sender(_) => Reply::sender_ok(),
                    server::Event::Recipient(rcpt) if format!("{:?}", rcpt.path).contains("nobody") => {
                        Reply::unknown_recipient()
                    }
                    server::Event::Recipient(_) => Reply::recipient_ok(),
                    server::Event::Data => Reply::start_data(),
                    server::Event::Body(bytes) => {
                        message.extend_from_slice(&bytes);
                        continue;
                    }
                    server::Event::BodyEnd { .. } => {
                        messages.push(std::mem::take(&mut message));
                        Reply::accepted("test")
                    }
                    _ => continue,
                };
                connection.machine().answer(clock.now(), reply);
            }
            messages
        })
    }
}

pub(super) fn config() -> ClientConfig {
    ClientConfig {
        helo: "edge.example.net".into(),
        protocol: Protocol::Smtp,
        starttls: StartTls::Never,
        login: None,
        nonce: [7; 18],
        limits: ClientLimits::default(),
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        reverse_path: ReversePath::parse("alice@example.net").unwrap(),
        recipients: recipients.iter().map(|text| Recipient::plain(Address::parse(text).unwrap())).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

pub(super) async fn send(attempt: &mut Attempt, message: &[u8], recipients: &[&str]) -> Vec<Outcome> {
    match attempt.start(envelope(recipients), message.len() as u64, false).await {
        Started::Done(outcomes) => outcomes,
        Started::Body => {
            for piece in message.chunks(40_000) {
                attempt.body(Bytes::copy_from_slice(piece)).await;
            }
            attempt.finish().await
        }
    }
}

pub(super) fn is_accepted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted(_))
}

#[tokio::test]
async fn messages_go_one_after_another_under_opportunistic_tls_and_arrive_as_they_were() {
    let host = Host::new().await;
    let target = host.target("mx.of.nobody.example", Tls::Opportunistic);
    let served = host.serve(false);
    let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
    assert_eq!(attempt.tls().unwrap().version, "TLSv1.3");
    assert!(attempt.remote().starts_with("mx.of.nobody.example [127.0.0.1]:"));
    let large = [b"Subject: dots\r\n\r\n".to_vec(), b".line\r\n".repeat(100_000)].concat();
    assert!(is_accepted(&send(&mut attempt, &large, &["bob@example.org"]).await[0]));
    let outcomes = send(&mut attempt, b"Subject: 2\r\n\r\n", &["nobody@example.org", "bob@example.org"]).await;
    assert!(matches!(&outcomes[0], Outcome::Refused(reply) if reply.code() == 550));
    assert!(is_accepted(&outcomes[1]));
    let outcomes = send(&mut attempt, b"Subject: 3\r\n\r\n", &["nobody@example.org"]).await;
    assert!(matches!(&outcomes[..], [Outcome::Refused(_)]));
    attempt.quit().await;
    let messages = served.await.unwrap();
    assert_eq!(messages, [large, b"Subject: 2\r\n\r\n".to_vec()]);
}

#[tokio::test]
async fn verified_tls_is_had_for_the_right_name() {
    for (tls, implicit) in [(Tls::StartTls, false), (Tls::Implicit, true)] {
        let host = Host::new().await;
        let target = host.target("mail.example.org", tls);
        let served = host.serve(implicit);
        let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
        assert!(attempt.tls().is_some());
        assert!(is_accepted(&send(&mut attempt, b"Subject: 1\r\n\r\n", &["bob@example.org"]).await[0]));
        attempt.quit().await;
        assert_eq!(served.await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn verified_tls_is_never_traded_for_less() {
    for (tls, implicit) in [(Tls::StartTls, false), (Tls::Implicit, true)] {
        let host = Host::new().await;
        let wrong_name = host.target("other.example.org", tls);
        let served = host.serve(implicit);
        let failure = Attempt::connect(&wrong_name, config(), Clock::real()).await.unwrap_err();
        assert_eq!(failure.stage, Stage::Tls);
        assert!(failure.reply.text().contains("certificate"), "{}", failure.reply);
        assert!(matches!(Outcome::of(failure.reply), Outcome::Deferred(_)));
        assert!(served.await.unwrap().is_empty());
        let host = Host::new().await;
        let unknown_root = Target { roots: vec![], ..host.target("mail.example.org", tls) };
        let _served = host.serve(implicit);
        assert_eq!(Attempt::connect(&unknown_root, config(), Clock::real()).await.unwrap_err().stage, Stage::Tls);
    }
}

/// Says `lines` in turn, each after a line of the client's.
async fn script(listener: &TcpListener, lines: &[&str]) -> tokio::net::TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    for line in lines {
        if !line.starts_with("220 mail") {
            while stream.read_u8().await.unwrap() != b'\n' {}
        }
        stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }
    stream
}

#[tokio::test]
async fn a_host_whose_tls_is_broken_gets_the_mail_in_the_clear() {
    let Host { listener, .. } = Host::new().await;
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let mut stream = script(&listener, &["220 mail", "250-mail\r\n250 STARTTLS", "220 go"]).await;
        stream.write_all(b"this is not TLS\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        script(
            &listener,
            &["220 mail", "250-mail\r\n250 STARTTLS", "250 sender", "250 recipient", "354 go", "250 done"],
        )
        .await
    });
    let target = Target {
        host: "mail.example.org".into(),
        address,
        tls: Tls::Opportunistic,
        roots: vec![],
        believed: Believed::ByTls,
        finding: Finding::default(),
        connect_wait_max: Duration::from_secs(10),
    };
    let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
    assert!(attempt.tls().is_none());
    assert!(is_accepted(&send(&mut attempt, b"\r\n", &["bob@example.org"]).await[0]));
    drop(served.await.unwrap());
}

#[tokio::test]
async fn who_cannot_be_reached_is_named() {
    let host = Host::new().await;
    let target = host.target("mail.example.org", Tls::Off);
    drop(host);
    let failure = Attempt::connect(&target, config(), Clock::real()).await.unwrap_err();
    assert_eq!(failure.stage, Stage::Hello);
    let text = failure.reply.to_string();
    assert!(text.starts_with("451 4.4.1 Can't reach mail.example.org [127.0.0.1]:"), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_host_that_never_greets_is_given_up_by_the_clock() {
    let host = Host::new().await;
    let target = host.target("mail.example.org", Tls::Off);
    let clock = Clock::still(Duration::ZERO);
    let attempt = tokio::spawn({
        let clock = clock.clone();
        async move { Attempt::connect(&target, config(), clock).await.unwrap_err() }
    });
    let (_silent, _) = host.listener.accept().await.unwrap();
    while !attempt.is_finished() {
        clock.turn(Duration::from_mins(5));
        tokio::task::yield_now().await;
    }
    let failure = attempt.await.unwrap();
    assert_eq!(failure.stage, Stage::Hello);
    assert!(matches!(Outcome::of(failure.reply), Outcome::Deferred(_)));
}

const GREETED: [&str; 5] = ["220 mail", "250 mail", "250 sender", "250 recipient", "354 go"];

#[tokio::test]
async fn a_refusal_in_mid_message_is_believed_even_when_the_host_hangs_up_at_once() {
    let host = Host::new().await;
    let target = host.target("mail.example.org", Tls::Off);
    tokio::spawn(async move {
        let mut stream = script(&host.listener, &GREETED).await;
        stream.read_u8().await.unwrap();
        stream.write_all(b"552 5.3.4 Too big for us\r\n").await.unwrap();
        // Dropped with much unread: the system resets the connection.
    });
    let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
    let outcomes = send(&mut attempt, &b"x\r\n".repeat(10_000_000), &["bob@example.org"]).await;
    assert!(matches!(&outcomes[..], [Outcome::Refused(reply)] if reply.code() == 552), "{outcomes:?}");
    let after = attempt.start(envelope(&["bob@example.org"]), 1, false).await;
    assert!(matches!(after, Started::Done(outcomes) if matches!(outcomes[..], [Outcome::Deferred(_)])));
}

#[tokio::test]
async fn a_host_that_hangs_up_defers_everyone() {
    let host = Host::new().await;
    let target = host.target("mail.example.org", Tls::Off);
    tokio::spawn(async move { script(&host.listener, &GREETED[..4]).await });
    let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
    let outcomes = send(&mut attempt, b"x\r\n", &["bob@example.org", "carol@example.org"]).await;
    assert!(matches!(&outcomes[..], [Outcome::Deferred(_), Outcome::Deferred(_)]), "{outcomes:?}");
}

#[tokio::test]
async fn a_slow_host_slows_the_body_down() {
    let host = Host::new().await;
    let target = host.target("mail.example.org", Tls::Off);
    let served = tokio::spawn(async move { script(&host.listener, &GREETED).await });
    let mut attempt = Attempt::connect(&target, config(), Clock::real()).await.unwrap();
    let started = attempt.start(envelope(&["bob@example.org"]), 1 << 40, false).await;
    assert!(matches!(started, Started::Body));
    let stream = served.await.unwrap();
    let piece = Bytes::from(b"x\r\n".repeat(20_000));
    let mut pieces = 0;
    // Buffers of the system take some; then it must wait.
    while tokio::time::timeout(Duration::from_millis(50), attempt.body(piece.clone())).await.is_ok() {
        pieces += 1;
        assert!(pieces < 10_000, "the body piles up");
    }
    drop(stream);
}

/// A local LMTP server that says these lines in turn, each after a line of the client's, then hangs up.
fn local(folder: &Path, lines: &'static [&'static str]) -> std::path::PathBuf {
    let path = folder.join("lmtp");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for line in lines {
            if !line.starts_with("220") {
                while stream.read_u8().await.unwrap() != b'\n' {}
            }
            stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        }
        // All that was sent is read, so that the end is an end and no reset.
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    path
}

async fn connect_local(path: &Path) -> Result<Attempt, Failure> {
    let config = ClientConfig { protocol: Protocol::Lmtp, ..config() };
    Attempt::connect_local(path, Duration::from_secs(10), config, Clock::real()).await
}

#[tokio::test]
async fn a_local_server_answers_for_each_recipient_and_silence_about_one_is_told_as_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let lines = &["220 lmtp", "250-lmtp\r\n250 8BITMIME", "250 sender", "250 one", "250 two", "250 three", "354 go"];
    let path = local(folder.path(), lines);
    let mut attempt = connect_local(&path).await.unwrap();
    assert_eq!(attempt.remote(), format!("unix:{}", path.display()));
    let outcomes = send(&mut attempt, b"", &["bob@example.org", "carol@example.org", "dave@example.org"]).await;
    let doubt = attempt.doubt().expect("the dot was sent");
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Deferred(doubt.clone())), "{outcomes:?}");

    std::fs::remove_file(&path).unwrap();
    let lines = &["220 lmtp", "250 lmtp", "250 sender", "250 one", "250 two", "354 go", "250 1\r\n452 4.2.2 full"];
    let mut attempt = connect_local(&local(folder.path(), lines)).await.unwrap();
    let outcomes = send(&mut attempt, b"", &["bob@example.org", "carol@example.org"]).await;
    assert!(is_accepted(&outcomes[0]), "{outcomes:?}");
    assert!(matches!(&outcomes[1], Outcome::Deferred(reply) if reply.code() == 452), "{outcomes:?}");
    assert_eq!(attempt.doubt(), None);
}

#[tokio::test]
async fn a_local_server_that_is_gone_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let failure = connect_local(&folder.path().join("lmtp")).await.unwrap_err();
    assert_eq!(failure.stage, Stage::Hello);
    assert!(failure.reply.text().contains("unix:/"), "{}", failure.reply);
}
