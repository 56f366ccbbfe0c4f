//! What an edge found out about a message, as it travels and is sealed: the twins of `mail/verdict`.

use serde::{Deserialize, Serialize};

use crate::mail::verdict::{
    Arc, Asked, Dkim, Dmarc, Evidence, Found, Listed, Oddity, Override, Published, Reverse, SenderDomain, Spf, Verdict,
};

/// Signatures, seals and DNS lists taken of one message; an edge tells of no more.
const LISTED_MAX: usize = 32;

/// [`Verdict`], but for the hops, which travel in the seal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireFindings {
    evidence: Option<Box<WireEvidence>>,
    junk: Option<String>,
    spared: Option<WireOverride>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireOverride {
    List,
    TrustedSealer,
    AccessList,
    Settings,
    Monitor,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireEvidence {
    reverse: (WireFound, Option<String>),
    spf_helo: (WireFound, String),
    spf_mail: (WireFound, String),
    dkim: Vec<WireDkim>,
    arc: WireArc,
    dmarc: WireDmarc,
    lists: Vec<(String, i32, Option<String>)>,
    sender: WireSenderDomain,
    oddity: Option<WireOddity>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireOddity {
    NoName,
    Unqualified,
    OtherAddress,
    OurName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireSenderDomain {
    None,
    Exists,
    NullMx,
    Unknown,
    TempError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireFound {
    None,
    Pass,
    Neutral,
    SoftFail,
    Fail,
    Policy,
    TempError,
    PermError,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireDkim {
    found: WireFound,
    domain: String,
    selector: String,
    algorithm: String,
    signature: String,
    why: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireArc {
    found: WireFound,
    sealers: Vec<String>,
    why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireAsked {
    None,
    Quarantine,
    Reject,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireDmarc {
    found: WireFound,
    from: String,
    published: bool,
    asked: WireAsked,
    by_spf: bool,
    by_dkim: bool,
    reported: Option<Box<WirePublished>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WirePublished {
    domain: String,
    policy: WireAsked,
    below: WireAsked,
    absent: WireAsked,
    strict_dkim: bool,
    strict_spf: bool,
    testing: bool,
}

impl WireFindings {
    /// The verdict of a message that made so many hops.
    pub fn verdict(self, hops: u16) -> Verdict {
        Verdict {
            hops,
            evidence: self.evidence.map(|evidence| Box::new(Evidence::from(*evidence))),
            junk: self.junk,
            spared: self.spared.map(Override::from),
        }
    }
}

impl From<&Verdict> for WireFindings {
    fn from(verdict: &Verdict) -> Self {
        let evidence = verdict.evidence.as_deref().map(|evidence| Box::new(WireEvidence::from(evidence)));
        Self { evidence, junk: verdict.junk.clone(), spared: verdict.spared.map(WireOverride::from) }
    }
}

impl From<&Evidence> for WireEvidence {
    fn from(evidence: &Evidence) -> Self {
        let Evidence { reverse, spf_helo, spf_mail, dkim, arc, dmarc, lists, sender, oddity } = evidence;
        let spf = |spf: &Spf| (spf.found.into(), spf.domain.clone());
        Self {
            reverse: (reverse.found.into(), reverse.name.clone()),
            spf_helo: spf(spf_helo),
            spf_mail: spf(spf_mail),
            dkim: dkim
                .iter()
                .take(LISTED_MAX)
                .map(|one| WireDkim {
                    found: one.found.into(),
                    domain: one.domain.clone(),
                    selector: one.selector.clone(),
                    algorithm: one.algorithm.clone(),
                    signature: one.signature.clone(),
                    why: one.why.clone(),
                })
                .collect(),
            arc: WireArc {
                found: arc.found.into(),
                sealers: arc.sealers.iter().take(LISTED_MAX).cloned().collect(),
                why: arc.why.clone(),
            },
            dmarc: WireDmarc {
                found: dmarc.found.into(),
                from: dmarc.from.clone(),
                published: dmarc.published,
                asked: dmarc.asked.into(),
                by_spf: dmarc.by_spf,
                by_dkim: dmarc.by_dkim,
                reported: dmarc.reported.as_deref().map(|one| Box::new(one.into())),
            },
            lists: lists.iter().take(LISTED_MAX).map(|one| (one.list.clone(), one.weight, one.words.clone())).collect(),
            sender: match sender {
                SenderDomain::None => WireSenderDomain::None,
                SenderDomain::Exists => WireSenderDomain::Exists,
                SenderDomain::NullMx => WireSenderDomain::NullMx,
                SenderDomain::Unknown => WireSenderDomain::Unknown,
                SenderDomain::TempError => WireSenderDomain::TempError,
            },
            oddity: oddity.map(|oddity| match oddity {
                Oddity::NoName => WireOddity::NoName,
                Oddity::Unqualified => WireOddity::Unqualified,
                Oddity::OtherAddress => WireOddity::OtherAddress,
                Oddity::OurName => WireOddity::OurName,
            }),
        }
    }
}

impl From<WireEvidence> for Evidence {
    fn from(wire: WireEvidence) -> Self {
        let spf = |(found, domain): (WireFound, String)| Spf { found: found.into(), domain };
        Self {
            reverse: Reverse { found: wire.reverse.0.into(), name: wire.reverse.1 },
            spf_helo: spf(wire.spf_helo),
            spf_mail: spf(wire.spf_mail),
            dkim: wire
                .dkim
                .into_iter()
                .take(LISTED_MAX)
                .map(|one| Dkim {
                    found: one.found.into(),
                    domain: one.domain,
                    selector: one.selector,
                    algorithm: one.algorithm,
                    signature: one.signature,
                    why: one.why,
                })
                .collect(),
            arc: Arc {
                found: wire.arc.found.into(),
                sealers: wire.arc.sealers.into_iter().take(LISTED_MAX).collect(),
                why: wire.arc.why,
            },
            dmarc: Dmarc {
                found: wire.dmarc.found.into(),
                from: wire.dmarc.from,
                published: wire.dmarc.published,
                asked: wire.dmarc.asked.into(),
                by_spf: wire.dmarc.by_spf,
                by_dkim: wire.dmarc.by_dkim,
                reported: wire.dmarc.reported.map(|one| Box::new((*one).into())),
            },
            lists: wire
                .lists
                .into_iter()
                .take(LISTED_MAX)
                .map(|(list, weight, words)| Listed { list, weight, words })
                .collect(),
            sender: match wire.sender {
                WireSenderDomain::None => SenderDomain::None,
                WireSenderDomain::Exists => SenderDomain::Exists,
                WireSenderDomain::NullMx => SenderDomain::NullMx,
                WireSenderDomain::Unknown => SenderDomain::Unknown,
                WireSenderDomain::TempError => SenderDomain::TempError,
            },
            oddity: wire.oddity.map(|oddity| match oddity {
                WireOddity::NoName => Oddity::NoName,
                WireOddity::Unqualified => Oddity::Unqualified,
                WireOddity::OtherAddress => Oddity::OtherAddress,
                WireOddity::OurName => Oddity::OurName,
            }),
        }
    }
}

impl From<&Published> for WirePublished {
    fn from(published: &Published) -> Self {
        let Published { domain, policy, below, absent, strict_dkim, strict_spf, testing } = published;
        Self {
            domain: domain.clone(),
            policy: (*policy).into(),
            below: (*below).into(),
            absent: (*absent).into(),
            strict_dkim: *strict_dkim,
            strict_spf: *strict_spf,
            testing: *testing,
        }
    }
}

impl From<WirePublished> for Published {
    fn from(wire: WirePublished) -> Self {
        Self {
            domain: wire.domain,
            policy: wire.policy.into(),
            below: wire.below.into(),
            absent: wire.absent.into(),
            strict_dkim: wire.strict_dkim,
            strict_spf: wire.strict_spf,
            testing: wire.testing,
        }
    }
}

impl From<Asked> for WireAsked {
    fn from(asked: Asked) -> Self {
        match asked {
            Asked::None => Self::None,
            Asked::Quarantine => Self::Quarantine,
            Asked::Reject => Self::Reject,
        }
    }
}

impl From<WireAsked> for Asked {
    fn from(asked: WireAsked) -> Self {
        match asked {
            WireAsked::None => Self::None,
            WireAsked::Quarantine => Self::Quarantine,
            WireAsked::Reject => Self::Reject,
        }
    }
}

impl From<Override> for WireOverride {
    fn from(why: Override) -> Self {
        match why {
            Override::List => Self::List,
            Override::TrustedSealer => Self::TrustedSealer,
            Override::AccessList => Self::AccessList,
            Override::Settings => Self::Settings,
            Override::Monitor => Self::Monitor,
        }
    }
}

impl From<WireOverride> for Override {
    fn from(why: WireOverride) -> Self {
        match why {
            WireOverride::List => Self::List,
            WireOverride::TrustedSealer => Self::TrustedSealer,
            WireOverride::AccessList => Self::AccessList,
            WireOverride::Settings => Self::Settings,
            WireOverride::Monitor => Self::Monitor,
        }
    }
}

impl From<Found> for WireFound {
    fn from(found: Found) -> Self {
        match found {
            Found::None => Self::None,
            Found::Pass => Self::Pass,
            Found::Neutral => Self::Neutral,
            Found::SoftFail => Self::SoftFail,
            Found::Fail => Self::Fail,
            Found::Policy => Self::Policy,
            Found::TempError => Self::TempError,
            Found::PermError => Self::PermError,
        }
    }
}

impl From<WireFound> for Found {
    fn from(found: WireFound) -> Self {
        match found {
            WireFound::None => Self::None,
            WireFound::Pass => Self::Pass,
            WireFound::Neutral => Self::Neutral,
            WireFound::SoftFail => Self::SoftFail,
            WireFound::Fail => Self::Fail,
            WireFound::Policy => Self::Policy,
            WireFound::TempError => Self::TempError,
            WireFound::PermError => Self::PermError,
        }
    }
}
