//! At a mail server's door: its greeting, and whether it takes a stranger's mail for somebody elsewhere. No message is
//! ever begun.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::smtp::client::ReplyReader;
use gatepost_runtime::clock::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Reaching it may take so long.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(7);
/// Each reply may take so long; a greeting may be held back on purpose.
const REPLY_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest line that is read, in octets.
const LINE_OCTETS_MAX: usize = 2048;
/// Words that are passed on, in octets.
const WORDS_OCTETS_MAX: usize = 200;

/// Ways in which relays were ever tricked: `@` stands for the stranger's aim, as `user` and `host` in it, `here` for the server.
const WAYS: [&str; 7] = [
    "<{user}@{host}>",
    "<{user}%{host}@{here}>",
    "<\"{user}@{host}\">",
    "<\"{user}@{host}\"@{here}>",
    "<@{here}:{user}@{host}>",
    "<{host}!{user}>",
    "<{host}!{user}@{here}>",
];

/// A conversation, line by line.
struct Talk<'a> {
    stream: TcpStream,
    reader: ReplyReader,
    input: BytesMut,
    clock: &'a Clock,
}

/// The greeting of the server there; an error is why there is none.
pub(super) async fn knock(address: SocketAddr, clock: &Clock) -> Result<String, String> {
    let mut talk = Talk::begin(address, clock).await?;
    let greeting = talk.greeting().await?;
    talk.end().await;
    Ok(greeting)
}

/// The greeting, and all commands by which a stranger's mail would go to `elsewhere`, each with its reply.
pub(super) async fn strangers(
    address: SocketAddr,
    here: &str,
    elsewhere: &str,
    clock: &Clock,
) -> Result<(String, Vec<(String, String)>), String> {
    let mut talk = Talk::begin(address, clock).await?;
    let greeting = talk.greeting().await?;
    let mut relayed = Vec::new();
    let Some((user, host)) = elsewhere.rsplit_once('@') else {
        talk.end().await;
        return Ok((greeting, relayed));
    };
    talk.say(&format!("EHLO {here}")).await?;
    'senders: for sender in [elsewhere, ""] {
        for way in WAYS {
            let recipient = way.replace("{user}", user).replace("{host}", host).replace("{here}", here);
            if !talk.say(&format!("MAIL FROM:<{sender}>")).await?.is_positive() {
                break;
            }
            let command = format!("RCPT TO:{recipient}");
            let reply = talk.say(&command).await?;
            if reply.is_positive() {
                relayed.push((command, words(&reply)));
            }
            // Shut out: so is every stranger.
            if reply.code() == 421 || !talk.say("RSET").await?.is_positive() {
                break 'senders;
            }
        }
    }
    talk.end().await;
    Ok((greeting, relayed))
}

impl<'a> Talk<'a> {
    async fn begin(address: SocketAddr, clock: &'a Clock) -> Result<Self, String> {
        let stream = match clock.timeout(CONNECT_WAIT_MAX, TcpStream::connect(address)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(format!("not reached: {error}")),
            None => return Err(format!("not reached within {} s", CONNECT_WAIT_MAX.as_secs())),
        };
        Ok(Self { stream, reader: ReplyReader::new(LINE_OCTETS_MAX), input: BytesMut::new(), clock })
    }

    async fn greeting(&mut self) -> Result<String, String> {
        let reply = self.reply().await?;
        if reply.is_positive() { Ok(words(&reply)) } else { Err(format!("it greets with {}", words(&reply))) }
    }

    async fn say(&mut self, line: &str) -> Result<Reply, String> {
        let line = format!("{line}\r\n");
        self.stream.write_all(line.as_bytes()).await.map_err(|error| error.to_string())?;
        self.reply().await
    }

    async fn reply(&mut self) -> Result<Reply, String> {
        let Self { stream, reader, input, clock } = self;
        let read = async {
            loop {
                if let Some(reply) = reader.next(input).map_err(|error| error.to_string())? {
                    return Ok(reply);
                }
                if stream.read_buf(input).await.map_err(|error| error.to_string())? == 0 {
                    return Err("it hung up".to_owned());
                }
            }
        };
        let silent = || Err(format!("no word within {} s", REPLY_WAIT_MAX.as_secs()));
        clock.timeout(REPLY_WAIT_MAX, read).await.unwrap_or_else(silent)
    }

    async fn end(mut self) {
        // Whether it says goodbye matters to nobody.
        let _ = self.stream.write_all(b"QUIT\r\n").await;
        let _ = self.stream.shutdown().await;
    }
}

fn words(reply: &Reply) -> String {
    let mut text: String = reply.to_string().chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    let end = (0..=text.len().min(WORDS_OCTETS_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
    text
}
