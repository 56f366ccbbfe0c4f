//! Every frame and record of the tunnel, and the header of a sealed message, against bytes kept in
//! `tests/golden/*.hex`: what an older or newer build on the other side of a tunnel reads and writes.
//!
//! A difference here is a change of the protocol, and existing pairs will feel it. A new record gets
//! a line below and its file by `GOLDEN=write cargo test -p gatepost-protocol --test golden`, which
//! writes missing files only. To change a kept one, delete its file first, and say in the commit why
//! older builds can bear it.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use gatepost_protocol::mail::access::{Access, AccessList, Rule};
use gatepost_protocol::mail::address::{Address, Domain, ReversePath};
use gatepost_protocol::mail::directory::{Directory, DomainPolicy, LoginVerifier, Room, ScramKeys, SrsVerifier};
use gatepost_protocol::mail::envelope::{BodyKind, Envelope, Notify, Recipient, Ret};
use gatepost_protocol::mail::mta_sts::{Mode, StsPolicy};
use gatepost_protocol::mail::outcome::Outcome;
use gatepost_protocol::mail::pattern::{DomainPattern, LocalPattern};
use gatepost_protocol::mail::policy::{Limit, Policies, Policy};
use gatepost_protocol::mail::reply::{Enhanced, Reply};
use gatepost_protocol::mail::services::{Service, Services};
use gatepost_protocol::mail::srs::SrsKey;
use gatepost_protocol::mail::transport::{Failure, FailureKind, Policy as TransportPolicy, PolicyKind, Sessions};
use gatepost_protocol::mail::verdict::{
    self, Asked, Dkim, Dmarc, Evidence, Found, Listed, Oddity, Override, Published, Reverse, SenderDomain, Spf, Verdict,
};
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::pairing::exchange::{Paired, PairingAnswer, PairingRefusal, PairingRequest, Side, prove};
use gatepost_protocol::seal::container::{self, ENCAPSULATED_OCTETS};
use gatepost_protocol::secret::Secret;
use gatepost_protocol::tunnel::frame::{self, DIRECTORY_OCTETS_MAX, HEADER_OCTETS};
use gatepost_protocol::tunnel::heartbeat::Beat;
use gatepost_protocol::tunnel::hello::{Hello, HelloAck, Opening, Refusal, Role};
use gatepost_protocol::tunnel::transfer::{TransferEnd, TransferId, TransferOpen, TransferSeal};
use gatepost_protocol::tunnel::transport::WireVouched;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::admin::{AdminAnswer, AdminRequest};
use gatepost_protocol::tunnel::verb::authenticate::{AuthResponse, AuthStep, Authenticate};
use gatepost_protocol::tunnel::verb::challenge::{Challenge, ChallengeAnswer};
use gatepost_protocol::tunnel::verb::directory::DirectoryHeld;
use gatepost_protocol::tunnel::verb::events::{EventBatch, EventsOpen, EventsTaken, WireEvent, WireRefused};
use gatepost_protocol::tunnel::verb::examination::{Door, Examination};
use gatepost_protocol::tunnel::verb::inbound::{Credential, Handed, Inbound, Submission};
use gatepost_protocol::tunnel::verb::relay::{
    AttemptId, AttemptRequest, AttemptState, Relay, RelayDone, RelayFacts, RelayStep, WireFloor, WireHop, WireHopTls,
};
use gatepost_protocol::tunnel::verb::splice::{Splice, SpliceNote};
use gatepost_protocol::tunnel::verb::spool::{
    SpoolDamaged, SpoolDeleted, SpoolDropped, SpoolEnd, SpoolItem, SpoolListing, SpoolPage, SpoolRequest,
};
use gatepost_protocol::tunnel::wire::{WireClient, WireEnvelope, WireOutcome, WireReply, WireTls};
use serde::Serialize;
use serde::de::DeserializeOwned;

struct Golden {
    directory: PathBuf,
    write: bool,
    seen: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Golden {
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        assert!(self.seen.insert(format!("{name}.hex")), "{name} twice");
        let path = self.directory.join(format!("{name}.hex"));
        let mut hex = String::new();
        for line in bytes.chunks(32) {
            for octet in line {
                write!(hex, "{octet:02x}").expect("a string takes it");
            }
            hex.push('\n');
        }
        match std::fs::read_to_string(&path) {
            Ok(kept) if kept == hex => {}
            Ok(kept) => self.wrong.push(format!("{name} changed.\nkept:\n{kept}now:\n{hex}")),
            Err(_) if self.write => std::fs::write(&path, hex).expect("written"),
            Err(error) => self.wrong.push(format!("{name}: {error}")),
        }
    }

    /// A record: written as kept, and read back as it was.
    fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, record: &T) {
        let mut frame = BytesMut::new();
        frame::put_record(&mut frame, record, DIRECTORY_OCTETS_MAX).expect("small");
        self.bytes(name, &frame);
        let mut whole = frame.clone();
        let read = frame::take(&mut whole, DIRECTORY_OCTETS_MAX).expect("a frame").expect("whole");
        assert_eq!(&read.record::<T>().expect("a record"), record, "{name}");
        // What a later version appends is skipped by this one.
        let mut newer = frame;
        newer.extend_from_slice(&[0xff; 3]);
        let octets = u32::try_from(newer.len() - HEADER_OCTETS).expect("small");
        newer[..4].copy_from_slice(&octets.to_be_bytes());
        let read = frame::take(&mut newer, DIRECTORY_OCTETS_MAX).expect("a frame").expect("whole");
        assert_eq!(&read.record::<T>().expect("a record"), record, "{name} of a later version");
    }

    fn done(self) {
        let there: BTreeSet<String> = std::fs::read_dir(&self.directory)
            .expect("the directory of golden bytes")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        let forgotten: Vec<_> = there.difference(&self.seen).collect();
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        assert!(forgotten.is_empty(), "kept, but of no record: {forgotten:?}");
    }
}

#[test]
fn every_record_has_the_bytes_it_always_had() {
    let mut golden = Golden {
        directory: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden"),
        write: std::env::var_os("GOLDEN").is_some_and(|value| value == "write"),
        seen: BTreeSet::new(),
        wrong: Vec::new(),
    };
    greeting(&mut golden);
    messages(&mut golden);
    logins(&mut golden);
    relays(&mut golden);
    pairing(&mut golden);
    spool(&mut golden);
    owners(&mut golden);
    golden.done();
}

fn greeting(golden: &mut Golden) {
    golden.bytes("frame-data-header", &frame::data_header(0x0102));
    for role in Role::ALL {
        let hello = Hello {
            versions: (1, 1),
            software: "gatepost 0.1.0".into(),
            node: "cottage".into(),
            session: *b"0123456789abcdef",
            role,
            features: vec!["example".into()],
        };
        golden.record(&format!("opening-hello-{role}"), &Opening::Hello(hello));
    }
    let wrong_key = Refusal::WrongKey { expected: vec![[1; 32], [2; 32]], got: [3; 32] };
    golden.record("opening-refused", &Opening::Refused(wrong_key.clone()));
    let accepted = HelloAck::Accepted {
        version: 1,
        software: "gatepost 0.1.0".into(),
        node: "vps1".into(),
        features: vec!["example".into()],
    };
    golden.record("hello-ack-accepted", &accepted);
    for (name, refusal) in [
        ("not-paired", Refusal::NotPaired { got: [3; 32] }),
        ("wrong-key", wrong_key),
        ("no-common-version", Refusal::NoCommonVersion { mine: (1, 1), yours: (2, 300) }),
        ("replaced", Refusal::Replaced),
        ("malformed", Refusal::Malformed),
    ] {
        golden.record(&format!("hello-ack-refused-{name}"), &HelloAck::Refused(refusal));
    }
    golden.record("beat-ping", &Beat::Ping(1));
    golden.record("beat-pong", &Beat::Pong(300));
    golden.record("beat-goodbye", &Beat::Goodbye(Refusal::Replaced));
    golden.record("request-heartbeat", &Request::Heartbeat);
}

fn transfer() -> TransferId {
    TransferId(*b"fedcba9876543210")
}

fn envelope() -> WireEnvelope {
    let address = |text| Address::parse(text).expect("valid");
    (&Envelope {
        reverse_path: ReversePath::parse("alice@example.org").expect("valid"),
        recipients: vec![
            Recipient::plain(address("bob@example.net")),
            Recipient {
                address: address("carol@example.net"),
                notify: Notify::On { success: true, failure: true, delay: false },
                orcpt: Some("rfc822;carol@example.com".into()),
            },
            Recipient { notify: Notify::Never, ..Recipient::plain(address("dan@example.net")) },
        ],
        body: BodyKind::EightBit,
        smtputf8: true,
        ret: Some(Ret::Headers),
        envid: Some("QQ314159".into()),
    })
        .into()
}

fn bare_envelope() -> WireEnvelope {
    (&Envelope {
        reverse_path: ReversePath::Null,
        recipients: vec![Recipient::plain(Address::parse("bob@example.net").expect("valid"))],
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    })
        .into()
}

fn tls() -> WireTls {
    WireTls { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into(), group: "X25519MLKEM768".into() }
}

fn open() -> TransferOpen {
    TransferOpen {
        transfer: transfer(),
        trace: [7; 10],
        envelope: envelope(),
        client: WireClient {
            address: IpAddr::from([192, 0, 2, 1]),
            helo: "mx.example.org".into(),
            with: "ESMTPS".into(),
            tls: Some(tls()),
        },
        received_unix_s: 1_795_176_000,
    }
}

fn reply(code: u16, enhanced: Enhanced) -> WireReply {
    (&Reply::new(code, Some(enhanced), vec!["one".into(), "two".into()])).into()
}

fn messages(golden: &mut Golden) {
    golden.record("request-inbound", &Request::Inbound(Box::new(Inbound { open: open() })));
    let six = WireClient { address: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), tls: None, ..open().client };
    let bare = TransferOpen { client: six, envelope: bare_envelope(), ..open() };
    golden.record("request-inbound-bare", &Request::Inbound(Box::new(Inbound { open: bare })));
    for (name, credential) in [
        ("grant", Credential::Grant([9; 16])),
        ("password", Credential::Password { login: "alice".into(), password: b"hunter2".to_vec() }),
        (
            "scram",
            Credential::Scram {
                mechanism: "SCRAM-SHA-256".into(),
                client_first: b"n,,n=alice,r=a".to_vec(),
                server_first: b"r=ab,s=AAAA,i=4096".to_vec(),
                client_final: b"c=biws,r=ab,p=AAAA".to_vec(),
                exporter: Some([5; 32]),
            },
        ),
    ] {
        let submission = Submission { open: open(), credential };
        golden.record(&format!("request-submission-{name}"), &Request::Submission(Box::new(submission)));
    }
    let seal = TransferSeal {
        octets: 5,
        sha256: [4; 32],
        verdict: (&Verdict { hops: 3, ..Verdict::default() }).into(),
        front: b"Received: x\r\n".to_vec(),
    };
    golden.record("transfer-end-whole", &TransferEnd::Whole(seal.clone()));
    let judged = Verdict { hops: 3, ..judged() };
    golden.record("transfer-end-judged", &TransferEnd::Judged(seal.clone(), (&judged).into()));
    golden.record("transfer-end-abort", &TransferEnd::Abort);
    golden.record("handed", &Handed { reply: reply(250, Enhanced(2, 0, 0)) });
}

fn judged() -> Verdict {
    let spf = |found| Spf { found, domain: "example.com".into() };
    let evidence = Evidence {
        reverse: Reverse { found: Found::Pass, name: Some("mx.example.com".into()) },
        spf_helo: spf(Found::None),
        spf_mail: spf(Found::SoftFail),
        dkim: vec![Dkim {
            found: Found::Fail,
            domain: "example.com".into(),
            selector: "s1".into(),
            algorithm: "ed25519-sha256".into(),
            signature: "abcd".into(),
            why: Some("so".into()),
        }],
        arc: verdict::Arc { found: Found::PermError, sealers: vec!["lists.example".into()], why: None },
        dmarc: Dmarc {
            found: Found::Fail,
            from: "example.com".into(),
            published: true,
            asked: Asked::Reject,
            by_spf: false,
            by_dkim: false,
            reported: Some(Box::new(Published {
                domain: "example.com".into(),
                policy: Asked::Reject,
                below: Asked::Quarantine,
                absent: Asked::None,
                strict_dkim: true,
                strict_spf: false,
                testing: true,
            })),
        },
        lists: vec![Listed { list: "list.example".into(), weight: 3, words: Some("so".into()) }],
        sender: SenderDomain::Exists,
        oddity: Some(Oddity::Unqualified),
    };
    Verdict {
        evidence: Some(Box::new(evidence)),
        junk: Some("so".into()),
        spared: Some(Override::List),
        ..Verdict::default()
    }
}

fn logins(golden: &mut Golden) {
    let directory = Directory {
        version: 300,
        domains: [("example.org", false), ("example.net", true)]
            .map(|(name, catch_all)| (Domain::parse(name).expect("valid"), DomainPolicy { catch_all }))
            .into(),
        addresses: ["alice@example.org", "bob@example.org"].into(),
        subaddress_separator: Some('+'),
        verifiers: [(
            "alice".to_owned(),
            LoginVerifier {
                salt: vec![1; 16],
                iterations: 4096,
                keys: vec![ScramKeys { stored: [2; 32], server: [3; 32] }],
            },
        )]
        .into(),
        seal_key: vec![6; 8],
        message_octets_max: 52_428_800,
        patterns: Vec::new(),
        tight: std::collections::HashMap::new(),
        srs: None,
        access: AccessList::default(),
        policies: Policies::default(),
        hosts: Vec::new(),
        mta_sts: None,
        services: Services::default(),
    };
    golden.record("request-directory", &Request::Directory(Box::new((&directory).into())));
    let fuller = Directory {
        patterns: vec![DomainPattern {
            domain: Domain::parse("example.org").expect("valid"),
            pattern: LocalPattern::parse("sales-.*").expect("good"),
        }],
        tight: [("bob@example.org".to_owned(), Room { left: 4096, whole: 1 << 20 })].into(),
        srs: Some(SrsVerifier { keys: vec![SrsKey::new([4; 32])] }),
        access: AccessList::new(
            [
                ("192.0.2.0/24", Some("example.org"), Access::Refuse),
                ("*.example.com", None, Access::Refuse),
                ("bob@example.com", None, Access::Allow),
            ]
            .map(|(subject, recipient, access)| Rule {
                subject: subject.parse().expect("a subject"),
                recipient: recipient.map(|name| Domain::parse(name).expect("valid")),
                access,
            }),
        ),
        policies: Policies {
            base: Arc::new(Policy { monitor: true, ..Policy::default() }),
            domains: [(
                Domain::parse("example.net").expect("valid"),
                Arc::new(Policy {
                    monitor: false,
                    spf_fail: Limit::Accept,
                    dmarc_fail: Limit::Junk,
                    unknown_sender: Limit::Refuse,
                    trusted_sealers: vec!["lists.example".into()],
                }),
            )]
            .into(),
        },
        hosts: vec!["mail.example.org".into()],
        mta_sts: StsPolicy::new(Mode::Testing, 86_400, vec![Domain::parse("mail.example.org").expect("valid")]),
        services: Services {
            imaps: Some(service("home.example.org", 993)),
            submissions: vec![service("mail.example.org", 465)],
        },
        ..directory
    };
    golden.record("request-directory2", &Request::Directory2(Box::new((&fuller).into())));
    golden.record("directory-held", &DirectoryHeld { version: 300 });
    let authenticate = Authenticate {
        mechanism: "SCRAM-SHA-256-PLUS".into(),
        initial: Some(b"p=tls-exporter,,n=alice,r=a".to_vec()),
        exporter: Some([5; 32]),
        client: IpAddr::from([192, 0, 2, 1]),
    };
    golden.record("request-authenticate", &Request::Authenticate(authenticate));
    golden.record("auth-step-challenge", &AuthStep::Challenge(b"r=ab".to_vec()));
    let granted =
        AuthStep::Granted { grant: [9; 16], login: "alice".into(), last: Some(b"v=AAAA".to_vec()), expires_s: 3600 };
    golden.record("auth-step-granted", &granted);
    golden.record("auth-step-refused", &AuthStep::Refused(reply(535, Enhanced(5, 7, 8))));
    golden.record("auth-response", &AuthResponse(b"c=biws".to_vec()));
}

fn service(host: &str, port: u16) -> Service {
    Service { host: Domain::parse(host).expect("valid"), port }
}

fn relays(golden: &mut Golden) {
    let attempt = AttemptId([8; 16]);
    let relay = |hop| Relay { attempt, trace: [7; 10], envelope: envelope(), octets: 4096, eight_bit: true, hop };
    let domain = WireHop::Domain("example.net".into());
    golden.record("request-relay-domain", &Request::Relay(Box::new(relay(domain))));
    let floors = [
        ("none", WireFloor::None),
        ("encrypt", WireFloor::Encrypt),
        ("verify", WireFloor::Verify),
        ("dane", WireFloor::Dane),
    ];
    for (name, floor) in floors {
        let hop = WireHop::Demanding { domain: "example.net".into(), floor };
        golden.record(&format!("request-relay-demanding-{name}"), &Request::Relay(Box::new(relay(hop))));
    }
    let modes = [
        ("opportunistic", WireHopTls::Opportunistic),
        ("starttls", WireHopTls::StartTls),
        ("implicit", WireHopTls::Implicit),
        ("off", WireHopTls::Off),
    ];
    for (name, tls) in modes {
        let login = Some(("smarthost-user".into(), b"hunter2".to_vec()));
        let host = WireHop::Host { host: "relay.example.com".into(), port: 587, tls, login };
        golden.record(&format!("request-relay-host-{name}"), &Request::Relay(Box::new(relay(host))));
    }
    let wire = |outcome: Outcome| WireOutcome::from(&outcome);
    let said = |code, enhanced| Reply::new(code, Some(enhanced), vec!["so".into()]);
    let done = RelayDone {
        outcomes: vec![
            wire(Outcome::Accepted(said(250, Enhanced(2, 1, 5)))),
            wire(Outcome::Deferred(said(451, Enhanced(4, 3, 0)))),
            wire(Outcome::Refused(said(550, Enhanced(5, 1, 1)))),
        ],
        remote: Some("mx.example.net [192.0.2.25]:25".into()),
        tls: Some(tls()),
    };
    golden.record("relay-step-ready", &RelayStep::Ready);
    golden.record("relay-step-done", &RelayStep::Done(done.clone()));
    golden.record("request-attempt-state", &Request::Attempt(AttemptRequest::State(attempt)));
    golden.record("request-attempt-forget", &Request::Attempt(AttemptRequest::Forget(attempt)));
    golden.record("attempt-state-unknown", &AttemptState::Unknown);
    golden.record("attempt-state-running", &AttemptState::Running);
    golden.record("attempt-state-in-doubt", &AttemptState::InDoubt);
    let facts = RelayFacts {
        dsn: true,
        reused: true,
        exchanger: Some("example.net".into()),
        vouched: WireVouched::MtaSts,
        sessions: (&sessions()).into(),
    };
    golden.record("relay-step-ended", &RelayStep::Ended(done.clone(), facts.clone()));
    golden.record("attempt-state-ended-with", &AttemptState::EndedWith(done.clone(), facts));
    let unheard = RelayDone { remote: None, tls: None, ..done };
    golden.record("attempt-state-ended", &AttemptState::Ended(unheard));
}

/// One that failed, two under one policy.
fn sessions() -> Sessions {
    let mut sessions = Sessions::default();
    let tlsa = TransportPolicy { kind: PolicyKind::Tlsa, text: vec!["3 1 1 00".into()], hosts: Vec::new() };
    let sts = TransportPolicy {
        kind: PolicyKind::Sts,
        text: vec!["version: STSv1".into()],
        hosts: vec!["*.example.net".into()],
    };
    let failure = Failure { kind: FailureKind::TlsaInvalid, reason: "no match".into() };
    let ips = (Some([192, 0, 2, 25].into()), Some([192, 0, 2, 1].into()));
    sessions.note(&tlsa, Some("mx0.example.net"), ips, Some(failure));
    sessions.note(&sts, Some("mx1.example.net"), (None, None), None);
    sessions.note(&sts, None, (None, None), None);
    sessions
}

fn owners(golden: &mut Golden) {
    golden.record("request-events", &Request::Events(EventsOpen { oldest: 300, journal: [3; 16] }));
    let event = WireEvent {
        number: 300,
        at_unix_ms: 1_795_176_000_123,
        trace: Some([7; 10]),
        what: "accepted".into(),
        facts: vec![("recipient".into(), "alice@example.org".into())],
        refused: None,
    };
    let refused = WireRefused {
        client: IpAddr::from([192, 0, 2, 1]),
        sender: "example.com".into(),
        findings: (&judged()).into(),
    };
    let told = WireEvent { what: "answered".into(), refused: Some(Box::new(refused)), ..event.clone() };
    golden.record("event-batch", &EventBatch { events: vec![event] });
    golden.record("event-batch-refused", &EventBatch { events: vec![told] });
    golden.record("events-taken", &EventsTaken { last: 300 });
    golden.record("request-challenge", &Request::Challenge(Challenge { token: "tok-en_1".to_owned() }));
    golden.record("challenge-answer", &ChallengeAnswer { authorization: Some("tok-en_1.thumb".to_owned()) });
    golden.record("challenge-answer-none", &ChallengeAnswer { authorization: None });
    let client = SocketAddr::from(([192, 0, 2, 1], 50_000));
    golden.record("request-splice", &Request::Splice(Splice { client }));
    golden.record("splice-note-taken", &SpliceNote::Taken);
    golden.record("splice-note-wrong-login", &SpliceNote::WrongLogin);
    golden.record("request-admin-status", &Request::Admin(AdminRequest::Status));
    golden.record("request-admin-metrics", &Request::Admin(AdminRequest::Metrics));
    golden.record("request-admin-bans-list", &Request::Admin(AdminRequest::BansList));
    let add = AdminRequest::BansAdd { network: "192.0.2.0/24".into(), for_s: Some(3600) };
    golden.record("request-admin-bans-add", &Request::Admin(add));
    let for_good = AdminRequest::BansAdd { network: "2001:db8::1".into(), for_s: None };
    golden.record("request-admin-bans-add-for-good", &Request::Admin(for_good));
    let lift = AdminRequest::BansLift { network: "192.0.2.1".into() };
    golden.record("request-admin-bans-lift", &Request::Admin(lift));
    let examination = Examination {
        mail_to: vec!["example.net".into()],
        lists: vec!["list.example".into()],
        doors: vec![Door { host: "mail.example.org".into(), port: 25 }],
        elsewhere: "x@other.example".into(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
    };
    golden.record("request-admin-examine", &Request::Admin(AdminRequest::Examine(Box::new(examination))));
    let echo = AdminRequest::Echo { there: b"===".to_vec(), back: 300 };
    golden.record("request-admin-echo", &Request::Admin(echo));
    let challenge = AdminRequest::Challenge { token: "tok_en-1".into() };
    golden.record("request-admin-challenge", &Request::Admin(challenge));
    golden.record("request-admin-certificate-rotate", &Request::Admin(AdminRequest::CertificateRotate));
    golden.record("admin-answer", &AdminAnswer::Answer("{}".into()));
    golden.record("admin-refused", &AdminAnswer::Refused("no".into()));
}

fn pairing(golden: &mut Golden) {
    let code = PairingCode {
        address: "mail.example.org:10025".parse().expect("valid"),
        edge_key: NodeKey::from_bytes([1; 32]),
        secret: Secret::new(vec![2; 16]),
    };
    golden.bytes("pairing-code", code.reveal().as_bytes());
    golden.bytes("pairing-proof-home", &prove(&code.secret, Side::Home, &[3; 32]));
    golden.bytes("pairing-proof-edge", &prove(&code.secret, Side::Edge, &[3; 32]));
    let request = PairingRequest {
        proof: [4; 32],
        software: "gatepost 0.1.0".into(),
        node: "home.example.org".into(),
        more_keys: vec![[5; 32]],
        domains: vec!["example.org".into(), "example.net".into()],
    };
    golden.record("pairing-request", &request);
    let paired = Paired {
        proof: [6; 32],
        software: "gatepost 0.1.0".into(),
        node: "mail.example.org".into(),
        home: "cottage".into(),
        more_keys: vec![[7; 32]],
        again: true,
    };
    golden.record("pairing-paired", &PairingAnswer::Paired(paired));
    for (name, refusal) in [
        ("wrong", PairingRefusal::Wrong),
        ("used", PairingRefusal::Used),
        ("expired", PairingRefusal::Expired),
        ("given-up", PairingRefusal::GivenUp),
        ("domain-taken", PairingRefusal::DomainTaken("example.org".into())),
        ("by-hand", PairingRefusal::ByHand("edge.toml:3".into())),
        ("malformed", PairingRefusal::Malformed("no".into())),
        ("failed", PairingRefusal::Failed("no".into())),
    ] {
        golden.record(&format!("pairing-refused-{name}"), &PairingAnswer::Refused(refusal));
    }
}

fn spool(golden: &mut Golden) {
    golden.record("request-spool-list", &Request::Spool(SpoolRequest::List));
    golden.record("request-spool-fetch", &Request::Spool(SpoolRequest::Fetch(transfer())));
    golden.record("request-spool-acknowledge", &Request::Spool(SpoolRequest::Acknowledge(transfer())));
    let listing = SpoolListing {
        entries: vec![SpoolItem { transfer: transfer(), octets: 5000, sealed_unix_s: 1_795_176_000 }],
        total: 1,
        total_octets: 5000,
    };
    golden.record("spool-listing", &listing);
    golden.record("spool-end-whole", &SpoolEnd::Whole { octets: 5000 });
    golden.record("spool-end-unknown", &SpoolEnd::Unknown);
    golden.record("spool-end-unreadable", &SpoolEnd::Unreadable);
    golden.record("spool-deleted", &SpoolDeleted);
    golden.record("request-spool-page", &Request::Spool(SpoolRequest::Page { after: "0001795176000000".into() }));
    golden.record("request-spool-drop", &Request::Spool(SpoolRequest::Drop(transfer())));
    let page = SpoolPage {
        entries: vec![SpoolItem { transfer: transfer(), octets: 5000, sealed_unix_s: 1_795_176_000 }],
        next: Some("0001795176000000".into()),
        total: 2,
        total_octets: 7000,
        damaged: vec![SpoolDamaged { transfer: Some(transfer()), name: "x.sealed".into(), octets: 9 }],
        damaged_total: 1,
    };
    golden.record("spool-page", &page);
    golden.record("spool-dropped", &SpoolDropped { existed: true });
    let header = container::Header {
        transfer: transfer(),
        sealed_unix_s: 1_795_176_000,
        recipient: [6; 32],
        encapsulated: vec![7; ENCAPSULATED_OCTETS],
    };
    golden.bytes("seal-header", &header.to_bytes());
}
