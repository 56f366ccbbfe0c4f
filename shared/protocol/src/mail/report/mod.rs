//! What those who get mail tell a domain about mail in its name: aggregate reports of DMARC (RFC 9990, RFC 7489
//! §7.2), and, one by one, of mail that failed. Nouns for both ways; strings are bounded by whoever reads or gathers
//! them. Whose word a report is, is not known here: what it says of its author proves nothing.

pub(crate) mod aggregate;
mod archive;
pub mod failure;
pub mod judged;
mod parts;
pub mod reading;
pub mod tls;

use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::verdict::{Asked, Found};

/// Why a report can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// More than anybody has to tell.
    #[error("it is too big, or is packed denser than any report")]
    TooBig,
    /// An archive of many.
    #[error("there are too many files in it")]
    ManyFiles,
    /// It is cut off, or of a kind that nobody uses.
    #[error("it is damaged, or packed in an unusual way")]
    Damaged,
    /// Nobody told us the password.
    #[error("it is encrypted")]
    Encrypted,
    /// Parts within parts within parts.
    #[error("its elements lie too deep in each other")]
    TooDeep,
    /// Names for texts, which multiply.
    #[error("it declares a document type or names entities, which no report needs")]
    Entities,
    /// Not XML.
    #[error("it is no XML: something is wrong near octet {0}")]
    Malformed(u64),
    /// Not JSON, or not as reports have it.
    #[error("it is no JSON of the form that reports have")]
    NoJson,
    /// Something else.
    #[error("there is no report in it")]
    NoReport,
}

/// What one receiver saw of a domain's mail in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    /// Who reports, and about when.
    pub metadata: Metadata,
    /// What the domain asked for then.
    pub published: Published,
    /// What was seen.
    pub rows: Vec<Row>,
}

/// Who reports, and about when (RFC 9990 §3.1.1.1 `report_metadata`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// What the receiver calls itself.
    pub organisation: String,
    /// Where it can be reached.
    pub email: String,
    /// Further words on that.
    pub contact: Option<String>,
    /// Names the report among all of this receiver's.
    pub id: String,
    /// The first second it tells of, since 1970.
    pub begin_unix_s: i64,
    /// The last one.
    pub end_unix_s: i64,
    /// What went wrong while it was gathered.
    pub errors: Vec<String>,
    /// What made it.
    pub generator: Option<String>,
}

/// The policy a domain published (RFC 9990 `policy_published`). Absent is what the record did not say, or the report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Where the record was found.
    pub domain: String,
    /// What it asks for (p=).
    pub asked: Asked,
    /// And for subdomains (sp=).
    pub subdomains: Option<Asked>,
    /// And for names that do not exist (np=).
    pub nonexistent: Option<Asked>,
    /// A DKIM signature of the very same domain is wanted (adkim=s).
    pub strict_dkim: Option<bool>,
    /// And an SPF pass of it (aspf=s).
    pub strict_spf: Option<bool>,
    /// It only tries things out (t=y).
    pub testing: Option<bool>,
    /// When failures are to be reported (fo=).
    pub failures: Option<String>,
    /// How the record was found.
    pub discovery: Option<Discovery>,
}

/// How the record of a domain was found (RFC 9990 `discovery_method`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// By a list of public suffixes, as RFC 7489 has it.
    PublicSuffixes,
    /// Walking up the DNS tree (RFC 9989 §4.10).
    TreeWalk,
}

impl Discovery {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::PublicSuffixes => "psl",
            Self::TreeWalk => "treewalk",
        }
    }
}

/// Messages that are alike in everything that is told of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Who brought them.
    pub source: IpAddr,
    /// How many.
    pub count: u64,
    /// What was done with them.
    pub disposition: Disposition,
    /// A DKIM signature passed of a domain that fits From.
    pub dkim: bool,
    /// SPF passed for a domain that fits From.
    pub spf: bool,
    /// Why something else was done than the domain asked for.
    pub reasons: Vec<Reason>,
    /// The domain in From.
    pub header_from: String,
    /// The domain of MAIL FROM.
    pub envelope_from: Option<String>,
    /// The domain of the recipients.
    pub envelope_to: Option<String>,
    /// Each DKIM signature.
    pub dkim_results: Vec<DkimResult>,
    /// Each SPF check.
    pub spf_results: Vec<SpfResult>,
}

/// What was done with messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Disposition {
    /// Nothing was asked for that would have been done.
    #[default]
    None,
    /// They passed; reports of old say nothing was done.
    Pass,
    /// They were put aside.
    Quarantine,
    /// They were refused.
    Reject,
}

impl Disposition {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    /// Reads it.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::None, Self::Pass, Self::Quarantine, Self::Reject];
        all.into_iter().find(|one| one.word().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Disposition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Why something else was done than the domain asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason {
    /// Which kind of reason.
    pub kind: ReasonKind,
    /// In the receiver's words.
    pub comment: Option<String>,
}

/// Kinds of reasons (RFC 9990 §3.1.1.16, RFC 7489 appendix C).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonKind {
    /// The receiver's own policy.
    LocalPolicy,
    /// A mailing list brought them.
    MailingList,
    /// Whoever sent them on is trusted.
    TrustedForwarder,
    /// The domain only tries things out.
    PolicyTestMode,
    /// The domain asked for a part of its mail to be spared (pct=, of old).
    SampledOut,
    /// They were sent on (of old).
    Forwarded,
    /// Another one.
    #[default]
    Other,
}

impl ReasonKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::LocalPolicy => "local_policy",
            Self::MailingList => "mailing_list",
            Self::TrustedForwarder => "trusted_forwarder",
            Self::PolicyTestMode => "policy_test_mode",
            Self::SampledOut => "sampled_out",
            Self::Forwarded => "forwarded",
            Self::Other => "other",
        }
    }

    /// Reads it; what is not known is another one.
    pub fn parse(word: &str) -> Self {
        let all = [
            Self::LocalPolicy,
            Self::MailingList,
            Self::TrustedForwarder,
            Self::PolicyTestMode,
            Self::SampledOut,
            Self::Forwarded,
        ];
        all.into_iter().find(|one| one.word().eq_ignore_ascii_case(word)).unwrap_or_default()
    }
}

/// One DKIM signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DkimResult {
    /// d=
    pub domain: String,
    /// s=
    pub selector: Option<String>,
    /// What was found.
    pub found: Found,
}

/// One SPF check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpfResult {
    /// The domain that was checked.
    pub domain: String,
    /// Of EHLO; else of MAIL FROM.
    pub is_helo: bool,
    /// What was found.
    pub found: Found,
}
