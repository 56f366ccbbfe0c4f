//! What programs that never heard of us find out about our mail: a receiver put together of pyspf, dkimpy and
//! authheaders, and a Postfix with `OpenDKIM` and `OpenDMARC`.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_tests::client::Client;
use gatepost_tests::fault::namespace;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Addresses, Options, Outbound};
use gatepost_tests::peers::milters::Milter;
use gatepost_tests::peers::nsd::Nsd;
use gatepost_tests::peers::postfix::Postfix;
use gatepost_tests::peers::receiver::{self, Found, Session};
use gatepost_tests::peers::{ServerOptions, dkimpy, program, run};
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::{message, ports};

use super::signing::{FRIEND, publish, submit};
use super::{ALICE, STRANGER, fields, started, values};

/// Whose name is in other letters.
const JURGEN: &str = "j\u{fc}rgen@example.org";
/// An address none of these domains sends from.
const ELSEWHERE: [u8; 4] = [192, 0, 2, 7];

/// A message of each kind: parameters of MAIL, From, and the rest.
fn kinds(from: &str) -> [(&'static str, String); 4] {
    let header = format!("From: <{from}>\r\nTo: <{FRIEND}>\r\nSubject: x\r\n");
    let utf8 = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n";
    [
        ("", format!("{header}\r\nhello\r\n")),
        ("", format!("{header}\r\nlines of white space\r\n \t\r\n\r\n \r\n")),
        (" BODY=8BITMIME", format!("{header}{utf8}\r\nGr\u{fc}\u{df}e  an\talle \r\n")),
        (
            " BODY=8BITMIME SMTPUTF8",
            format!("{header}{utf8}X-Y: \u{fc}\r\nCc: \u{dc} <x@y.example>\r\n\r\n\u{20ac}\r\n"),
        ),
    ]
}

/// What the sink's neighbour finds: as the message came there, or from this client.
fn judged(pair: &Pair, nth: usize, client: [u8; 4]) -> Vec<Found> {
    let kept = observe::until("it in the sink", || pair.sink.envelopes().expect("read"), |kept| kept.len() > nth);
    let session = Session { client: client.into(), sender: &kept[nth].sender, helo: &kept[nth].hello };
    receiver::judge(&pair.sink.message(&kept[nth]).expect("kept"), session, pair.dns.address()).expect("judged")
}

#[test]
fn a_receiver_passes_what_we_signed_and_nothing_else() {
    let mut options = Options::story();
    options.accounts.push((JURGEN.to_owned(), "a path across the meadow".to_owned()));
    let pair = started(&options);
    publish(&pair, &pair);
    for (nth, (parameters, text)) in kinds(ALICE).into_iter().enumerate() {
        submit(&pair, ALICE, &format!("MAIL FROM:<{ALICE}>{parameters}"), text.as_bytes(), nth);
        let found = judged(&pair, nth, [127, 0, 0, 1]);
        assert_eq!(found.len(), 2, "both algorithms: {found:?}");
        assert!(found.iter().all(|one| one.words() == ["pass", "pass", "none", "pass"]), "{found:?}");
    }
    let (parameters, text) = &kinds(JURGEN)[3];
    let sent = submit(&pair, JURGEN, &format!("MAIL FROM:<{JURGEN}>{parameters}"), text.as_bytes(), 4);
    assert!(judged(&pair, 4, [127, 0, 0, 1]).iter().all(|one| one.words() == ["pass", "pass", "none", "pass"]));

    // A signature goes with the message wherever it goes; what was changed passes nowhere.
    let found = judged(&pair, 4, ELSEWHERE);
    assert!(found.len() == 2 && found.iter().all(|one| one.words() == ["fail", "pass", "none", "pass"]), "{found:?}");
    let changed = String::from_utf8(sent).expect("UTF-8").replace('\u{20ac}', "\u{a3}");
    let session = Session { client: ELSEWHERE.into(), sender: ALICE, helo: "mail.example.org" };
    let found = receiver::judge(changed.as_bytes(), session, pair.dns.address()).expect("judged");
    assert!(found.len() == 2 && found.iter().all(|one| one.words() == ["fail", "fail", "none", "fail"]), "{found:?}");
}

/// A key of somebody else's: its file, and the text of its record.
pub(super) fn key(folder: &Path) -> (PathBuf, String) {
    let key = folder.join("world.pem");
    let openssl = || Command::new(program("openssl"));
    run(openssl().args(["genrsa", "-out"]).arg(&key).arg("2048")).expect("a key");
    let public =
        openssl().args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(&key).output().expect("openssl runs");
    let public = STANDARD.encode(public.stdout);
    let (first, second) = public.split_at(200);
    (key, format!("TXT \"v=DKIM1; k=rsa; p={first}\" \"{second}\""))
}

/// A pair whose alias leads elsewhere, and the key of a domain of the world that writes to it.
fn forwarding(folder: &Path) -> (Pair, PathBuf) {
    let (key, record) = key(folder);
    let zone = format!(
        "world.example. 1 IN TXT \"v=spf1 ip4:127.0.0.1 -all\"\nworld.example. 1 IN A 127.0.0.1\n\
         _dmarc.world.example. 1 IN TXT \"v=DMARC1; p=none\"\nexample.org. 1 IN MX 10 mail.example.org.\n\
         s1._domainkey.world.example. 1 IN {record}\n"
    );
    let mut pair = started(&Options { zone, ..Options::story() });
    publish(&pair, &pair);
    pair.home.program.ask(&["alias", "add", "team@example.org", FRIEND]).expect("an alias");
    pair.wait_until_up();
    (pair, key)
}

fn bring(pair: &Pair, parameters: &str, message: &[u8]) {
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    client.say(&format!("MAIL FROM:<{STRANGER}>{parameters}"), 250).expect("taken");
    client.say("RCPT TO:<team@example.org>", 250).expect("taken");
    client.say("DATA", 354).expect("taken");
    client.send(&message::stuffed(message)).expect("sent");
    client.expect(250).expect("accepted");
}

#[test]
fn a_receiver_passes_what_we_forwarded_by_its_seal_and_by_its_own_signature() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (pair, key) = forwarding(scratch.path());
    for (nth, (parameters, text)) in kinds(STRANGER).into_iter().enumerate() {
        let signed = dkimpy::sign(text.as_bytes(), "world.example", "s1", &key).expect("signed");
        bring(&pair, parameters, &signed);
        let found = judged(&pair, nth, [127, 0, 0, 1]);
        // SPF by our return path, the rest by what its author signed and we left as it was.
        assert!(found.len() == 1 && found[0].words() == ["pass", "pass", "pass", "pass"], "{found:?}");
    }
    // What nobody signed passes by nothing but the seal, which says how it came.
    bring(&pair, "", kinds(STRANGER)[0].1.as_bytes());
    let found = judged(&pair, 4, [127, 0, 0, 1]);
    assert!(found.len() == 1 && found[0].words() == ["pass", "fail", "pass", "fail"], "{found:?}");
}

#[test]
#[ignore = "takes a minute; tests/run --long runs it"]
fn fifty_megabytes_pass_signed_and_forwarded() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (pair, key) = forwarding(scratch.path());
    let own = message::numbered(1, ALICE, FRIEND, 50_000_000);
    submit(&pair, ALICE, &format!("MAIL FROM:<{ALICE}>"), &own, 0);
    let found = judged(&pair, 0, [127, 0, 0, 1]);
    assert!(found.len() == 2 && found.iter().all(|one| one.words() == ["pass", "pass", "none", "pass"]), "{found:?}");
    let others = message::numbered(2, STRANGER, FRIEND, 50_000_000);
    bring(&pair, "", &dkimpy::sign(&others, "world.example", "s1", &key).expect("signed"));
    let found = judged(&pair, 1, [127, 0, 0, 1]);
    assert!(found.len() == 1 && found[0].words() == ["pass", "pass", "pass", "pass"], "{found:?}");
}

/// The Postfix, and the edge.
const MX: [u8; 4] = [93, 184, 215, 14];
const EDGE: [u8; 4] = [93, 184, 215, 15];

#[test]
fn a_postfix_with_opendkim_and_opendmarc_passes_our_mail_thrice_and_refuses_what_is_forged() {
    // Both filters let pass whatever comes from loopback, and ask the name server of the system.
    let inner = "strangers::inside_a_namespace_with_a_name_server";
    let scratch = tempfile::tempdir().expect("a directory");
    let servers = scratch.path().join("resolv.conf");
    std::fs::write(&servers, "nameserver 127.0.0.1\n").expect("written");
    let setup = format!(
        "ip link set lo up && ip address add 93.184.215.14/32 dev lo && ip address add 93.184.215.15/32 dev lo && \
         ip route replace local 93.184.215.14 dev lo table local src 93.184.215.15 && \
         mount --bind {} /etc/resolv.conf",
        servers.display()
    );
    namespace::run_inside_as_root(inner, &setup);
}

#[test]
#[ignore = "run by the test above, in a network namespace"]
fn inside_a_namespace_with_a_name_server() {
    let host = "mx.world.example";
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(scratch.path()).expect("a CA");
    let certificate = authority.issue(&[host]).expect("a certificate");
    let filters = [Milter::opendkim(host).expect("OpenDKIM"), Milter::opendmarc(host).expect("OpenDMARC")];
    let smtp = (MX, ports::free().port()).into();
    let server = ServerOptions {
        hostname: host,
        domain: "world.example",
        routes: &[],
        certificate: &certificate,
        ca: &authority.certificate(),
    };
    let postfix = Postfix::start_at(smtp, &server, &[filters[0].address, filters[1].address]).expect("Postfix starts");
    let mut options = Options::story();
    options.outbound = Outbound::Routes(vec![("world.example".to_owned(), smtp.to_string())]);
    options.addresses = Addresses { edge: EDGE.into(), ..Addresses::default() };
    let pair = started(&options);
    let zone = pair.home.program.ask(&["dns", "example.org", "--zone", "--tested"]).expect("told");
    let _nsd = Nsd::start_at(([127, 0, 0, 1], 53).into(), &[("example.org", &zone)]).expect("served");

    let tls = pair.tls().expect("a client");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, &pair.home_hostname).expect("greeted");
    assert_eq!(client.login(ALICE, &pair.account(ALICE).password).expect("answered").code, 235);
    for number in 1..=2 {
        let sent = message::numbered(number, ALICE, "user@world.example", 4096);
        let reply = client.deliver(ALICE, &["user@world.example"], &sent).expect("answered");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let maildir = postfix.maildir();
    observe::until_delivered(&maildir, &[1, 2]);
    for file in message::files(&maildir) {
        let stored = std::fs::read_to_string(&file).expect("readable").replace("\r\n", "\n");
        let fields = fields(&stored);
        let results = values(&fields, "Authentication-Results").join("\n");
        assert_eq!(results.matches("dkim=pass").count(), 2, "{stored}\n{}", postfix.said());
        for part in ["a=rsa-sha256", "a=ed25519-sha256", "spf=pass", "dmarc=pass (p=reject"] {
            assert!(results.contains(part), "{part}: {stored}\n{}", postfix.said());
        }
    }

    // The same words from elsewhere.
    let mut forger = Client::connect_from(MX.into(), smtp).expect("connected");
    forger.expect(220).expect("greeted");
    forger.say("EHLO mail.example.org", 250).expect("answered");
    let sent = message::numbered(9, ALICE, "user@world.example", 500);
    let reply = forger.deliver(ALICE, &["user@world.example"], &sent).expect("answered");
    assert_eq!((reply.code, reply.text().contains("rejected by DMARC policy")), (550, true), "{reply:?}");
}
