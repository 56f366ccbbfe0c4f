//! [`Entry`] as it is kept: JSON, text a person can read. In `home.db` and behind the message with a checksum
//! of its own; older builds wrote a file `queue/<id>.json` with the checksum inside. Fields may be added with
//! a default, never renamed.

use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::envelope::{BodyKind, Notify, Recipient, Ret};
use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::relay::AttemptId;
use gatepost_protocol::tunnel::wire::{RECIPIENTS_MAX, WireReply};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::{About, Addressee, Entry, Final, OpenAttempt, OpenBounce, Place, State, Waiting};
use crate::queue::QueueId;

/// Largest file that is read.
pub const RECORD_OCTETS_MAX: u64 = 64 * 1024 * 1024;
/// What this build writes and reads.
const VERSION: u32 = 1;

/// Why a file holds no entry.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Not the JSON that is due.
    #[error("it is not an entry: {0}")]
    Json(#[from] serde_json::Error),
    /// The contents are not those that were written.
    #[error("its checksum does not fit its contents")]
    Checksum,
    /// A value that can't be.
    #[error("its {0} is malformed")]
    Malformed(&'static str),
    /// Written by another version.
    #[error("it is of version {0}, which this program does not know")]
    Version(u32),
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    entry: Value,
    checksum: String,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a key of the file")]
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    id: String,
    trace: String,
    login: Option<String>,
    /// Left out by versions that only had mail for other hosts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    local: bool,
    received: String,
    /// Left out by versions that counted from `received`.
    queued: Option<String>,
    octets: u64,
    eight_bit: bool,
    sha256: String,
    sender: String,
    body_8bitmime: bool,
    smtputf8: bool,
    ret: Option<RecordRet>,
    envid: Option<String>,
    recipients: Vec<RecordRecipient>,
    attempts: Vec<RecordAttempt>,
    bounce: Option<RecordBounce>,
    held: Option<String>,
    finished: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecordRet {
    Full,
    Headers,
}

#[derive(Serialize, Deserialize)]
struct RecordRecipient {
    address: String,
    notify: Option<Vec<RecordNotify>>,
    orcpt: Option<String>,
    /// Left out: the inbox, and by versions that knew no other place for mail that waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    junk: bool,
    #[serde(flatten)]
    state: RecordState,
}

/// `NOTIFY=` as a list; an empty one is `NEVER`.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RecordNotify {
    Success,
    Failure,
    Delay,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum RecordState {
    Waiting {
        attempts: u32,
        next: String,
        last: Option<RecordFinal>,
        in_doubt: bool,
        #[serde(default)]
        warned: bool,
    },
    Delivered {
        last: RecordFinal,
        #[serde(default = "told")]
        told: bool,
    },
    Failed {
        last: RecordFinal,
        told: bool,
    },
}

/// Who was served before anybody could ask for it is owed no report.
fn told() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
struct RecordFinal {
    at: String,
    remote: Option<String>,
    reply: WireReply,
}

#[derive(Serialize, Deserialize)]
struct RecordAttempt {
    id: String,
    /// Left out: made by the home itself.
    edge: Option<RecordEdge>,
    since: String,
    lost: Option<String>,
    recipients: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct RecordEdge {
    name: String,
    key: String,
}

#[derive(Serialize, Deserialize)]
struct RecordBounce {
    #[serde(default)]
    about: RecordAbout,
    id: String,
    trace: String,
    made: String,
    recipients: Vec<usize>,
    attempts: u32,
    next: String,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecordAbout {
    #[default]
    Failure,
    Delay,
    Relay,
    Delivery,
}

/// The text of an entry.
pub fn encode(entry: &Entry) -> Vec<u8> {
    serde_json::to_vec(&Record::from(entry)).expect("strings, numbers and lists always serialise")
}

/// Reads that text.
pub fn decode(bytes: &[u8]) -> Result<Entry, RecordError> {
    let record: Record = serde_json::from_slice(bytes)?;
    if record.version == VERSION { record.try_into() } else { Err(RecordError::Version(record.version)) }
}

/// What is kept beside the text, so that corruption is noticed.
pub fn checksum(text: &[u8]) -> i64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text);
    digest.as_ref().first_chunk().map_or(0, |first| i64::from_be_bytes(*first))
}

/// A file as older builds wrote it, of this value.
#[cfg(test)]
pub(in crate::queue) fn sealed(value: Value) -> Vec<u8> {
    let checksum = file_checksum(&value);
    let mut text = serde_json::to_vec_pretty(&Sealed { entry: value, checksum })
        .expect("strings, numbers and lists always serialise");
    text.push(b'\n');
    text
}

/// The entry as a JSON value, for listings.
pub fn view(entry: &Entry) -> Value {
    serde_json::to_value(Record::from(entry)).expect("strings, numbers and lists always serialise")
}

/// Reads a file of an older build.
pub fn decode_file(bytes: &[u8]) -> Result<Entry, RecordError> {
    let sealed: Sealed = serde_json::from_slice(bytes)?;
    if file_checksum(&sealed.entry) != sealed.checksum {
        return Err(RecordError::Checksum);
    }
    let version = sealed.entry.get("version").and_then(Value::as_u64).unwrap_or_default();
    if version != u64::from(VERSION) {
        return Err(RecordError::Version(u32::try_from(version).unwrap_or(u32::MAX)));
    }
    serde_json::from_value::<Record>(sealed.entry)?.try_into()
}

/// Over the compact form with sorted keys, so that neither layout nor the order of fields matters.
fn file_checksum(entry: &Value) -> String {
    let bytes = serde_json::to_vec(entry).expect("a value always serialises");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    format!("sha256:{}", hexadecimal(digest.as_ref()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let (high, low) = (text.get(..32)?, text.get(32..)?);
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&TransferId::parse(high)?.0);
    digest[16..].copy_from_slice(&TransferId::parse(low)?.0);
    Some(digest)
}

/// A moment as it is written: RFC 3339, to the millisecond.
pub fn time_text(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::MAX).to_string()
}

fn time(text: &str) -> Result<i64, RecordError> {
    text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| RecordError::Malformed("time"))
}

impl From<&Entry> for Record {
    fn from(entry: &Entry) -> Self {
        Self {
            version: VERSION,
            id: entry.id.to_string(),
            trace: entry.trace.to_string(),
            login: entry.login.clone(),
            local: entry.local,
            received: time_text(entry.received_unix_ms),
            queued: Some(time_text(entry.queued_unix_ms)),
            octets: entry.octets,
            eight_bit: entry.eight_bit,
            sha256: hexadecimal(&entry.sha256),
            sender: entry.reverse_path.to_string(),
            body_8bitmime: entry.body == BodyKind::EightBit,
            smtputf8: entry.smtputf8,
            ret: entry.ret.map(|ret| match ret {
                Ret::Full => RecordRet::Full,
                Ret::Headers => RecordRet::Headers,
            }),
            envid: entry.envid.clone(),
            recipients: entry.recipients.iter().map(RecordRecipient::from).collect(),
            attempts: entry.attempts.iter().map(RecordAttempt::from).collect(),
            bounce: entry.bounce.as_ref().map(|bounce| RecordBounce {
                about: match bounce.about {
                    About::Failure => RecordAbout::Failure,
                    About::Delay => RecordAbout::Delay,
                    About::Relay => RecordAbout::Relay,
                    About::Delivery => RecordAbout::Delivery,
                },
                id: bounce.id.to_string(),
                trace: bounce.trace.to_string(),
                made: time_text(bounce.made_unix_s.saturating_mul(1000)),
                recipients: bounce.recipients.clone(),
                attempts: bounce.attempts,
                next: time_text(bounce.next_unix_ms),
            }),
            held: entry.held.clone(),
            finished: entry.finished_unix_ms.map(time_text),
        }
    }
}

impl From<&Addressee> for RecordRecipient {
    fn from(addressee: &Addressee) -> Self {
        Self {
            address: addressee.recipient.address.to_string(),
            notify: match addressee.recipient.notify {
                Notify::Unspecified => None,
                Notify::Never => Some(Vec::new()),
                Notify::On { success, failure, delay } => Some(
                    [(success, RecordNotify::Success), (failure, RecordNotify::Failure), (delay, RecordNotify::Delay)]
                        .into_iter()
                        .filter_map(|(wanted, what)| wanted.then_some(what))
                        .collect(),
                ),
            },
            orcpt: addressee.recipient.orcpt.clone(),
            junk: addressee.is_junk,
            state: match &addressee.state {
                State::Waiting(waiting) => RecordState::Waiting {
                    attempts: waiting.attempts,
                    next: time_text(waiting.next_unix_ms),
                    last: waiting.last.as_ref().map(RecordFinal::from),
                    in_doubt: waiting.in_doubt,
                    warned: waiting.warned,
                },
                State::Delivered { last, told } => RecordState::Delivered { last: last.into(), told: *told },
                State::Failed { last, told } => RecordState::Failed { last: last.into(), told: *told },
            },
        }
    }
}

impl From<&Final> for RecordFinal {
    fn from(last: &Final) -> Self {
        Self { at: time_text(last.at_unix_ms), remote: last.remote.clone(), reply: (&last.reply).into() }
    }
}

impl From<&OpenAttempt> for RecordAttempt {
    fn from(attempt: &OpenAttempt) -> Self {
        Self {
            id: attempt.id.to_string(),
            edge: match &attempt.place {
                Place::Edge { key, name } => Some(RecordEdge { name: name.clone(), key: key.to_string() }),
                Place::Home => None,
            },
            since: time_text(attempt.since_unix_ms),
            lost: attempt.lost_unix_ms.map(time_text),
            recipients: attempt.recipients.clone(),
        }
    }
}

impl TryFrom<Record> for Entry {
    type Error = RecordError;

    fn try_from(record: Record) -> Result<Self, RecordError> {
        use RecordError::Malformed;
        let count = record.recipients.len();
        if count == 0 || count > RECIPIENTS_MAX {
            return Err(Malformed("recipient list"));
        }
        let places = |places: &[usize]| places.iter().all(|place| *place < count);
        if !record.attempts.iter().all(|attempt| places(&attempt.recipients)) {
            return Err(Malformed("attempt"));
        }
        Ok(Self {
            id: QueueId::parse(&record.id).ok_or(Malformed("id"))?,
            trace: TraceId::parse(&record.trace).ok_or(Malformed("trace id"))?,
            login: record.login,
            local: record.local,
            received_unix_ms: time(&record.received)?,
            queued_unix_ms: time(record.queued.as_deref().unwrap_or(&record.received))?,
            octets: record.octets,
            eight_bit: record.eight_bit,
            sha256: digest(&record.sha256).ok_or(Malformed("digest"))?,
            reverse_path: ReversePath::parse(&record.sender).map_err(|_| Malformed("sender"))?,
            body: if record.body_8bitmime { BodyKind::EightBit } else { BodyKind::SevenBit },
            smtputf8: record.smtputf8,
            ret: record.ret.map(|ret| match ret {
                RecordRet::Full => Ret::Full,
                RecordRet::Headers => Ret::Headers,
            }),
            envid: record.envid,
            recipients: record.recipients.into_iter().map(Addressee::try_from).collect::<Result<_, _>>()?,
            attempts: record.attempts.into_iter().map(OpenAttempt::try_from).collect::<Result<_, _>>()?,
            bounce: match record.bounce {
                Some(bounce) if !places(&bounce.recipients) => return Err(Malformed("bounce")),
                Some(bounce) => Some(OpenBounce {
                    about: match bounce.about {
                        RecordAbout::Failure => About::Failure,
                        RecordAbout::Delay => About::Delay,
                        RecordAbout::Relay => About::Relay,
                        RecordAbout::Delivery => About::Delivery,
                    },
                    id: TransferId::parse(&bounce.id).ok_or(Malformed("bounce"))?,
                    trace: TraceId::parse(&bounce.trace).ok_or(Malformed("bounce"))?,
                    made_unix_s: time(&bounce.made)?.div_euclid(1000),
                    recipients: bounce.recipients,
                    attempts: bounce.attempts,
                    next_unix_ms: time(&bounce.next)?,
                }),
                None => None,
            },
            held: record.held,
            finished_unix_ms: record.finished.as_deref().map(time).transpose()?,
        })
    }
}

impl TryFrom<RecordRecipient> for Addressee {
    type Error = RecordError;

    fn try_from(record: RecordRecipient) -> Result<Self, RecordError> {
        let notify = match record.notify {
            None => Notify::Unspecified,
            Some(wanted) if wanted.is_empty() => Notify::Never,
            Some(wanted) => Notify::On {
                success: wanted.contains(&RecordNotify::Success),
                failure: wanted.contains(&RecordNotify::Failure),
                delay: wanted.contains(&RecordNotify::Delay),
            },
        };
        let address = Address::parse(&record.address).map_err(|_| RecordError::Malformed("recipient"))?;
        let state = match record.state {
            RecordState::Waiting { attempts, next, last, in_doubt, warned } => State::Waiting(Waiting {
                attempts,
                next_unix_ms: time(&next)?,
                last: last.map(Final::try_from).transpose()?,
                in_doubt,
                warned,
            }),
            RecordState::Delivered { last, told } => State::Delivered { last: last.try_into()?, told },
            RecordState::Failed { last, told } => State::Failed { last: last.try_into()?, told },
        };
        Ok(Self { recipient: Recipient { address, notify, orcpt: record.orcpt }, is_junk: record.junk, state })
    }
}

impl TryFrom<RecordFinal> for Final {
    type Error = RecordError;

    fn try_from(record: RecordFinal) -> Result<Self, RecordError> {
        Ok(Self { at_unix_ms: time(&record.at)?, remote: record.remote, reply: record.reply.into() })
    }
}

impl TryFrom<RecordAttempt> for OpenAttempt {
    type Error = RecordError;

    fn try_from(record: RecordAttempt) -> Result<Self, RecordError> {
        use RecordError::Malformed;
        let place = match record.edge {
            Some(edge) => {
                Place::Edge { key: edge.key.parse::<NodeKey>().map_err(|_| Malformed("edge"))?, name: edge.name }
            }
            None => Place::Home,
        };
        Ok(Self {
            id: AttemptId(TransferId::parse(&record.id).ok_or(Malformed("attempt"))?.0),
            place,
            since_unix_ms: time(&record.since)?,
            recipients: record.recipients,
            lost_unix_ms: record.lost.as_deref().map(time).transpose()?,
            ask_unix_ms: Some(0),
        })
    }
}
