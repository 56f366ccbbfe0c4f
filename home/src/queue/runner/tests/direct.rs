//! Straight from home to a host.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_protocol::mail::address::ReversePath;

use super::sink::{Sink, Taken, routes};
use super::*;
use crate::queue::command::{Command, Which};
use crate::queue::entry::State;
use crate::queue::tests::{TEXT, Unreadable, open};

const MINUTE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn recipients_of_one_host_get_one_transaction() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["bob@example.com", "carol@example.net"]);
    running.until_gone().await;
    let expected = Taken {
        sender: "alice@example.org".into(),
        recipients: vec!["bob@example.com".into(), "carol@example.net".into()],
        bytes: TEXT.to_vec(),
    };
    assert_eq!(*sink.taken.borrow(), [expected]);
    running.kill().await;
    let (queue, set_aside) = open(state.path());
    assert_eq!((queue.waiting(), set_aside.len()), (0, 0));
    assert!(queue.settle(ID).expect("settled"), "done, and known to be");
}

#[tokio::test]
async fn a_route_to_a_door_of_our_own_waits_and_says_so() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let running =
        Running::start(state.path(), Settings { own_doors: vec![sink.address], ..settings() }, sink.routes(), clock());
    running.put(1, &["bob@example.com"]);
    running.until_deferred(1).await;
    let words = running.entry(ID).and_then(|entry| entry.last_words()).expect("said");
    assert!(words.starts_with("554 5.4.6") && words.contains("loops back to myself"), "{words}");
    // The owner mends the route.
    running.queue.reload(settings(), sink.routes());
    running.clock.turn(2 * MINUTE);
    running.until_gone().await;
    assert_eq!(sink.taken.borrow().len(), 1);
    running.kill().await;
}

#[tokio::test]
async fn messages_one_after_another_share_a_connection() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["bob@example.com"]);
    running.until_gone().await;
    // By a clock that stands still, nothing rests too long.
    assert_eq!(*sink.sessions.borrow(), 1);
    running.put(2, &["carol@example.com"]);
    let mut taken = sink.taken.clone();
    taken.wait_for(|taken| taken.len() == 2).await.expect("it runs");
    assert_eq!(sink.opened.load(Ordering::Relaxed), 1);
    running.kill().await;
}

#[tokio::test]
async fn a_deferred_recipient_is_tried_again_and_a_refused_one_bounced() {
    let state = tempfile::tempdir().expect("a folder");
    let tries = AtomicUsize::new(0);
    let sink = Sink::start(move |address| match address {
        "gone@example.com" => Reply::unknown_recipient(),
        "busy@example.com" if tries.fetch_add(1, Ordering::Relaxed) < 2 => Reply::no_room(),
        _ => Reply::recipient_ok(),
    })
    .await;
    let mut running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["bob@example.com", "gone@example.com", "busy@example.com"]);
    let bounce = running.bounce().await;
    assert_eq!(bounce.envelope.reverse_path, ReversePath::Null);
    assert_eq!(bounce.envelope.recipients[0].address.to_string(), "alice@example.org");
    let text = text(&bounce);
    assert!(text.contains("gone@example.com") && !text.contains("busy@example.com"), "{text}");
    bounce.accepted.send(Reply::ok()).expect("awaited");
    running.until_deferred(1).await;
    running.clock.turn(2 * MINUTE);
    running.until_deferred(2).await;
    running.clock.turn(10 * MINUTE);
    running.until_gone().await;
    let recipients: Vec<_> = sink.taken.borrow().iter().map(|taken| taken.recipients.clone()).collect();
    assert_eq!(recipients, [["bob@example.com"], ["busy@example.com"]]);
    running.kill().await;
}

fn text(bounce: &Bounce) -> String {
    bounce.message.body.chunks().map(|chunk| String::from_utf8_lossy(&chunk.expect("read")).into_owned()).collect()
}

#[tokio::test]
async fn a_bounce_comes_again_the_same_until_it_is_taken_even_over_a_crash() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::start(|_| Reply::unknown_recipient()).await);
    let mut running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["gone@example.com"]);
    let first = running.bounce().await;
    let (id, first_text) = (first.id, text(&first));
    first.accepted.send(Reply::local_error()).expect("awaited");
    running
        .until("a put-off bounce", |entry| {
            entry.and_then(|entry| entry.bounce.as_ref()).is_some_and(|bounce| bounce.attempts == 1)
        })
        .await;
    running.clock.turn(20 * MINUTE);
    let second = running.bounce().await;
    assert_eq!((second.id, text(&second)), (id, first_text.clone()));
    // The program dies while the router decides.
    running.kill().await;
    let mut running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.clock.turn(60 * MINUTE);
    let third = running.bounce().await;
    assert_eq!((third.id, text(&third)), (id, first_text));
    third.accepted.send(Reply::ok()).expect("awaited");
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn a_refused_bounce_holds_the_message_for_its_owner() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::start(|_| Reply::unknown_recipient()).await);
    let mut running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["gone@example.com"]);
    running.bounce().await.accepted.send(Reply::unknown_recipient()).expect("awaited");
    running.until("a held message", |entry| entry.is_some_and(|entry| entry.held.is_some())).await;
    running.queue.command(Command::Release(Which::All)).expect("released");
    running.bounce().await.accepted.send(Reply::ok()).expect("awaited");
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn a_host_that_is_away_for_five_days_ends_in_a_bounce() {
    let state = tempfile::tempdir().expect("a folder");
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound")
    };
    let silent = Settings { warn: None, ..settings() };
    let mut running = Running::start(state.path(), silent, routes(closed), clock());
    running.put(1, &["bob@example.com"]);
    running.until_deferred(1).await;
    running.clock.turn(Duration::from_hours(119));
    running.until_deferred(2).await;
    running.clock.turn(Duration::from_hours(3));
    let bounce = running.bounce().await;
    assert!(text(&bounce).contains("Given up after 5 days"), "{}", text(&bounce));
    bounce.accepted.send(Reply::ok()).expect("awaited");
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn one_destination_gets_no_more_than_its_share() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    sink.gate.forget_permits(sink.gate.available_permits());
    let four = Settings { attempts_per_destination_max: 4, ..settings() };
    let running = Running::start(state.path(), four, sink.routes(), clock());
    for n in 1..=12 {
        running.put(n, &["bob@example.com"]);
    }
    let mut taken = sink.taken.clone();
    tokio::time::timeout(PATIENCE, taken.wait_for(|taken| taken.len() == 4)).await.expect("in time").expect("open");
    assert_eq!(*sink.sessions.borrow(), 4);
    let most = Arc::new(Mutex::new(0));
    let (mut sessions, seen) = (sink.sessions.clone(), Arc::clone(&most));
    tokio::spawn(async move {
        while sessions.changed().await.is_ok() {
            let now = *sessions.borrow();
            let mut most = seen.lock().expect("whole");
            *most = now.max(*most);
        }
    });
    sink.gate.add_permits(12);
    tokio::time::timeout(PATIENCE, taken.wait_for(|taken| taken.len() == 12)).await.expect("in time").expect("open");
    assert!(*most.lock().expect("whole") <= 5, "four, and one whose goodbye is still on its way");
    running.kill().await;
}

#[tokio::test]
async fn a_message_damaged_on_disk_is_set_aside_and_never_sent() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    let path = state.path().join("queue").join(format!("{ID}.eml"));
    let mut bytes = std::fs::read(&path).expect("there");
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).expect("damaged");
    drop(queue);
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.until_gone().await;
    assert_eq!(*sink.taken.borrow(), []);
    for suffix in ["eml", "json"] {
        assert!(state.path().join("queue/damaged").join(format!("{ID}.{suffix}")).exists());
    }
    running.kill().await;
}

#[tokio::test]
async fn a_message_that_can_not_be_read_now_is_sent_later() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    drop(queue);
    let (queue, _) = open_with(state.path(), settings(), sink.routes(), clock());
    let away = Unreadable::make(state.path().join("queue").join(format!("{ID}.eml")));
    let running = Running::run(queue, clock());
    running.until_deferred(1).await;
    assert_eq!(*sink.taken.borrow(), []);
    away.undo();
    running.queue.command(Command::Flush(Which::All)).expect("sooner");
    running.until_gone().await;
    assert_eq!(sink.taken.borrow().len(), 1);
    assert!(!state.path().join("queue/damaged").exists());
    running.kill().await;
}

#[tokio::test]
async fn a_stop_after_the_final_dot_is_in_doubt_and_marked() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    sink.gate.forget_permits(sink.gate.available_permits());
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(1, &["bob@example.com"]);
    let mut taken = sink.taken.clone();
    tokio::time::timeout(PATIENCE, taken.wait_for(|taken| taken.len() == 1)).await.expect("in time").expect("open");
    running.kill().await;
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.until_deferred(1).await;
    running.clock.turn(2 * MINUTE);
    tokio::time::timeout(PATIENCE, taken.wait_for(|taken| taken.len() == 2)).await.expect("in time").expect("open");
    let entry = running.entry(ID).expect("not done yet");
    assert!(matches!(&entry.recipients[0].state, State::Waiting(waiting) if waiting.in_doubt));
    sink.gate.add_permits(2);
    running.until_gone().await;
    running.kill().await;
}

#[tokio::test]
async fn held_messages_stay_until_released_and_draining_starts_nothing() {
    let (state, sink) = (tempfile::tempdir().expect("a folder"), Sink::takes_all().await);
    let (queue, _) = open(state.path());
    queue.prepare(new_entry(1, &["bob@example.com"]), &message()).expect("prepared").commit().expect("committed");
    queue.command(Command::Hold(Which::All)).expect("held");
    drop(queue);
    let running = Running::start(state.path(), settings(), sink.routes(), clock());
    running.put(2, &["carol@example.com"]);
    let mut taken = sink.taken.clone();
    tokio::time::timeout(PATIENCE, taken.wait_for(|taken| taken.len() == 1)).await.expect("in time").expect("open");
    assert_eq!(taken.borrow()[0].recipients, ["carol@example.com"]);
    running.queue.command(Command::Release(Which::All)).expect("released");
    running.until_gone().await;
    running.shutdown.drain();
    tokio::time::timeout(PATIENCE, running.task).await.expect("in time").expect("ended by itself");
}
