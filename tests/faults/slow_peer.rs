//! Peers that take their time: nobody else waits, and nothing grows.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, started};

#[test]
fn fifty_half_sent_messages_hold_nobody_up() {
    let pair = started(&Options::story().edge_set("limits.connections_per_address=100"));
    let half = message::stuffed(&message::numbered(1, STRANGER, ALICE, 300_000));
    let mut held = Vec::new();
    for _ in 0..50 {
        let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
        client.begin(STRANGER, &[ALICE]).expect("begun");
        client.send(&half[..half.len() / 2]).expect("sent");
        held.push(client);
    }
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(2, STRANGER, ALICE, 1000);
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
    for client in &mut held {
        client.send(&half[half.len() / 2..]).expect("sent");
        client.expect(250).expect("taken");
    }
    drop(held);
    let expected: Vec<u64> = std::iter::repeat_n(1, 50).chain([2]).collect();
    observe::until_delivered(&pair.maildir(ALICE), &expected);
}

#[test]
fn a_door_that_is_full_says_so_and_opens_again() {
    let pair = started(&Options::story().edge_set("limits.connections_per_address=3"));
    let held: Vec<Client> = (0..3).map(|_| Client::greeted(pair.edge().doors.smtp).expect("greeted")).collect();
    let mut one_too_many = Client::connect(pair.edge().doors.smtp).expect("connected");
    one_too_many.expect(421).expect("a proper reply");
    drop(held);
    observe::until_ok("a place", || Client::greeted(pair.edge().doors.smtp).map(drop));
}
