//! A CA that is down, slow, talks nonsense, wants to be left alone or is of another time: what keeps our certificates asks
//! it over real sockets, says what is wrong, comes back when it may, and orders nothing in vain.

use std::time::Duration;

use gatepost_protocol::mail::address::Address;
use gatepost_runtime::acme::keeper::{self, Origin};
use gatepost_runtime::acme::settings::{Proof, Settings};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::resolver::Resolver;
use gatepost_runtime::shutdown::Shutdown;
use gatepost_tests::observe;
use gatepost_tests::world::authority::Authority;
use gatepost_tests::world::strange_ca::{Act, StrangeCa, well_behaved};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

const DAY_S: i64 = 24 * 3600;

struct Seen {
    /// What `status` says of it.
    told: Value,
    /// When it is tried next, in seconds from now.
    next_s: i64,
    asked: Vec<String>,
}

/// What comes of one try with a CA of such a manner.
/// Unless time passes, nothing ever takes too long.
fn tried(date_off_s: i64, believed: bool, manner: impl Fn(&str, &str) -> Act + Send + Sync + 'static) -> Seen {
    tried_while(false, date_off_s, believed, manner)
}

fn tried_while(
    time_passes: bool,
    date_off_s: i64,
    believed: bool,
    manner: impl Fn(&str, &str) -> Act + Send + Sync + 'static,
) -> Seen {
    let folder = tempfile::tempdir().expect("a folder");
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let issued = Authority::new(&theirs).and_then(|authority| authority.issue(&["127.0.0.1"])).expect("a certificate");
    let believed = Authority::new(if believed { &theirs } else { &ours }).expect("an authority").certificate();
    let root = CertificateDer::from_pem_file(believed).expect("a root");
    let ca = StrangeCa::start(issued.server_config().expect("TLS"), date_off_s, manner).expect("it listens");
    let settings = Settings {
        email: Address::parse("you@example.org").expect("valid"),
        directory: ca.directory(),
        roots: vec![root.as_ref().to_vec()],
        names: Vec::new(),
        proof: Proof::Http,
        profile: None,
        external_account: None,
        retry: Duration::from_mins(5),
        rsa: false,
        rollover: Duration::from_hours(48),
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    // It stands: one try, and no second one.
    let clock = Clock::still(Duration::from_secs(Clock::real().unix_s().unsigned_abs()));
    let (shutdown, signal) = Shutdown::new();
    let origin = Origin { files: None, acme: Some(&settings), hostname: "mail.example.org", state: folder.path() };
    let kept = keeper::start(origin, Resolver::new(&[]), clock.clone(), signal).expect("it starts");
    let told = observe::until(
        "the failure to be told",
        || {
            // Once it was asked.
            if time_passes && !ca.asked().is_empty() {
                clock.turn(Duration::from_secs(1));
            }
            kept.standing.json()
        },
        |told| told["failures"] == 1 && !told["why"].is_null(),
    );
    let next = told["next_try"].as_str().expect("a moment").parse::<jiff::Timestamp>().expect("a moment").as_second();
    shutdown.end();
    Seen { told, next_s: next - clock.unix_s(), asked: ca.asked() }
}

fn why(seen: &Seen) -> &str {
    seen.told["why"].as_str().expect("a reason")
}

fn refusing(at: &'static str, status: &'static str, field: &str, body: &str) -> Seen {
    let (field, body) = (field.to_owned(), body.to_owned());
    tried(0, true, move |path, base| {
        if path == at {
            let fields = vec!["Replay-Nonce: bm9uY2U".to_owned(), field.clone()];
            return Act::Answer(status, fields, body.clone());
        }
        well_behaved(path, base)
    })
}

#[test]
fn what_is_no_answer_is_told_and_tried_again_later() {
    let said = |text: &str| Act::Answer("200 OK", vec![], text.to_owned());
    let cases = [
        ("is no proper answer", said("<html>maintenance</html>")),
        ("is no proper answer", said("{\"newNonce\":17}")),
        ("longer than 1048576 octets", Act::Endless),
        ("broke off", Act::BreakOff),
        ("no answer within 30 s", Act::Silence),
    ];
    for (words, act) in cases {
        let seen = tried_while(words.starts_with("no answer"), 0, true, move |_, _| act.clone());
        assert!(why(&seen).contains(words), "{}", why(&seen));
        assert!((240..=400).contains(&seen.next_s), "{words}: {}", seen.next_s);
        assert_eq!(seen.asked, ["/dir"], "{words}");
    }
}

#[test]
fn a_ca_nobody_vouches_for_any_more_is_not_spoken_to() {
    let seen = tried(0, false, well_behaved);
    assert!(why(&seen).contains("can't connect to 127.0.0.1"), "{}", why(&seen));
    assert!(seen.asked.is_empty(), "{:?}", seen.asked);
}

#[test]
fn who_wants_to_be_left_alone_is_left_alone_but_not_for_ever() {
    let limited =
        r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many certificates already issued"}"#;
    let date = gatepost_runtime::clock::mail_date(Clock::real().unix_s() + 7500).replace("+0000", "GMT");
    for (field, from, to) in [
        ("Retry-After: 7200".to_owned(), 7100, 7700),
        (format!("Retry-After: {date}"), 7300, 8000),
        ("Retry-After: 99999999".to_owned(), 3 * DAY_S, 4 * DAY_S),
        ("Retry-After: 18446744073709551615".to_owned(), 240, 400),
        ("Retry-After: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), 240, 400),
        ("Retry-After: at tea time".to_owned(), 240, 400),
    ] {
        for at in ["/account", "/order"] {
            let seen = refusing(at, "429 Too Many Requests", &field, limited);
            assert!(why(&seen).contains("(rateLimited): too many certificates"), "{}", why(&seen));
            assert!((from..=to).contains(&seen.next_s), "{field} at {at}: {}", seen.next_s);
        }
    }
}

#[test]
fn a_refusal_is_told_in_the_cas_words_and_one_without_words_is_no_harm() {
    let terms = r#"{"type":"urn:ietf:params:acme:error:userActionRequired","detail":"agree to the new terms at https://ca.example/terms"}"#;
    let seen =
        refusing("/account", "403 Forbidden", "Link: <https://ca.example/terms>;rel=\"terms-of-service\"", terms);
    assert!(why(&seen).contains("agree to the new terms at https://ca.example/terms"), "{}", why(&seen));
    for body in [
        "",
        "null",
        "[]",
        "oops",
        "{\"type\":7}",
        "{\"detail\":{}}",
        "{\"subproblems\":[{\"identifier\":null}]}",
        "{}",
        "\u{0}\u{1b}[31m",
    ] {
        for status in ["400 Bad Request", "500 Internal Server Error", "418 I'm a teapot"] {
            for at in ["/account", "/order"] {
                let seen = refusing(at, status, "X-Nothing: at all", body);
                assert!(!why(&seen).is_empty() && !why(&seen).contains('\u{1b}'), "{body}: {}", why(&seen));
            }
        }
    }
}

#[test]
fn nothing_is_ordered_under_a_date_that_is_years_off() {
    for (off_s, words) in [(3650 * DAY_S, "behind"), (-3650 * DAY_S, "ahead of")] {
        let seen = tried(off_s, true, well_behaved);
        assert!(why(&seen).contains(&format!("3650 days {words} the CA's; set the clock right")), "{}", why(&seen));
        assert!(!seen.asked.contains(&"/order".to_owned()), "{:?}", seen.asked);
    }
}
