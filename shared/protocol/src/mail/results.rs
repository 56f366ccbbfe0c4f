//! What was found, as header fields: Authentication-Results (RFC 8601) and Received-SPF (RFC 7208 §9.1). Written
//! from evidence; and recognised, where somebody else wrote results in our name, so that they can be taken out.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;

use super::address::ReversePath;
use super::header::{self, Field};
use super::verdict::{Evidence, Found};

/// The field that carries results.
const FIELD: &str = "Authentication-Results";
/// Results of one field that are read.
const TOLD_MAX: usize = 32;
/// Comments within comments that are followed; deeper ones make the field unreadable.
const NESTED_MAX: usize = 64;

/// The name of whoever wrote a field of results (RFC 8601 §2.2), in lower case; `None` if it can't be read.
pub fn authserv_id(value: &[u8]) -> Option<String> {
    let text = skip_comments(value)?;
    let name = if let Some(inside) = text.strip_prefix(b"\"") {
        quoted(inside)?
    } else {
        let end = text.iter().position(|octet| !is_token(*octet)).unwrap_or(text.len());
        text[..end].to_vec()
    };
    let name = String::from_utf8(name).ok()?;
    (!name.is_empty()).then(|| name.trim_end_matches('.').to_lowercase())
}

/// What a field of results tells: methods and what came of them, in lower case, without what they rest on. What can't
/// be read is passed over; a field that lacks the name of who wrote it is read all the same.
pub fn told(value: &[u8]) -> Vec<(String, String)> {
    statements(value).into_iter().filter_map(statement).take(TOLD_MAX).collect()
}

/// The parts between semicolons that stand in no comment and no quotes.
fn statements(value: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut begin, mut depth, mut is_quoted, mut is_escaped) = (Vec::new(), 0, 0_usize, false, false);
    for (at, octet) in value.iter().enumerate() {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' if depth == 0 => is_quoted = !is_quoted,
            b'(' if !is_quoted => depth += 1,
            b')' if !is_quoted => depth = depth.saturating_sub(1),
            b';' if !is_quoted && depth == 0 => {
                found.push(&value[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(&value[begin..]);
    found
}

/// `method/version=result`.
fn statement(text: &[u8]) -> Option<(String, String)> {
    let (method, rest) = word(skip_comments(text)?)?;
    let mut rest = skip_comments(rest)?;
    if let Some(version) = rest.strip_prefix(b"/") {
        rest = skip_comments(word(skip_comments(version)?)?.1)?;
    }
    let (result, _) = word(skip_comments(rest.strip_prefix(b"=")?)?)?;
    Some((method, result))
}

/// A token, in lower case, and what follows.
fn word(text: &[u8]) -> Option<(String, &[u8])> {
    let end = text.iter().position(|octet| !is_token(*octet)).unwrap_or(text.len());
    let word = str::from_utf8(&text[..end]).ok().filter(|word| !word.is_empty())?;
    Some((word.to_ascii_lowercase(), &text[end..]))
}

/// True for results in the name of one of `ours` (in lower case), and for such that can't be read: another reader
/// may see our name where we see none.
pub fn is_in_our_name(field: &Field<'_>, ours: &[&str]) -> bool {
    field.is(FIELD) && authserv_id(field.value()).is_none_or(|name| ours.contains(&name.as_str()))
}

/// A header section without the results that others wrote in our name; borrowed if there were none. What follows the
/// empty line stays.
pub fn without_ours<'a>(section: &'a [u8], ours: &[&str]) -> Cow<'a, [u8]> {
    header::without_those(section, |field| is_in_our_name(field, ours))
}

fn is_token(octet: u8) -> bool {
    // Domain names, and the tokens of RFC 2045 §5.1.
    octet.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&octet) || octet >= 0x80
}

/// Past white space, folding and comments.
fn skip_comments(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = text.trim_ascii_start();
        if text.first() != Some(&b'(') {
            return Some(text);
        }
        let mut depth = 0;
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\\' => at += 1,
                _ => {}
            }
            at += 1;
            if depth == 0 {
                break;
            }
            if depth > NESTED_MAX {
                return None;
            }
        }
        text = text.get(at..)?;
    }
}

/// The text up to the closing quote.
fn quoted(text: &[u8]) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    let mut octets = text.iter();
    loop {
        match octets.next()? {
            b'"' => return Some(found),
            b'\\' => found.push(*octets.next()?),
            octet => found.push(*octet),
        }
    }
}

/// Our fields for one message.
#[derive(Clone, Copy, Debug)]
pub struct Results<'a> {
    /// Our name.
    pub host: &'a str,
    /// Who brought the message.
    pub client: IpAddr,
    /// What it called itself.
    pub helo: &'a str,
    /// MAIL FROM.
    pub sender: &'a ReversePath,
    /// What was found.
    pub evidence: &'a Evidence,
    /// Why less was done than that asks for, in a few words.
    pub spared: Option<&'a str>,
}

impl Results<'_> {
    /// Received-SPF and Authentication-Results, each folded and ended by CRLF.
    pub fn fields(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = self.received_spf(&mut text);
        let _ = self.authentication_results(&mut text);
        text
    }

    fn received_spf(&self, text: &mut String) -> fmt::Result {
        let spf = &self.evidence.spf_mail;
        let says = match spf.found {
            Found::Pass => "permits",
            Found::Fail | Found::Policy => "does not permit",
            Found::SoftFail => "probably does not permit",
            Found::Neutral => "says nothing of",
            Found::None => "has no policy about",
            Found::TempError => "could not be asked about",
            Found::PermError => "has an unusable policy about",
        };
        write!(text, "Received-SPF: {} ({}: {} {says} {})", spf.found, self.host, comment(&spf.domain), self.client)?;
        write!(text, "\r\n\treceiver={}; identity=mailfrom; client-ip={};", self.host, self.client)?;
        write!(text, "\r\n\thelo={}; envelope-from={}\r\n", value(self.helo), quote(&self.sender.to_string()))
    }

    fn authentication_results(&self, text: &mut String) -> fmt::Result {
        let client = (self.client, self.helo);
        write!(text, "{FIELD}: {}\r\n", written(self.host, self.evidence, client, self.spared)?)
    }
}

/// The value of an Authentication-Results field, folded: what `host` found of a message that a client of this address
/// and name brought, and why less was done than that asks for.
pub fn written(
    host: &str,
    evidence: &Evidence,
    (address, helo): (IpAddr, &str),
    spared: Option<&str>,
) -> Result<String, fmt::Error> {
    let Evidence { reverse, spf_helo, spf_mail, dkim, arc, dmarc, lists: _, sender: _, oddity: _ } = evidence;
    let address = address.to_string();
    let mut text = host.to_owned();
    if dkim.is_empty() {
        text.write_str(";\r\n\tdkim=none")?;
    }
    for one in dkim {
        write!(text, ";\r\n\tdkim={}{}", one.found, reason(one.why.as_deref()))?;
        for (name, what) in [("d", &one.domain), ("s", &one.selector), ("a", &one.algorithm), ("b", &one.signature)] {
            if !what.is_empty() {
                write!(text, " header.{name}={}", value(what))?;
            }
        }
    }
    let sender = if spf_mail.domain.is_empty() { helo } else { &spf_mail.domain };
    write!(text, ";\r\n\tspf={} smtp.mailfrom={}", spf_mail.found, value(sender))?;
    write!(text, ";\r\n\tspf={} smtp.helo={}", spf_helo.found, value(helo))?;
    if arc.found != Found::None {
        // RFC 8617 §10.2.
        let why = reason(arc.why.as_deref());
        write!(text, ";\r\n\tarc={}{why} smtp.remote-ip={}", arc.found, value(&address))?;
    }
    write!(text, ";\r\n\tdmarc={}", dmarc.found)?;
    if !dmarc.from.is_empty() {
        write!(text, " (p={}) header.from={}", dmarc.asked.word(), value(&dmarc.from))?;
    }
    if let Some(spared) = spared {
        write!(text, "\r\n\t({})", comment(spared))?;
    }
    write!(text, ";\r\n\tiprev={} policy.iprev={}", reverse.found, value(&address))?;
    if let Some(name) = &reverse.name {
        write!(text, " ({})", comment(name))?;
    }
    Ok(text)
}

fn reason(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(" reason={}", quote(why)))
}

/// A value as RFC 2045 §5.1 writes it: a token, else in quotes.
fn value(text: &str) -> Cow<'_, str> {
    let is_plain = !text.is_empty() && text.bytes().all(|octet| octet < 0x80 && is_token(octet));
    if is_plain { Cow::Borrowed(text) } else { Cow::Owned(quote(text)) }
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars().filter(|letter| !letter.is_control()) {
        if matches!(letter, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('"');
    quoted
}

fn comment(text: &str) -> impl Display {
    text.chars().filter(|letter| !letter.is_control() && !"()\\".contains(*letter)).collect::<String>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::address::Address;
    use crate::mail::verdict::{Arc, Asked, Dkim, Dmarc, Reverse, SenderDomain, Spf};

    #[test]
    fn what_others_found_is_read() {
        for (value, expected) in [
            (
                " mx.example;\r\n\tspf=pass (mx.example: domain of a@b designates 192.0.2.1; really) smtp.mailfrom=a@b;\r\n\t\
                 dkim=pass header.i=@b header.s=x; DMARC=Pass (p=NONE) header.from=b\r\n",
                &["spf pass", "dkim pass", "dmarc pass"][..],
            ),
            // Without a name, as some large receivers write it.
            (
                " spf=pass (sender IP is 192.0.2.1)\r\n smtp.mailfrom=b; dkim=fail (x) header.d=b",
                &["spf pass", "dkim fail"],
            ),
            (
                " mx.example 1; dkim/1 = (odd) neutral reason=\"a;b\" header.d=b; spf = none",
                &["dkim neutral", "spf none"],
            ),
            (" mx.example; none", &[]),
            (" mx.example", &[]),
            (" mx.example; =pass; spf; spf=; (open spf=pass", &[]),
            (" mx.example (; spf=fail); spf=pass", &["spf pass"]),
            ("", &[]),
        ] {
            let told: Vec<String> =
                told(value.as_bytes()).iter().map(|(method, found)| format!("{method} {found}")).collect();
            assert_eq!(told, expected, "{value}");
        }
        assert_eq!(told("; spf=pass".repeat(1000).as_bytes()).len(), TOLD_MAX);
    }

    #[test]
    fn whoever_wrote_results_is_recognised() {
        for (value, name) in [
            (" mail.example.org; none", Some("mail.example.org")),
            (" MAIL.Example.ORG 1; spf=pass", Some("mail.example.org")),
            ("mail.example.org", Some("mail.example.org")),
            ("\r\n\t(a (nested) comment)\r\n mail.example.org (x) ;", Some("mail.example.org")),
            (" \"mail.\\example.org\" ;", Some("mail.example.org")),
            (" mail.example.org.;", Some("mail.example.org")),
            (" (\\)) x;", Some("x")),
            (" ; none", None),
            (" (open", None),
            (" \"open", None),
            ("", None),
        ] {
            assert_eq!(authserv_id(value.as_bytes()).as_deref(), name, "{value:?}");
        }
    }

    #[test]
    fn results_in_our_name_go_and_those_of_others_stay() {
        let section = "Authentication-Results: mail.example.org; dmarc=pass\r\n\
            Received: x\r\n\
            authentication-results: (c) MAIL.example.org\r\n\t; spf=pass\r\n\
            Authentication-Results: other.example; spf=fail\r\n\
            Authentication-Results: \"broken\r\n\
            ARC-Authentication-Results: i=1; mail.example.org; spf=pass\r\n\
            X-Authentication-Results: mail.example.org\r\n\r\nAuthentication-Results: mail.example.org\r\n";
        let kept = without_ours(section.as_bytes(), &["mail.example.org"]);
        assert_eq!(
            String::from_utf8_lossy(&kept),
            "Received: x\r\nAuthentication-Results: other.example; spf=fail\r\n\
             ARC-Authentication-Results: i=1; mail.example.org; spf=pass\r\n\
             X-Authentication-Results: mail.example.org\r\n\r\nAuthentication-Results: mail.example.org\r\n"
        );
    }

    #[test]
    fn the_fields_say_what_was_found() {
        let evidence = Evidence {
            reverse: Reverse { found: Found::Pass, name: Some("mx.friend.example".into()) },
            spf_helo: Spf { found: Found::None, domain: "mx.friend.example".into() },
            spf_mail: Spf { found: Found::Pass, domain: "friend.example".into() },
            dkim: vec![Dkim {
                found: Found::Fail,
                domain: "friend.example".into(),
                selector: "s1".into(),
                algorithm: "rsa-sha256".into(),
                signature: "abc+/def".into(),
                why: Some("a \"reason\"".into()),
            }],
            arc: Arc::default(),
            dmarc: Dmarc {
                found: Found::Pass,
                from: "friend.example".into(),
                published: true,
                asked: Asked::Reject,
                by_spf: true,
                by_dkim: false,
                reported: None,
            },
            sender: SenderDomain::Exists,
            ..Evidence::default()
        };
        let sender = ReversePath::Address(Address::parse("bob@friend.example").expect("valid"));
        let results = Results {
            host: "mail.example.org",
            client: IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
            helo: "mx.friend.example",
            sender: &sender,
            evidence: &evidence,
            spared: Some("monitor, else: (refused)"),
        };
        assert_eq!(
            results.fields(),
            "Received-SPF: pass (mail.example.org: friend.example permits 2001:db8::1)\r\n\
             \treceiver=mail.example.org; identity=mailfrom; client-ip=2001:db8::1;\r\n\
             \thelo=mx.friend.example; envelope-from=\"bob@friend.example\"\r\n\
             Authentication-Results: mail.example.org;\r\n\
             \tdkim=fail reason=\"a \\\"reason\\\"\" header.d=friend.example header.s=s1 header.a=rsa-sha256 \
             header.b=\"abc+/def\";\r\n\
             \tspf=pass smtp.mailfrom=friend.example;\r\n\
             \tspf=none smtp.helo=mx.friend.example;\r\n\
             \tdmarc=pass (p=reject) header.from=friend.example\r\n\
             \t(monitor, else: refused);\r\n\
             \tiprev=pass policy.iprev=\"2001:db8::1\" (mx.friend.example)\r\n"
        );
    }

    proptest! {
        #[test]
        fn nothing_said_breaks_a_field(helo: String, domain: String, why: String, why_spared: String) {
            let evidence = Evidence {
                spf_mail: Spf { found: Found::Fail, domain: domain.clone() },
                dkim: vec![Dkim { why: Some(why), domain, ..Dkim::default() }],
                ..Evidence::default()
            };
            let results = Results {
                host: "mail.example.org",
                client: IpAddr::from([192, 0, 2, 1]),
                helo: &helo,
                sender: &ReversePath::Null,
                evidence: &evidence,
                spared: Some(&why_spared),
            };
            let text = results.fields();
            let fields: Vec<_> = header::fields(text.as_bytes()).collect();
            prop_assert_eq!(fields.len(), 2);
            prop_assert_eq!(authserv_id(fields[1].value()), Some("mail.example.org".to_owned()));
        }

        #[test]
        fn any_value_is_read_or_not(value: Vec<u8>) {
            let _ = authserv_id(&value);
        }
    }
}
