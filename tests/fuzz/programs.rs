//! Records the programs keep on disk, and what they tell each other as text.

use std::fmt::Write as _;

use gatepost_edge::admission::regulars::Regulars;
use gatepost_edge::bans::record as bans;
use gatepost_edge::journal::segment::{self, HEADER_OCTETS};
use gatepost_edge::local::notice;
use gatepost_edge::relay::attempts::record as attempts;
use gatepost_home::imap::answer::Status;
use gatepost_home::imap::session::{AuthAnswer, Event, Session};
use gatepost_home::mailbox::message;
use gatepost_home::pickup::letter;
use gatepost_home::queue::entry::record;
use gatepost_home::queue::entry::trailer::{self, TAIL_OCTETS, Trailer};
use gatepost_protocol::machine::{Machine as _, Output, TlsFacts};
use gatepost_runtime::{durable, metrics};
use serde_json::{Value, json};

/// A queue entry's file: as it is, and with a checksum that fits, so that what is behind it is reached.
pub fn queue_entry(data: &[u8]) {
    let _ = record::decode_file(data);
    let Ok(entry) = serde_json::from_slice::<Value>(data) else { return };
    let compact = serde_json::to_vec(&entry).expect("a value always serialises");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &compact);
    let hexadecimal = digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let file = json!({ "checksum": format!("sha256:{hexadecimal}"), "entry": entry });
    if let Ok(entry) = record::decode_file(file.to_string().as_bytes()) {
        let again = record::decode(&record::encode(&entry)).expect("what was read can be written and read");
        assert_eq!(record::view(&again), record::view(&entry));
    }
}

/// The end of a queued message's file: as it is, and with a mark, a length and a checksum that fit.
pub fn queue_trailer(data: &[u8]) {
    trailer_of(data);
    let Some((&split, rest)) = data.split_first() else { return };
    let text_at = usize::from(split).min(rest.len());
    let text = &rest[text_at..];
    let length = u32::try_from(text.len()).expect("small").to_be_bytes();
    let sum = record::checksum(text).to_be_bytes();
    trailer_of(&[rest, &sum[..], &length[..], b"GPQ1"].concat());
}

fn trailer_of(file: &[u8]) {
    let Some(tail) = file.last_chunk::<TAIL_OCTETS>() else { return };
    let Some(found) = Trailer::read(file.len() as u64, tail) else { return };
    let start = usize::try_from(found.text_at()).expect("within the file");
    let text = &file[start..start + found.text_octets()];
    assert_eq!(start + text.len() + TAIL_OCTETS, file.len());
    if let Some(entry) = found.entry(text) {
        let again = [&file[..start], &trailer::encode(&entry)].concat();
        let tail = again.last_chunk::<TAIL_OCTETS>().expect("it has an end");
        assert!(Trailer::read(again.len() as u64, tail).is_some());
    }
}

/// What an edge keeps about clients, its regulars and its bans: what was read is written so that it is read as the same.
pub fn clients(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for now_ms in [0, 1_000_000_000_000] {
        if let Ok((regulars, _)) = Regulars::read(&format!("gatepost regulars 1\n{text}"), now_ms) {
            let written = regulars.write(now_ms);
            let again = Regulars::read(&written, now_ms).map(|(again, damaged)| (again.write(now_ms), damaged));
            assert_eq!(again, Ok((written, 0)));
        }
        if let Ok(read) = bans::read(&format!("gatepost bans 1\n{text}"), now_ms) {
            let written = bans::write(&read.strikes, now_ms);
            let again = bans::read(&written, now_ms).map(|again| (bans::write(&again.strikes, now_ms), again.damaged));
            assert_eq!(again, Ok((written, 0)));
        }
    }
    let _ = (Regulars::read(&text, 0), bans::read(&text, 0));
}

/// The journal of attempts at an edge: its frames as they are, and one record in a frame that fits.
pub fn attempts_journal(data: &[u8]) {
    let found = durable::records(data);
    let octets: usize = found.records.iter().map(Vec::len).sum();
    assert!(octets + found.torn_octets <= data.len());
    for record in found.records.iter().map(Vec::as_slice).chain([data]) {
        if let Some(known) = attempts::decode(record) {
            assert_eq!(attempts::decode(&attempts::encode(&known)), Some(known));
        }
    }
}

/// One file of an edge's journal of events: as it is, and with each checksum made to fit.
pub fn event_segment(data: &[u8]) {
    if let Some(header) = segment::Header::decode(data) {
        assert_eq!(data.get(..HEADER_OCTETS), Some(&header.encode()[..]));
    }
    events_of(data);
    // Pieces of the input, as events.
    let mut file = Vec::new();
    let mut written = 0;
    for piece in data.split(|&octet| octet == 0xff) {
        if let Ok(event) = postcard::from_bytes(piece) {
            written += u64::from(segment::put(&mut file, &event));
        }
    }
    assert_eq!(segment::whole(&file), (written, file.len()));
    assert_eq!(events_of(&file), written);
    if let Some(shorter) = file.len().checked_sub(1) {
        assert_eq!(segment::whole(&file[..shorter]).0, written - 1, "the last is torn");
    }
}

fn events_of(file: &[u8]) -> u64 {
    let (count, octets) = segment::whole(file);
    assert!(octets <= file.len());
    let (mut rest, mut read) = (file, 0);
    while let Some((event, taken)) = segment::take(rest) {
        let mut again = Vec::new();
        assert!(segment::put(&mut again, &event), "what was read can be written");
        rest = &rest[taken..];
        read += 1;
    }
    assert!(read <= count);
    read
}

/// A page of metrics as another machine tells it: what is taken over reads as Prometheus wants it.
pub fn metrics_page(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let page = metrics::text(metrics::admit(text, "gatepost_edge_"));
    for line in page.lines() {
        let begins = ["# HELP gatepost_edge_", "# TYPE gatepost_edge_", "gatepost_edge_"];
        assert!(begins.iter().any(|begin| line.starts_with(begin)), "{line}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

/// What programs of the machine leave in the drop, and read there.
pub fn drop_letter(data: &[u8]) {
    if let Ok(head) = letter::Head::parse(data) {
        let _ = (head.ret(), head.notify());
        let line = head.line().expect("what was read can be written");
        assert_eq!(letter::Head::parse(&line), Ok(head));
    }
    if let Some(head) = notice::Head::parse(data) {
        let line = head.line().expect("what was read can be written");
        assert_eq!(notice::Head::parse(&line), Some(head));
    }
    if let Some(notice) = notice::Notice::parse(data) {
        let _ = (notice.choose(None), notice.choose(Some("cottage")));
    }
}

/// An IMAP session with a hostile client: it always comes to wait, holds a bounded part of what was sent, and hands over
/// exactly the octets of a message that it announced.
pub fn imap_session(data: &[u8]) {
    let Some((&cut, words)) = data.split_first() else { return };
    let now = gatepost_runtime::clock::Clock::real().now();
    let mut session = Session::new(now);
    session.secured(now, TlsFacts::default());
    let mut owed: Option<u64> = None;
    for piece in words.chunks(usize::from(cut).max(1)) {
        session.bytes(now, piece);
        for turn in 0.. {
            assert!(turn < 10_000, "it never waits");
            match session.poll(now) {
                Output::Send(_) => {}
                Output::Secure => panic!("TLS was there from the start"),
                Output::Wait { .. } => break,
                Output::Close => return,
                Output::Event(Event::Auth { .. } | Event::AuthResponse(_)) => {
                    session.answer_auth(now, AuthAnswer::Success { login: "a".to_owned(), last: None });
                }
                Output::Event(Event::Command(_)) => {
                    session.set_selected(true);
                    session.finish(now, &Status::ok("X"));
                }
                Output::Event(Event::Append(append)) => {
                    owed = Some(append.octets);
                    session.take_message(now);
                }
                Output::Event(Event::AppendBody(bytes)) => {
                    let left = owed.expect("a message was announced").checked_sub(bytes.len() as u64);
                    owed = Some(left.expect("no more than was announced"));
                }
                Output::Event(Event::AppendEnd) => {
                    assert_eq!(owed.take(), Some(0), "all of it came");
                    session.finish(now, &Status::ok("APPEND"));
                }
                Output::Event(Event::AppendBrokenOff) => owed = None,
                Output::Event(Event::Idle) => session.idle(now),
                Output::Event(Event::Done) => session.finish(now, &Status::ok("IDLE")),
            }
        }
    }
}

/// What a message is made of, whatever was sent: every part lies within it, and what is told of it is balanced.
pub fn message_structure(data: &[u8]) {
    let whole = message::with_line_ends(data.to_vec());
    assert_eq!(message::with_line_ends(whole.clone()), whole, "done once, it is done");
    check(&message::Part::of(&whole), whole.len());
    let told = message::structure(&whole);
    for text in [told.envelope, told.body, told.bodystructure] {
        assert!(text.starts_with(b"(") && text.ends_with(b")"));
    }
}

fn check(part: &message::Part, octets: usize) {
    assert!(part.header.end <= part.body.start && part.body.end <= octets);
    match &part.within {
        message::Within::Leaf => {}
        message::Within::Message(inner) => check(inner, octets),
        message::Within::Parts(parts) => parts.iter().for_each(|part| check(part, octets)),
    }
}
