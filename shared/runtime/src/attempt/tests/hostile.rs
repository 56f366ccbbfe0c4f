//! Hosts that misbehave, over real sockets and by a clock that is turned: each ends in a bounded time with
//! an outcome that says what happened.

use tokio::net::TcpStream;

use super::*;

/// What a host does when its script has come to the end.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Says nothing more, and takes what comes.
    Silent,
    /// Closes.
    Closes,
    /// Says this without end.
    Floods(&'static str),
    /// Says this and closes.
    Says(&'static str),
}

/// The replies of a good host, each to a line (the message is one).
const GOOD: [&str; 6] = ["220 mx", "250 mx", "250 sender", "250 recipient", "354 go", "250 taken"];

/// Plays the first `steps` of [`GOOD`].
async fn follow(stream: &mut TcpStream, steps: usize) {
    for line in &GOOD[..steps] {
        stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        let last = if *line == "354 go" { &b"\r\n.\r\n"[..] } else { b"\n" };
        let mut heard = Vec::new();
        while !heard.ends_with(last) {
            // A client that has gone away wants no more of this.
            let Ok(octet) = stream.read_u8().await else { return };
            heard.push(octet);
        }
    }
}

async fn misbehave(mut stream: TcpStream, then: Then) {
    match then {
        Then::Silent => while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {},
        Then::Closes => {}
        Then::Floods(text) => while stream.write_all(text.as_bytes()).await.is_ok() {},
        Then::Says(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            // Closed only when the other side has: nothing unread turns the end into a reset.
            let _ = stream.shutdown().await;
            while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {}
        }
    }
}

/// How far the clock is turned at once.
const TURN: Duration = Duration::from_secs(10);

fn target(address: std::net::SocketAddr) -> Target {
    Target {
        host: "mx.example.org".into(),
        address,
        tls: Tls::Off,
        roots: vec![],
        believed: Believed::ByTls,
        finding: Finding::default(),
        connect_wait_max: Duration::from_secs(10),
    }
}

/// What a message comes to at such a host, and how long that took by the clock, which stands while the host says
/// something: how fast this machine is changes nothing.
async fn suffer(steps: usize, then: Then, body: &[u8]) -> (Outcome, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (silence, mut is_silent) = tokio::sync::watch::channel(false);
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        follow(&mut stream, steps).await;
        silence.send_replace(matches!(then, Then::Silent));
        misbehave(stream, then).await;
        // The test ends it; what it told of its silence stays.
        std::future::pending::<()>().await;
        drop(silence);
    });
    let clock = Clock::still(Duration::ZERO);
    let begun = clock.now();
    let (sends, body) = (clock.clone(), body.to_vec());
    let sending = tokio::spawn(async move {
        match Attempt::connect(&target(address), config(), sends).await {
            Ok(mut attempt) => send(&mut attempt, &body, &["bob@example.org"]).await.remove(0),
            Err(failure) => Outcome::of(failure.reply),
        }
    });
    let turning = async {
        is_silent.wait_for(|silent| *silent).await.unwrap();
        loop {
            // Whoever waits by the clock is let run in between.
            tokio::time::sleep(Duration::from_millis(50)).await;
            clock.turn(TURN);
        }
    };
    let outcome = tokio::select! {
        outcome = sending => outcome.unwrap(),
        () = turning => unreachable!("it turns for ever"),
    };
    host.abort();
    (outcome, clock.now() - begun)
}

fn deferred(outcome: &Outcome) -> String {
    assert!(matches!(outcome, Outcome::Deferred(_)), "{outcome:?}");
    outcome.reply().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_at_each_phase_is_given_up_in_the_time_of_the_standard() {
    let all = [
        (0, "before its greeting", 5),
        (1, "after EHLO", 5),
        (2, "after MAIL", 5),
        (3, "after RCPT", 5),
        (4, "after DATA", 5),
        (5, "after the final dot", 10),
    ];
    let suffered = futures_util::future::join_all(all.map(|(steps, ..)| suffer(steps, Then::Silent, b"hi\r\n"))).await;
    for ((_, phase, minutes), (outcome, took)) in all.iter().zip(&suffered) {
        let text = format!("451 4.4.2 The host went silent {phase}: no whole reply within {minutes} minutes");
        assert_eq!(deferred(outcome), text);
        let least = Duration::from_mins(*minutes);
        assert!(least <= *took && *took <= least + Duration::from_mins(1), "{phase}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_closes_at_any_phase_is_said_to_have_done_so() {
    for (steps, phase) in
        [(0, "before its greeting"), (1, "after EHLO"), (2, "after MAIL"), (3, "after RCPT"), (4, "after DATA")]
    {
        let (outcome, took) = suffer(steps, Then::Closes, b"hi\r\n").await;
        let text = deferred(&outcome);
        assert!(
            text.starts_with("451 4.4.2 The host ") && text.ends_with(&format!("the connection {phase}")),
            "{text}"
        );
        assert_eq!(took, Duration::ZERO);
    }
    let (outcome, _) = suffer(5, Then::Closes, b"hi\r\n").await;
    assert!(deferred(&outcome).ends_with("the connection after the final dot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_421_at_any_phase_is_the_outcome_in_the_hosts_own_words() {
    for steps in 0..=5 {
        let (outcome, took) = suffer(steps, Then::Says("421 4.7.0 come back tomorrow\r\n"), b"hi\r\n").await;
        assert_eq!(deferred(&outcome), "421 4.7.0 come back tomorrow", "after {steps} steps");
        assert_eq!(took, Duration::ZERO);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_floods_end_the_connection_at_once() {
    for (flood, words) in [
        ("HTTP/1.1 400 Bad Request\r\n", "something that is no reply"),
        ("\0\0\0\0", "too long"),
        ("2", "too long"),
        ("250-more\r\n", "too long"),
        ("250-more\r\n550 another\r\n", "no reply"),
    ] {
        for steps in 0..=5 {
            let (outcome, took) = suffer(steps, Then::Floods(flood), b"hi\r\n").await;
            let text = deferred(&outcome);
            assert!(text.starts_with("451 4.5.0 The host sent ") && text.contains(words), "{flood:?}, {steps}: {text}");
            assert_eq!(took, Duration::ZERO, "{flood:?}");
        }
    }
    let long: &'static str = format!("250 {}\r\n", "x".repeat(64 * 1024)).leak();
    let (outcome, _) = suffer(1, Then::Says(long), b"hi\r\n").await;
    assert_eq!(deferred(&outcome), "451 4.5.0 The host sent a reply line that is too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_takes_nothing_of_a_message_is_given_up() {
    // The system's buffers take some megabytes.
    let body = b"0123456789\r\n".repeat(4_000_000);
    let (outcome, took) = suffer_deaf(&body).await;
    assert_eq!(deferred(&outcome), "451 4.4.2 The host takes nothing we say in the message");
    let wait = Duration::from_mins(4)..=Duration::from_mins(6);
    assert!(wait.contains(&took), "{took:?}");
}

/// As [`suffer`] with a host that says 354 and then reads no more. How long it took counts from when the system's
/// buffers took the last octet.
async fn suffer_deaf(body: &[u8]) -> (Outcome, Duration) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, waiting) = tokio::sync::watch::channel(0_u64);
    let host = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        follow(&mut stream, 4).await;
        stream.write_all(b"354 go\r\n").await.unwrap();
        loop {
            arrived.send_replace(rustix::io::ioctl_fionread(&stream).unwrap());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let clock = Clock::still(Duration::ZERO);
    let (sends, body) = (clock.clone(), body.to_vec());
    let sending = tokio::spawn(async move {
        let mut attempt = Attempt::connect(&target(address), config(), sends).await.unwrap();
        send(&mut attempt, &body, &["bob@example.org"]).await.remove(0)
    });
    let (mut moved, mut last) = (clock.now(), 0);
    while !sending.is_finished() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = *waiting.borrow();
        if now != last {
            (moved, last) = (clock.now(), now);
        } else if now > 0 {
            clock.turn(TURN);
        }
    }
    host.abort();
    (sending.await.unwrap(), clock.now() - moved)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_silent_in_the_handshake_gets_the_mail_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let clock = Clock::still(Duration::ZERO);
    let (silence, is_silent) = tokio::sync::oneshot::channel();
    let host = tokio::spawn(async move {
        let mut silent = script(&listener, &["220 mail", "250-mail\r\n250 STARTTLS", "220 go"]).await;
        // Its handshake has begun, and with it the time it waits.
        silent.read_u8().await.unwrap();
        silence.send(()).unwrap();
        let clear =
            script(&listener, &["220 mail", "250 mail", "250 sender", "250 recipient", "354 go", "250 done"]).await;
        (silent, clear)
    });
    let target = Target {
        host: "mail.example.org".into(),
        address,
        tls: Tls::Opportunistic,
        roots: vec![],
        believed: Believed::ByTls,
        finding: Finding::default(),
        connect_wait_max: Duration::from_mins(10),
    };
    let sends = clock.clone();
    let sending = tokio::spawn(async move {
        let mut attempt = Attempt::connect(&target, config(), sends).await.unwrap();
        assert!(attempt.tls().is_none());
        send(&mut attempt, b"\r\n", &["bob@example.org"]).await
    });
    is_silent.await.unwrap();
    clock.turn(crate::drive::HANDSHAKE_WAIT_MAX);
    assert!(is_accepted(&sending.await.unwrap()[0]));
    drop(host.await.unwrap());
}
