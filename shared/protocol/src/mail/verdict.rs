//! What the edge found out about a message, and what it decided. It travels as this structure; the home never
//! parses it back out of a header.

use std::fmt;

/// The edge's findings and its decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Received fields the message came with.
    pub hops: u16,
    /// What was found about its sender; none of mail that is not judged (an account's, or of an older edge).
    pub evidence: Option<Box<Evidence>>,
    /// Why it belongs into Junk, if it does.
    pub junk: Option<String>,
    /// Why less was done than what was found asks for.
    pub spared: Option<Override>,
}

/// Why less is done with a message than what was found about it asks for (RFC 9990 §3.1.1.16 calls it an override).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// A mailing list changed it, and signed it itself.
    List,
    /// Somebody whom the owner trusts to tell says that it was good when it came there.
    TrustedSealer,
    /// The owner's access list allows who sends it.
    AccessList,
    /// The owner's settings do not go so far.
    Settings,
    /// The owner only watches.
    Monitor,
}

impl Override {
    /// In a few words.
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::TrustedSealer => "trusted sealer",
            Self::AccessList => "access list",
            Self::Settings => "settings",
            Self::Monitor => "monitor",
        }
    }

    /// Reads it.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::List, Self::TrustedSealer, Self::AccessList, Self::Settings, Self::Monitor];
        all.into_iter().find(|one| one.word() == word)
    }
}

/// One method's result, in the words of RFC 8601 §2.7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Found {
    /// Nothing to check.
    #[default]
    None,
    /// It holds.
    Pass,
    /// Nothing is claimed, or the claim can't be used.
    Neutral,
    /// It fails, says who claims it, but not for certain.
    SoftFail,
    /// It does not hold.
    Fail,
    /// It would hold and is not good enough for us.
    Policy,
    /// It could not be checked now.
    TempError,
    /// It can never be checked.
    PermError,
}

impl Found {
    /// As a result is written in header fields.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Neutral => "neutral",
            Self::SoftFail => "softfail",
            Self::Fail => "fail",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }

    /// Reads it, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [
            Self::None,
            Self::Pass,
            Self::Neutral,
            Self::SoftFail,
            Self::Fail,
            Self::Policy,
            Self::TempError,
            Self::PermError,
        ];
        all.into_iter().find(|one| one.word().eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What was found about a message from the world. Names are as they were said, bounded by whoever gathers them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The client's address has a name that leads back to it (RFC 8601 §2.7.3).
    pub reverse: Reverse,
    /// SPF of the name in EHLO (RFC 7208 §2.3).
    pub spf_helo: Spf,
    /// SPF of MAIL FROM (RFC 7208 §2.4).
    pub spf_mail: Spf,
    /// Each DKIM signature that was looked at (RFC 6376).
    pub dkim: Vec<Dkim>,
    /// The ARC chain (RFC 8617).
    pub arc: Arc,
    /// DMARC (RFC 9989).
    pub dmarc: Dmarc,
    /// DNS lists that know the client.
    pub lists: Vec<Listed>,
    /// Whether its sender could be answered.
    pub sender: SenderDomain,
    /// What is odd about the name in EHLO, which proves nothing.
    pub oddity: Option<Oddity>,
}

/// What can be odd about the name a client gives in EHLO (RFC 5321 §4.1.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oddity {
    /// It is neither a domain name nor an address in brackets.
    NoName,
    /// It is a single word.
    Unqualified,
    /// It is an address in brackets, and not the client's.
    OtherAddress,
    /// It is our own name, or our own address.
    OurName,
}

impl Oddity {
    /// In a word, for the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoName => "no-name",
            Self::Unqualified => "unqualified",
            Self::OtherAddress => "other-address",
            Self::OurName => "our-name",
        }
    }
}

/// A DNS list that knows the client (RFC 5782).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// What the list is called.
    pub list: String,
    /// What it adds to the client's score; below 0 it speaks for the client.
    pub weight: i32,
    /// What it says of the client, printable.
    pub words: Option<String>,
}

/// What the DNS says of the domain of MAIL FROM as a place that mail can go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SenderDomain {
    /// Nothing to ask: it comes from nobody, or from an address literal.
    #[default]
    None,
    /// It exists.
    Exists,
    /// It says that it takes no mail (RFC 7505).
    NullMx,
    /// There is no such domain.
    Unknown,
    /// The DNS could not tell.
    TempError,
}

/// Forward-confirmed reverse DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reverse {
    /// The result.
    pub found: Found,
    /// The first name the address has.
    pub name: Option<String>,
}

/// One SPF check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spf {
    /// The result.
    pub found: Found,
    /// The domain that was checked.
    pub domain: String,
}

/// One DKIM signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dkim {
    /// The result.
    pub found: Found,
    /// d=
    pub domain: String,
    /// s=
    pub selector: String,
    /// a=
    pub algorithm: String,
    /// The first octets of b=, which tell signatures of one domain apart (RFC 6008).
    pub signature: String,
    /// Why it is no pass.
    pub why: Option<String>,
}

/// An ARC chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arc {
    /// The result.
    pub found: Found,
    /// Who sealed it, the latest first.
    pub sealers: Vec<String>,
    /// Why it is no pass.
    pub why: Option<String>,
}

/// What a domain asks to be done with mail that fails its DMARC check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    /// Nothing.
    #[default]
    None,
    /// Junk.
    Quarantine,
    /// To refuse it.
    Reject,
}

impl Asked {
    /// As it is written in a DMARC record.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }

    /// Reads it, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::None, Self::Quarantine, Self::Reject];
        all.into_iter().find(|one| one.word().eq_ignore_ascii_case(word))
    }
}

/// A DMARC record, as far as a report on mail repeats it (RFC 9990 §3.1.1.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Published {
    /// The domain it stands at: the one in From, or one above it.
    pub domain: String,
    /// p=
    pub policy: Asked,
    /// sp=: for domains below it.
    pub below: Asked,
    /// np=: for domains below it that do not exist.
    pub absent: Asked,
    /// adkim=s: a signature has to be of the very domain in From.
    pub strict_dkim: bool,
    /// aspf=s: MAIL FROM has to be of the very domain in From.
    pub strict_spf: bool,
    /// t=y: it is not to be taken at its word yet.
    pub testing: bool,
}

/// One DMARC check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dmarc {
    /// The result; none if the domain publishes nothing.
    pub found: Found,
    /// The domain in From; empty if there is none, or more than one.
    pub from: String,
    /// It publishes a policy, of its own or of the domain above it.
    pub published: bool,
    /// What it asks for, test mode counted in.
    pub asked: Asked,
    /// SPF passed for a domain that fits From.
    pub by_spf: bool,
    /// A DKIM signature passed of a domain that fits From.
    pub by_dkim: bool,
    /// What it publishes, if it asks to be told what becomes of mail in its name.
    pub reported: Option<Box<Published>>,
}
