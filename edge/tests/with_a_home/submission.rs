//! 465: logins by the home while it is there, by verifier while it is away.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_protocol::mail::directory::LoginVerifier;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::sasl::{ClientExchange, Exchange, Mechanism, Transcript, Turn, derive_keys, verify_transcript};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::authenticate::{AuthResponse, AuthStep};
use gatepost_protocol::tunnel::verb::inbound::Credential;
use gatepost_protocol::tunnel::wire::WireReply;
use gatepost_runtime::tunnel::Incoming;

use crate::client::{Client, message};
use crate::edge::World;
use crate::home::{Home, answer};

const ALICE: &str = "alice@example.org";
const PASSWORD: &str = "an-app-password";
const GRANT: [u8; 16] = [5; 16];

fn plain(password: &str) -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{ALICE}\0{password}")))
}

fn verifier() -> LoginVerifier {
    let (salt, iterations) = (vec![7; 16], 4096);
    let keys = vec![derive_keys(PASSWORD.as_bytes(), &salt, iterations)];
    LoginVerifier { salt, iterations, keys }
}

async fn home_with_verifier(world: &World) -> Home {
    let mut home = Home::connect(world).await;
    home.verifiers.insert(ALICE.into(), verifier());
    home.tell_directory(&[ALICE]).await;
    home
}

/// Grants the next login.
async fn grant(home: &mut Home) -> Incoming {
    let mut incoming = home.next().await;
    assert!(matches!(incoming.request, Request::Authenticate(_)), "{:?}", incoming.request);
    let granted = AuthStep::Granted { grant: GRANT, login: ALICE.into(), last: None, expires_s: 3600 };
    incoming.stream.send(&granted).await.expect("sent");
    incoming.stream.flush().await.expect("sent");
    incoming
}

fn credential(request: &Request) -> &Credential {
    match request {
        Request::Submission(submission) => &submission.credential,
        other => panic!("not a submission: {other:?}"),
    }
}

async fn client(world: &World) -> Client {
    Client::connect_tls(world.submissions(), &world.certificate()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_granted_by_the_home_is_shown_with_its_message() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = client(&world).await;
    assert!(client.say("MAIL FROM:<alice@example.org>").await.starts_with("530 "));
    let session = tokio::spawn(async move {
        let reply = client.say(&plain("whatever the home takes")).await;
        assert!(reply.starts_with("235 "), "{reply}");
        client.begin_from(ALICE, "friend@world.example").await;
        client.send(&message(500)).await;
        client.say(".").await
    });
    let login = grant(&mut home).await;
    let (submission, stream) = home.take().await;
    drop(login);
    assert_eq!(*credential(&submission.request), Credential::Grant(GRANT));
    let front = String::from_utf8(submission.seal.front).expect("text");
    assert!(front.starts_with("Received: by mail.example.org with ESMTPSA id "), "{front}");
    assert!(!front.contains("127.0.0.1"), "the client's address stays private: {front}");
    answer(stream, &Reply::accepted("queued")).await;
    assert_eq!(session.await.expect("no panic"), "250 2.0.0 Accepted as queued");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_homes_refusal_of_a_login_is_the_clients() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = client(&world).await;
    let session = tokio::spawn(async move { client.say(&plain("wrong")).await });
    let mut incoming = home.next().await;
    let refused = AuthStep::Refused(WireReply::from(&Reply::password_not_for_here()));
    incoming.stream.send(&refused).await.expect("sent");
    incoming.stream.finish().await;
    assert!(session.await.expect("no panic").starts_with("535 5.7.8 This password is for home only"));
}

#[tokio::test(flavor = "multi_thread")]
async fn login_is_carried_turn_by_turn() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = client(&world).await;
    let session = tokio::spawn(async move {
        assert_eq!(client.say("AUTH LOGIN").await, format!("334 {}", STANDARD.encode("Username:")));
        let challenge = client.say(&STANDARD.encode(ALICE)).await;
        assert_eq!(challenge, format!("334 {}", STANDARD.encode("Password:")));
        client.say(&STANDARD.encode(PASSWORD)).await
    });
    let mut incoming = home.next().await;
    let Request::Authenticate(authenticate) = &incoming.request else { panic!("{:?}", incoming.request) };
    assert_eq!(authenticate.mechanism, "LOGIN");
    assert_eq!(authenticate.initial.as_deref(), Some(ALICE.as_bytes()));
    incoming.stream.send(&AuthStep::Challenge(b"Password:".to_vec())).await.expect("sent");
    incoming.stream.flush().await.expect("sent");
    let response: AuthResponse = incoming.stream.record().await.expect("a response");
    assert_eq!(response.0, PASSWORD.as_bytes());
    incoming.stream.send(&AuthStep::Refused(WireReply::from(&Reply::login_refused()))).await.expect("sent");
    incoming.stream.finish().await;
    assert!(session.await.expect("no panic").starts_with("535 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_home_is_away_an_app_password_is_sealed_in_and_nothing_else_gets_through() {
    let world = World::start("60 s");
    let mut home = home_with_verifier(&world).await;
    home.hang_up(&world).await;
    let mut client = client(&world).await;
    let reply = client.say(&plain("the account's own password")).await;
    assert!(reply.starts_with("454 4.7.0 "), "{reply}");
    let reply = client.say(&plain(PASSWORD)).await;
    assert!(reply.starts_with("235 "), "{reply}");
    client.begin_from(ALICE, "friend@world.example").await;
    client.send(&message(500)).await;
    assert!(client.say(".").await.starts_with("250 "));
    for (path, contents) in world.files() {
        let found = contents.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
        assert!(!found, "{} holds the password", path.display());
    }
    home.reconnect(&world).await;
    let sealed = home.fetch(home.list().await.entries[0].transfer).await;
    let expected = Credential::Password { login: ALICE.into(), password: PASSWORD.into() };
    assert_eq!(*credential(&sealed.request), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_login_whose_home_goes_away_is_sealed_only_if_a_verifier_fits() {
    let world = World::start("60 s");
    let mut home = home_with_verifier(&world).await;
    for (password, expected) in [(PASSWORD, "250 "), ("the account's own password", "454 4.7.0 ")] {
        let mut client = client(&world).await;
        let command = plain(password);
        let session = tokio::spawn(async move {
            let reply = client.say(&command).await;
            (client, reply)
        });
        let login = grant(&mut home).await;
        let (mut client, reply) = session.await.expect("no panic");
        assert!(reply.starts_with("235 "), "{reply}");
        drop(login);
        home.hang_up(&world).await;
        client.say(&format!("MAIL FROM:<{ALICE}>")).await;
        client.say("RCPT TO:<friend@world.example>").await;
        let mut reply = client.say("DATA").await;
        if reply.starts_with("354 ") {
            client.send(&message(500)).await;
            reply = client.say(".").await;
        }
        assert!(reply.starts_with(expected), "{reply}");
        home.reconnect(&world).await;
    }
    assert_eq!(world.sealed(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_the_home_has_forgotten_is_no_bounce() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = client(&world).await;
    let session = tokio::spawn(async move {
        assert!(client.say(&plain("x")).await.starts_with("235 "));
        client.begin_from(ALICE, "friend@world.example").await;
        client.send(&message(500)).await;
        client.say(".").await
    });
    let login = grant(&mut home).await;
    let (_, stream) = home.take().await;
    drop(login);
    answer(stream, &Reply::no_grant()).await;
    assert!(session.await.expect("no panic").starts_with("454 4.7.0 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbour_who_does_not_exist_is_refused_at_rcpt() {
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = client(&world).await;
    let session = tokio::spawn(async move {
        assert!(client.say(&plain("x")).await.starts_with("235 "));
        client.say(&format!("MAIL FROM:<{ALICE}>")).await;
        client.say("RCPT TO:<nobody@example.org>").await
    });
    let _login = grant(&mut home).await;
    assert!(session.await.expect("no panic").starts_with("550 5.1.1 "));
}

/// Logs in by SCRAM; gives the last reply.
async fn scram(client: &mut Client, mechanism: Mechanism, login: &str, password: &str) -> String {
    let password = Secret::from(password);
    let mut exchange =
        ClientExchange::new(mechanism, login, password, client.exporter, true, [9; 18]).expect("an exporter");
    let initial = exchange.initial().expect("SCRAM begins with the client");
    let mut reply = client.say(&format!("AUTH {mechanism} {}", STANDARD.encode(initial.expose()))).await;
    while let Some(challenge) = reply.strip_prefix("334 ") {
        let challenge = STANDARD.decode(challenge).expect("base64");
        let response = exchange.respond(&challenge).expect("a proper challenge");
        reply = client.say(&STANDARD.encode(response.expose())).await;
    }
    if reply.starts_with("235 ") {
        exchange.finish().expect("the server knows the password, too");
    }
    reply
}

fn assert_proves(credential: &Credential, expected: Mechanism) {
    let Credential::Scram { mechanism, client_first, server_first, client_final, exporter } = credential.clone() else {
        panic!("{credential:?}")
    };
    assert_eq!(mechanism, expected.name());
    let transcript = Transcript { mechanism: expected, client_first, server_first, client_final };
    assert_eq!(verify_transcript(&transcript, &verifier(), exporter), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_home_is_away_a_scram_exchange_is_sealed_in_whole() {
    let world = World::start("60 s");
    let mut home = home_with_verifier(&world).await;
    home.hang_up(&world).await;
    for mechanism in [Mechanism::ScramSha256, Mechanism::ScramSha256Plus] {
        let mut client = client(&world).await;
        let reply = scram(&mut client, mechanism, ALICE, "wrong").await;
        assert!(reply.starts_with("454 4.7.0 "), "{reply}");
        let reply = scram(&mut client, mechanism, "nobody@example.org", PASSWORD).await;
        assert!(reply.starts_with("454 4.7.0 "), "{reply}");
        let reply = scram(&mut client, mechanism, ALICE, PASSWORD).await;
        assert!(reply.starts_with("235 "), "{reply}");
        client.begin_from(ALICE, "friend@world.example").await;
        client.send(&message(500)).await;
        assert!(client.say(".").await.starts_with("250 "));
    }
    home.reconnect(&world).await;
    let transfers: Vec<_> = home.list().await.entries.iter().map(|item| item.transfer).collect();
    for (transfer, mechanism) in transfers.into_iter().zip([Mechanism::ScramSha256, Mechanism::ScramSha256Plus]) {
        assert_proves(credential(&home.fetch(transfer).await.request), mechanism);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scram_login_granted_by_the_home_is_sealed_when_it_breaks_off() {
    let world = World::start("60 s");
    let mut home = home_with_verifier(&world).await;
    let mut client = client(&world).await;
    let exporter = client.exporter;
    let session = tokio::spawn(async move {
        let reply = scram(&mut client, Mechanism::ScramSha256Plus, ALICE, PASSWORD).await;
        assert!(reply.starts_with("235 "), "{reply}");
        client.begin_from(ALICE, "friend@world.example").await;
        client.send(&message(300_000)).await;
        client.say(".").await
    });
    let mut login = home.next().await;
    let Request::Authenticate(authenticate) = &login.request else { panic!("{:?}", login.request) };
    assert_eq!(authenticate.exporter, exporter);
    let mut exchange = Exchange::new(Mechanism::ScramSha256Plus, authenticate.exporter, true, [3; 18]);
    let Turn::Verifier { .. } = exchange.start(authenticate.initial.as_deref()) else { panic!("malformed") };
    let Turn::Challenge(challenge) = exchange.verifier(verifier()) else { panic!("malformed") };
    login.stream.send(&AuthStep::Challenge(challenge)).await.expect("sent");
    login.stream.flush().await.expect("sent");
    let response: AuthResponse = login.stream.record().await.expect("a response");
    let Turn::Proven { last, .. } = exchange.response(&response.0) else { panic!("not proven") };
    let granted = AuthStep::Granted { grant: GRANT, login: ALICE.into(), last: Some(last), expires_s: 3600 };
    login.stream.send(&granted).await.expect("sent");
    login.stream.flush().await.expect("sent");
    let (through, _stream) = home.take().await;
    assert_eq!(*credential(&through.request), Credential::Grant(GRANT));
    home.hang_up(&world).await;
    assert!(session.await.expect("no panic").starts_with("250 "));
    home.reconnect(&world).await;
    let sealed = home.fetch(through.transfer()).await;
    assert_proves(credential(&sealed.request), Mechanism::ScramSha256Plus);
    assert_eq!(sealed.body, through.body);
}
