//! What an account may send, and how its owner hears of one that sends too much.

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::message;
use gatepost_tests::world::webhook::Webhook;

use super::{ALICE, BOB, expect_delivered, started};

const FRIEND: &str = "friend@elsewhere.example";

#[test]
fn a_stolen_password_sends_so_much_and_the_owner_hears_of_it() {
    let webhook = Webhook::start().expect("a webhook");
    let options = Options::story()
        .home_set("limits.account_recipients_per_hour=3")
        .home_set("alarm.address=owner@another.example")
        .home_set(&format!("alarm.webhook={}", webhook.url()));
    let pair = started(&options);
    for number in 1..=3 {
        assert_eq!(submit(&pair, number, FRIEND).0, 250);
    }
    let (code, text) = submit(&pair, 4, FRIEND);
    assert_eq!(code, 450, "{text}");
    assert!(text.contains("3 recipients in an hour") && text.contains("try again after"), "{text}");
    assert_eq!(submit(&pair, 5, BOB).0, 250, "here it may write");
    expect_delivered(&pair, BOB, &[5]);
    let posted = webhook.next().expect("posted");
    assert!(posted.contains("\"alarm\":\"cap-hit\"") && posted.contains(ALICE), "{posted}");
    let letter = || {
        let files = message::files(pair.sink.maildir());
        let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        texts.into_iter().find(|text| text.contains("To: <owner@another.example>"))
    };
    let letter = observe::until("the letter", letter, Option::is_some).expect("there");
    assert!(
        letter.contains("Auto-Submitted: auto-generated") && letter.contains("gatepost-home account cap"),
        "{letter}"
    );
    // Its owner allows it more, now.
    let shown = pair.home.program.ask(&["account", "cap", ALICE, "--hourly", "10", "--daily", "20"]).expect("set");
    assert!(shown.contains("10 recipients in an hour (3 so far)"), "{shown}");
    assert_eq!(submit(&pair, 6, FRIEND).0, 250);
}

fn submit(pair: &Pair, number: u64, to: &str) -> (u16, String) {
    let alice = pair.account(ALICE);
    let tls = pair.tls().expect("a CA");
    let mut client = Client::greeted_tls(pair.edge().doors.submissions, &tls, "127.0.0.1").expect("greeted");
    assert_eq!(client.login(ALICE, &alice.submission_password).expect("answered").code, 235);
    let answer = client.deliver(ALICE, &[to], &message::numbered(number, ALICE, to, 2000)).expect("answered");
    (answer.code, answer.text())
}
