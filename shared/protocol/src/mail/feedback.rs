//! What a domain is told of mail in its name (RFC 9990, aggregate reports of DMARC): one row of a report, made from
//! what was found about a message and what was done with it. Pure.

use std::net::IpAddr;

use super::verdict::{Asked, Evidence, Found, Override};

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
    /// In the words of a policy.
    fn disposition(self) -> Asked {
        match self {
            Self::Accepted => Asked::None,
            Self::Junk => Asked::Quarantine,
            Self::Refused => Asked::Reject,
        }
    }
}

/// Why something else was done than the domain asks for (RFC 9990 §3.1.1.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A mailing list changed it.
    MailingList,
    /// Somebody the owner trusts passed it on.
    TrustedForwarder,
    /// The domain only tries its policy out.
    TestMode,
    /// The owner's own rules.
    LocalPolicy,
}

impl Reason {
    /// As reports write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::MailingList => "mailing_list",
            Self::TrustedForwarder => "trusted_forwarder",
            Self::TestMode => "policy_test_mode",
            Self::LocalPolicy => "local_policy",
        }
    }

    /// Reads it.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::MailingList, Self::TrustedForwarder, Self::TestMode, Self::LocalPolicy];
        all.into_iter().find(|one| one.word() == word)
    }
}

/// What a DKIM signature came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signed {
    /// d=
    pub domain: String,
    /// s=
    pub selector: String,
    /// The result.
    pub found: Found,
}

/// Messages that are alike in everything a report tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Who brought them.
    pub source: IpAddr,
    /// What was done with them; nothing is done to one that passes.
    pub disposition: Asked,
    /// A signature of a domain that fits From holds.
    pub dkim: bool,
    /// SPF passed for a domain that fits From.
    pub spf: bool,
    /// Why that was done, if the domain asks for something else; a few words more.
    pub reason: Option<(Reason, String)>,
    /// The domain in From.
    pub header_from: String,
    /// The domain of MAIL FROM; empty for the null sender.
    pub envelope_from: String,
    /// Each signature.
    pub signed: Vec<Signed>,
    /// The domain SPF was checked for, and what that came to.
    pub spf_of: (String, Found),
}

impl Row {
    /// The row a message belongs to; `None` if its domain wants to hear of none.
    pub fn of(
        source: IpAddr,
        sender: &str,
        evidence: &Evidence,
        done: Done,
        spared: Option<Override>,
    ) -> Option<Self> {
        let Evidence { dmarc, spf_mail, dkim, .. } = evidence;
        let published = dmarc.reported.as_deref()?;
        let (disposition, reason) = match dmarc.found {
            // What else spoke against it is nothing to its domain.
            Found::Pass => (Asked::None, None),
            Found::Fail => (done.disposition(), reason(done, dmarc.asked, published.testing, spared)),
            _ => (done.disposition(), Some((Reason::LocalPolicy, "the DNS could not tell".to_owned()))),
        };
        Some(Self {
            source,
            disposition,
            dkim: dmarc.by_dkim,
            spf: dmarc.by_spf,
            reason,
            header_from: dmarc.from.clone(),
            envelope_from: sender.to_lowercase(),
            signed: dkim
                .iter()
                .map(|one| Signed { domain: one.domain.clone(), selector: one.selector.clone(), found: one.found })
                .collect(),
            spf_of: (spf_mail.domain.clone(), spf_mail.found),
        })
    }
}

fn reason(done: Done, asked: Asked, testing: bool, spared: Option<Override>) -> Option<(Reason, String)> {
    let local = |why: &str| Some((Reason::LocalPolicy, why.to_owned()));
    if done.disposition() == asked {
        return testing.then(|| (Reason::TestMode, String::new()));
    }
    match spared {
        Some(Override::List) => Some((Reason::MailingList, String::new())),
        Some(Override::TrustedSealer) => Some((Reason::TrustedForwarder, String::new())),
        Some(why @ (Override::AccessList | Override::Settings | Override::Monitor)) => local(why.word()),
        None => local("other evidence"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{Dkim, Dmarc, Published, Spf};
    use super::*;

    fn evidence(found: Found, asked: Asked, testing: bool) -> Evidence {
        let published = Published { domain: "example.com".into(), testing, ..Published::default() };
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

    fn row(evidence: &Evidence, done: Done, spared: Option<Override>) -> Row {
        Row::of([192, 0, 2, 1].into(), "Bounce.example.net", evidence, done, spared).expect("it wants to hear")
    }

    #[test]
    fn a_row_tells_what_was_found() {
        let row = row(&evidence(Found::Fail, Asked::None, false), Done::Accepted, None);
        let expected = Row {
            source: [192, 0, 2, 1].into(),
            disposition: Asked::None,
            dkim: false,
            spf: false,
            reason: None,
            header_from: "news.example.com".into(),
            envelope_from: "bounce.example.net".into(),
            signed: vec![Signed { domain: "example.net".into(), selector: "s".into(), found: Found::Pass }],
            spf_of: ("bounce.example.net".into(), Found::SoftFail),
        };
        assert_eq!(row, expected);
    }

    #[test]
    fn who_publishes_no_address_hears_nothing() {
        let mut evidence = evidence(Found::Pass, Asked::Reject, false);
        evidence.dmarc.reported = None;
        assert_eq!(Row::of([192, 0, 2, 1].into(), "", &evidence, Done::Accepted, None), None);
    }

    #[test]
    fn what_is_not_done_as_asked_has_its_reason() {
        use Reason::{LocalPolicy, MailingList, TestMode, TrustedForwarder};
        for (found, asked, testing, done, spared, disposition, reason) in [
            (Found::Pass, Asked::Reject, false, Done::Accepted, None, Asked::None, None),
            // A DNS list refused it: that it is its domain's stands.
            (Found::Pass, Asked::Reject, false, Done::Refused, None, Asked::None, None),
            (Found::Fail, Asked::Reject, false, Done::Refused, None, Asked::Reject, None),
            (Found::Fail, Asked::Quarantine, false, Done::Junk, None, Asked::Quarantine, None),
            (Found::Fail, Asked::Quarantine, true, Done::Junk, None, Asked::Quarantine, Some((TestMode, ""))),
            (
                Found::Fail,
                Asked::Reject,
                false,
                Done::Junk,
                Some(Override::List),
                Asked::Quarantine,
                Some((MailingList, "")),
            ),
            (
                Found::Fail,
                Asked::Reject,
                false,
                Done::Junk,
                Some(Override::TrustedSealer),
                Asked::Quarantine,
                Some((TrustedForwarder, "")),
            ),
            (
                Found::Fail,
                Asked::Reject,
                false,
                Done::Accepted,
                Some(Override::Monitor),
                Asked::None,
                Some((LocalPolicy, "monitor")),
            ),
            (Found::Fail, Asked::None, false, Done::Junk, None, Asked::Quarantine, Some((LocalPolicy, "other evidence"))),
            (
                Found::TempError,
                Asked::Reject,
                false,
                Done::Accepted,
                None,
                Asked::None,
                Some((LocalPolicy, "the DNS could not tell")),
            ),
        ] {
            let row = row(&evidence(found, asked, testing), done, spared);
            let told = row.reason.as_ref().map(|(reason, words)| (*reason, words.as_str()));
            assert_eq!((row.disposition, told), (disposition, reason), "{found} {asked:?} {done:?} {spared:?}");
        }
    }
}
