//! An edge that was taken and lies about who logged in gets nothing queued and nothing delivered that
//! it could not have had anyway.

use gatepost_protocol::tunnel::verb::inbound::Credential;
use gatepost_tests::fault::lying_edge::LyingEdge;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, expect_in_sink, started};

const FRIEND: &str = "friend@elsewhere.example";

fn lied_to() -> (Pair, LyingEdge, tempfile::TempDir) {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut liar = LyingEdge::start(scratch.path()).expect("it listens");
    let mut options = Options::story();
    options.more_edges.push(liar.peer.clone());
    let pair = started(&options);
    liar.wait().expect("the home dials it");
    (pair, liar, scratch)
}

#[test]
fn without_a_grant_nothing_is_queued() {
    let (pair, liar, _scratch) = lied_to();
    let alice = pair.account(ALICE).clone();
    let sent = message::numbered(1, ALICE, FRIEND, 1000);
    let bob = message::numbered(2, BOB, FRIEND, 1000);
    // A grant the home never gave.
    let made_up = Credential::Grant([7; 16]);
    // A password that is not one.
    let guessed = Credential::Password { login: ALICE.to_owned(), password: b"guessed".to_vec() };
    // A password that opens the mailbox: it has no business at an edge.
    let full = Credential::Password { login: ALICE.to_owned(), password: alice.password.clone().into_bytes() };
    // A made-up transcript.
    let transcript = Credential::Scram {
        mechanism: "SCRAM-SHA-256".to_owned(),
        client_first: format!("n,,n={ALICE},r=abc").into_bytes(),
        server_first: b"r=abcdef,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096".to_vec(),
        client_final: b"c=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_vec(),
        exporter: None,
    };
    for credential in [made_up, guessed, full, transcript] {
        let shown = format!("{credential:?}");
        let reply = liar.submit(credential, ALICE, FRIEND, &sent).expect("answered");
        assert!(!reply.is_positive(), "{shown} was answered {}", reply.text());
    }
    // Alice really logged in at this edge; that is no right to write as Bob.
    let grant = liar.authenticate(ALICE, &alice.submission_password).expect("a grant");
    let reply = liar.submit(Credential::Grant(grant), BOB, FRIEND, &bob).expect("answered");
    assert!(!reply.is_positive(), "{}", reply.text());
    let reply = liar.submit(Credential::Grant(grant), ALICE, FRIEND, &bob).expect("answered");
    assert!(!reply.is_positive(), "From was not hers: {}", reply.text());
    assert_eq!(pair.queued().expect("the queue"), 0);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
    // What she may do works, so the refusals above mean something.
    let reply = liar.submit(Credential::Grant(grant), ALICE, FRIEND, &sent).expect("answered");
    assert!(reply.is_positive(), "{}", reply.text());
    expect_in_sink(&pair, &[1]);
}

#[test]
fn mail_from_the_world_to_the_world_is_not_taken_from_an_edge() {
    let (pair, liar, _scratch) = lied_to();
    let sent = message::numbered(1, STRANGER, FRIEND, 1000);
    let reply = liar.inbound(STRANGER, FRIEND, &sent).expect("answered");
    assert!(!reply.is_positive(), "{}", reply.text());
    let sent = message::numbered(2, STRANGER, "nobody@example.org", 1000);
    let reply = liar.inbound(STRANGER, "nobody@example.org", &sent).expect("answered");
    assert!(!reply.is_positive(), "{}", reply.text());
    assert_eq!(pair.queued().expect("the queue"), 0);
    assert!(pair.sink.envelopes().expect("readable").is_empty());
}
