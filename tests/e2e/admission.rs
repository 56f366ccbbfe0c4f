//! How strangers are let in: who speaks before it is greeted, who is made to wait for that, and what a name in EHLO is
//! good for. All clients are of this machine, so `admission.loopback` makes strangers of them.

use std::net::IpAddr;
use std::time::Duration;

use gatepost_edge::admission::Admission;
use gatepost_edge::config::Config;
use gatepost_edge::config::admission::AdmissionSettings;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::resolver::Resolver;
use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::world::dns::Dns;
use gatepost_tests::world::ports;

use super::{ALICE, started};

/// Who waits, waits so long. Far longer than a busy machine takes to greet.
const DELAY: Duration = Duration::from_secs(5);

/// One client is listed; the sender's domain exists.
const ZONE: &str = "\
b.example. 60 IN A 127.0.0.66
2.0.0.127.list.example. 60 IN A 127.0.0.2
68.0.0.127.list.example. 60 IN A 127.0.0.2
";

fn pair() -> Pair {
    let options = Options { zone: ZONE.to_owned(), ..Options::story() };
    let lists = "dnslist=[{ zone = \"list.example\" }]";
    let options = options.edge_set("admission.loopback=true").edge_set("bans.loopback=true").edge_set(lists);
    started(&options.edge_set(&format!("admission.greeting_delay=\"{} s\"", DELAY.as_secs())))
}

fn ip(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

fn connected(pair: &Pair, from: IpAddr) -> Client {
    Client::connect_from(from, pair.edge().doors.smtp).expect("connected")
}

/// Whether this client waits to be greeted.
fn waits(pair: &Pair, from: IpAddr) -> bool {
    let clock = Clock::real();
    let since = clock.now();
    let mut client = connected(pair, from);
    client.expect(220).expect("greeted");
    clock.now().saturating_duration_since(since) >= DELAY
}

/// Sends a message; the last reply.
fn send(pair: &Pair, from: IpAddr, helo: &str, to: &str) -> String {
    let mut client = connected(pair, from);
    client.expect(220).expect("greeted");
    client.say(&format!("EHLO {helo}"), 250).expect("EHLO");
    client.say("MAIL FROM:<eve@b.example>", 250).expect("MAIL");
    let answer = client.ask(&format!("RCPT TO:<{to}>")).expect("answered");
    if answer.code != 250 {
        return format!("{} {}", answer.code, answer.lines.join(" "));
    }
    client.say("DATA", 354).expect("DATA");
    client.send(b"From: <eve@b.example>\r\n\r\nhello\r\n.\r\n").expect("sent");
    let answer = client.answer().expect("answered");
    format!("{} {}", answer.code, answer.lines.join(" "))
}

fn taken(reply: &str) -> bool {
    reply.starts_with("250 ")
}

#[test]
fn who_speaks_before_it_is_greeted_hears_554_at_once_and_has_a_strike() {
    let pair = pair();
    let clock = Clock::real();
    // Listed: it would be greeted late, and is caught while it waits.
    let since = clock.now();
    let mut hasty = connected(&pair, ip(68));
    hasty.send(b"EHLO x\r\nMAIL FROM:<eve@b.example>\r\n").expect("sent");
    let heard = hasty.answer().expect("answered");
    assert_eq!((heard.code, heard.text().as_str()), (554, "5.5.1 You spoke before you were greeted"));
    assert!(hasty.is_closed() && clock.now().saturating_duration_since(since) < DELAY);
    observe::until(
        "the strike",
        || pair.edge().program.said(),
        |said| said.contains("INFO strike client=127.0.0.68 kind=\"abuse\""),
    );
}

#[test]
fn only_suspects_wait_to_be_greeted_and_none_whose_network_has_brought_good_mail() {
    let pair = pair();
    assert!(!waits(&pair, ip(66)), "no list knows it");
    assert!(waits(&pair, ip(68)), "it is listed");
    let mut rude = connected(&pair, ip(66));
    rude.expect(220).expect("greeted");
    rude.send(b"NOOP\nNOOP\r\n").expect("sent");
    assert!(rude.answer().is_ok_and(|answer| answer.code >= 500));
    observe::until("the strike", || pair.edge().program.said(), |said| said.contains("INFO strike client=127.0.0.66"));
    assert!(waits(&pair, ip(66)), "it had a strike");
    // What lies in Junk is no recommendation.
    assert!(taken(&send(&pair, ip(68), "mx.bad.example", ALICE)));
    assert!(waits(&pair, ip(68)));
    assert!(taken(&send(&pair, ip(66), "mx.good.example", ALICE)));
    for last in [66, 67, 68] {
        assert!(!waits(&pair, ip(last)), "its network is known: {last}");
    }
}

/// Not by connections: loopback addresses have a name everywhere.
#[test]
fn an_address_without_a_name_waits_to_be_greeted() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let records = "7.2.0.192.in-addr.arpa. 60 IN PTR mx.good.example.\nmx.good.example. 60 IN A 192.0.2.7\n";
        let dns = Dns::start(ports::free(), records).await.expect("a name server");
        let state = tempfile::tempdir().expect("a folder");
        let (clock, settings) = (Clock::still(Duration::ZERO), AdmissionSettings::default());
        let delay = settings.greeting_delay;
        let file = state.path().join("edge.toml");
        std::fs::write(&file, "hostname = \"mail.example.org\"\n").expect("written");
        let limits = Config::load(&file, None).expect("good").limits;
        let admission =
            Admission::open(state.path(), Resolver::new(&[dns.address()]), settings, &limits, clock.clone());
        for (last, struck, waits) in [(7, false, false), (8, false, true), (7, true, true)] {
            let client = IpAddr::from([192, 0, 2, last]);
            let arrival = admission.begin(client);
            let mut patience = Box::pin(admission.patience(&arrival, client, struck));
            // Who need not wait is let in as fast as this machine can; who must is seen to wait for a while.
            let seen = if waits { Duration::from_secs(1) } else { observe::PATIENCE };
            let waited = Clock::real().timeout(seen, &mut patience).await.is_none();
            assert_eq!(waited, waits, "{client}, struck: {struck}");
            if waited {
                clock.turn(delay);
                patience.await;
            }
        }
        let neighbour = IpAddr::from([10, 0, 0, 1]);
        admission.patience(&admission.begin(neighbour), neighbour, true).await;
    });
}

#[test]
fn regulars_are_known_after_a_restart() {
    let mut pair = pair();
    assert!(taken(&send(&pair, ip(66), "client.example", ALICE)));
    pair.edge_mut().program.stop().expect("stopped");
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    assert!(!waits(&pair, ip(68)));
}

#[test]
fn a_name_in_ehlo_refuses_only_who_takes_ours() {
    let pair = pair();
    let host = &pair.edge_hostname;
    for helo in ["localhost", "127.0.0.66", "[192.0.2.1]"] {
        assert!(taken(&send(&pair, ip(66), helo, ALICE)), "{helo}");
    }
    let said = pair.edge().program.said();
    for word in ["unqualified", "no-name", "other-address"] {
        assert!(said.contains(&format!(" odd=\"{word}\"")), "{word}: {said}");
    }
    let words =
        |name: &str| format!("550 5.7.1 You call yourself {name}, and that is who I am; say your own name in EHLO");
    assert_eq!(send(&pair, ip(66), host, ALICE), words(host));
    assert_eq!(send(&pair, ip(66), "[127.0.0.1]", ALICE), words("[127.0.0.1]"));
    assert!(taken(&send(&pair, ip(66), host, "postmaster@example.org")), "postmaster hears everybody");
    assert!(taken(&send(&pair, ip(1), "[127.0.0.1]", ALICE)), "so it is");
}

/// With this in the edge's config.
fn strict(settings: &[&str]) -> Pair {
    let options = Options { zone: ZONE.to_owned(), ..Options::story() }.edge_set("admission.loopback=true");
    let options = options.edge_set("admission.greeting_delay=\"0 s\"");
    started(&settings.iter().fold(options, |options, setting| options.edge_set(setting)))
}

#[test]
fn who_is_not_known_comes_back_and_its_neighbours_need_not() {
    let pair = strict(&["admission.greylist=\"2 s\""]);
    let put_off = "451 4.7.1 I don't know you yet, try again in 1 min";
    assert_eq!(send(&pair, ip(66), "client.example", ALICE), put_off);
    observe::until(
        "the wait to end",
        || send(&pair, ip(66), "client.example", ALICE),
        |heard| {
            assert!(heard == put_off || taken(heard), "{heard}");
            taken(heard)
        },
    );
    assert!(taken(&send(&pair, ip(67), "client.example", super::BOB)), "its network is good");
}

#[test]
fn postmaster_hears_who_is_not_known() {
    let pair = strict(&["admission.greylist=\"1 h\""]);
    assert!(taken(&send(&pair, ip(66), "client.example", "postmaster@example.org")));
}

#[test]
fn more_than_a_minutes_share_is_put_off() {
    let pair = strict(&["limits.messages_per_minute_per_network=2", "limits.connections_per_minute_per_network=4"]);
    for _ in 0..2 {
        assert!(taken(&send(&pair, ip(66), "client.example", ALICE)));
    }
    let mut third = connected(&pair, ip(67));
    third.expect(220).expect("greeted");
    third.say("EHLO client.example", 250).expect("EHLO");
    let heard = third.ask("MAIL FROM:<eve@b.example>").expect("answered");
    assert_eq!(
        (heard.code, heard.text().as_str()),
        (451, "4.7.1 Too many messages for now, try again in some minutes")
    );
    connected(&pair, ip(68)).expect(220).expect("greeted");
    let mut fifth = connected(&pair, ip(69));
    let heard = fifth.answer().expect("a word");
    assert_eq!(
        (heard.code, heard.text().as_str()),
        (421, "4.7.0 Too many connections for now, try again in some minutes")
    );
    assert!(fifth.is_closed());
}

#[test]
fn who_guesses_recipients_waits_ever_longer_for_the_answer_and_nobody_else_does() {
    let pair = strict(&["admission.tarpit=\"500 ms\""]);
    let clock = Clock::real();
    let mut guesser = connected(&pair, ip(66));
    guesser.expect(220).expect("greeted");
    guesser.say("EHLO client.example", 250).expect("EHLO");
    guesser.say("MAIL FROM:<eve@b.example>", 250).expect("MAIL");
    let mut took = |number: u32| {
        let since = clock.now();
        guesser.say(&format!("RCPT TO:<guess{number}@example.org>"), 550).expect("unknown");
        clock.now().saturating_duration_since(since)
    };
    let waits: Vec<Duration> = (0..6).map(&mut took).collect();
    for (wait, least) in waits[3..].iter().zip([500, 1000, 2000]) {
        assert!(*wait >= Duration::from_millis(least), "{waits:?}");
    }
    assert!(waits[..3].iter().any(|wait| *wait < Duration::from_millis(500)), "{waits:?}");
    assert!(taken(&send(&pair, ip(67), "client.example", ALICE)));
}
