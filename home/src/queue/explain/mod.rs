//! What a refusal means and what to do about it, in plain words, for the replies that are well known. One table,
//! the first line that fits; what none fits is not explained. Pure.

mod table;

use std::fmt;

use gatepost_protocol::mail::address::is_at_or_below;
use gatepost_protocol::mail::reply::Reply;

use self::table::{RULES, Rule};

/// What a reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Names it, in one word: for programs.
    pub kind: &'static str,
    /// What happened.
    pub what: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.remedy)
    }
}

/// What this reply means; `remote`: the host that gave it, as `name [address]:port`, or nobody but us.
pub fn meaning(reply: &Reply, remote: Option<&str>) -> Option<Meaning> {
    let said = reply.to_string().to_ascii_lowercase();
    let host = remote.and_then(|remote| remote.split(' ').next()).unwrap_or_default().to_ascii_lowercase();
    RULES.iter().find(|rule| rule.fits(&said, remote.is_some(), &host)).map(|rule| rule.meaning)
}

impl Rule {
    fn fits(&self, said: &str, answered: bool, host: &str) -> bool {
        (!self.ours || !answered)
            && (self.host.is_empty() || self.host.iter().any(|suffix| is_at_or_below(host, suffix)))
            && self.says.iter().any(|pattern| holds(said, pattern))
    }
}

/// True if the parts of the pattern, with `*` between them, are in the text in this order.
fn holds(text: &str, pattern: &str) -> bool {
    let mut rest = text;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kind | host, or - for ourselves | reply`
    const REPLIES: &str = include_str!("replies.txt");

    fn parse(text: &str) -> Reply {
        let (code, rest) = text.split_once(' ').expect("a code and a text");
        let (enhanced, text) = gatepost_protocol::mail::reply::Enhanced::split(rest)
            .map_or((None, rest), |(enhanced, text)| (Some(enhanced), text.trim_start()));
        Reply::new(code.parse().expect("a code"), enhanced, vec![text.to_owned()])
    }

    #[test]
    fn replies_as_they_were_seen_are_understood() {
        let mut kinds = std::collections::BTreeSet::new();
        for line in REPLIES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let [kind, host, reply] = line.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{line}") };
            let remote = (host != "-").then(|| format!("{host} [192.0.2.1]:25"));
            let found = meaning(&parse(reply), remote.as_deref()).map_or("nothing", |meaning| meaning.kind);
            assert_eq!(found, kind, "{host}: {reply}");
            kinds.insert(kind);
        }
        let untested: Vec<&str> =
            RULES.iter().map(|rule| rule.meaning.kind).filter(|kind| !kinds.contains(kind)).collect();
        assert_eq!(untested, [""; 0], "every line of the table has a reply that was seen");
    }

    #[test]
    fn each_meaning_says_what_happened_and_what_to_do_in_whole_sentences() {
        for Rule { meaning, says, .. } in RULES {
            for text in [meaning.what, meaning.remedy] {
                assert!(text.ends_with('.') && text.starts_with(char::is_uppercase), "{}: {text}", meaning.kind);
            }
            assert!(meaning.to_string().len() < 420, "{}", meaning.kind);
            assert!(says.iter().all(|pattern| *pattern == pattern.to_ascii_lowercase()), "{}", meaning.kind);
        }
    }

    #[test]
    fn our_own_replies_are_explained_too() {
        for (reply, kind) in [
            (Reply::null_mx("example.com"), "null-mx"),
            (Reply::no_such_domain("example.com"), "no-such-domain"),
            (Reply::no_edge(), "no-edge"),
            (Reply::eight_bit_not_supported(), "eight-bit"),
            (Reply::utf8_not_supported(), "utf8"),
            (Reply::forbidden_target("example.com"), "private-target"),
            (Reply::too_big(1000), "too-big"),
            (Reply::tls_failed("no certificate"), "tls-failed"),
            (Reply::smarthost_login_failed("535 no"), "smarthost-login"),
            (Reply::dns_failed("SERVFAIL"), "dns"),
        ] {
            assert_eq!(meaning(&reply, None).map(|meaning| meaning.kind), Some(kind), "{reply}");
        }
    }

    #[test]
    fn what_is_unknown_is_not_explained() {
        for text in ["550 no", "554 5.0.0 whatever", "451 4.0.0 hm"] {
            assert_eq!(meaning(&parse(text), Some("mx.example.com [192.0.2.1]:25")), None, "{text}");
        }
    }
}
