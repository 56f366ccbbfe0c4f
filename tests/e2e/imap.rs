//! Mail is read by IMAP at home and through the edge, which sees nothing of it but whose login was wrong.

use std::net::{IpAddr, SocketAddr};

use gatepost_tests::client::Client;
use gatepost_tests::client::imap::Imap;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::clients;
use gatepost_tests::world::message;

use super::{ALICE, STRANGER, started};

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
    let stranger: IpAddr = [127, 0, 0, 66].into();
    let imaps = pair.edge().doors.imaps;
    let mut guesses = 0;
    'guessing: while guesses < 100 {
        let Ok(mut imap) = connect(&pair, Some(stranger), imaps) else { break };
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
    assert!(connect(&pair, Some(stranger), imaps).is_err(), "nothing is said to who is banned");
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

#[test]
fn mail_that_comes_in_is_read_marked_filed_and_thrown_away() {
    let pair = started(&Options::story());
    let mut imap = login(&pair, pair.home.imaps);
    imap.expect("SELECT INBOX").expect("open");
    let tag = imap.say("IDLE").expect("said");
    assert!(imap.response().expect("told").starts_with("+ "));
    deliver(&pair, 1);
    assert_eq!(imap.response().expect("told"), "* 1 EXISTS");
    imap.send(b"DONE\r\n").expect("sent");
    assert!(imap.answer(&tag).expect("answered").is_ok());

    let fetched = imap.expect("FETCH 1 (UID FLAGS RFC822.SIZE ENVELOPE BODYSTRUCTURE)").expect("fetched");
    assert!(fetched.untagged[0].contains("FLAGS ()") && fetched.untagged[0].contains("ENVELOPE ("), "{fetched:?}");
    let body = imap.expect("FETCH 1 BODY[]").expect("fetched");
    assert!(body.untagged[0].contains("\\Seen"), "to read it marks it: {body:?}");
    let file = &message::files(&pair.maildir(ALICE))[0];
    let stored = String::from_utf8(std::fs::read(file).expect("readable")).expect("text");
    assert!(body.untagged[0].contains(&stored), "every octet as it lies on disk");
    assert_eq!(imap.expect("SEARCH SEEN").expect("found").untagged, ["* SEARCH 1"]);
    assert_eq!(imap.expect("SEARCH FROM nobody-at-all").expect("found").untagged, ["* SEARCH"]);
    imap.expect("STORE 1 +FLAGS (\\Flagged work)").expect("stored");
    assert!(imap.expect("COPY 1 Archive").expect("copied").status.contains("[COPYUID "));
    imap.expect("STORE 1 +FLAGS.SILENT (\\Deleted)").expect("stored");
    assert_eq!(imap.expect("EXPUNGE").expect("expunged").untagged, ["* 1 EXPUNGE"]);
    let archive = imap.expect("STATUS Archive (MESSAGES UNSEEN)").expect("told");
    assert_eq!(archive.untagged, ["* STATUS \"Archive\" (MESSAGES 1 UNSEEN 0)"]);
}

#[test]
fn two_sessions_see_what_the_other_does_on_the_lan_and_through_the_edge() {
    let pair = started(&Options::story());
    deliver(&pair, 1);
    deliver(&pair, 2);
    super::expect_delivered(&pair, ALICE, &[1, 2]);
    let mut inside = login(&pair, pair.home.imaps);
    let mut outside = login(&pair, pair.edge().doors.imaps);
    for imap in [&mut inside, &mut outside] {
        assert!(imap.expect("SELECT INBOX").expect("open").untagged.contains(&"* 2 EXISTS".to_owned()));
    }
    inside.expect("STORE 2 +FLAGS (\\Flagged)").expect("stored");
    assert!(!outside.expect("NOOP").expect("told").with("\\Flagged").is_empty());
    outside.expect("STORE 1 +FLAGS (\\Deleted)").expect("stored");
    outside.expect("EXPUNGE").expect("expunged");
    // Numbers don't move while a command goes by them.
    let fetched = inside.expect("FETCH 2 FLAGS").expect("fetched");
    assert!(fetched.with("EXPUNGE").is_empty() && !fetched.with("* 2 FETCH").is_empty(), "{fetched:?}");
    assert_eq!(inside.expect("NOOP").expect("told").with("EXPUNGE"), ["* 1 EXPUNGE"]);
}

#[test]
fn what_is_appended_and_numbered_survives_a_kill() {
    let mut pair = started(&Options::story());
    let mut imap = login(&pair, pair.home.imaps);
    imap.send(b"a APPEND Drafts (\\Draft) {14+}\r\nSubject: x\r\n\r\n\r\n").expect("sent");
    let answer = imap.answer("a").expect("answered");
    assert!(answer.status.contains("[APPENDUID "), "{answer:?}");
    let appended = answer.status.split(['[', ']']).nth(1).expect("a code").to_owned();
    pair.home.program.kill();
    pair.home.program.start().expect("started");
    let mut imap = observe::until_ok("the home to serve", || {
        let mut imap = connect(&pair, None, pair.home.imaps)?;
        imap.expect(&format!("LOGIN {ALICE} \"{}\"", pair.account(ALICE).password))?;
        Ok(imap)
    });
    let opened = imap.expect("SELECT Drafts").expect("open");
    let validity = appended.split(' ').nth(1).expect("a validity");
    assert!(!opened.with(&format!("[UIDVALIDITY {validity}]")).is_empty(), "{opened:?}");
    let uid = appended.split(' ').nth(2).expect("a UID");
    assert!(
        !imap.expect("FETCH 1 (UID FLAGS)").expect("fetched").with(&format!("UID {uid} FLAGS (\\Draft)")).is_empty()
    );
}

#[test]
fn who_idles_hears_of_a_file_that_another_program_drops() {
    let pair = started(&Options::story());
    let mut imap = login(&pair, pair.edge().doors.imaps);
    imap.expect("SELECT INBOX").expect("open");
    imap.say("IDLE").expect("said");
    assert!(imap.response().expect("told").starts_with("+ "));
    let maildir = pair.maildir(ALICE);
    std::fs::write(maildir.join("tmp/1.a"), "Subject: x\n\ny\n").expect("written");
    std::fs::hard_link(maildir.join("tmp/1.a"), maildir.join("new/1.a")).expect("linked");
    assert_eq!(imap.response().expect("told"), "* 1 EXISTS");
}

#[test]
fn pythons_imaplib_curl_and_mbsync_read_on_the_lan_and_through_the_edge() {
    let pair = started(&Options::story());
    deliver(&pair, 1);
    deliver(&pair, 2);
    super::expect_delivered(&pair, ALICE, &[1, 2]);
    let alice = pair.account(ALICE);
    for server in [pair.home.imaps, pair.edge().doors.imaps] {
        let mail = clients::Reading { server, ca: &pair.ca, login: ALICE, password: &alice.password };
        assert_eq!(clients::imaplib(mail).expect("read"), 2);
        assert!(clients::curl_imap(mail).expect("read").contains("From: "));
        let copy = pair.directory().join(format!("copy-{}", server.port()));
        clients::mbsync(mail, &copy).expect("synced");
        assert_eq!(message::numbers(&copy.join("INBOX")).expect("whole"), [1, 2]);
    }
}

#[test]
fn what_is_too_much_is_refused_and_the_session_goes_on() {
    let pair = started(&Options::story());
    let mut imap = login(&pair, pair.home.imaps);
    for (said, heard) in [
        ("CREATE {4294967295}", "BAD [TOOBIG]"),
        ("NONSENSE", "BAD"),
        ("SELECT ../../etc", "NO [NONEXISTENT]"),
        ("CREATE a..b", "NO [CANNOT]"),
        ("SELECT Nowhere", "NO [NONEXISTENT]"),
        ("FETCH 1 FLAGS", "BAD"),
        ("APPEND Nowhere {10}", "NO [TRYCREATE]"),
        ("APPEND Drafts {99999999999}", "NO [TOOBIG]"),
    ] {
        let answer = imap.ask(said).expect("answered");
        assert!(answer.status.starts_with(heard), "{said}: {answer:?}");
    }
    let long = format!("{} NOOP\r\n", "a".repeat(100_000));
    imap.send(long.as_bytes()).expect("sent");
    assert!(imap.response().expect("told").starts_with("* BAD [TOOBIG]"));
    let deep = format!("SEARCH {}ALL{}", "(".repeat(20_000), ")".repeat(20_000));
    imap.expect("SELECT INBOX").expect("open");
    assert!(imap.ask(&deep).expect("answered").status.starts_with("BAD"));
    imap.expect("NOOP").expect("still there");
}

/// A letter from the world.
fn deliver(pair: &Pair, number: u64) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let reply =
        client.deliver(STRANGER, &[ALICE], &message::numbered(number, STRANGER, ALICE, 2000)).expect("answered");
    assert_eq!(reply.code, 250);
}
