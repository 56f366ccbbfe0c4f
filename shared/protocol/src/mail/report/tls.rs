//! What a sender tells a domain of TLS with its mail hosts (RFC 8460): how many sessions were as the domain's policy wants
//! them, and which were not, and why. Strangers write it: every list and every text of it is bounded.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::{Metadata, Unreadable};

/// Policies of a report that are read; a domain has two at most.
const POLICIES_MAX: usize = 32;
/// Kinds of failures of a policy that are read.
const FAILURES_MAX: usize = 256;
/// Lines of a policy's text, and patterns of its hosts, that are read.
const LINES_MAX: usize = 32;
/// Characters of a text that are kept.
const TEXT_MAX: usize = 512;

/// What one sender saw of TLS with a domain's hosts in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsReport {
    /// Who reports, and about when.
    pub metadata: Metadata,
    /// By policy.
    pub policies: Vec<PolicySeen>,
    /// Policies and failures that are not in it: beyond the bounds.
    pub left_out: u64,
}

/// What was seen under one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySeen {
    /// Which.
    pub kind: PolicyKind,
    /// Its text, line by line: of MTA-STS the policy, of DANE the records.
    pub text: Vec<String>,
    /// Whose.
    pub domain: String,
    /// Which hosts the policy is about.
    pub hosts: Vec<String>,
    /// Sessions that were as it wants them.
    pub good: u64,
    /// Those that were not.
    pub bad: u64,
    /// In what way.
    pub failures: Vec<TlsFailure>,
}

/// Kinds of policies (§4.4 `policy-type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// MTA-STS (RFC 8461).
    Sts,
    /// DANE (RFC 7672).
    Tlsa,
    /// The domain has none.
    #[default]
    None,
}

impl PolicyKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sts => "sts",
            Self::Tlsa => "tlsa",
            Self::None => "no-policy-found",
        }
    }

    /// As it was written; of what nobody knows, that there is none.
    pub fn parse(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "sts" => Self::Sts,
            "tlsa" => Self::Tlsa,
            _ => Self::None,
        }
    }
}

/// Sessions that failed alike (§4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFailure {
    /// How, in the words of RFC 8460 §4.3, such as `certificate-expired`.
    pub kind: String,
    /// From which address it was tried.
    pub sending: Option<String>,
    /// Which host was meant.
    pub host: Option<String>,
    /// At which address.
    pub receiving: Option<String>,
    /// How many sessions.
    pub count: u64,
    /// The sender's own words for why.
    pub reason: Option<String>,
    /// Where there is more to read, or more words.
    pub more: Option<String>,
}

/// Reads a report.
pub(super) fn read(text: &[u8]) -> Result<TlsReport, Unreadable> {
    let raw: RawReport = serde_json::from_slice(text).map_err(|_| Unreadable::NoJson)?;
    let (Some(range), Some(policies)) = (raw.range, raw.policies) else { return Err(Unreadable::NoReport) };
    let mut left_out = policies.left_out;
    let policies = policies.items.into_iter().map(|seen| {
        let (policy, summary) = (seen.policy.unwrap_or_default(), seen.summary.unwrap_or_default());
        let failures = seen.failures.unwrap_or_default();
        left_out += failures.left_out;
        PolicySeen {
            kind: PolicyKind::parse(&policy.kind.0),
            text: policy.text.0,
            domain: policy.domain.0.trim_end_matches('.').to_ascii_lowercase(),
            hosts: policy.hosts.0,
            good: summary.good.0,
            bad: summary.bad.0,
            failures: failures.items.into_iter().map(TlsFailure::from).collect(),
        }
    });
    Ok(TlsReport {
        policies: policies.collect(),
        metadata: Metadata {
            organisation: raw.organisation.0,
            email: raw.contact.0,
            id: raw.id.0,
            begin_unix_s: moment(&range.begin.0).unwrap_or_default(),
            end_unix_s: moment(&range.end.0).unwrap_or_default(),
            ..Metadata::default()
        },
        left_out,
    })
}

/// Writes one; `begin` and `end` are its span as RFC 3339 has it.
pub fn write(report: &TlsReport, begin: &str, end: &str) -> String {
    let policies = report.policies.iter().map(|seen| {
        let mut policy = json!({ "policy-type": seen.kind.word(), "policy-domain": seen.domain });
        for (name, lines) in [("policy-string", &seen.text), ("mx-host", &seen.hosts)] {
            if !lines.is_empty() {
                policy[name] = lines.as_slice().into();
            }
        }
        let mut told = json!({
            "policy": policy,
            "summary": { "total-successful-session-count": seen.good, "total-failure-session-count": seen.bad },
        });
        if !seen.failures.is_empty() {
            told["failure-details"] = seen.failures.iter().map(failure).collect();
        }
        told
    });
    let metadata = &report.metadata;
    json!({
        "organization-name": metadata.organisation,
        "date-range": { "start-datetime": begin, "end-datetime": end },
        "contact-info": metadata.email,
        "report-id": metadata.id,
        "policies": policies.collect::<Vec<_>>(),
    })
    .to_string()
}

fn failure(seen: &TlsFailure) -> Value {
    let mut told = json!({ "result-type": seen.kind, "failed-session-count": seen.count });
    for (name, text) in [
        ("sending-mta-ip", &seen.sending),
        ("receiving-mx-hostname", &seen.host),
        ("receiving-ip", &seen.receiving),
        ("failure-reason-code", &seen.reason),
        ("additional-information", &seen.more),
    ] {
        if let Some(text) = text {
            told[name] = text.as_str().into();
        }
    }
    told
}

#[derive(Deserialize)]
struct RawReport {
    #[serde(rename = "organization-name", default)]
    organisation: Text,
    #[serde(rename = "contact-info", default)]
    contact: Text,
    #[serde(rename = "report-id", default)]
    id: Text,
    #[serde(rename = "date-range")]
    range: Option<RawRange>,
    policies: Option<Few<RawSeen, POLICIES_MAX>>,
}

#[derive(Deserialize)]
struct RawRange {
    #[serde(rename = "start-datetime", default)]
    begin: Text,
    #[serde(rename = "end-datetime", default)]
    end: Text,
}

#[derive(Deserialize)]
struct RawSeen {
    policy: Option<RawPolicy>,
    summary: Option<RawSummary>,
    #[serde(rename = "failure-details")]
    failures: Option<Few<RawFailure, FAILURES_MAX>>,
}

#[derive(Default, Deserialize)]
struct RawPolicy {
    #[serde(rename = "policy-type", default)]
    kind: Text,
    #[serde(rename = "policy-string", default)]
    text: Lines,
    #[serde(rename = "policy-domain", default)]
    domain: Text,
    #[serde(rename = "mx-host", default)]
    hosts: Lines,
}

#[derive(Default, Deserialize)]
struct RawSummary {
    #[serde(rename = "total-successful-session-count", default)]
    good: Count,
    // Some drafts had it otherwise, and some writers still do.
    #[serde(rename = "total-failure-session-count", alias = "total-failed-session-count", default)]
    bad: Count,
}

#[derive(Deserialize)]
struct RawFailure {
    #[serde(rename = "result-type", default)]
    kind: Text,
    #[serde(rename = "sending-mta-ip", default)]
    sending: Text,
    #[serde(rename = "receiving-mx-hostname", default)]
    host: Text,
    #[serde(rename = "receiving-ip", default)]
    receiving: Text,
    #[serde(rename = "failed-session-count", default)]
    count: Count,
    #[serde(rename = "failure-reason-code", alias = "failure-error-code", default)]
    reason: Text,
    #[serde(rename = "additional-information", alias = "additional-info-uri", default)]
    more: Text,
}

impl From<RawFailure> for TlsFailure {
    fn from(raw: RawFailure) -> Self {
        Self {
            kind: raw.kind.0.to_ascii_lowercase(),
            sending: raw.sending.said(),
            host: raw.host.said(),
            receiving: raw.receiving.said(),
            count: raw.count.0,
            reason: raw.reason.said(),
            more: raw.more.said(),
        }
    }
}

/// A text, of which the beginning is kept; nothing where there is something else.
#[derive(Default)]
struct Text(String);

impl Text {
    fn cut(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_control()).take(TEXT_MAX).collect())
    }

    fn said(self) -> Option<String> {
        (!self.0.is_empty()).then_some(self.0)
    }
}

/// A number, which some write as a text.
#[derive(Default)]
struct Count(u64);

/// Several texts, or one.
#[derive(Default)]
struct Lines(Vec<String>);

/// The first of a list; of the rest how many they are.
struct Few<T, const MAX: usize> {
    items: Vec<T>,
    left_out: u64,
}

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self { items: Vec::new(), left_out: 0 }
    }
}

/// Any value of JSON, of which a text, a number or the texts of a list are kept.
enum Loose {
    Text(Text),
    Count(u64),
    Lines(Vec<String>),
    Nothing,
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(Text::cut(text)))
    }

    fn visit_u64<E>(self, count: u64) -> Result<Loose, E> {
        Ok(Loose::Count(count))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Loose, A::Error> {
        let mut lines = Vec::new();
        while lines.len() < LINES_MAX {
            match list.next_element::<Text>()? {
                Some(line) => lines.push(line.0),
                None => return Ok(Loose::Lines(lines)),
            }
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose::Lines(lines))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose::Nothing)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match from.deserialize_any(LooseVisitor)? {
            Loose::Text(text) => text,
            Loose::Count(count) => Self(count.to_string()),
            Loose::Lines(lines) => Self::cut(&lines.join(" ")),
            Loose::Nothing => Self::default(),
        })
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match from.deserialize_any(LooseVisitor)? {
            Loose::Count(count) => Self(count),
            Loose::Text(text) => Self(text.0.trim().parse().unwrap_or(0)),
            Loose::Lines(_) | Loose::Nothing => Self(0),
        })
    }
}

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match from.deserialize_any(LooseVisitor)? {
            Loose::Lines(lines) => Self(lines),
            Loose::Text(text) => Self(text.said().into_iter().collect()),
            Loose::Count(_) | Loose::Nothing => Self::default(),
        })
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Few<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Few<T, MAX>, E> {
                Ok(Few::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T, MAX>, A::Error> {
                let mut few = Few { items: Vec::new(), left_out: 0 };
                while few.items.len() < MAX {
                    match list.next_element()? {
                        Some(item) => few.items.push(item),
                        None => return Ok(few),
                    }
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    few.left_out += 1;
                }
                Ok(few)
            }
        }

        from.deserialize_any(Items(PhantomData))
    }
}

/// A moment as RFC 3339 writes it, in seconds since 1970; what is no date is none.
fn moment(text: &str) -> Option<i64> {
    let text = text.trim();
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok().map(i64::from);
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !in_range {
        return None;
    }
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let ahead_s = match zone.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => {
            let part = |range: std::ops::Range<usize>| zone.get(range)?.parse::<u32>().ok().map(i64::from);
            let minutes = part(1..3)? * 60 + part(4..6).or_else(|| part(3..5))?;
            if *sign == b'-' { -minutes * 60 } else { minutes * 60 }
        }
        _ => 0,
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - ahead_s)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, counted from March so that the odd day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_THE_RFC: &str = r#"{
        "organization-name": "Company-X",
        "date-range": { "start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z" },
        "contact-info": "sts-reporting@company-x.example",
        "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
        "policies": [{
            "policy": { "policy-type": "sts", "policy-string": ["version: STSv1", "mode: testing"],
                        "policy-domain": "Company-Y.example.", "mx-host": "*.mail.company-y.example" },
            "summary": { "total-successful-session-count": 5326, "total-failure-session-count": "303" },
            "failure-details": [
                { "result-type": "certificate-expired", "sending-mta-ip": "2001:db8:abcd:0012::1",
                  "receiving-mx-hostname": "mx1.mail.company-y.example", "failed-session-count": 100 },
                { "result-type": "starttls-not-supported", "receiving-ip": null, "failed-session-count": 203.5,
                  "additional-information": {"a": [1, 2]}, "failure-reason-code": "X\u001b[31m" }
            ]
        }]
    }"#;

    #[test]
    fn the_example_of_the_rfc_is_read_also_where_its_writer_was_careless() {
        let report = read(OF_THE_RFC.as_bytes()).unwrap();
        assert_eq!(report.metadata.organisation, "Company-X");
        assert_eq!((report.metadata.begin_unix_s, report.metadata.end_unix_s), (1_459_468_800, 1_459_555_199));
        let [seen] = report.policies.as_slice() else { panic!("{report:?}") };
        assert_eq!((seen.kind, seen.domain.as_str()), (PolicyKind::Sts, "company-y.example"));
        assert_eq!((seen.good, seen.bad, seen.hosts.len(), seen.text.len()), (5326, 303, 1, 2));
        assert_eq!((seen.failures[0].count, seen.failures[1].count), (100, 0));
        assert_eq!(seen.failures[1].reason.as_deref(), Some("X[31m"));
        assert_eq!(seen.failures[1].more, None);
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let mut report = read(OF_THE_RFC.as_bytes()).unwrap();
        report.policies.push(PolicySeen {
            kind: PolicyKind::Tlsa,
            domain: "a.example".into(),
            ..PolicySeen::default()
        });
        let text = write(&report, "2016-04-01T00:00:00Z", "2016-04-01T23:59:59Z");
        assert_eq!(read(text.as_bytes()).unwrap(), report);
    }

    #[test]
    fn what_is_no_report_is_none_and_what_is_too_much_is_left_out() {
        for (text, why) in [
            ("", Unreadable::NoJson),
            ("{\"policies\":[", Unreadable::NoJson),
            ("[]", Unreadable::NoJson),
            ("{}", Unreadable::NoReport),
            ("{\"policies\":[]}", Unreadable::NoReport),
            ("{\"date-range\":{},\"policies\":7}", Unreadable::NoJson),
        ] {
            assert_eq!(read(text.as_bytes()), Err(why), "{text}");
        }
        let deep = format!("{{\"date-range\":{{}},\"policies\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(read(deep.as_bytes()), Err(Unreadable::NoJson));
        let many = |count: usize| {
            let failures = vec!["{}"; count].join(",");
            read(format!("{{\"date-range\":{{}},\"policies\":[{{\"failure-details\":[{failures}]}}]}}").as_bytes())
                .unwrap()
        };
        assert_eq!((many(FAILURES_MAX).left_out, many(FAILURES_MAX).policies[0].failures.len()), (0, FAILURES_MAX));
        assert_eq!(
            (many(FAILURES_MAX + 1).left_out, many(FAILURES_MAX + 1).policies[0].failures.len()),
            (1, FAILURES_MAX)
        );
        let long = format!("{{\"date-range\":{{}},\"policies\":[],\"report-id\":\"{}\"}}", "x".repeat(TEXT_MAX + 1));
        assert_eq!(read(long.as_bytes()).unwrap().metadata.id.len(), TEXT_MAX);
    }

    #[test]
    fn dates_are_read_in_any_zone_and_nonsense_is_none() {
        assert_eq!(moment("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(moment("2024-02-29T23:59:59.999Z"), Some(1_709_251_199));
        assert_eq!(moment("2016-04-01T02:00:00+02:00"), Some(1_459_468_800));
        assert_eq!(moment("2016-03-31T19:30:00-0430"), Some(1_459_468_800));
        for nonsense in
            ["", "yesterday", "2016-13-01T00:00:00Z", "2016-04-01", "2016-04-01T25:00:00Z", "２０１６-04-01T00:00:00Z"]
        {
            assert_eq!(moment(nonsense), None, "{nonsense}");
        }
    }
}
