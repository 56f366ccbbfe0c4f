//! What an edge sealed while the home was away: taken once, damaged or not, and only then let go.

use std::collections::BTreeMap;

use bytes::BytesMut;
use gatepost_protocol::seal::writer::Sealer;
use gatepost_protocol::tunnel::frame::{RECORD_OCTETS_MAX, data_header, put_record};
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::inbound::{Credential, Inbound, Submission};
use gatepost_runtime::random;

use super::edge::{ALICE, TEXT, opening, play, whole};

fn sealed(public: &[u8], n: u8, request: &Request) -> Vec<u8> {
    let mut frames = BytesMut::new();
    put_record(&mut frames, request, RECORD_OCTETS_MAX).expect("small");
    frames.extend_from_slice(&data_header(TEXT.len()));
    frames.extend_from_slice(TEXT);
    put_record(&mut frames, &whole(TEXT), RECORD_OCTETS_MAX).expect("small");
    let (mut bytes, sealer) =
        Sealer::new(public, TransferId([n; 16]), 1_800_000_000, &mut random::System).expect("a good key");
    sealer.finish(&frames, &mut bytes);
    bytes
}

fn inbound(n: u8, recipient: &str) -> Request {
    Request::Inbound(Box::new(Inbound { open: opening(n, "x@example.com", &[recipient]) }))
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_mail_is_taken_once_and_what_can_not_be_opened_is_set_aside() {
    let (keep, kept) = std::sync::mpsc::channel();
    let mut played = play(move |public| {
        let good = sealed(public, 1, &inbound(1, ALICE));
        let mut flipped = sealed(public, 3, &inbound(3, ALICE));
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        let mut short = sealed(public, 4, &inbound(4, ALICE));
        short.truncate(short.len() - 10);
        let lie = Credential::Password { login: "mallory@example.com".into(), password: b"x".to_vec() };
        let open = opening(6, ALICE, &["friend@example.com"]);
        let forged = sealed(public, 6, &Request::Submission(Box::new(Submission { open, credential: lie })));
        keep.send(good.clone()).expect("somebody listens");
        BTreeMap::from([
            (1, good.clone()),
            (2, sealed(public, 2, &inbound(2, "nobody@example.org"))),
            (3, flipped),
            (4, short),
            // One message in another's place.
            (5, good),
            (6, forged),
            (7, b"nonsense".to_vec()),
        ])
    })
    .await;
    let acknowledged = played.acknowledged(7).await;
    assert_eq!(acknowledged, (1..=7).map(|n| TransferId([n; 16])).collect::<Vec<_>>());
    // Alice's own, and what nobody has, for its postmaster.
    assert_eq!(played.mail("example.org/alice").len(), 2);
    let damaged = || std::fs::read_dir(played.state.join("damaged")).map_or(0, Iterator::count);
    assert_eq!(damaged(), 5);

    // The acknowledgement of the first was lost: it comes again.
    played.come_back_with(1, kept.recv().expect("kept")).await;
    assert_eq!(played.acknowledged(8).await.len(), 8);
    assert_eq!(played.mail("example.org/alice").len(), 2);
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_taken_now_holds_up_nothing_behind_it() {
    let played = play(move |public| {
        // More than a page of what the edge can't read, and one good message behind.
        let mut spool: BTreeMap<u8, Vec<u8>> = (1..=5).map(|n| (n, Vec::new())).collect();
        spool.insert(6, sealed(public, 6, &inbound(6, ALICE)));
        spool
    })
    .await;
    assert_eq!(played.acknowledged(1).await, [TransferId([6; 16])]);
    assert_eq!(played.mail("example.org/alice").len(), 1);
    played.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_lists_what_it_has_not_is_asked_again_only_after_a_pause() {
    let mut played = play(|_| BTreeMap::new()).await;
    let listed = played.haunt().await;
    assert!(listed <= 2, "listed {listed} times within a second");
    played.stop().await;
}
