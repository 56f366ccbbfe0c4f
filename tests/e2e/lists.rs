//! Mailing lists and our own name: what was changed on its way goes where the owner's policy says, and nobody outside
//! writes as one of us.

use std::path::PathBuf;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::dkimpy;
use gatepost_tests::world::message;

use super::signing::{FRIEND, publish, submit};
use super::{ALICE, BOB, started, strangers};

const LIST: &str = "dev@lists.example";
const LIST_ID: &str = "List-Id: Developers <dev.lists.example>\r\n";
/// What a list finds before it changes anything.
const FOUND: &str = "dkim=pass header.d=author.example; dmarc=pass header.from=author.example; arc=none";

/// An author, who sends from elsewhere and wants forgeries refused; a list, which sends from here. Both have this key.
fn world(options: Options) -> (Pair, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a directory");
    let (key, record) = strangers::key(folder.path());
    let zone = format!(
        "author.example. 1 IN TXT \"v=spf1 ip4:192.0.2.1 -all\"\nauthor.example. 1 IN MX 10 sink.example.\n\
         _dmarc.author.example. 1 IN TXT \"v=DMARC1; p=reject\"\ns1._domainkey.author.example. 1 IN {record}\n\
         lists.example. 1 IN TXT \"v=spf1 ip4:127.0.0.1 -all\"\nlists.example. 1 IN MX 10 sink.example.\n\
         s1._domainkey.lists.example. 1 IN {record}\nexample.org. 1 IN MX 10 mail.example.org.\n"
    );
    (started(&Options { zone, ..options }), key, folder)
}

/// As a list changes it: another subject, and a line below.
fn changed(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    (text.replace("Subject: ", "Subject: [dev] ") + "-- \r\nto leave, write to dev-leave\r\n").into_bytes()
}

/// The reply to a message that the list brings.
fn bring(pair: &Pair, text: &[u8]) -> String {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let reply = client.deliver(LIST, &[ALICE], text).expect("answered");
    format!("{} {}", reply.code, reply.lines.join(" "))
}

/// Messages in the inbox and in Junk.
fn kept(pair: &Pair) -> (usize, usize) {
    let maildir = pair.maildir(ALICE);
    (message::files(&maildir).len(), message::files(&maildir.join(".Junk")).len())
}

#[test]
fn what_a_list_changed_counts_by_its_own_signature_or_by_a_seal_the_owner_trusts() {
    let (pair, key, _folder) = world(Options::story().home_set("policy.trusted_sealers=[\"lists.example\"]"));
    let text = format!("From: <a@author.example>\r\nTo: <{LIST}>\r\nSubject: x\r\n\r\nhello\r\n");
    let original = dkimpy::sign(text.as_bytes(), "author.example", "s1", &key).expect("signed");
    let refused = "550 5.7.26 Neither SPF nor DKIM shows that this message is from author.example, and author.example asks \
                   that such mail be refused";
    assert!(bring(&pair, &original).starts_with("250 "));
    assert_eq!(kept(&pair), (1, 0), "unchanged, it is its author's");

    let broken = changed(&original);
    assert_eq!(bring(&pair, &broken), refused);
    let named = [LIST_ID.as_bytes(), &broken].concat();
    assert_eq!(bring(&pair, &named), refused, "anybody can write that it was a list");
    let by_list = dkimpy::sign(&named, "lists.example", "s1", &key).expect("signed");
    assert!(bring(&pair, &by_list).starts_with("250 "));
    assert_eq!(kept(&pair), (1, 1));
    let junk = message::files(&pair.maildir(ALICE).join(".Junk")).remove(0);
    let stored = String::from_utf8_lossy(&std::fs::read(junk).expect("readable")).replace("\r\n\t", " ");
    assert!(stored.contains("header.from=author.example (list, else 550 5.7.26 "), "why it was spared: {stored}");
    let unlisted = dkimpy::sign(&broken, "lists.example", "s1", &key).expect("signed");
    assert_eq!(bring(&pair, &unlisted), refused, "a signature without a list");

    let seal = |text: &[u8], domain| dkimpy::seal(text, FOUND, domain, "s1", &key).expect("sealed");
    assert!(bring(&pair, &seal(&broken, "lists.example")).starts_with("250 "));
    assert_eq!(kept(&pair), (1, 2));
    observe::until(
        "the edge's part of the story",
        || pair.home.program.ask(&["trace", LIST]).expect("told"),
        |story| {
            story.contains(
                "DKIM pass by lists.example, DMARC fail; into Junk with it (DMARC fails, but the list dev.lists",
            ) && story.contains("lists.example, which is trusted, passed it on")
                && story.contains("ARC pass by lists.example")
                && story.contains("for this reason: trusted sealer, else 550 5.7.26")
        },
    );
    assert_eq!(bring(&pair, &seal(&broken, "author.example")), refused, "it holds, and nobody trusts it");
    let late = changed(&seal(&original, "lists.example"));
    assert_eq!(bring(&pair, &late), refused, "changed after it was sealed");
    assert_eq!(kept(&pair), (1, 2));
}

#[test]
fn our_own_name_is_good_from_465_and_refused_from_outside() {
    let (pair, key, _folder) = world(Options::story());
    publish(&pair, &pair);
    let refused = "550 5.7.1 Mail from example.org comes from its own servers, not from elsewhere; if you are its user, log \
                   in and send by port 465";
    let text = format!("From: <{BOB}>\r\nTo: <{LIST}>\r\nSubject: x\r\n\r\nhello\r\n");
    for from in [BOB.to_owned(), format!("\"{BOB}\" <x@example.org>"), "root@nas.example.org".to_owned()] {
        let forged = text.replace(&format!("<{BOB}>"), &from);
        // The sender of the envelope is the list's own, and proves nothing about From.
        assert!(bring(&pair, forged.as_bytes()).starts_with("550 5.7."), "{from}");
    }
    assert_eq!(bring(&pair, text.as_bytes()), refused);
    assert_eq!(kept(&pair), (0, 0));

    let mut client = Client::connect(pair.edge().doors.submissions).expect("connected");
    client.secure(&pair.tls().expect("a client"), &pair.edge_hostname).expect("secure");
    client.expect(220).expect("greeted");
    client.say("EHLO client.example", 250).expect("answered");
    let bob = pair.account(BOB);
    assert_eq!(client.login(BOB, &bob.submission_password).expect("answered").code, 235);
    let reply = client.deliver(BOB, &[ALICE], text.as_bytes()).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
    observe::until("it in the inbox", || kept(&pair), |kept| *kept == (1, 0));

    // What left signed may come back by a list; changed, it needs the list's word.
    let sent = submit(&pair, BOB, &format!("MAIL FROM:<{BOB}>"), text.replace(LIST, FRIEND).as_bytes(), 0);
    assert!(bring(&pair, &sent).starts_with("250 "));
    assert_eq!(kept(&pair), (2, 0));
    let broken = [LIST_ID.as_bytes(), &changed(&sent)].concat();
    assert_eq!(bring(&pair, &broken), refused);
    let by_list = dkimpy::sign(&broken, "lists.example", "s1", &key).expect("signed");
    assert!(bring(&pair, &by_list).starts_with("250 "));
    assert_eq!(kept(&pair), (2, 1));
}
