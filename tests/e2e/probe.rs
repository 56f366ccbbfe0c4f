//! `doctor --mail`: a probe goes out by the way all mail goes, and whoever gets it answers, or does not.

use std::collections::BTreeMap;

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::Options;
use gatepost_tests::peers::receiver::{self, Session};
use serde_json::Value;

use super::signing::publish;
use super::{ALICE, BOB, only_message, started};

const ECHO: &str = "echo@echo.example";

/// What was found, by what was looked at: the mark, and all words; and whether it ended well.
fn probe(pair: &Pair, to: &str, more: &[&str]) -> (BTreeMap<String, (String, String)>, bool) {
    let args = [&["doctor", "--json", "--mail", to][..], more].concat();
    let output = pair.home.program.cli(&args).output().expect("it runs");
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    let found = told["findings"].as_array().expect("findings").iter().map(|finding| {
        assert_eq!(finding["of"], to);
        let words = format!("{} → {}", text(finding, "found"), text(finding, "remedy"));
        (text(finding, "check"), (text(finding, "mark"), words))
    });
    (found.collect(), output.status.success())
}

/// The marks alone.
fn marks(found: &BTreeMap<String, (String, String)>) -> Vec<(&str, &str)> {
    found.iter().map(|(check, (mark, _))| (check.as_str(), mark.as_str())).collect()
}

/// Waits for message number `nth` in the sink, and sends its sender what `answer` makes of it.
fn echo(pair: &Pair, nth: usize, answer: impl Fn(&str, &str) -> String) {
    let kept = observe::until("the probe", || pair.sink.envelopes().expect("read"), |kept| kept.len() > nth);
    let message = pair.sink.message(&kept[nth]).expect("kept");
    let session = Session { client: [127, 0, 0, 1].into(), sender: &kept[nth].sender, helo: &kept[nth].hello };
    let found = receiver::judge(&message, session, pair.dns.address()).expect("judged");
    let results: Vec<String> = found.iter().map(|one| format!("{}\r\n", one.said.trim_end())).collect();
    let answer = answer(&results.concat(), &String::from_utf8_lossy(&message));
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let reply = client.deliver(ECHO, &[&kept[nth].sender], answer.as_bytes()).expect("answered");
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// Sends back what came, with what was found in front of it, as an attachment.
fn whole(results: &str, message: &str) -> String {
    format!(
        "From: <{ECHO}>\r\nSubject: What came\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n\
         --part\r\nContent-Type: text/plain\r\n\r\nYou wrote this.\r\n\
         --part\r\nContent-Type: message/rfc822\r\n\r\n{results}{message}\r\n--part--\r\n"
    )
}

#[test]
fn what_a_receiver_of_others_finds_of_the_probe_is_read_from_its_answer() {
    let pair = started(&Options::story());
    publish(&pair, &pair);
    let story = |nth: usize, answer: fn(&str, &str) -> String| {
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&pair, nth, answer));
            probe(&pair, ECHO, &["--wait", "60 s"])
        })
    };
    let good = [("answer", "good"), ("dkim", "good"), ("dmarc", "good"), ("spf", "good")];
    let (found, well) = story(0, whole);
    assert!(well && marks(&found) == good, "{found:?}");
    assert!(found["answer"].1.starts_with("echo@echo.example answered"), "{found:?}");
    // It is a letter like any other, too.
    let stored = only_message(&pair, ALICE);
    assert!(stored.contains("Subject: What came\n") && stored.contains("\nMessage-ID: <probe."), "{stored}");

    // Broken for real, and found by the same judges.
    pair.replace_records("example.org", "TXT", &["\"v=spf1 -all\""]).expect("broken");
    let (found, well) = story(1, whole);
    assert_eq!(
        (well, marks(&found)),
        (false, vec![("answer", "good"), ("dkim", "good"), ("dmarc", "good"), ("spf", "bad")]),
        "{found:?}"
    );
    assert!(found["spf"].1.contains("spf=fail → publish the SPF record"), "{found:?}");
    pair.replace_records("example.org", "TXT", &["\"v=spf1 ip4:127.0.0.1 -all\""]).expect("mended");
    let (found, well) = story(2, whole);
    assert!(well && marks(&found) == good, "{found:?}");

    // One that quotes, one that tells it in words.
    let quoted = |results: &str, message: &str| {
        let quoted: Vec<String> = format!("{results}{message}").lines().map(|line| format!("> {line}\r\n")).collect();
        format!("From: <{ECHO}>\r\nSubject: Re: x\r\n\r\nYou wrote:\r\n{}", quoted.concat())
    };
    let (found, well) = story(3, quoted);
    assert!(well && marks(&found) == good, "{found:?}");
    let in_words = |_: &str, message: &str| {
        let id = message
            .lines()
            .find(|line| line.starts_with("Message-ID: "))
            .expect("an id")
            .replace("Message-ID", "In-Reply-To");
        format!("From: <{ECHO}>\r\n{id}\r\nSubject: Results\r\n\r\nSPF check:    pass\r\nDKIM check:   fail\r\n")
    };
    let (found, well) = story(4, in_words);
    assert_eq!((well, marks(&found)), (false, vec![("answer", "good"), ("dkim", "bad"), ("spf", "good")]), "{found:?}");
}

#[test]
fn an_answer_that_tells_nothing_silence_and_a_refusal_are_told_apart() {
    let pair = started(&Options::story());
    publish(&pair, &pair);
    // Mail that is no answer, and an answer of few words.
    let (found, well) = std::thread::scope(|scope| {
        scope.spawn(|| {
            echo(&pair, 0, |_, _| format!("From: <{ECHO}>\r\nSubject: News\r\n\r\nSPF check: fail\r\n"));
            echo(&pair, 0, |_, message| {
                let subject = message.lines().find(|line| line.starts_with("Subject: ")).expect("a subject");
                format!("From: <{ECHO}>\r\n{subject}\r\n\r\nThank you.\r\n")
            });
        });
        probe(&pair, ECHO, &["--wait", "3 min", "--from", BOB])
    });
    assert_eq!((well, marks(&found)), (true, vec![("answer", "good"), ("results", "unsure")]), "{found:?}");
    assert!(found["results"].1.contains(&format!("in the mailbox of {BOB}")), "{found:?}");

    // Long enough for the attempt itself on a busy machine; nothing comes after it.
    let (silent, refused, deferred) = std::thread::scope(|scope| {
        let silent = scope.spawn(|| probe(&pair, "silent@echo.example", &["--wait", "15 s"]));
        let deferred = scope.spawn(|| probe(&pair, "defer@echo.example", &["--wait", "15 s"]));
        let refused = probe(&pair, "refuse@echo.example", &["--wait", "3 min"]);
        (silent.join().expect("it ends"), refused, deferred.join().expect("it ends"))
    });
    let (found, well) = silent;
    assert_eq!((well, marks(&found)), (false, vec![("answer", "bad"), ("delivery", "good")]), "{found:?}");
    assert!(found["delivery"].1.contains("sent to silent@echo.example: "), "{found:?}");

    let (found, well) = refused;
    assert_eq!((well, marks(&found)), (false, vec![("delivery", "bad")]), "{found:?}");
    let words = &found["delivery"].1;
    assert!(words.contains("550 5.1.1 ") && words.contains("Check the address for a typing error"), "{words}");

    let (found, well) = deferred;
    assert_eq!((well, marks(&found)), (false, vec![("delivery", "bad")]), "{found:?}");
    let words = &found["delivery"].1;
    assert!(words.contains("waiting in the queue for defer@echo.example") && words.contains("451 4.2.0"), "{words}");

    for (args, why) in [
        (["--mail", BOB, "--from", ALICE], "is in a domain of this home"),
        (["--mail", ECHO, "--from", "x@elsewhere.example"], "is no address of this home"),
        (["--mail", "nobody", "--from", ALICE], "is no address"),
    ] {
        let output = pair.home.program.cli(&[&["doctor"][..], &args].concat()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{args:?}: {said}");
    }
}
