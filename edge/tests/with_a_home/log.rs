//! What the log says of a message.

use std::io::Write;
use std::sync::{Arc, Mutex};

use gatepost_protocol::mail::reply::Reply;
use tracing_subscriber::filter::LevelFilter;

use crate::client::{Client, message};
use crate::edge::{World, until};
use crate::home::{Home, answer};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_taken_leaves_one_line_that_tells_its_course() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::INFO).with_ansi(false);
    // Of the whole process: the lines of other tests are told apart by their senders.
    subscriber.with_writer(move || writer.clone()).init();
    let world = World::start("60 s");
    let mut home = Home::connect(&world).await;
    let mut client = Client::connect(world.smtp()).await;
    client.begin_from("logged@world.example", "alice@example.org").await;
    client.send(&message(1000)).await;
    client.send(b".\r\n").await;
    let (taken, stream) = home.take().await;
    answer(stream, &Reply::accepted("home")).await;
    assert!(client.reply().await.starts_with("250"));
    let octets = format!("octets={}", taken.body.len());
    let line = || {
        let text = String::from_utf8(lines.0.lock().expect("not poisoned").clone()).expect("text");
        let ours: Vec<_> =
            text.lines().filter(|line| line.contains("sender=logged@world.example")).map(str::to_owned).collect();
        assert!(ours.len() <= 1, "{ours:?}");
        ours.into_iter().next()
    };
    until(|| line().is_some()).await;
    let line = line().expect("it is there");
    for part in [
        "INFO",
        "trace=",
        "home=\"cottage\"",
        "client=127.0.0.1",
        "recipients=1",
        "recipient=\"alice@example.org\"",
        "tls=\"none\"",
        "helo=",
        &octets,
        "took_ms=",
        "reply=250",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
}
