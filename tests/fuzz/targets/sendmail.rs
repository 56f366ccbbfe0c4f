//! What local programs give to `sendmail`: arguments, and text on stdin.

use gatepost_protocol::mail::header::body_start;
use gatepost_protocol::sendmail::arguments::{self, RECIPIENTS_MAX};
use gatepost_protocol::sendmail::text::Composer;

/// Words, a line each; the first is the name the command is called by.
pub fn sendmail_arguments(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut words = text.split('\n');
    let called = words.next().unwrap_or_default();
    if let Ok(invocation) = arguments::parse(called, words.clone()) {
        assert!(invocation.recipients.len() <= RECIPIENTS_MAX);
        let given: Vec<&str> = words.collect();
        assert!(invocation.recipients.iter().all(|written| given.contains(&written.as_str())), "{text}");
    }
}

/// Text becomes a message whatever it is, the same one in whatever pieces it comes.
pub fn sendmail_text(data: &[u8]) {
    let Some((&first, text)) = data.split_first() else { return };
    let composed = |piece: usize| {
        let mut composer = Composer::new(first & 1 == 1);
        let mut message = Vec::new();
        for piece in text.chunks(piece) {
            composer.take(piece, &mut message);
        }
        composer.finish(&mut message);
        message
    };
    let message = composed(text.len().max(1));
    assert_eq!(message, composed(usize::from(first >> 1).max(1)));
    let mut rest = message.as_slice();
    while let Some(at) = line_end(rest) {
        assert!(rest[at..].starts_with(b"\r\n"), "a line end that is none");
        rest = &rest[at + 2..];
    }
    assert!(rest.is_empty() && body_start(&message).is_some(), "a message has whole lines, and an end of its header");
}

/// The next octet that may not stand alone, or not at all.
fn line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|octet| matches!(octet, b'\r' | b'\n' | 0))
}
