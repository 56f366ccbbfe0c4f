//! Told to end, a program takes nothing new, finishes what runs, and loses nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};

use gatepost_tests::client::Client;
use gatepost_tests::observe;
use gatepost_tests::pair::Pair;
use gatepost_tests::pair::options::{Options, Outbound};
use gatepost_tests::world::message;
use rustix::process::Signal;

use super::{ALICE, STRANGER, expect_delivered, expect_in_sink, pair, started};

const FRIEND: &str = "friend@elsewhere.example";

#[test]
fn an_edge_that_drains_finishes_what_runs_and_says_421_to_the_rest() {
    let mut pair = pair();
    let smtp = pair.edge().doors.smtp;
    let half = message::stuffed(&message::numbered(1, STRANGER, ALICE, 500_000));
    let mut sending = Client::greeted(smtp).expect("greeted");
    sending.begin(STRANGER, &[ALICE]).expect("begun");
    sending.send(&half[..half.len() / 2]).expect("sent");
    // One is about to send: its transaction is open, and may come to its end.
    let mut about = Client::greeted(smtp).expect("greeted");
    about.say(&format!("MAIL FROM:<{STRANGER}>"), 250).expect("MAIL");
    about.say(&format!("RCPT TO:<{ALICE}>"), 250).expect("RCPT");
    let mut idle = Client::greeted(smtp).expect("greeted");
    pair.edge().program.signal(Signal::TERM).expect("told");
    assert!(idle.expect(421).expect("told to go").text().starts_with("4.3.2"));
    assert!(idle.is_closed());
    let late = Client::connect(smtp).expect("the door is open").expect(421).expect("and says why");
    assert!(late.text().starts_with("4.3.2"), "{late:?}");
    about.say("DATA", 354).expect("DATA");
    about.send(&message::stuffed(&message::numbered(2, STRANGER, ALICE, 1000))).expect("sent");
    about.expect(250).expect("taken");
    about.expect(421).expect("and no more");
    sending.send(&half[half.len() / 2..]).expect("sent");
    sending.expect(250).expect("taken");
    sending.expect(421).expect("and no more");
    assert!(pair.edge_mut().program.wait().expect("ended").success());
    expect_delivered(&pair, ALICE, &[1, 2]);
    pair.edge_mut().program.start().expect("started");
    pair.wait_until_up();
    expect_delivered(&pair, ALICE, &[1, 2]);
}

#[test]
fn a_home_that_drains_finishes_a_submission_and_sends_it_after_the_next_start() {
    let mut pair = pair();
    let mut sending = logged_in(&pair);
    sending.begin(ALICE, &[FRIEND]).expect("begun");
    let whole = message::stuffed(&message::numbered(1, ALICE, FRIEND, 200_000));
    sending.send(&whole[..whole.len() / 2]).expect("sent");
    let mut idle = logged_in(&pair);
    let drain = pair.home.program.cli(&["drain"]).spawn().expect("it runs");
    idle.expect(421).expect("told to go");
    // Mail from the world finds the home away: it is sealed.
    let mut world = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sealed = message::numbered(2, STRANGER, ALICE, 1000);
    assert_eq!(world.deliver(STRANGER, &[ALICE], &sealed).expect("answered").code, 250);
    sending.send(&whole[whole.len() / 2..]).expect("sent");
    sending.expect(250).expect("taken");
    sending.expect(421).expect("and no more");
    assert!(pair.home.program.wait().expect("ended").success());
    let drained = drain.wait_with_output().expect("it ends with the home");
    assert!(drained.status.success(), "{drained:?}");
    pair.home.program.start().expect("started");
    expect_in_sink(&pair, &[1]);
    expect_delivered(&pair, ALICE, &[2]);
}

#[test]
fn told_twice_it_ends_at_once_and_what_was_acknowledged_is_there() {
    let mut pair = pair();
    let mut client = Client::greeted(pair.edge().doors.smtp).expect("greeted");
    let sent = message::numbered(1, STRANGER, ALICE, 1000);
    assert_eq!(client.deliver(STRANGER, &[ALICE], &sent).expect("answered").code, 250);
    client.begin(STRANGER, &[ALICE]).expect("begun");
    let edge = &mut pair.edge_mut().program;
    edge.signal(Signal::TERM).expect("told");
    observe::until_ok("the drain to begin", || {
        anyhow::ensure!(edge.said().contains("draining"), "not yet");
        Ok(())
    });
    assert!(edge.stop().expect("ended").success());
    assert!(client.is_closed());
    expect_delivered(&pair, ALICE, &[1]);
}

#[test]
fn an_attempt_under_way_is_finished_and_never_repeated() {
    for draining in ["edge", "home"] {
        let host = SlowHost::start();
        let outbound = Outbound::Routes(vec![("elsewhere.example".to_owned(), host.address.to_string())]);
        let mut pair = started(&Options { outbound, ..Options::story() });
        let mut client = logged_in(&pair);
        let sent = message::numbered(1, ALICE, FRIEND, 1000);
        assert_eq!(client.deliver(ALICE, &[FRIEND], &sent).expect("answered").code, 250);
        // The final dot is there, and the reply is not given yet.
        host.dots.recv().expect("a message");
        let program = if draining == "edge" { &mut pair.edge_mut().program } else { &mut pair.home.program };
        program.signal(Signal::TERM).expect("told");
        observe::until_ok("the drain to begin", || {
            anyhow::ensure!(program.said().contains("draining"), "not yet");
            Ok(())
        });
        host.go.send(()).expect("it waits");
        assert!(program.wait().expect("ended").success(), "{draining}: {}", program.last_words());
        program.start().expect("started");
        pair.wait_until_up();
        observe::until("the queue to be empty", || pair.queued().expect("listed"), |queued| *queued == 0);
        assert!(host.dots.try_recv().is_err(), "{draining}: it was sent again");
    }
}

fn logged_in(pair: &Pair) -> Client {
    let tls = pair.tls().expect("a client");
    let mut client = Client::greeted_tls(pair.home.submissions, &tls, &pair.home_hostname).expect("greeted");
    let answer = client.login(ALICE, &pair.account(ALICE).password).expect("answered");
    assert_eq!(answer.code, 235, "{answer:?}");
    client
}

/// A mail host that says when it has a message, and answers when it is told to.
struct SlowHost {
    address: SocketAddr,
    dots: Receiver<()>,
    go: Sender<()>,
}

impl SlowHost {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let ((dot, dots), (go, told)) = (channel(), channel());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut writer = stream.try_clone().expect("cloned");
                let mut say = move |text: &str| writer.write_all(text.as_bytes()).is_ok();
                say("220 slow.example\r\n");
                let mut in_data = false;
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let reply = match (in_data, line.as_str()) {
                        (true, ".") => {
                            in_data = false;
                            if dot.send(()).is_err() || told.recv().is_err() {
                                return;
                            }
                            "250 2.0.0 taken\r\n"
                        }
                        (true, _) => continue,
                        (false, "DATA") => {
                            in_data = true;
                            "354 go\r\n"
                        }
                        (false, "QUIT") => "221 bye\r\n",
                        (false, _) => "250 ok\r\n",
                    };
                    if !say(reply) {
                        break;
                    }
                }
            }
        });
        Self { address, dots, go }
    }
}
