//! One side is a version older: its programs are built from the repository's history. What both know
//! works, what only one knows is not asked for; and an upgrade in place goes on with what waited.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::build;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;

use super::{ALICE, BOB, STRANGER, expect_delivered, expect_in_sink, started};

const FRIEND: &str = "friend@elsewhere.example";

#[test]
fn an_edge_of_the_version_before_serves_this_home() {
    mail_flows_every_way(&Options { older_edge: true, ..Options::story() });
}

#[test]
fn a_home_of_the_version_before_is_served_by_this_edge() {
    mail_flows_every_way(&Options { older_home: true, ..Options::story() });
}

fn mail_flows_every_way(options: &Options) {
    let mut pair = started(options);
    deliver(&pair, 1);
    expect_delivered(&pair, ALICE, &[1]);
    submit(&pair, 2);
    expect_in_sink(&pair, &[2]);
    // Sealed while the home is away, and a login with the directory's verifiers.
    pair.home.program.kill();
    pair.wait_until_down();
    deliver(&pair, 3);
    submit(&pair, 4);
    assert_eq!(pair.spooled().expect("status"), 2);
    pair.home.program.start().expect("started");
    expect_delivered(&pair, ALICE, &[1, 3]);
    expect_in_sink(&pair, &[2, 4]);
    // A change of the directory reaches the other side.
    super::add_account(&pair, "carol@example.org", "a quite new pass phrase");
    observe::until_ok("the edge to know her", || {
        let mut client = Client::greeted(pair.edge().doors.smtp)?;
        client.say(&format!("MAIL FROM:<{STRANGER}>"), 250)?;
        client.say("RCPT TO:<carol@example.org>", 250).map(drop)
    });
}

#[test]
fn an_upgrade_in_place_goes_on_with_all_that_waited() {
    let mut pair = started(&Options { older_edge: true, older_home: true, ..Options::story() });
    deliver(&pair, 1);
    expect_delivered(&pair, ALICE, &[1]);
    // In the queue: the sink takes nothing. In the spool: the home is away.
    pair.sink.defer_all(true);
    submit(&pair, 2);
    observe::until("a message in the queue", || pair.queued().ok(), |queued| *queued == Some(1));
    observe::until_ok("its first attempt to be over", || {
        let queue = pair.home.program.ask("queue list --json".split(' ').collect::<Vec<_>>().as_slice())?;
        anyhow::ensure!(queue.contains("451"), "{queue}");
        Ok(())
    });
    pair.home.program.kill();
    pair.wait_until_down();
    deliver(&pair, 3);
    submit(&pair, 4);
    pair.edge_mut().program.kill();
    let now = build::binaries().expect("built");
    pair.edge_mut().program.binary = now.edge;
    pair.home.program.binary = now.home;
    // Both are on one machine here, so what is new and has a port by default gets one each.
    let (edge, home) = (pair.edge().doors.imaps, pair.home.imaps);
    for (config, door) in [(&pair.edge().program.config, edge), (&pair.home.program.config, home)] {
        let set = std::fs::read_to_string(config).expect("readable");
        assert!(set.contains("[listen]\n"), "{set}");
        let more = set.replace("[listen]\n", &format!("[listen]\nimaps = \"{door}\"\n"));
        std::fs::write(config, more).expect("written");
    }
    pair.edge_mut().program.start().expect("started");
    observe::until_ok("the edge to listen", || Client::greeted(pair.edge().doors.smtp));
    // It still knows its recipients, and whom it may let in.
    deliver(&pair, 5);
    pair.sink.defer_all(false);
    pair.home.program.start().expect("started");
    pair.wait_until_up();
    expect_delivered(&pair, ALICE, &[1, 3, 5]);
    pair.home.program.ask(&["queue", "retry", "--all"]).expect("tried again");
    expect_in_sink(&pair, &[2, 4]);
    assert!(message::files(&pair.maildir(BOB)).is_empty());
}

fn deliver(pair: &Pair, number: u64) {
    let sent = message::numbered(number, STRANGER, ALICE, 4096);
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
}

fn submit(pair: &Pair, number: u64) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let sent = message::numbered(number, ALICE, FRIEND, 2000);
    assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
}
