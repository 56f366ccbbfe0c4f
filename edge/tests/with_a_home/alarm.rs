//! The owner hears by the webhook that the home stays away, by a clock that is turned.

use std::time::Duration;

use gatepost_runtime::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::edge::{WAIT_MAX, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_stays_away_is_told_to_the_webhook() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let alarm = format!("[alarm]\nwebhook = \"http://{}/hook\"\n", listener.local_addr().expect("bound"));
    let clock = Clock::still(Duration::from_hours(498_660));
    let mut world = World::start_with("60 s", &alarm);
    world.stop_edge().await;
    world.start_edge_by(&clock);
    let turning = tokio::spawn(async move {
        loop {
            clock.turn(Duration::from_mins(5));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    for expected in ["\"about\":\"cottage\"", "\"about\":\"cottage for a day\""] {
        let posted = async {
            loop {
                let posted = take(&listener).await;
                assert!(posted.contains("POST /hook ") && posted.contains("\"alarm\":\"home-away\""), "{posted}");
                if posted.contains(expected) {
                    return;
                }
            }
        };
        timeout(WAIT_MAX, posted).await.expect(expected);
    }
    turning.abort();
    world.stop_edge().await;
}

/// One request, answered well.
async fn take(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut seen = Vec::new();
    while !seen.ends_with(b"}") {
        assert!(stream.read_buf(&mut seen).await.expect("readable") > 0, "ended early");
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("written");
    String::from_utf8_lossy(&seen).into_owned()
}
