//! Reports on mail to the domains in whose name it came (RFC 9990): who wants them, by which addresses, and the text of
//! one. An address elsewhere gets none before its own domain has agreed.

use gatepost_protocol::mail::report::{self, Aggregate, Reason, ReasonKind, Row};
use gatepost_protocol::mail::verdict::{Asked, Found, Published};
use mail_auth::DmarcOutput;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::dmarc::{Dmarc, Psd, URI};
use mail_auth::report::{
    ActionDisposition, Alignment, AuthResult, DKIMAuthResult, DateRange, Discovery, Disposition, DkimResult,
    DmarcResult, Identifier, PolicyEvaluated, PolicyOverride, PolicyOverrideReason, PolicyPublished, Record, Report,
    ReportMetadata, SPFAuthResult, SPFDomainScope, SpfResult,
};

use super::{Authenticator, words};
use crate::resolver::CouldNotTell;

/// Addresses of one domain that are looked at; the others are passed over.
const ADDRESSES_MAX: usize = 4;
/// Names asked on the way up from one (RFC 9989 §4.10).
const ASKED_MAX: usize = 8;

/// An address that is to have a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address.
    pub address: String,
    /// The largest message it takes, in octets; `None` if it does not say.
    pub octets_max: Option<u64>,
}

impl Authenticator {
    /// What a domain publishes, if it asks for reports: found again where it stands.
    pub(super) async fn reported(&self, output: &DmarcOutput) -> Option<Box<Published>> {
        let record = output.dmarc_record().filter(|record| !record.rua.is_empty())?;
        let from = output.domain();
        let mut stands = None;
        for name in upwards(from) {
            if self.record(&format!("_dmarc.{name}")).await.ok().flatten().as_ref() == Some(record) {
                stands = Some(name);
                if name == from {
                    break;
                }
            }
        }
        stands.map(|domain| Box::new(words::published(domain, record)))
    }

    /// Where reports about this domain, which has a record, go by what it publishes now (RFC 9990 §4): addresses
    /// elsewhere only if their own domain agrees.
    pub async fn destinations(&self, domain: &str) -> Result<Vec<Destination>, CouldNotTell> {
        let Some(record) = self.record(&format!("_dmarc.{domain}")).await? else { return Ok(Vec::new()) };
        let mut found: Vec<Destination> = Vec::new();
        let mut organization = None;
        for uri in record.rua.iter().take(ADDRESSES_MAX) {
            let Some((_, host)) = uri.uri().rsplit_once('@') else { continue };
            let same = host == domain || {
                if organization.is_none() {
                    organization = Some(self.organization(domain).await?);
                }
                organization.as_deref() == Some(self.organization(host).await?.as_str())
            };
            let agreed = if same { vec![uri.clone()] } else { self.agreed(domain, host, uri).await? };
            for destination in agreed.into_iter().map(destination) {
                if found.len() < ADDRESSES_MAX && found.iter().all(|other| other.address != destination.address) {
                    found.push(destination);
                }
            }
        }
        Ok(found)
    }

    /// What a host elsewhere agrees to take about this domain: the address, or others of its own in its place.
    async fn agreed(&self, domain: &str, host: &str, uri: &URI) -> Result<Vec<URI>, CouldNotTell> {
        let Some(record) = self.record(&format!("{domain}._report._dmarc.{host}")).await? else {
            return Ok(Vec::new());
        };
        let is_its_own = |uri: &&URI| uri.uri().rsplit_once('@').is_some_and(|(_, other)| other == host);
        let own: Vec<URI> = record.rua.iter().filter(is_its_own).cloned().collect();
        Ok(if own.is_empty() { vec![uri.clone()] } else { own })
    }

    /// The domain that those belong to who go by one name (RFC 9989 §4.10.2).
    async fn organization(&self, domain: &str) -> Result<String, CouldNotTell> {
        let mut found = domain;
        for name in upwards(domain) {
            let Some(record) = self.record(&format!("_dmarc.{name}")).await? else { continue };
            match record.psd {
                Psd::No => return Ok(name.to_owned()),
                Psd::Yes if name == domain => return Ok(name.to_owned()),
                Psd::Yes => return Ok(one_below(name, domain).to_owned()),
                Psd::Default => found = name,
            }
        }
        Ok(found.to_owned())
    }

    /// The one DMARC record at this name; of two neither counts.
    async fn record(&self, name: &str) -> Result<Option<Dmarc>, CouldNotTell> {
        let texts = self.resolver.texts(name).await?;
        let mut records = texts.iter().filter_map(|text| Dmarc::parse(text.as_bytes()).ok());
        Ok(records.next().filter(|_| records.next().is_none()))
    }
}

fn destination(uri: URI) -> Destination {
    let octets_max = u64::try_from(uri.max_size()).unwrap_or(u64::MAX);
    Destination { octets_max: (octets_max > 0).then_some(octets_max), address: uri.uri }
}

/// A domain and those above it that may have a record, from below.
pub(super) fn upwards(domain: &str) -> impl Iterator<Item = &str> {
    let labels = domain.split('.').count();
    let last = |count: usize| {
        let start = domain.rmatch_indices('.').nth(count - 1).map_or(0, |(at, _)| at + 1);
        &domain[start..]
    };
    let above = (2..labels).rev().filter(|count| *count < ASKED_MAX).chain((labels > 1).then_some(1));
    std::iter::once(domain).chain(above.map(last))
}

/// The domain one label below `above`, on the way down to `domain`.
fn one_below<'a>(above: &str, domain: &'a str) -> &'a str {
    let rest = domain.strip_suffix(above).and_then(|rest| rest.strip_suffix('.')).unwrap_or_default();
    let label = rest.rsplit('.').next().unwrap_or_default();
    &domain[rest.len() - label.len()..]
}

/// A report as XML. Of each message's SPF checks only that of MAIL FROM is told (RFC 9990 §3.1.1.13).
pub fn xml(aggregate: &Aggregate) -> String {
    let Aggregate { metadata, published, rows } = aggregate;
    let alignment = |strict: Option<bool>| match strict {
        Some(true) => Alignment::Strict,
        Some(false) => Alignment::Relaxed,
        None => Alignment::Unspecified,
    };
    let moment = |unix_s: i64| u64::try_from(unix_s).unwrap_or(0);
    let report = Report {
        version: 1.0,
        report_metadata: ReportMetadata {
            org_name: metadata.organisation.clone(),
            email: metadata.email.clone(),
            extra_contact_info: metadata.contact.clone(),
            report_id: metadata.id.clone(),
            date_range: DateRange { begin: moment(metadata.begin_unix_s), end: moment(metadata.end_unix_s) },
            error: metadata.errors.clone(),
            generator: metadata.generator.clone(),
        },
        policy_published: PolicyPublished {
            domain: published.domain.clone(),
            version_published: None,
            adkim: alignment(published.strict_dkim),
            aspf: alignment(published.strict_spf),
            p: disposition(Some(published.asked)),
            sp: disposition(published.subdomains),
            np: disposition(published.nonexistent),
            testing: published.testing.unwrap_or(false),
            discovery_method: match published.discovery {
                Some(report::Discovery::TreeWalk) => Discovery::Treewalk,
                Some(report::Discovery::PublicSuffixes) => Discovery::Psl,
                None => Discovery::Unspecified,
            },
            fo: published.failures.clone(),
        },
        record: rows.iter().map(record).collect(),
        extensions: Vec::new(),
    };
    report.to_xml()
}

fn record(row: &Row) -> Record {
    let result = |aligned: bool| if aligned { DmarcResult::Pass } else { DmarcResult::Fail };
    let reason = |reason: &Reason| PolicyOverrideReason {
        type_: match reason.kind {
            ReasonKind::MailingList => PolicyOverride::MailingList,
            ReasonKind::TrustedForwarder | ReasonKind::Forwarded => PolicyOverride::TrustedForwarder,
            ReasonKind::PolicyTestMode => PolicyOverride::PolicyTestMode,
            ReasonKind::LocalPolicy => PolicyOverride::LocalPolicy,
            ReasonKind::SampledOut | ReasonKind::Other => PolicyOverride::Other,
        },
        comment: reason.comment.clone(),
    };
    let dkim = |one: &report::DkimResult| DKIMAuthResult {
        domain: one.domain.clone(),
        selector: one.selector.clone().unwrap_or_default(),
        result: dkim_result(one.found),
        human_result: None,
    };
    let spf = |one: &report::SpfResult| SPFAuthResult {
        domain: one.domain.clone(),
        scope: if one.is_helo { SPFDomainScope::Helo } else { SPFDomainScope::MailFrom },
        result: spf_result(one.found),
        human_result: None,
    };
    Record {
        row: mail_auth::report::Row {
            source_ip: Some(row.source),
            count: u32::try_from(row.count).unwrap_or(u32::MAX),
            policy_evaluated: PolicyEvaluated {
                disposition: match row.disposition {
                    report::Disposition::None => ActionDisposition::None,
                    report::Disposition::Pass => ActionDisposition::Pass,
                    report::Disposition::Quarantine => ActionDisposition::Quarantine,
                    report::Disposition::Reject => ActionDisposition::Reject,
                },
                dkim: result(row.dkim),
                spf: result(row.spf),
                reason: row.reasons.iter().map(reason).collect(),
            },
        },
        identifiers: Identifier {
            envelope_to: row.envelope_to.clone(),
            envelope_from: row.envelope_from.clone().unwrap_or_default(),
            header_from: row.header_from.clone(),
        },
        auth_results: AuthResult {
            dkim: row.dkim_results.iter().map(dkim).collect(),
            spf: row.spf_results.iter().map(spf).collect(),
        },
        extensions: Vec::new(),
    }
}

fn disposition(asked: Option<Asked>) -> Disposition {
    match asked {
        Some(Asked::None) => Disposition::None,
        Some(Asked::Quarantine) => Disposition::Quarantine,
        Some(Asked::Reject) => Disposition::Reject,
        None => Disposition::Unspecified,
    }
}

fn dkim_result(found: Found) -> DkimResult {
    match found {
        Found::None => DkimResult::None,
        Found::Pass => DkimResult::Pass,
        Found::Fail | Found::SoftFail => DkimResult::Fail,
        Found::Policy => DkimResult::Policy,
        Found::Neutral => DkimResult::Neutral,
        Found::TempError => DkimResult::TempError,
        Found::PermError => DkimResult::PermError,
    }
}

fn spf_result(found: Found) -> SpfResult {
    match found {
        Found::None => SpfResult::None,
        Found::Pass => SpfResult::Pass,
        Found::Fail | Found::Policy => SpfResult::Fail,
        Found::SoftFail => SpfResult::SoftFail,
        Found::Neutral => SpfResult::Neutral,
        Found::TempError => SpfResult::TempError,
        Found::PermError => SpfResult::PermError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_up_is_bounded() {
        let names = |domain| upwards(domain).collect::<Vec<_>>();
        assert_eq!(names("mail.example.com"), ["mail.example.com", "example.com", "com"]);
        assert_eq!(names("com"), ["com"]);
        assert_eq!(
            names("a.b.c.d.e.f.g.example.com"),
            [
                "a.b.c.d.e.f.g.example.com",
                "c.d.e.f.g.example.com",
                "d.e.f.g.example.com",
                "e.f.g.example.com",
                "f.g.example.com",
                "g.example.com",
                "example.com",
                "com"
            ]
        );
    }

    #[test]
    fn below_a_public_suffix_is_an_organization() {
        assert_eq!(one_below("co.example", "mail.shop.co.example"), "shop.co.example");
        assert_eq!(one_below("co.example", "shop.co.example"), "shop.co.example");
    }

    #[test]
    fn a_report_is_read_back_as_it_was_meant() {
        let signature = report::DkimResult {
            domain: "a&b.example".to_owned(),
            selector: Some("<s>".to_owned()),
            found: Found::Neutral,
        };
        let row = Row {
            source: [192, 0, 2, 1].into(),
            count: 3,
            disposition: report::Disposition::Quarantine,
            dkim: false,
            spf: true,
            reasons: vec![Reason { kind: ReasonKind::MailingList, comment: None }],
            header_from: "news.example.com".to_owned(),
            envelope_from: None,
            envelope_to: None,
            dkim_results: vec![signature],
            spf_results: vec![report::SpfResult {
                domain: "mx.example.com".to_owned(),
                is_helo: false,
                found: Found::Pass,
            }],
        };
        let aggregate = Aggregate {
            metadata: report::Metadata {
                organisation: "example.org".to_owned(),
                email: "postmaster@example.org".to_owned(),
                id: "20261120.abc".to_owned(),
                begin_unix_s: 1_795_132_800,
                end_unix_s: 1_795_219_199,
                errors: vec!["2 messages are missing".to_owned()],
                ..report::Metadata::default()
            },
            published: report::Published {
                domain: "example.com".to_owned(),
                asked: Asked::Reject,
                strict_spf: Some(true),
                testing: Some(true),
                ..report::Published::default()
            },
            rows: vec![row],
        };
        let report = Report::parse_xml(xml(&aggregate).as_bytes()).expect("it is one");
        assert_eq!((report.domain(), report.org_name()), ("example.com", "example.org"));
        assert_eq!((report.p(), report.aspf(), report.testing()), (Disposition::Reject, Alignment::Strict, true));
        assert_eq!(report.error(), ["2 messages are missing"]);
        let [record] = report.records() else { panic!("{report:?}") };
        assert_eq!((record.source_ip(), record.count()), (Some([192, 0, 2, 1].into()), 3));
        assert_eq!(record.action_disposition(), ActionDisposition::Quarantine);
        assert_eq!((record.dmarc_dkim_result(), record.dmarc_spf_result()), (DmarcResult::Fail, DmarcResult::Pass));
        assert_eq!(record.policy_override_reason()[0].type_, PolicyOverride::MailingList);
        let [signed] = record.dkim_auth_result() else { panic!("{record:?}") };
        assert_eq!((signed.domain(), signed.selector(), signed.result()), ("a&b.example", "<s>", DkimResult::Neutral));
    }
}
