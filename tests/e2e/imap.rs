//! Mail is read by IMAP at home and through the edge, which sees nothing of it but whose login was wrong.

use std::net::{IpAddr, SocketAddr};

use gatepost_tests::client::imap::Imap;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;

use super::{ALICE, started};

fn connect(pair: &Pair, from: Option<IpAddr>, address: SocketAddr) -> anyhow::Result<Imap> {
    Imap::connect(from, address, Some(&pair.tls()?))
}

fn login(pair: &Pair, address: SocketAddr) -> Imap {
    let mut imap = connect(pair, None, address).expect("greeted");
    imap.expect(&format!("LOGIN {ALICE} \"{}\"", pair.account(ALICE).password)).expect("logged in");
    imap
}

#[test]
fn the_same_session_is_had_on_the_lan_and_through_the_edge() {
    let pair = started(&Options::story());
    for address in [pair.home.imaps, pair.edge().doors.imaps] {
        let mut imap = login(&pair, address);
        let capabilities = imap.expect("CAPABILITY").expect("told");
        assert!(capabilities.untagged[0].contains("IMAP4rev1"), "{capabilities:?}");
        imap.expect("NAMESPACE").expect("told");
        imap.expect("LOGOUT").expect("gone");
        assert!(imap.is_closed());
    }
}

#[test]
fn a_password_that_can_only_submit_opens_no_mailbox() {
    let pair = started(&Options::story());
    let mut imap = connect(&pair, None, pair.home.imaps).expect("greeted");
    let answer = imap.ask(&format!("LOGIN {ALICE} \"{}\"", pair.account(ALICE).submission_password)).expect("answered");
    assert!(answer.status.starts_with("NO [AUTHENTICATIONFAILED]"), "{answer:?}");
}

#[test]
fn brute_force_through_the_edge_is_banned_at_the_edge_by_the_clients_own_address() {
    let pair = started(&Options::story().edge_set("bans.loopback=true"));
    let guesser: IpAddr = [127, 0, 0, 66].into();
    let imaps = pair.edge().doors.imaps;
    let mut guesses = 0;
    'guessing: while guesses < 100 {
        let Ok(mut imap) = connect(&pair, Some(guesser), imaps) else { break };
        loop {
            match imap.ask(&format!("LOGIN {ALICE} \"guess {guesses}\"")) {
                Ok(answer) if answer.status.starts_with("NO [AUTHENTICATIONFAILED]") => guesses += 1,
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => continue 'guessing,
            }
        }
    }
    // The tenth strike is the ban; its answer may not be heard any more.
    assert!((9..=10).contains(&guesses), "{guesses}");
    let edge = &pair.edge().program;
    assert_eq!(edge.said().matches("INFO strike client=127.0.0.66 kind=\"login\"").count(), 10, "{}", edge.said());
    for program in [edge, &pair.home.program] {
        assert!(program.ask(&["bans", "list"]).expect("listed").contains("127.0.0.66"));
    }
    assert!(connect(&pair, Some(guesser), imaps).is_err(), "nothing is said to who is banned");
    assert!(connect(&pair, Some([127, 0, 0, 67].into()), imaps).is_ok(), "others are served");
    assert!(pair.home.program.said().contains("client=127.0.0.66"), "the home knows the true address");
}

#[test]
fn while_the_home_is_away_a_client_is_let_go_at_once() {
    let mut pair = started(&Options::story());
    let imaps = pair.edge().doors.imaps;
    let mut open = login(&pair, imaps);
    pair.home.program.kill();
    assert!(open.is_closed(), "a session ends with the tunnel");
    pair.wait_until_down();
    assert!(connect(&pair, None, imaps).is_err());
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    login(&pair, imaps);
}
