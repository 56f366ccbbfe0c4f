//! Every mix of CR, LF, NUL, a dot and a letter where the end of a message could be, followed by commands that
//! somebody would smuggle in: at each door the message is taken as it is, or refused; never does its tail become
//! another one. And what is taken and sent on looks like one message to the most lenient of readers.

use super::*;
use crate::smtp::body::Encoder;

/// What the sequences are made of.
const ALPHABET: [u8; 5] = *b"\r\n\0.x";
/// The longest of them: the true end, CR LF . CR LF, is five.
const LENGTH_MAX: usize = 6;
/// What follows them.
const SMUGGLED: &[u8] = b"MAIL FROM:<evil@b.c>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nevil\r\n.\r\n";
/// What stands before: nothing, the inside of a line, the end of one.
const BEFORE: [&[u8]; 3] = [b"", b"text", b"text\r\n"];

/// All sequences up to this length.
fn sequences(length_max: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..=length_max).flat_map(|length| {
        (0..ALPHABET.len().pow(u32::try_from(length).expect("small"))).map(move |number| {
            let mut left = number;
            (0..length)
                .map(|_| {
                    let symbol = ALPHABET[left % ALPHABET.len()];
                    left /= ALPHABET.len();
                    symbol
                })
                .collect()
        })
    })
}

/// A session that has said DATA, at this door.
fn in_data(door: &str) -> Program {
    let mut program = Program::at(door);
    program.say("EHLO client.example\r\n");
    if door == "465" {
        let heard = program.say("AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n");
        assert!(heard.starts_with("235"), "{heard}");
    }
    program.say(TRANSACTION);
    let heard = program.say("DATA\r\n");
    assert!(heard.starts_with("354"), "{heard}");
    program
}

/// Where the message ends for who reads strictly: behind the first CR LF . CR LF, the one behind DATA counting.
fn true_end(wire: &[u8]) -> usize {
    if wire.starts_with(b".\r\n") {
        return 3;
    }
    wire.windows(5).position(|five| five == b"\r\n.\r\n").expect("it is there") + 5
}

/// Sends a wire's bytes in these pieces; how many messages were taken, and the last of them.
fn taken(door: &str, wire: &[u8], pieces: &[usize]) -> (usize, Vec<u8>, String) {
    let mut program = in_data(door);
    let mut left = wire;
    for piece in pieces {
        let (now, later) = left.split_at((*piece).min(left.len()));
        program.send(now);
        left = later;
    }
    if !left.is_empty() {
        program.send(left);
    }
    let heard = program.heard();
    let count = heard.matches("250 2.0.0 Accepted").count();
    (count, program.body, heard)
}

/// Lines as a host reads that takes CR, LF or both for a line's end and drops NULs.
fn lenient_lines(wire: &[u8]) -> Vec<Vec<u8>> {
    let kept: Vec<u8> = wire.iter().copied().filter(|&b| b != 0).collect();
    let joined = String::from_utf8(kept).expect("ASCII").replace("\r\n", "\n").replace('\r', "\n");
    joined.split('\n').map(|line| line.as_bytes().to_vec()).collect()
}

/// Judges one wire, sent in these pieces.
fn check(door: &str, wire: &[u8], pieces: &[usize]) {
    let shown = || format!("{door}: {} by {pieces:?}", wire.escape_ascii());
    let end = true_end(wire);
    let message = &wire[..end];
    let (count, body, heard) = taken(door, message, pieces);
    assert!(count <= 1, "{}: {heard}", shown());
    // Once its whole line ends are gone, a clean one has no CR, LF or NUL left.
    let text = String::from_utf8(message.to_vec()).expect("ASCII").replace("\r\n", "");
    let is_clean = !text.contains(['\r', '\n', '\0']);
    assert_eq!(count == 1, is_clean, "{}: {heard}", shown());
    if count == 0 {
        assert!(heard.starts_with("550 5.6.11"), "{}: {heard}", shown());
        return;
    }
    // What leaves us has one end, for everybody.
    let mut encoder = Encoder::default();
    let mut out = encoder.encode(bytes::Bytes::from(body)).expect("no bare line end was let in").to_vec();
    out.extend_from_slice(&encoder.finish().expect("nor at its end"));
    let lines = lenient_lines(&out);
    let ends = lines.iter().filter(|line| *line == b".").count();
    assert_eq!(
        (ends, lines.len() - lines.iter().position(|line| line == b".").expect("an end")),
        (1, 2),
        "{}",
        shown()
    );
}

#[test]
fn no_mix_of_line_ends_nul_and_dot_makes_two_messages_of_one() {
    let mut seen = 0;
    for sequence in sequences(LENGTH_MAX) {
        for before in BEFORE {
            let wire = [before, &sequence, SMUGGLED].concat();
            check("25", &wire, &[]);
            seen += 1;
        }
    }
    assert_eq!(seen, 3 * (1 + 5 + 25 + 125 + 625 + 3125 + 15625));
}

#[test]
fn nor_in_pieces_nor_at_another_door() {
    for sequence in sequences(4) {
        for before in BEFORE {
            let wire = [before, &sequence, SMUGGLED].concat();
            for door in ["465", "lan"] {
                check(door, &wire, &[]);
            }
            // Cut at each place within the sequence, and octet by octet.
            for cut in 0..=sequence.len() {
                check("25", &wire, &[before.len() + cut]);
            }
            check("25", &wire, &vec![1; wire.len()]);
        }
    }
}

/// A message that is refused is read to its true end, so that what stands behind that is heard, and only that.
#[test]
fn what_follows_the_true_end_is_the_next_command_and_nothing_before_it_is() {
    for sequence in sequences(4) {
        let wire = [b"text", &sequence[..], b"\r\n.\r\nNOOP\r\nEXPN x\r\n"].concat();
        let end = true_end(&wire);
        let (count, _, heard) = taken("25", &wire, &[]);
        let replies: Vec<&str> = heard.lines().map(|line| &line[..3]).collect();
        let (first, rest) = replies.split_first().expect("a reply to the message");
        assert!(count <= 1 && (*first == "250" || *first == "550"), "{}: {heard}", wire.escape_ascii());
        // One reply for each line that stands behind the end.
        let behind = wire[end..].windows(2).filter(|two| *two == b"\r\n").count();
        assert!(rest.len() <= behind, "{}: {heard}", wire.escape_ascii());
        assert!(
            heard.ends_with("502 5.5.1 Command not offered here\r\n") || rest.contains(&"500"),
            "{}: {heard}",
            wire.escape_ascii()
        );
    }
}
