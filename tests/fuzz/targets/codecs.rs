//! Addresses, header sections, frames, records, sealed containers.

use bytes::BytesMut;
use gatepost_protocol::mail::access::Subject;
use gatepost_protocol::mail::address::{Address, Domain, ForwardPath, LocalPart, ReversePath};
use gatepost_protocol::mail::directory::Directory;
use gatepost_protocol::mail::envelope::Envelope;
use gatepost_protocol::mail::header::{HeaderScan, body_start, fields, without};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::network::Network;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::pairing::code::PairingCode;
use gatepost_protocol::pairing::exchange::{PairingAnswer, PairingRequest};
use gatepost_protocol::seal::container::{CHUNK_OCTETS_MAX, Header, Reader, TAG_OCTETS};
use gatepost_protocol::tunnel::frame::{self, RECORD_OCTETS_MAX};
use gatepost_protocol::tunnel::hello::{HelloAck, Opening};
use gatepost_protocol::tunnel::transfer::{TransferEnd, TransferId, TransferOpen};
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::admin::{AdminAnswer, AdminRequest};
use gatepost_protocol::tunnel::verb::authenticate::{AuthResponse, AuthStep};
use gatepost_protocol::tunnel::verb::directory::{DirectoryHeld, Unusable, WireDirectory, WireDirectory2};
use gatepost_protocol::tunnel::verb::events::{EventBatch, EventsOpen, EventsTaken};
use gatepost_protocol::tunnel::verb::inbound::Handed;
use gatepost_protocol::tunnel::verb::relay::{AttemptState, RelayStep};
use gatepost_protocol::tunnel::verb::spool::{SpoolEnd, SpoolListing, SpoolPage};
use gatepost_protocol::tunnel::wire::{WireEnvelope, WireReply};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Addresses, paths, keys and ids in the forms people and peers write them: what is read prints
/// in a form that is read as the same.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = Address::parse(text) {
        let printed = address.to_string();
        assert!(!printed.contains(['\r', '\n', '\0']));
        assert_eq!(Address::parse(&printed), Ok(address));
    }
    if let Ok(domain) = Domain::parse(text) {
        assert!(domain.as_str().is_ascii());
        assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
    }
    let _ = LocalPart::parse(text).map(|local| local.split_detail('+').is_some());
    let _ = (ReversePath::parse(text), ForwardPath::parse(text));
    if let Ok(key) = text.parse::<NodeKey>() {
        assert_eq!(key.to_string().parse(), Ok(key));
    }
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    if let Ok(subject) = text.parse::<Subject>() {
        assert_eq!(subject.to_string().parse(), Ok(subject));
    }
    if let Some(trace) = TraceId::parse(text) {
        assert_eq!(TraceId::parse(&trace.to_string()), Some(trace));
    }
    if let Some(transfer) = TransferId::parse(text) {
        assert_eq!(TransferId::parse(&transfer.to_string()), Some(transfer));
    }
}

/// Pairing codes as people paste them, and the records both sides say, by a first octet that chooses.
pub fn pairing(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind % 4 {
        0 => drop(same::<PairingRequest>(body)),
        1 => {
            if let Some(PairingAnswer::Refused(refusal)) = same::<PairingAnswer>(body) {
                let _ = refusal.to_string();
            }
        }
        2 => {
            // A checksum that fits, so that what is behind it is reached.
            let hrp = bech32::Hrp::parse("gpair").expect("a prefix");
            if let Ok(text) = bech32::encode::<bech32::Bech32m>(hrp, body) {
                code(&text);
            }
        }
        _ => code(&String::from_utf8_lossy(body)),
    }
}

fn code(text: &str) {
    if let Ok(code) = text.parse::<PairingCode>() {
        let printed = code.reveal();
        assert!(printed.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(printed.parse(), Ok(code));
    }
}

/// A header section: whole fields make up the section, wherever a scan of it is cut.
pub fn header(data: &[u8]) {
    let Some((&cut, message)) = data.split_first() else { return };
    let section: Vec<u8> = fields(message).flat_map(|field| field.raw().to_vec()).collect();
    assert!(message.starts_with(&section));
    let (mut pieces, mut whole) = (HeaderScan::new(1000), HeaderScan::new(1000));
    whole.feed(message);
    for piece in message.chunks(usize::from(cut).max(1)) {
        pieces.feed(piece);
    }
    assert_eq!(
        (pieces.hops(), pieces.is_over(), pieces.is_too_big()),
        (whole.hops(), whole.is_over(), whole.is_too_big())
    );
    assert_eq!(body_start(message).is_some(), whole.is_over());
    let kept = without(message, &["Bcc", "Received"]);
    assert!(fields(&kept).all(|field| !field.is("bcc") && !field.is("received")));
    assert!(kept.len() <= message.len());
}

/// Frames, in pieces: the buffer never has to hold more than one, and no lie about length makes it grow.
pub fn frame(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let mut buffer = BytesMut::new();
    for piece in wire.chunks(usize::from(cut).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match frame::take(&mut buffer, RECORD_OCTETS_MAX) {
                Ok(Some(frame)) => {
                    let _ = frame.record::<Request>();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.len() <= RECORD_OCTETS_MAX + frame::HEADER_OCTETS);
        assert!(buffer.capacity() <= 4 * RECORD_OCTETS_MAX);
    }
}

/// The records of the tunnel, by a first octet that chooses one.
pub fn record(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind % 14 {
        0 => drop(same::<Opening>(body)),
        1 => drop(same::<HelloAck>(body)),
        2 => drop(same::<Request>(body)),
        3 => {
            if let Some(wire) = same::<WireDirectory>(body) {
                let _ = Directory::try_from(wire);
            }
        }
        4 => drop(same::<DirectoryHeld>(body)),
        5 => drop(same::<TransferOpen>(body)),
        6 => drop(same::<TransferEnd>(body)),
        7 => drop(same::<Handed>(body)),
        8 => drop(same::<AuthStep>(body)),
        9 => drop(same::<AuthResponse>(body)),
        10 => drop(same::<RelayStep>(body)),
        11 => drop(same::<AttemptState>(body)),
        12 => {
            let _ = (same::<SpoolListing>(body), same::<SpoolEnd>(body), same::<SpoolPage>(body));
        }
        _ => {
            if let Some(wire) = same::<WireEnvelope>(body)
                && let Ok(envelope) = Envelope::try_from(wire)
            {
                assert_eq!(Envelope::try_from(WireEnvelope::from(&envelope)), Ok(envelope));
            }
            if let Some(wire) = same::<WireReply>(body) {
                let reply = Reply::from(wire);
                assert!(reply.wire().split(|&b| b == b'\n').count() <= 66);
            }
        }
    }
}

/// The records of the verbs that came with version 2 of the tunnel, by a first octet that chooses one.
pub fn verb(data: &[u8]) {
    let Some((&kind, body)) = data.split_first() else { return };
    match kind % 6 {
        0 => {
            if let Some(Ok((directory, _))) = same::<WireDirectory2>(body).map(WireDirectory2::into_directory) {
                let (again, unusable) = WireDirectory2::from(&directory).into_directory().expect("our own");
                assert!(unusable == Unusable::default() && again == directory);
            }
        }
        1 => drop(same::<EventsOpen>(body)),
        2 => drop(same::<EventBatch>(body)),
        3 => drop(same::<EventsTaken>(body)),
        4 => drop(same::<AdminRequest>(body)),
        _ => drop(same::<AdminAnswer>(body)),
    }
}

/// Reads a record; what is read must survive writing and reading.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let record: T = frame::Frame::Record(bytes::Bytes::copy_from_slice(body)).record().ok()?;
    let mut buffer = BytesMut::new();
    frame::put_record(&mut buffer, &record, frame::DIRECTORY_OCTETS_MAX).ok()?;
    let again = frame::take(&mut buffer, frame::DIRECTORY_OCTETS_MAX).expect("our own frame").expect("a whole frame");
    assert_eq!(again.record::<T>().expect("our own record"), record);
    Some(record)
}

/// Sealed containers, in pieces. Half of the inputs get a valid header in front, so that chunks are reached.
pub fn container(data: &[u8]) {
    let Some((&cut, wire)) = data.split_first() else { return };
    let mut sealed = Vec::new();
    if cut % 2 == 1 {
        let header = Header {
            transfer: TransferId([1; 16]),
            sealed_unix_s: 0,
            recipient: [2; 32],
            encapsulated: vec![3; gatepost_protocol::seal::container::ENCAPSULATED_OCTETS],
        };
        sealed.extend_from_slice(&header.to_bytes());
    }
    sealed.extend_from_slice(wire);
    let mut reader = Reader::default();
    let mut buffer = BytesMut::new();
    for piece in sealed.chunks(usize::from(cut).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match reader.take(&mut buffer) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.capacity() <= 4 * (CHUNK_OCTETS_MAX + TAG_OCTETS));
    }
    let _ = reader.end(&buffer);
}
