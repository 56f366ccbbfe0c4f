//! Reads an aggregate report (RFC 9990 §3.1, RFC 7489 appendix C) as its many writers make it: what is missing or
//! unknown is let be, for no two of them agree. What strangers could make us pay for is refused or bounded: document
//! types and entities, depth, and how much of everything is kept.

use std::net::IpAddr;

use quick_xml::Reader;
use quick_xml::events::{BytesRef, BytesStart, Event};

use super::{
    Aggregate, Discovery, Disposition, DkimResult, Metadata, Published, Reason, ReasonKind, Row, SpfResult, Unreadable,
};
use crate::mail::verdict::{Asked, Found};

/// Rows kept of one report; the others are counted.
pub(super) const ROWS_MAX: usize = 5000;
/// Elements within elements; a report has seven.
const DEPTH_MAX: usize = 16;
/// Octets kept of one text.
const TEXT_OCTETS_MAX: usize = 256;
/// Signatures told of one row.
const DKIM_RESULTS_MAX: usize = 16;
/// SPF checks told of one row.
const SPF_RESULTS_MAX: usize = 4;
/// Reasons told of one row.
const REASONS_MAX: usize = 8;
/// Errors told of one report.
const ERRORS_MAX: usize = 8;
/// Messages in one row: more are none of ours.
const COUNT_MAX: u64 = 1_000_000_000;

/// Elements that mean something to us; all others are one.
const NAMES: [&str; 43] = [
    "feedback",
    "report_metadata",
    "org_name",
    "email",
    "extra_contact_info",
    "report_id",
    "date_range",
    "begin",
    "end",
    "error",
    "generator",
    "policy_published",
    "domain",
    "p",
    "sp",
    "np",
    "adkim",
    "aspf",
    "testing",
    "fo",
    "discovery_method",
    "record",
    "row",
    "source_ip",
    "count",
    "policy_evaluated",
    "disposition",
    "dkim",
    "spf",
    "reason",
    "type",
    "comment",
    "identifiers",
    "header_from",
    "envelope_from",
    "envelope_to",
    "auth_results",
    "selector",
    "scope",
    "result",
    "identities",
    "version",
    "human_result",
];

/// A report, and how many of its rows are left out: beyond the bound, or without an address.
pub(super) fn read(xml: &[u8]) -> Result<(Aggregate, u64), Unreadable> {
    let xml = xml.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(xml);
    // Some write Latin-1: what can't be read of a name is no reason to lose the report.
    let text = String::from_utf8_lossy(xml);
    let mut reader = Reader::from_str(&text);
    reader.config_mut().allow_dangling_amp = true;
    let mut reading = Reading::default();
    loop {
        let event = reader.read_event().map_err(|_| Unreadable::Malformed(reader.error_position()))?;
        match event {
            Event::Start(start) => reading.open(name(&start))?,
            Event::Empty(start) => {
                reading.open(name(&start))?;
                reading.close();
            }
            Event::End(_) => reading.close(),
            Event::Text(text) => reading.text(&text.xml10_content()),
            Event::CData(text) => reading.text(&text.xml10_content()),
            Event::GeneralRef(reference) => reading.letter(referred(&reference).ok_or(Unreadable::Entities)?),
            Event::DocType(_) => return Err(Unreadable::Entities),
            Event::Decl(_) | Event::PI(_) | Event::Comment(_) => {}
            Event::Eof if reading.path.is_empty() => return reading.report.ok_or(Unreadable::NoReport),
            Event::Eof => return Err(Unreadable::Malformed(reader.buffer_position())),
        }
    }
}

/// Without its prefix, in our spelling; empty if it means nothing to us.
fn name(start: &BytesStart<'_>) -> &'static str {
    let name = start.local_name();
    NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name.as_ref())).unwrap_or_default()
}

/// One of the five letters that XML itself names, or one by its number.
pub(crate) fn referred(reference: &BytesRef<'_>) -> Option<char> {
    match &**reference {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => reference.resolve_char_ref().ok().flatten(),
    }
}

/// How far reading has come.
#[derive(Default)]
struct Reading {
    path: Vec<&'static str>,
    value: String,
    report: Option<(Aggregate, u64)>,
    row: Draft,
}

/// A row before its end.
#[derive(Default)]
struct Draft {
    source: Option<IpAddr>,
    count: u64,
    disposition: Disposition,
    dkim: bool,
    spf: bool,
    reasons: Vec<Reason>,
    header_from: String,
    envelope_from: Option<String>,
    envelope_to: Option<String>,
    dkim_results: Vec<DkimResult>,
    spf_results: Vec<SpfResult>,
}

impl Reading {
    fn open(&mut self, name: &'static str) -> Result<(), Unreadable> {
        if self.path.is_empty() {
            if name != "feedback" || self.report.is_some() {
                return Err(Unreadable::NoReport);
            }
            self.report = Some(Default::default());
        }
        if self.path.len() == DEPTH_MAX {
            return Err(Unreadable::TooDeep);
        }
        // Of old, and of some still.
        self.path.push(if name == "identities" { "identifiers" } else { name });
        self.value.clear();
        match self.path[..] {
            ["feedback", "record"] => self.row = Draft::default(),
            ["feedback", "record", "auth_results", "dkim"] => {
                bounded_push(&mut self.row.dkim_results, DkimResult::default(), DKIM_RESULTS_MAX);
            }
            ["feedback", "record", "auth_results", "spf"] => {
                bounded_push(&mut self.row.spf_results, SpfResult::default(), SPF_RESULTS_MAX);
            }
            ["feedback", "record", "row", "policy_evaluated", "reason"] => {
                let reason = Reason { kind: ReasonKind::Other, comment: None };
                bounded_push(&mut self.row.reasons, reason, REASONS_MAX);
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        for letter in text.chars() {
            if self.value.len() >= TEXT_OCTETS_MAX {
                return;
            }
            self.letter(letter);
        }
    }

    fn letter(&mut self, letter: char) {
        let letter = if letter.is_control() { ' ' } else { letter };
        let is_room = self.value.len() + letter.len_utf8() <= TEXT_OCTETS_MAX;
        // White space in front is none of it, and must not use up its room.
        if is_room && !(self.value.is_empty() && letter.is_whitespace()) {
            self.value.push(letter);
        }
    }

    fn close(&mut self) {
        let value = std::mem::take(&mut self.value);
        let value = value.trim_end();
        let Some((report, left_out)) = &mut self.report else { return };
        match self.path[..] {
            ["feedback", "report_metadata", ref rest @ ..] => metadata(&mut report.metadata, rest, value),
            ["feedback", "policy_published", leaf] => published(&mut report.published, leaf, value),
            ["feedback", "record"] => {
                let room = report.rows.len() < ROWS_MAX;
                match std::mem::take(&mut self.row).finish().filter(|_| room) {
                    Some(row) => report.rows.push(row),
                    None => *left_out += 1,
                }
            }
            ["feedback", "record", ref rest @ ..] => self.row.put(rest, value),
            _ => {}
        }
        self.path.pop();
    }
}

fn metadata(metadata: &mut Metadata, path: &[&str], value: &str) {
    match path {
        ["org_name"] => value.clone_into(&mut metadata.organisation),
        ["email"] => value.clone_into(&mut metadata.email),
        ["extra_contact_info"] => metadata.contact = some(value),
        ["report_id"] => value.clone_into(&mut metadata.id),
        ["date_range", "begin"] => metadata.begin_unix_s = seconds(value),
        ["date_range", "end"] => metadata.end_unix_s = seconds(value),
        ["error"] if !value.is_empty() => bounded_push(&mut metadata.errors, value.to_owned(), ERRORS_MAX),
        ["generator"] => metadata.generator = some(value),
        _ => {}
    }
}

fn published(published: &mut Published, leaf: &str, value: &str) {
    let strict = || match value.bytes().next() {
        Some(b's' | b'S') => Some(true),
        Some(b'r' | b'R') => Some(false),
        _ => None,
    };
    match leaf {
        "domain" => published.domain = domain(value),
        "p" => published.asked = Asked::parse(value).unwrap_or_default(),
        "sp" => published.subdomains = Asked::parse(value),
        "np" => published.nonexistent = Asked::parse(value),
        "adkim" => published.strict_dkim = strict(),
        "aspf" => published.strict_spf = strict(),
        "testing" => published.testing = some(value).map(|value| value.eq_ignore_ascii_case("y")),
        "fo" => published.failures = some(value),
        "discovery_method" => {
            let all = [Discovery::PublicSuffixes, Discovery::TreeWalk];
            published.discovery = all.into_iter().find(|one| one.word().eq_ignore_ascii_case(value));
        }
        _ => {}
    }
}

impl Draft {
    fn put(&mut self, path: &[&str], value: &str) {
        let passes = || value.eq_ignore_ascii_case("pass");
        match path {
            ["row", "source_ip"] => self.source = value.parse().ok().map(|address: IpAddr| address.to_canonical()),
            ["row", "count"] => self.count = value.parse().unwrap_or(0).min(COUNT_MAX),
            ["row", "policy_evaluated", "disposition"] => {
                self.disposition = Disposition::parse(value).unwrap_or_default();
            }
            ["row", "policy_evaluated", "dkim"] => self.dkim = passes(),
            ["row", "policy_evaluated", "spf"] => self.spf = passes(),
            ["row", "policy_evaluated", "reason", leaf] => {
                let Some(reason) = self.reasons.last_mut() else { return };
                match *leaf {
                    "type" => reason.kind = ReasonKind::parse(value),
                    "comment" => reason.comment = some(value),
                    _ => {}
                }
            }
            ["identifiers", "header_from"] => self.header_from = domain(value),
            ["identifiers", "envelope_from"] => self.envelope_from = some(value).as_deref().map(domain),
            ["identifiers", "envelope_to"] => self.envelope_to = some(value).as_deref().map(domain),
            ["auth_results", "dkim", leaf] => {
                let Some(result) = self.dkim_results.last_mut() else { return };
                match *leaf {
                    "domain" => result.domain = domain(value),
                    "selector" => result.selector = some(value),
                    "result" => result.found = found(value),
                    _ => {}
                }
            }
            ["auth_results", "spf", leaf] => {
                let Some(result) = self.spf_results.last_mut() else { return };
                match *leaf {
                    "domain" => result.domain = domain(value),
                    "scope" => result.is_helo = value.eq_ignore_ascii_case("helo"),
                    "result" => result.found = found(value),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn finish(self) -> Option<Row> {
        let Self { source, count, disposition, dkim, spf, reasons, .. } = self;
        let Self { header_from, envelope_from, envelope_to, dkim_results, spf_results, .. } = self;
        Some(Row {
            source: source?,
            count,
            disposition,
            dkim,
            spf,
            reasons,
            header_from,
            envelope_from,
            envelope_to,
            dkim_results,
            spf_results,
        })
    }
}

fn bounded_push<T>(list: &mut Vec<T>, one: T, most: usize) {
    if list.len() < most {
        list.push(one);
    }
}

fn some(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn domain(value: &str) -> String {
    value.trim_end_matches('.').to_lowercase()
}

/// Seconds since 1970; some write parts of them.
fn seconds(value: &str) -> i64 {
    value.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

/// A result, in the words of today or of old.
fn found(value: &str) -> Found {
    match value.to_ascii_lowercase().as_str() {
        "hardfail" => Found::Fail,
        "error" => Found::TempError,
        "unknown" => Found::PermError,
        word => Found::parse(word).unwrap_or_default(),
    }
}
