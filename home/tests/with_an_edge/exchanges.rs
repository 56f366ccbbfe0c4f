//! What an edge begins, and what it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use gatepost_home::administration::Request as Administration;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::tunnel::transfer::TransferEnd;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::authenticate::{AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::inbound::{Credential, Handed, Inbound, Submission};
use gatepost_protocol::tunnel::verb::spool::SpoolRequest;

use super::edge::{ALICE, PASSWORD, Played, TEXT, opening, play, whole};

async fn hand_over(played: &Played, request: Request, bytes: &'static [u8], end: TransferEnd) -> Option<Reply> {
    let mut stream = played.open(request).await;
    stream.send_data(Bytes::from_static(bytes)).await.expect("sent");
    stream.send(&end).await.expect("sent");
    stream.flush().await.expect("sent");
    let handed: Handed = stream.record().await.ok()?;
    Some(Reply::from(handed.reply))
}

fn inbound(n: u8, recipients: &[&str]) -> Request {
    Request::Inbound(Box::new(Inbound { open: opening(n, "x@example.com", recipients) }))
}

fn submission(n: u8, credential: Credential) -> Request {
    let open = opening(n, ALICE, &["friend@example.com"]);
    Request::Submission(Box::new(Submission { open, credential }))
}

async fn log_in(played: &Played, password: &str) -> AuthStep {
    let authenticate = Authenticate {
        mechanism: "PLAIN".into(),
        initial: Some(format!("\0{ALICE}\0{password}").into_bytes()),
        exporter: None,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    };
    let mut stream = played.open(Request::Authenticate(authenticate)).await;
    stream.flush().await.expect("sent");
    stream.record().await.expect("answered")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_is_told_the_directory_and_every_change_at_once() {
    let played = play(|_| BTreeMap::new()).await;
    let first = played.directory(|seen| seen.addresses.contains(ALICE)).await;
    assert!(first.verifiers.is_empty());
    let add = Administration::AliasAdd { source: "team@example.org".into(), targets: vec![ALICE.into()] };
    played.administer(add).await;
    let second = played.directory(|seen| seen.addresses.contains("team@example.org")).await;
    assert!(second.version > first.version);
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_the_edge_did_not_take_is_told_again() {
    let played = play(|_| BTreeMap::new()).await;
    played.directory(|seen| seen.addresses.contains(ALICE)).await;
    played.ignore_a_directory();
    let add = Administration::AliasAdd { source: "team@example.org".into(), targets: vec![ALICE.into()] };
    played.administer(add).await;
    played.directory(|seen| seen.addresses.contains("team@example.org")).await;
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_what_was_set_aside_of_the_spool_and_of_the_queue() {
    let played = play(|_| BTreeMap::new()).await;
    played.directory(|seen| seen.addresses.contains(ALICE)).await;
    for folder in ["damaged", "queue/damaged"] {
        let folder = played.state.join(folder);
        std::fs::create_dir_all(&folder).expect("made");
        std::fs::write(folder.join("a file"), b"?").expect("written");
    }
    let status = played.ask(serde_json::json!({ "command": "status" })).await;
    assert_eq!((&status["damaged"][0], &status["queue"]["damaged"][0]), (&"a file".into(), &"a file".into()));
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_whole_is_kept_once_and_what_does_not_never() {
    let played = play(|_| BTreeMap::new()).await;
    let code = async |n, recipients: &[&str], end| {
        hand_over(&played, inbound(n, recipients), TEXT, end).await.map(|reply| reply.code())
    };
    assert_eq!(code(1, &[ALICE], whole(TEXT)).await, Some(250));
    assert_eq!(code(1, &[ALICE], whole(TEXT)).await, Some(250), "the same hand-over again");
    assert_eq!(code(2, &[ALICE], whole(b"something else")).await, Some(451));
    assert_eq!(code(3, &[ALICE], TransferEnd::Abort).await, None);
    assert_eq!(code(4, &["nobody@example.org"], whole(TEXT)).await, Some(550));
    let [message] = &played.mail("example.org/alice")[..] else { panic!("one message") };
    assert!(message.contains("\r\nX-Edge: played\r\nFrom: alice"), "{message}");
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_needs_a_login_the_home_has_seen() {
    let played = play(|_| BTreeMap::new()).await;
    let AuthStep::Refused(reply) = log_in(&played, PASSWORD).await else { panic!("an account password at an edge") };
    assert!(Reply::from(reply).text().contains("app password"));
    let made = Administration::AppPasswordAdd { address: ALICE.into(), name: "phone".into(), full: false };
    let password = played.administer(made).await["password"].as_str().expect("shown once").to_owned();
    let AuthStep::Granted { grant, login, .. } = log_in(&played, &password).await else { panic!("refused") };
    assert_eq!(login, ALICE);
    let code = async |n, credential| {
        hand_over(&played, submission(n, credential), TEXT, whole(TEXT)).await.map(|reply| reply.code())
    };
    assert_eq!(code(1, Credential::Grant([0; 16])).await, Some(451));
    assert_eq!(code(2, Credential::Grant(grant)).await, Some(250));
    let status = played.administer(Administration::AppPasswordList { address: None }).await;
    assert_eq!(status["app_passwords"][0]["name"], "phone");
    let revoked = Administration::AppPasswordRemove { address: ALICE.into(), name: "phone".into() };
    played.administer(revoked).await;
    assert_eq!(code(3, Credential::Grant(grant)).await, Some(451), "the grant ends with its password");
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_that_is_not_an_edges_ends_the_exchange_and_nothing_else() {
    let played = play(|_| BTreeMap::new()).await;
    let mut stream = played.open(Request::Spool(SpoolRequest::List)).await;
    stream.flush().await.expect("sent");
    assert!(stream.frame().await.is_err());
    let reply = hand_over(&played, inbound(1, &[ALICE]), TEXT, whole(TEXT)).await;
    assert_eq!(reply.map(|reply| reply.code()), Some(250));
    played.stop().await;
}
