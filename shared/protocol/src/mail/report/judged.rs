//! What we tell a domain of a message that we judged: the row of a report it belongs to, by what was found about it and
//! what was done with it. Pure.

use std::net::IpAddr;

use super::{Discovery, Disposition, DkimResult, Published, Reason, ReasonKind, Row, SpfResult};
use crate::mail::verdict::{self, Asked, Evidence, Found, Override};

/// What was done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It went to the inbox.
    Accepted,
    /// It went to Junk.
    Junk,
    /// It was refused for good.
    Refused,
}

impl Done {
    fn disposition(self) -> Disposition {
        match self {
            Self::Accepted => Disposition::None,
            Self::Junk => Disposition::Quarantine,
            Self::Refused => Disposition::Reject,
        }
    }

    /// Whether it is what the domain asks for.
    fn is_asked(self, asked: Asked) -> bool {
        matches!(
            (self, asked),
            (Self::Accepted, Asked::None) | (Self::Junk, Asked::Quarantine) | (Self::Refused, Asked::Reject)
        )
    }
}

/// The row of one message; `None` if its domain wants to hear of none. `sender` is the domain of MAIL FROM, empty for
/// the null sender.
pub fn row(source: IpAddr, sender: &str, evidence: &Evidence, done: Done, spared: Option<Override>) -> Option<Row> {
    let Evidence { dmarc, spf_mail, dkim, .. } = evidence;
    let published = dmarc.reported.as_deref()?;
    let (disposition, reason) = match dmarc.found {
        // What else spoke against it is nothing to its domain.
        Found::Pass => (Disposition::Pass, None),
        Found::Fail => (done.disposition(), reason(done, dmarc.asked, published.testing, spared)),
        _ => (done.disposition(), Some(because(ReasonKind::LocalPolicy, "the DNS could not tell"))),
    };
    // Without a domain there is nothing to tell.
    let signatures = dkim.iter().filter(|one| !one.domain.is_empty()).map(|one| DkimResult {
        domain: one.domain.clone(),
        selector: Some(one.selector.clone()),
        found: one.found,
    });
    let spf = SpfResult { domain: spf_mail.domain.clone(), is_helo: false, found: spf_mail.found };
    Some(Row {
        source: source.to_canonical(),
        count: 1,
        disposition,
        dkim: dmarc.by_dkim,
        spf: dmarc.by_spf,
        reasons: reason.into_iter().collect(),
        header_from: dmarc.from.clone(),
        envelope_from: (!sender.is_empty()).then(|| sender.to_lowercase()),
        envelope_to: None,
        dkim_results: signatures.collect(),
        spf_results: if spf.domain.is_empty() { Vec::new() } else { vec![spf] },
    })
}

/// What a domain publishes, as a report repeats it.
pub fn published(published: &verdict::Published) -> Published {
    let verdict::Published { domain, policy, below, absent, strict_dkim, strict_spf, testing } = published;
    Published {
        domain: domain.clone(),
        asked: *policy,
        subdomains: Some(*below),
        nonexistent: Some(*absent),
        strict_dkim: Some(*strict_dkim),
        strict_spf: Some(*strict_spf),
        testing: Some(*testing),
        failures: None,
        discovery: Some(Discovery::TreeWalk),
    }
}

fn reason(done: Done, asked: Asked, testing: bool, spared: Option<Override>) -> Option<Reason> {
    if done.is_asked(asked) {
        return testing.then(|| because(ReasonKind::PolicyTestMode, ""));
    }
    Some(match spared {
        Some(Override::List) => because(ReasonKind::MailingList, ""),
        Some(Override::TrustedSealer) => because(ReasonKind::TrustedForwarder, ""),
        Some(why @ (Override::AccessList | Override::Settings | Override::Monitor)) => {
            because(ReasonKind::LocalPolicy, why.word())
        }
        None => because(ReasonKind::LocalPolicy, "other evidence"),
    })
}

fn because(kind: ReasonKind, comment: &str) -> Reason {
    Reason { kind, comment: (!comment.is_empty()).then(|| comment.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::verdict::{Dkim, Dmarc, Spf};

    fn evidence(found: Found, asked: Asked, testing: bool) -> Evidence {
        let published = verdict::Published { domain: "example.com".into(), testing, ..verdict::Published::default() };
        Evidence {
            spf_mail: Spf { found: Found::SoftFail, domain: "bounce.example.net".into() },
            dkim: vec![Dkim {
                found: Found::Pass,
                domain: "example.net".into(),
                selector: "s".into(),
                ..Dkim::default()
            }],
            dmarc: Dmarc {
                found,
                from: "news.example.com".into(),
                published: true,
                asked,
                reported: Some(Box::new(published)),
                ..Dmarc::default()
            },
            ..Evidence::default()
        }
    }

    fn told(evidence: &Evidence, done: Done, spared: Option<Override>) -> Row {
        row([192, 0, 2, 1].into(), "Bounce.example.net", evidence, done, spared).expect("it wants to hear")
    }

    #[test]
    fn a_row_tells_what_was_found() {
        let expected = Row {
            source: [192, 0, 2, 1].into(),
            count: 1,
            disposition: Disposition::None,
            dkim: false,
            spf: false,
            reasons: Vec::new(),
            header_from: "news.example.com".into(),
            envelope_from: Some("bounce.example.net".into()),
            envelope_to: None,
            dkim_results: vec![DkimResult {
                domain: "example.net".into(),
                selector: Some("s".into()),
                found: Found::Pass,
            }],
            spf_results: vec![SpfResult {
                domain: "bounce.example.net".into(),
                is_helo: false,
                found: Found::SoftFail,
            }],
        };
        assert_eq!(told(&evidence(Found::Fail, Asked::None, false), Done::Accepted, None), expected);
    }

    #[test]
    fn who_publishes_no_address_hears_nothing() {
        let mut evidence = evidence(Found::Pass, Asked::Reject, false);
        evidence.dmarc.reported = None;
        assert_eq!(row([192, 0, 2, 1].into(), "", &evidence, Done::Accepted, None), None);
    }

    #[test]
    fn what_is_not_done_as_asked_has_its_reason() {
        use Disposition::{None as Nothing, Pass, Quarantine, Reject};
        use ReasonKind::{LocalPolicy, MailingList, PolicyTestMode as TestMode, TrustedForwarder};
        for (found, asked, testing, done, spared, disposition, reason) in [
            (Found::Pass, Asked::Reject, false, Done::Accepted, None, Pass, None),
            // A DNS list refused it: that it is its domain's stands.
            (Found::Pass, Asked::Reject, false, Done::Refused, None, Pass, None),
            (Found::Fail, Asked::Reject, false, Done::Refused, None, Reject, None),
            (Found::Fail, Asked::Quarantine, false, Done::Junk, None, Quarantine, None),
            (Found::Fail, Asked::Quarantine, true, Done::Junk, None, Quarantine, Some((TestMode, ""))),
            (Found::Fail, Asked::Reject, false, Done::Junk, Some(Override::List), Quarantine, Some((MailingList, ""))),
            (
                Found::Fail,
                Asked::Reject,
                false,
                Done::Junk,
                Some(Override::TrustedSealer),
                Quarantine,
                Some((TrustedForwarder, "")),
            ),
            (
                Found::Fail,
                Asked::Reject,
                false,
                Done::Accepted,
                Some(Override::Monitor),
                Nothing,
                Some((LocalPolicy, "monitor")),
            ),
            (Found::Fail, Asked::None, false, Done::Junk, None, Quarantine, Some((LocalPolicy, "other evidence"))),
            (
                Found::TempError,
                Asked::Reject,
                false,
                Done::Accepted,
                None,
                Nothing,
                Some((LocalPolicy, "the DNS could not tell")),
            ),
        ] {
            let row = told(&evidence(found, asked, testing), done, spared);
            let why = row.reasons.first().map(|why| (why.kind, why.comment.as_deref().unwrap_or_default()));
            assert_eq!((row.disposition, why), (disposition, reason), "{found} {asked:?} {done:?} {spared:?}");
        }
    }
}
