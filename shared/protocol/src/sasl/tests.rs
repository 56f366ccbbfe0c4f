use super::*;

const PLUS: Mechanism = Mechanism::ScramSha256Plus;
const SCRAM: Mechanism = Mechanism::ScramSha256;
const EXPORTER: [u8; 32] = [9; 32];

fn verifier(passwords: &[&str]) -> LoginVerifier {
    let salt = b"0123456789abcdef".to_vec();
    let keys = passwords.iter().map(|password| derive_keys(password.as_bytes(), &salt, 16)).collect();
    LoginVerifier { salt, iterations: 16, keys }
}

/// Runs both sides against each other; gives how it ended for the server.
fn exchange(mechanism: Mechanism, login: &str, password: &str, verifier: &LoginVerifier) -> Turn {
    let mut client =
        ClientExchange::new(mechanism, login, Secret::from(password), Some(EXPORTER), true, [1; 18]).expect("bound");
    let mut server = Exchange::new(mechanism, Some(EXPORTER), true, [2; 18]);
    let mut turn = server.start(client.initial().as_ref().map(Secret::expose));
    loop {
        turn = match turn {
            Turn::Challenge(challenge) => server.response(client.respond(&challenge).expect("well formed").expose()),
            Turn::Verifier { .. } => server.verifier(verifier.clone()),
            Turn::Proven { last, login, key, transcript } => {
                assert!(client.finish().is_err(), "the server has not proven itself yet");
                assert_eq!(client.respond(&last).expect("the server's signature is right").expose(), b"");
                assert_eq!(client.finish(), Ok(()));
                return Turn::Proven { login, key, last, transcript };
            }
            other => return other,
        };
    }
}

/// RFC 7677 §3.
#[test]
fn the_vector_of_rfc_7677() {
    let salt = [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
    let verifier = LoginVerifier {
        salt: salt.to_vec(),
        iterations: 4096,
        keys: vec![derive_keys(b"other", &salt, 4096), derive_keys(b"pencil", &salt, 4096)],
    };
    let client_first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let server_first = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    let client_final = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    let transcript = Transcript {
        mechanism: SCRAM,
        client_first: client_first.to_vec(),
        server_first: server_first.to_vec(),
        client_final: client_final.to_vec(),
    };
    assert_eq!(verify_transcript(&transcript, &verifier, None), Some(1));
    assert_eq!(transcript_login(&transcript).as_deref(), Some("user"));

    let first = ClientFirst::parse(client_first).expect("valid");
    let server = ServerFirst::parse(server_first).expect("valid");
    let last = ClientFinal::parse(client_final).expect("valid");
    let (_, signature) = prove(SCRAM, &first, &server, &last, &verifier, None).expect("proven");
    assert_eq!(scram::server_final(&signature), b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn client_and_server_agree_by_every_mechanism() {
    let verifier = verifier(&["phone", "laptop"]);
    for mechanism in [Mechanism::Plain, Mechanism::Login] {
        match exchange(mechanism, "alice@example.org", "laptop", &verifier) {
            Turn::Password { login, password } => {
                assert_eq!(login, "alice@example.org");
                assert_eq!(check_password(password.expose(), &verifier), Some(1));
            }
            other => panic!("{mechanism}: {other:?}"),
        }
    }
    for mechanism in [SCRAM, PLUS] {
        match exchange(mechanism, "a,l=ice", "laptop", &verifier) {
            Turn::Proven { login, key, transcript, .. } => {
                assert_eq!((login.as_str(), key), ("a,l=ice", 1));
                assert_eq!(verify_transcript(&transcript, &verifier, Some(EXPORTER)), Some(1));
            }
            other => panic!("{mechanism}: {other:?}"),
        }
        assert!(matches!(exchange(mechanism, "alice", "wrong", &verifier), Turn::Refused));
    }
    assert_eq!(check_password(b"wrong", &verifier), None);
}

#[test]
fn a_transcript_is_bound_to_what_it_was_made_with() {
    let verifier = verifier(&["phone"]);
    let Turn::Proven { transcript, .. } = exchange(PLUS, "alice", "phone", &verifier) else { panic!("refused") };
    assert_eq!(verify_transcript(&transcript, &verifier, Some(EXPORTER)), Some(0));
    assert_eq!(verify_transcript(&transcript, &verifier, Some([8; 32])), None);
    assert_eq!(verify_transcript(&transcript, &verifier, None), None);
    let other = LoginVerifier { salt: b"fedcba9876543210".to_vec(), ..verifier.clone() };
    assert_eq!(verify_transcript(&transcript, &other, Some(EXPORTER)), None);
    let plain_scram = Transcript { mechanism: SCRAM, ..transcript.clone() };
    assert_eq!(verify_transcript(&plain_scram, &verifier, Some(EXPORTER)), None);
    let mut altered = transcript;
    let last = altered.client_first.len() - 1;
    altered.client_first[last] ^= 1;
    assert_eq!(verify_transcript(&altered, &verifier, Some(EXPORTER)), None);
}

#[test]
fn a_downgrade_is_refused() {
    let start = |mechanism, plus_offered, message: &str| {
        Exchange::new(mechanism, Some(EXPORTER), plus_offered, [2; 18]).start(Some(message.as_bytes()))
    };
    assert!(matches!(start(SCRAM, true, "y,,n=alice,r=abc"), Turn::Refused));
    assert!(matches!(start(SCRAM, false, "y,,n=alice,r=abc"), Turn::Verifier { .. }));
    assert!(matches!(start(SCRAM, true, "n,,n=alice,r=abc"), Turn::Verifier { .. }));
    assert!(matches!(start(SCRAM, true, "p=tls-exporter,,n=alice,r=abc"), Turn::Refused));
    assert!(matches!(start(PLUS, true, "n,,n=alice,r=abc"), Turn::Refused));
    assert!(matches!(start(PLUS, true, "y,,n=alice,r=abc"), Turn::Refused));
    assert!(matches!(start(PLUS, true, "p=tls-unique,,n=alice,r=abc"), Turn::Malformed));
}

#[test]
fn a_login_that_does_not_exist_looks_like_one() {
    let secret = [3; 32];
    let fake = fake_verifier("Bob@example.org", &secret, 16);
    assert_eq!(fake, fake_verifier("bob@example.org", &secret, 16));
    assert_ne!(fake.salt, fake_verifier("carol@example.org", &secret, 16).salt);
    assert_eq!(fake.salt.len(), 16);
    assert!(matches!(exchange(SCRAM, "bob", "phone", &fake), Turn::Refused));
}

#[test]
fn malformed_messages() {
    for message in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=alice",
        "n,,n=,r=abc",
        "n,,r=abc,n=alice",
        "n,,m=x,n=alice,r=abc",
        "x,,n=alice,r=abc",
        "n,a=bob,n=alice,r=abc",
        "n,,n=al=2Dice,r=abc",
        "n,,n=alice=,r=abc",
        "n,,n=alice,r=",
        "n,,n=alice,r=a b",
        "n,,n=al\0ice,r=abc",
    ] {
        let turn = Exchange::new(SCRAM, None, false, [2; 18]).start(Some(message.as_bytes()));
        assert!(matches!(turn, Turn::Malformed), "{message}: {turn:?}");
    }
    for message in
        ["c=biws,r=abc", "c=biws,r=wrong,p=", "r=abc,c=biws,p=AAAA", "c=,r=abc,p=AAAA", ",p=", "c=biws,p=AAAA"]
    {
        let mut server = Exchange::new(SCRAM, None, false, [2; 18]);
        server.start(Some(b"n,,n=alice,r=abc"));
        server.verifier(verifier(&["x"]));
        assert!(matches!(server.response(message.as_bytes()), Turn::Malformed), "{message}");
        assert!(matches!(server.response(b"again"), Turn::Malformed));
    }
    for message in ["", "alice", "\0alice", "\0alice\0", "\0\0secret", "\0alice\0sec\0ret", "\0ali\rce\0secret"] {
        let turn = Exchange::new(Mechanism::Plain, None, false, [2; 18]).start(Some(message.as_bytes()));
        assert!(matches!(turn, Turn::Malformed), "{message:?}");
    }
    let turn = Exchange::new(Mechanism::Plain, None, false, [2; 18]).start(Some(b"bob\0alice\0secret"));
    assert!(matches!(turn, Turn::Refused));
    let long = "a".repeat(CREDENTIAL_OCTETS_MAX + 1);
    let turn = Exchange::new(Mechanism::Login, None, false, [2; 18]).start(Some(long.as_bytes()));
    assert!(matches!(turn, Turn::Malformed));
}

#[test]
fn a_client_is_not_made_to_work_for_ever() {
    let mut client = ClientExchange::new(SCRAM, "alice", Secret::from("x"), None, false, [1; 18]).expect("no binding");
    let first = client.initial().expect("SCRAM speaks first");
    let nonce = String::from_utf8(first.expose().to_vec()).expect("text").split("r=").nth(1).expect("nonce").to_owned();
    let challenge = format!("r={nonce}x,s=AAAA,i=1000001");
    assert_eq!(client.respond(challenge.as_bytes()), Err(SaslError::TooCostly));
}

#[test]
fn a_server_that_failed_its_proof_has_not_succeeded() {
    for bad in [&b"v=AAAA"[..], b"", b"e=other-error"] {
        let mut client =
            ClientExchange::new(SCRAM, "alice", Secret::from("x"), None, false, [1; 18]).expect("no binding");
        client.initial();
        assert_eq!(client.finish(), Err(SaslError::ServerNotProven));
        client.respond(b"r=AQEBAQEBAQEBAQEBAQEBAQEBAQEBx,s=AAAA,i=2").expect("a challenge");
        assert_eq!(client.finish(), Err(SaslError::ServerNotProven));
        assert_eq!(client.respond(bad), Err(SaslError::ServerNotProven));
        assert_eq!(client.finish(), Err(SaslError::ServerNotProven));
        assert_eq!(client.respond(b"more"), Err(SaslError::Malformed));
    }
}
