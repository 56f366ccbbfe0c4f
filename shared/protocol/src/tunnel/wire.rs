//! The nouns of mail as they travel and are stored: twins that derive serialisation, converted at
//! the border, so that renaming a noun's field can never change a protocol.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::machine::TlsFacts;
use crate::mail::address::{Address, ReversePath};
use crate::mail::envelope::{BodyKind, Envelope, Notify, Recipient, Ret};
use crate::mail::outcome::Outcome;
use crate::mail::reply::{Enhanced, Reply};
use crate::mail::verdict::Verdict;

/// Most recipients an envelope may carry.
pub const RECIPIENTS_MAX: usize = 1000;

/// A noun that arrived malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a malformed {0} arrived")]
pub struct WireError(pub &'static str);

/// [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireEnvelope {
    reverse_path: String,
    recipients: Vec<WireRecipient>,
    eight_bit: bool,
    smtputf8: bool,
    ret: Option<WireRet>,
    envid: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireRet {
    Full,
    Headers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WireRecipient {
    address: String,
    notify: WireNotify,
    orcpt: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum WireNotify {
    Unspecified,
    Never,
    On { success: bool, failure: bool, delay: bool },
}

impl From<&Envelope> for WireEnvelope {
    fn from(envelope: &Envelope) -> Self {
        Self {
            reverse_path: envelope.reverse_path.to_string(),
            recipients: envelope
                .recipients
                .iter()
                .map(|recipient| WireRecipient {
                    address: recipient.address.to_string(),
                    notify: match recipient.notify {
                        Notify::Unspecified => WireNotify::Unspecified,
                        Notify::Never => WireNotify::Never,
                        Notify::On { success, failure, delay } => WireNotify::On { success, failure, delay },
                    },
                    orcpt: recipient.orcpt.clone(),
                })
                .collect(),
            eight_bit: envelope.body == BodyKind::EightBit,
            smtputf8: envelope.smtputf8,
            ret: envelope.ret.map(|ret| match ret {
                Ret::Full => WireRet::Full,
                Ret::Headers => WireRet::Headers,
            }),
            envid: envelope.envid.clone(),
        }
    }
}

impl TryFrom<WireEnvelope> for Envelope {
    type Error = WireError;

    fn try_from(wire: WireEnvelope) -> Result<Self, WireError> {
        if wire.recipients.is_empty() || wire.recipients.len() > RECIPIENTS_MAX {
            return Err(WireError("recipient list"));
        }
        Ok(Self {
            reverse_path: ReversePath::parse(&wire.reverse_path).map_err(|_| WireError("reverse-path"))?,
            recipients: wire
                .recipients
                .into_iter()
                .map(|recipient| {
                    Ok(Recipient {
                        address: Address::parse(&recipient.address).map_err(|_| WireError("recipient"))?,
                        notify: match recipient.notify {
                            WireNotify::Unspecified => Notify::Unspecified,
                            WireNotify::Never => Notify::Never,
                            WireNotify::On { success, failure, delay } => Notify::On { success, failure, delay },
                        },
                        orcpt: recipient.orcpt,
                    })
                })
                .collect::<Result<_, _>>()?,
            body: if wire.eight_bit { BodyKind::EightBit } else { BodyKind::SevenBit },
            smtputf8: wire.smtputf8,
            ret: wire.ret.map(|ret| match ret {
                WireRet::Full => Ret::Full,
                WireRet::Headers => Ret::Headers,
            }),
            envid: wire.envid,
        })
    }
}

/// [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireReply {
    code: u16,
    enhanced: Option<(u16, u16, u16)>,
    lines: Vec<String>,
}

impl From<&Reply> for WireReply {
    fn from(reply: &Reply) -> Self {
        Self {
            code: reply.code(),
            enhanced: reply.enhanced().map(|Enhanced(class, subject, detail)| (class, subject, detail)),
            lines: reply.lines().to_vec(),
        }
    }
}

impl From<WireReply> for Reply {
    /// Whatever arrives becomes a bounded, printable reply.
    fn from(wire: WireReply) -> Self {
        let enhanced = wire.enhanced.map(|(class, subject, detail)| Enhanced(class, subject, detail));
        Self::new(wire.code, enhanced, wire.lines)
    }
}

/// [`Outcome`]: what was judged, and the reply behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WireOutcome {
    /// Taken.
    Accepted(WireReply),
    /// Later.
    Deferred(WireReply),
    /// Never.
    Refused(WireReply),
}

impl From<&Outcome> for WireOutcome {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Accepted(reply) => Self::Accepted(reply.into()),
            Outcome::Deferred(reply) => Self::Deferred(reply.into()),
            Outcome::Refused(reply) => Self::Refused(reply.into()),
        }
    }
}

impl From<WireOutcome> for Outcome {
    fn from(wire: WireOutcome) -> Self {
        match wire {
            WireOutcome::Accepted(reply) => Self::Accepted(reply.into()),
            WireOutcome::Deferred(reply) => Self::Deferred(reply.into()),
            WireOutcome::Refused(reply) => Self::Refused(reply.into()),
        }
    }
}

/// [`TlsFacts`] without the exporter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireTls {
    /// Protocol version.
    pub version: String,
    /// Cipher suite.
    pub cipher: String,
    /// Key exchange group.
    pub group: String,
}

/// For logs, as [`TlsFacts`] print.
impl fmt::Display for WireTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.version, self.cipher, self.group)
    }
}

impl From<&TlsFacts> for WireTls {
    fn from(facts: &TlsFacts) -> Self {
        Self { version: facts.version.clone(), cipher: facts.cipher.clone(), group: facts.group.clone() }
    }
}

/// Who brought a message to the edge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireClient {
    /// Its address.
    pub address: IpAddr,
    /// What it called itself.
    pub helo: String,
    /// `ESMTPS` and the like (RFC 3848).
    pub with: String,
    /// The TLS it spoke.
    pub tls: Option<WireTls>,
}

/// [`Verdict`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireVerdict {
    hops: u16,
}

impl From<&Verdict> for WireVerdict {
    fn from(verdict: &Verdict) -> Self {
        Self { hops: verdict.hops }
    }
}

impl From<WireVerdict> for Verdict {
    fn from(wire: WireVerdict) -> Self {
        Self { hops: wire.hops, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_survive_the_border() {
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![
                Recipient::plain(Address::parse("\"a b\"@example.org").expect("valid")),
                Recipient {
                    address: Address::parse("b@example.org").expect("valid"),
                    notify: Notify::On { success: true, failure: false, delay: true },
                    orcpt: Some("rfc822;b@example.com".into()),
                },
            ],
            body: BodyKind::EightBit,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("x".into()),
        };
        assert_eq!(Envelope::try_from(WireEnvelope::from(&envelope)), Ok(envelope));
    }

    #[test]
    fn malformed_nouns_are_refused() {
        let good = WireEnvelope {
            reverse_path: String::new(),
            recipients: vec![],
            eight_bit: false,
            smtputf8: false,
            ret: None,
            envid: None,
        };
        assert_eq!(Envelope::try_from(good.clone()), Err(WireError("recipient list")));
        let recipient = WireRecipient { address: "nobody".into(), notify: WireNotify::Never, orcpt: None };
        let bad = WireEnvelope { recipients: vec![recipient], ..good };
        assert_eq!(Envelope::try_from(bad), Err(WireError("recipient")));
    }
}
