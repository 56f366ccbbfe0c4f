//! The client against scripted servers; `against_server` runs it against our own.

mod against_server;

use proptest::prelude::*;

use super::*;
use crate::mail::address::{Address, ReversePath};
use crate::mail::envelope::{BodyKind, Notify, Recipient, Ret};

fn config(protocol: Protocol, starttls: StartTls) -> ClientConfig {
    ClientConfig {
        helo: "client.example".into(),
        protocol,
        starttls,
        login: None,
        nonce: [5; 18],
        limits: ClientLimits::default(),
    }
}

fn smtp() -> ClientConfig {
    config(Protocol::Smtp, StartTls::Never)
}

#[expect(clippy::disallowed_methods, reason = "a machine needs some moment to start from")]
fn moment() -> Instant {
    Instant::now()
}

fn facts() -> TlsFacts {
    TlsFacts { version: "TLSv1.3".into(), exporter: Some([7; 32]), ..TlsFacts::default() }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient::plain(Address::parse(text).expect("valid"));
    Envelope {
        reverse_path: ReversePath::parse("a@b.c").expect("valid"),
        recipients: recipients.iter().map(recipient).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

/// A client, what it said, and what it told.
struct Talk {
    client: Client,
    now: Instant,
    said: Vec<u8>,
    events: VecDeque<Event>,
    secure: bool,
    closed: bool,
}

impl Talk {
    fn new(config: ClientConfig) -> Self {
        let now = moment();
        let client = Client::new(config, now);
        Self { client, now, said: Vec::new(), events: VecDeque::new(), secure: false, closed: false }
    }

    /// Up to [`Event::Ready`], with what EHLO offers.
    fn ready(config: ClientConfig, offers: &str) -> Self {
        let mut talk = Self::new(config);
        talk.hear("220 hi\r\n");
        let lines: Vec<_> =
            std::iter::once("host").chain(offers.split_whitespace()).map(|w| w.replace('_', " ")).collect();
        talk.hear_reply(&Reply::hello(&lines[0], lines[1..].to_vec()));
        assert!(matches!(talk.event(), Some(Event::Ready)));
        talk.said.clear();
        talk
    }

    fn hear_reply(&mut self, reply: &Reply) {
        self.client.bytes(self.now, &reply.wire());
        self.drain();
    }

    fn hear(&mut self, text: &str) {
        self.client.bytes(self.now, text.as_bytes());
        self.drain();
    }

    fn start(&mut self, recipients: &[&str]) {
        self.start_envelope(envelope(recipients), false);
    }

    fn start_envelope(&mut self, envelope: Envelope, eight_bit: bool) {
        self.client.start(self.now, envelope, 10, eight_bit);
        self.drain();
    }

    fn body(&mut self, text: &'static str) {
        self.client.body(self.now, Bytes::from_static(text.as_bytes()));
        self.client.body_end(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.client.poll(self.now) {
                Output::Send(bytes) => self.said.extend_from_slice(&bytes),
                Output::Event(event) => self.events.push_back(event),
                Output::Secure => self.secure = true,
                Output::Wait { .. } => return,
                Output::Close => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    fn said(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.said)).expect("text")
    }

    fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The codes of the outcomes: `+250`, `~450`, `-550`.
    fn outcomes(&mut self) -> Vec<String> {
        match self.event() {
            Some(Event::Done(outcomes)) => outcomes.iter().map(outcome).collect(),
            other => panic!("not done: {other:?}"),
        }
    }

    fn failure(&mut self) -> (Stage, u16) {
        match self.event() {
            Some(Event::Failed(failure)) => {
                assert!(self.events.is_empty() && self.closed, "nothing follows a failure");
                (failure.stage, failure.reply.code())
            }
            other => panic!("no failure: {other:?}"),
        }
    }
}

fn outcome(outcome: &Outcome) -> String {
    let sign = match outcome {
        Outcome::Accepted(_) => '+',
        Outcome::Deferred(_) => '~',
        Outcome::Refused(_) => '-',
    };
    format!("{sign}{}", outcome.reply().code())
}

#[test]
fn one_command_at_a_time_without_pipelining() {
    let mut talk = Talk::ready(smtp(), "");
    talk.start(&["x@y.z", "u@y.z"]);
    for (said, reply) in [
        ("MAIL FROM:<a@b.c>\r\n", "250 ok\r\n"),
        ("RCPT TO:<x@y.z>\r\n", "250 ok\r\n"),
        ("RCPT TO:<u@y.z>\r\n", "550 5.1.1 no\r\n"),
        ("DATA\r\n", "354 go\r\n"),
    ] {
        assert_eq!(talk.said(), said);
        talk.hear(reply);
    }
    assert!(matches!(talk.event(), Some(Event::Body)));
    talk.body(".hello\r\n");
    assert_eq!(talk.said(), "..hello\r\n.\r\n");
    talk.hear("250 2.0.0 taken\r\n");
    assert_eq!(talk.outcomes(), ["+250", "-550"]);
    // The next one needs no RSET.
    talk.start(&["x@y.z"]);
    assert_eq!(talk.said(), "MAIL FROM:<a@b.c>\r\n");
}

#[test]
fn all_at_once_with_pipelining() {
    let mut talk = Talk::ready(smtp(), "PIPELINING SIZE_100 8BITMIME");
    talk.start(&["x@y.z", "u@y.z", "v@y.z"]);
    assert_eq!(
        talk.said(),
        "MAIL FROM:<a@b.c> SIZE=10\r\nRCPT TO:<x@y.z>\r\nRCPT TO:<u@y.z>\r\nRCPT TO:<v@y.z>\r\nDATA\r\n"
    );
    talk.hear("250 ok\r\n450 later\r\n250 ok\r\n552 too many\r\n354 go\r\n");
    assert!(matches!(talk.event(), Some(Event::Body)));
    talk.body("hi");
    assert_eq!(talk.said(), "hi\r\n.\r\n");
    talk.hear("451 disk\r\n");
    assert_eq!(talk.outcomes(), ["~450", "~451", "~552"]);
}

#[test]
fn a_group_is_bounded() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"; 200]);
    assert_eq!(talk.said().lines().count(), 64);
    talk.hear(&"250 ok\r\n".repeat(64));
    assert_eq!(talk.said().lines().count(), 64);
    talk.hear(&"250 ok\r\n".repeat(137));
    let said = talk.said();
    assert_eq!((said.lines().count(), said.ends_with("\r\nDATA\r\n")), (202 - 128, true));
}

#[test]
fn nobody_accepted_after_data_was_said() {
    for (replies, outcomes) in [
        ("250 ok\r\n550 no\r\n450 no\r\n554 nobody\r\n", ["-550", "~450"]),
        ("550 5.7.1 not you\r\n503 x\r\n503 x\r\n503 x\r\n", ["-550", "-550"]),
        ("250 ok\r\n550 no\r\n450 no\r\n451 nobody\r\n", ["-550", "~450"]),
    ] {
        let mut talk = Talk::ready(smtp(), "PIPELINING");
        talk.start(&["x@y.z", "u@y.z"]);
        talk.said();
        talk.hear(replies);
        assert_eq!(talk.outcomes(), outcomes, "{replies:?}");
        // The next transaction starts clean.
        talk.start(&["x@y.z"]);
        assert_eq!(talk.said(), "RSET\r\nMAIL FROM:<a@b.c>\r\nRCPT TO:<x@y.z>\r\nDATA\r\n");
        talk.hear("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
        assert!(matches!(talk.event(), Some(Event::Body)));
    }
}

#[test]
fn a_message_for_nobody_is_ended_by_a_lone_dot() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.said();
    talk.hear("250 ok\r\n550 no\r\n354 go\r\n");
    assert_eq!(talk.said(), ".\r\n");
    talk.hear("554 nobody\r\n");
    assert_eq!(talk.outcomes(), ["-550"]);
    assert!(!talk.closed);
}

#[test]
fn data_refused_is_the_outcome_of_those_accepted() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z", "u@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n550 no\r\n452 4.3.1 full\r\n");
    assert_eq!(talk.outcomes(), ["~452", "-550"]);
}

#[test]
fn a_positive_reply_to_data_delivers_nothing() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n250 ok?\r\n");
    assert_eq!(talk.outcomes(), ["~451"]);
    assert_eq!(talk.failure(), (Stage::Transaction, 451));
}

#[test]
fn lmtp_answers_once_for_each_recipient() {
    let mut talk = Talk::ready(config(Protocol::Lmtp, StartTls::Never), "PIPELINING");
    talk.start(&["x@y.z", "u@y.z", "v@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n");
    assert!(matches!(talk.event(), Some(Event::Body)));
    talk.body("hi\r\n");
    talk.hear("250 stored\r\n");
    assert!(talk.event().is_none());
    talk.hear("452 4.2.2 full\r\n");
    assert_eq!(talk.outcomes(), ["+250", "-550", "~452"]);
}

#[test]
fn lmtp_keeps_what_was_answered_when_the_connection_breaks() {
    let mut talk = Talk::ready(config(Protocol::Lmtp, StartTls::Never), "PIPELINING");
    talk.start(&["x@y.z", "u@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.body("hi\r\n");
    talk.hear("250 stored\r\n");
    talk.client.end(talk.now);
    talk.drain();
    assert_eq!(talk.outcomes(), ["+250", "~451"]);
    assert_eq!(talk.failure(), (Stage::Final, 451));
}

#[test]
fn what_the_server_cannot_take_is_never_sent() {
    let done = |offers: &str, envelope: Envelope, octets: u64, eight_bit: bool| {
        let mut talk = Talk::ready(smtp(), offers);
        talk.client.start(talk.now, envelope, octets, eight_bit);
        talk.drain();
        assert_eq!(talk.said(), "");
        talk.outcomes()
    };
    let ascii = || envelope(&["x@y.z"]);
    assert_eq!(done("SIZE_100", ascii(), 101, false), ["-552"]);
    assert_eq!(done("SIZE_100", ascii(), 10, true), ["-554"]);
    assert_eq!(done("8BITMIME", envelope(&["jörg@y.z"]), 10, false), ["-550"]);
    assert_eq!(done("8BITMIME", Envelope { smtputf8: true, ..ascii() }, 10, true), ["-550"]);
    assert_eq!(done("", envelope(&[]), 10, true), Vec::<String>::new());

    // Only the recipient that needs it is refused; a message that turned out ASCII goes.
    let mut talk = Talk::ready(smtp(), "PIPELINING SIZE_0");
    talk.start_envelope(Envelope { smtputf8: true, ..envelope(&["jörg@y.z", "x@y.z"]) }, false);
    assert_eq!(talk.said(), "MAIL FROM:<a@b.c> SIZE=10\r\nRCPT TO:<x@y.z>\r\nDATA\r\n");
    talk.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.body("hi\r\n");
    talk.hear("250 ok\r\n");
    assert_eq!(talk.outcomes(), ["-550", "+250"]);
}

#[test]
fn parameters_go_only_where_they_are_offered() {
    let recipient = Recipient {
        notify: Notify::On { success: true, failure: true, delay: false },
        orcpt: Some("rfc822;a+b@c.d".into()),
        ..Recipient::plain(Address::parse("\"a b\"@y.z").expect("valid"))
    };
    let envelope = Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![recipient],
        body: BodyKind::EightBit,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("a=b".into()),
    };
    let mut talk = Talk::ready(smtp(), "PIPELINING DSN 8BITMIME SMTPUTF8");
    talk.start_envelope(envelope.clone(), true);
    assert_eq!(
        talk.said(),
        "MAIL FROM:<> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+3Db\r\n\
         RCPT TO:<\"a b\"@y.z> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c.d\r\nDATA\r\n"
    );
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start_envelope(envelope, false);
    assert_eq!(talk.said(), "MAIL FROM:<>\r\nRCPT TO:<\"a b\"@y.z>\r\nDATA\r\n");
}

#[test]
fn helo_for_a_host_that_knows_no_ehlo() {
    let mut talk = Talk::new(smtp());
    talk.hear("220 old\r\n");
    assert_eq!(talk.said(), "EHLO client.example\r\n");
    talk.hear("502 what?\r\n");
    assert_eq!(talk.said(), "HELO client.example\r\n");
    talk.hear("250 hi\r\n");
    assert!(matches!(talk.event(), Some(Event::Ready)));
    assert_eq!(*talk.client.offered(), Offered::default());
}

#[test]
fn hosts_that_will_not_have_us() {
    for (replies, stage, code) in [
        (&["554 go away\r\n"][..], Stage::Hello, 554),
        (&["421 busy\r\n"], Stage::Hello, 421),
        (&["220 hi\r\n", "451 later\r\n"], Stage::Hello, 451),
        (&["220 hi\r\n", "502 x\r\n", "550 x\r\n"], Stage::Hello, 550),
        (&["SSH-2.0-OpenSSH\r\n"], Stage::Hello, 451),
        (&["220-hi\r\n221 x\r\n"], Stage::Hello, 451),
    ] {
        let mut talk = Talk::new(smtp());
        for reply in replies {
            talk.hear(reply);
        }
        assert_eq!(talk.failure(), (stage, code), "{replies:?}");
    }
}

#[test]
fn starttls_as_far_as_it_is_wanted_and_offered() {
    // Not offered.
    let mut talk = Talk::new(config(Protocol::Smtp, StartTls::Required));
    talk.hear("220 hi\r\n");
    talk.hear("250 hi\r\n");
    assert_eq!(talk.failure(), (Stage::Tls, 451));
    assert!(talk.said().ends_with("QUIT\r\n"));
    // Offered and refused.
    for (starttls, goes_on) in [(StartTls::Required, false), (StartTls::Opportunistic, true)] {
        let mut talk = Talk::new(config(Protocol::Smtp, starttls));
        talk.hear("220 hi\r\n");
        talk.hear("250-hi\r\n250 STARTTLS\r\n");
        assert!(talk.said().ends_with("STARTTLS\r\n"));
        talk.hear("454 not now\r\n");
        assert_eq!(matches!(talk.event(), Some(Event::Ready)), goes_on);
    }
    // Offered and accepted: what the server said before is forgotten.
    let mut talk = Talk::new(config(Protocol::Smtp, StartTls::Opportunistic));
    talk.hear("220 hi\r\n");
    talk.hear("250-hi\r\n250-DSN\r\n250 STARTTLS\r\n");
    talk.hear("220 go\r\n");
    assert!(talk.secure);
    talk.said();
    talk.client.secured(talk.now, facts());
    talk.drain();
    assert_eq!(talk.said(), "EHLO client.example\r\n");
    talk.hear("250-hi\r\n250 PIPELINING\r\n");
    assert!(matches!(talk.event(), Some(Event::Ready)));
    assert_eq!(*talk.client.offered(), Offered { pipelining: true, ..Offered::default() });
}

#[test]
fn plaintext_behind_the_reply_to_starttls_ends_the_connection() {
    let mut talk = Talk::new(config(Protocol::Smtp, StartTls::Opportunistic));
    talk.hear("220 hi\r\n");
    talk.hear("250-hi\r\n250 STARTTLS\r\n");
    talk.hear("220 go\r\n250-injected\r\n");
    assert!(!talk.secure);
    assert_eq!(talk.failure(), (Stage::Tls, 451));
}

#[test]
fn a_connection_lost_says_how_far_it_had_come() {
    let lost = |steps: &[&str], body: bool| {
        let mut talk = Talk::ready(smtp(), "PIPELINING");
        talk.start(&["x@y.z", "u@y.z"]);
        for step in steps {
            talk.hear(step);
        }
        talk.events.clear();
        if body {
            talk.body("hi\r\n");
        }
        talk.client.end(talk.now);
        talk.drain();
        (talk.outcomes(), talk.failure())
    };
    let all = vec!["~451".to_owned(), "~451".to_owned()];
    assert_eq!(lost(&[], false), (all.clone(), (Stage::Transaction, 451)));
    let refused = vec!["-550".to_owned(), "~451".to_owned()];
    assert_eq!(lost(&["250 ok\r\n550 no\r\n"], false), (refused.clone(), (Stage::Transaction, 451)));
    assert_eq!(
        lost(&["250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"], false),
        (refused.clone(), (Stage::Transaction, 451))
    );
    assert_eq!(lost(&["250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n"], true), (refused, (Stage::Final, 451)));
}

#[test]
fn the_last_reply_counts_even_if_the_connection_ends_with_it() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.body("hi\r\n");
    talk.client.bytes(talk.now, b"250 taken\r\n");
    talk.client.end(talk.now);
    talk.drain();
    assert_eq!(talk.outcomes(), ["+250"]);
}

#[test]
fn a_421_after_the_dot_is_an_answer() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.body("hi\r\n");
    talk.hear("421 4.3.2 shutting down\r\n");
    assert_eq!(talk.outcomes(), ["~421"]);
    assert_eq!(talk.failure(), (Stage::Transaction, 421));
}

#[test]
fn a_refusal_in_mid_message_is_believed() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.client.body(talk.now, Bytes::from_static(b"half"));
    talk.drain();
    talk.hear("552 5.3.4 too big\r\n");
    assert_eq!(talk.outcomes(), ["-552"]);
    assert_eq!(talk.failure(), (Stage::Transaction, 552));
    talk.said();
    talk.body("more\r\n");
    assert_eq!(talk.said(), "", "no dot may follow");
}

#[test]
fn a_message_with_bare_line_ends_is_not_ended_by_a_dot() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    talk.hear("250 ok\r\n250 ok\r\n354 go\r\n");
    talk.event();
    talk.said();
    talk.body("a\n.\nMAIL FROM:<evil@b.c>\r\n");
    assert_eq!(talk.said(), "");
    assert_eq!(talk.outcomes(), ["-550"]);
    assert_eq!(talk.failure(), (Stage::Transaction, 550));
}

#[test]
fn silence_ends_the_connection() {
    let mut talk = Talk::new(smtp());
    talk.now += Duration::from_secs(299);
    talk.client.deadline(talk.now);
    talk.drain();
    assert!(talk.event().is_none());
    talk.now += Duration::from_secs(1);
    talk.client.deadline(talk.now);
    talk.drain();
    assert_eq!(talk.failure(), (Stage::Hello, 451));
}

#[test]
fn a_reply_that_comes_octet_by_octet_must_be_whole_in_time() {
    let mut talk = Talk::ready(smtp(), "PIPELINING");
    talk.start(&["x@y.z"]);
    for octet in ["2", "5", "0", " "] {
        talk.now += Duration::from_mins(1);
        talk.hear(octet);
        talk.client.deadline(talk.now);
    }
    talk.now += Duration::from_mins(1);
    talk.client.deadline(talk.now);
    talk.drain();
    assert_eq!(talk.outcomes(), ["~451"]);
    assert_eq!(talk.failure(), (Stage::Transaction, 451));
}

#[test]
fn quits() {
    let mut talk = Talk::ready(smtp(), "");
    talk.client.quit(talk.now);
    talk.drain();
    assert_eq!(talk.said(), "QUIT\r\n");
    talk.hear("221 bye\r\n");
    assert!(matches!(talk.event(), Some(Event::Closed)));
    assert!(talk.closed);
}

proptest! {
    #[test]
    fn no_reply_breaks_the_client(
        pieces in proptest::collection::vec(prop_oneof![
            proptest::sample::select(vec![
                "220 hi\r\n", "250 ok\r\n", "250-x\r\n", "250-PIPELINING\r\n250 STARTTLS\r\n", "354 go\r\n", "421 x\r\n",
                "550 5.1.1 x\r\n", "334 \r\n", "334 AAAA\r\n", "235 ok\r\n", "\r", "\n",
            ]).prop_map(|text| text.as_bytes().to_vec()),
            proptest::collection::vec(any::<u8>(), 0..12),
        ], 0..16),
        login in any::<bool>(),
        lmtp in any::<bool>(),
    ) {
        let protocol = if lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let login = login.then(|| ("alice".to_owned(), Secret::from("secret")));
        let mut talk = Talk::new(ClientConfig { login, ..config(protocol, StartTls::Opportunistic) });
        let mut started = 0;
        let mut done = 0;
        for piece in pieces {
            if std::mem::take(&mut talk.secure) {
                talk.client.secured(talk.now, facts());
            }
            talk.client.bytes(talk.now, &piece);
            talk.drain();
            while let Some(event) = talk.event() {
                match event {
                    Event::Ready => {
                        started += 1;
                        talk.start(&["x@y.z", "u@y.z"]);
                    }
                    Event::Body => talk.body("hi\r\n"),
                    Event::Done(outcomes) => {
                        done += 1;
                        prop_assert_eq!(outcomes.len(), 2);
                    }
                    Event::Failed(_) | Event::Closed => {}
                }
            }
        }
        talk.client.end(talk.now);
        talk.drain();
        prop_assert!(talk.closed);
        done += talk.events.iter().filter(|event| matches!(event, Event::Done(_))).count();
        prop_assert_eq!(started, done, "each transaction ends once");
        prop_assert!(talk.events.iter().all(|event| !matches!(event, Event::Done(o) if o.len() != 2)));
    }
}
