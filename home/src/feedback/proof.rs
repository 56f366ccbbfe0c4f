//! Whose word a report is: what the edge found out about the message that brought it. Pure.

use gatepost_protocol::mail::verdict::{Dmarc, Evidence, Found, Verdict};

use super::is_within;

/// Who sent a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The domain in From.
    From(String),
    /// Nobody knows, and why.
    None(&'static str),
}

impl Proof {
    /// By DMARC; where the domain publishes no record, by a signature of it, or an SPF pass, all the same.
    pub(super) fn of(verdict: &Verdict) -> Self {
        let Some(evidence) = &verdict.evidence else {
            return Self::None("the edge did not find out who sent it");
        };
        let Dmarc { found, from, published, .. } = &evidence.dmarc;
        match found {
            _ if from.is_empty() => Self::None("it comes from nobody"),
            Found::Pass => Self::From(from.clone()),
            Found::None if !published && is_shown(evidence, from) => Self::From(from.clone()),
            Found::None => Self::None("nothing shows that it comes from whom it says"),
            Found::TempError => Self::None("the DNS did not tell whether it comes from whom it says"),
            _ => Self::None("it does not come from whom it says (DMARC)"),
        }
    }
}

/// A signature or SPF passes for the domain itself, or one above or below it.
fn is_shown(evidence: &Evidence, from: &str) -> bool {
    let fits = |name: &str| !name.is_empty() && (is_within(from, name) && name.contains('.') || is_within(name, from));
    let signed = evidence.dkim.iter().any(|dkim| dkim.found == Found::Pass && fits(&dkim.domain));
    signed || (evidence.spf_mail.found == Found::Pass && fits(&evidence.spf_mail.domain))
}

#[cfg(test)]
mod tests {
    use gatepost_protocol::mail::verdict::{Dkim, Spf};

    use super::*;

    fn verdict(found: Found, published: bool) -> Evidence {
        let dmarc = Dmarc { found, published, from: "receiver.example".into(), ..Dmarc::default() };
        Evidence { dmarc, ..Evidence::default() }
    }

    fn proof(evidence: Evidence) -> Proof {
        Proof::of(&Verdict { evidence: Some(Box::new(evidence)), ..Verdict::default() })
    }

    #[test]
    fn only_what_is_proven_counts() {
        let receiver = Proof::From("receiver.example".into());
        assert_eq!(proof(verdict(Found::Pass, true)), receiver);
        for found in [Found::Fail, Found::TempError, Found::PermError, Found::None] {
            assert!(matches!(proof(verdict(found, true)), Proof::None(_)), "{found}");
        }
        assert!(matches!(Proof::of(&Verdict::default()), Proof::None(_)));
        assert!(matches!(proof(verdict(Found::None, false)), Proof::None(_)));
        let nobody = Evidence { dmarc: Dmarc { found: Found::Pass, ..Dmarc::default() }, ..Evidence::default() };
        assert!(matches!(proof(nobody), Proof::None(_)));
        for (domain, shown) in [
            ("receiver.example", true),
            ("mail.receiver.example", true),
            ("forger.example", false),
            ("notreceiver.example", false),
            ("example", false),
            ("", false),
        ] {
            let dkim = vec![Dkim { found: Found::Pass, domain: domain.into(), ..Dkim::default() }];
            assert_eq!(proof(Evidence { dkim, ..verdict(Found::None, false) }) == receiver, shown, "{domain}");
            let spf_mail = Spf { found: Found::Pass, domain: domain.into() };
            assert_eq!(proof(Evidence { spf_mail, ..verdict(Found::None, false) }) == receiver, shown, "{domain}");
            let failed = Spf { found: Found::Fail, domain: domain.into() };
            let evidence = Evidence { spf_mail: failed, ..verdict(Found::None, false) };
            assert!(matches!(proof(evidence), Proof::None(_)));
        }
    }
}
