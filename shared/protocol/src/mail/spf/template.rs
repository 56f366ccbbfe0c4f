//! Macro strings of SPF records (RFC 7208 §7): names that are made from who sends. Bounded by the record they stand in
//! and by what a name in the DNS holds.

/// Octets of a name in the DNS as text (RFC 1035 §2.3.4); longer ones lose labels on the left (RFC 7208 §7.3).
const NAME_OCTETS_MAX: usize = 253;
/// What parts are told apart by, unless the macro says otherwise.
const DOT: &str = ".";
/// What a macro may name to tell parts apart by.
const DELIMITERS: &[u8] = b".-+,/_=";

/// Text with macros in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Macro { letter: Letter, escaped: bool, parts: Option<usize>, reversed: bool, delimiters: String },
}

/// What a macro stands for (RFC 7208 §7.2); those for explanations only are none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// `s`: the sender's address.
    Sender,
    /// `l`: its local part.
    LocalPart,
    /// `o`: its domain.
    SenderDomain,
    /// `d`: the domain whose record this is.
    Domain,
    /// `i`: the client's address in dotted parts.
    Address,
    /// `p`: the client's proven name.
    ProvenName,
    /// `v`: `in-addr` or `ip6`.
    Family,
    /// `h`: the name in EHLO.
    Helo,
}

impl Template {
    /// Any macro string; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            push(&mut pieces, &rest[..at]);
            rest = &rest[at + 1..];
            let (octet, after) = (rest.as_bytes().first()?, rest.get(1..)?);
            rest = after;
            match octet {
                b'%' => push(&mut pieces, "%"),
                b'_' => push(&mut pieces, " "),
                b'-' => push(&mut pieces, "%20"),
                b'{' => {
                    let (inside, after) = rest.split_once('}')?;
                    pieces.push(Piece::parse(inside)?);
                    rest = after;
                }
                _ => return None,
            }
        }
        push(&mut pieces, rest);
        let printable = text.bytes().all(|octet| octet.is_ascii_graphic());
        printable.then_some(Self(pieces))
    }

    /// A macro string that makes a name: it ends with a macro or with a label that can be a last one (RFC 7208 §7.1).
    pub fn name(text: &str) -> Option<Self> {
        let template = Self::parse(text)?;
        let ends_with_macro = text.ends_with('}') || ["%%", "%_", "%-"].iter().any(|end| text.ends_with(end));
        let literal = text.rsplit('}').next().unwrap_or_default();
        let ends_well = || {
            let (_, label) = literal.strip_suffix('.').unwrap_or(literal).rsplit_once('.')?;
            Some(is_last_label(label))
        };
        (ends_with_macro || ends_well() == Some(true)).then_some(template)
    }

    /// True if it needs this.
    pub fn needs(&self, what: Letter) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro { letter, .. } if *letter == what))
    }

    /// The name it makes of these values, cut on the left to what a name holds.
    pub fn expand<'a>(&self, value: impl Fn(Letter) -> &'a str) -> String {
        let mut made = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => made.push_str(text),
                Piece::Macro { letter, escaped, parts, reversed, delimiters } => {
                    let value = transformed(value(*letter), *parts, *reversed, delimiters);
                    if *escaped { escape(&value, &mut made) } else { made.push_str(&value) }
                }
            }
        }
        let mut name = made.strip_suffix('.').unwrap_or(&made);
        while name.len() > NAME_OCTETS_MAX {
            let Some((_, rest)) = name.split_once('.') else { break };
            name = rest;
        }
        name.to_owned()
    }
}

impl Piece {
    /// What stands in the braces.
    fn parse(inside: &str) -> Option<Self> {
        let first = inside.bytes().next()?;
        let letter = match first.to_ascii_lowercase() {
            b's' => Letter::Sender,
            b'l' => Letter::LocalPart,
            b'o' => Letter::SenderDomain,
            b'd' => Letter::Domain,
            b'i' => Letter::Address,
            b'p' => Letter::ProvenName,
            b'v' => Letter::Family,
            b'h' => Letter::Helo,
            _ => return None,
        };
        let rest = inside.get(1..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = rest.split_at(digits);
        // A number beyond any count of parts is all of them.
        let parts = (!number.is_empty()).then(|| number.parse().unwrap_or(usize::MAX));
        let reversed = rest.starts_with(['r', 'R']);
        let delimiters = if reversed { rest.get(1..)? } else { rest };
        let good = parts != Some(0) && delimiters.bytes().all(|octet| DELIMITERS.contains(&octet));
        let delimiters = if delimiters.is_empty() { DOT } else { delimiters }.to_owned();
        good.then_some(Self::Macro { letter, escaped: first.is_ascii_uppercase(), parts, reversed, delimiters })
    }
}

fn push(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Split, turned round, cut to the last parts, joined by dots.
fn transformed(value: &str, parts: Option<usize>, reversed: bool, delimiters: &str) -> String {
    if parts.is_none() && !reversed && delimiters == DOT {
        return value.to_owned();
    }
    let mut all: Vec<&str> = value.split(|letter| delimiters.contains(letter)).collect();
    if reversed {
        all.reverse();
    }
    let start = all.len().saturating_sub(parts.unwrap_or(usize::MAX));
    all[start..].join(DOT)
}

/// Octets that are not unreserved in URIs, as `%` and two hex digits (RFC 7208 §7.3).
fn escape(value: &str, made: &mut String) {
    use std::fmt::Write as _;
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            made.push(char::from(octet));
        } else {
            // Writing to a string can't fail.
            let _ = write!(made, "%{octet:02X}");
        }
    }
}

/// Letters, digits and inner hyphens, not digits alone (RFC 7208 §7.1, `toplabel`).
fn is_last_label(label: &str) -> bool {
    let inner = label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let ends = !label.starts_with('-') && !label.ends_with('-');
    inner && ends && label.bytes().any(|octet| !octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The values of RFC 7208 §7.4.
    fn value(letter: Letter) -> &'static str {
        match letter {
            Letter::Sender => "strong-bad@email.example.com",
            Letter::LocalPart => "strong-bad",
            Letter::SenderDomain | Letter::Domain => "email.example.com",
            Letter::Address => "192.0.2.3",
            Letter::ProvenName | Letter::Helo => "mx.example.org",
            Letter::Family => "in-addr",
        }
    }

    fn expanded(text: &str) -> Option<String> {
        Template::parse(text).map(|template| template.expand(value))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for (text, made) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("a%%b%_c%-d", "a%b c%20d"),
            ("%{S}", "strong-bad%40email.example.com"),
        ] {
            assert_eq!(expanded(text).as_deref(), Some(made), "{text}");
        }
    }

    #[test]
    fn what_is_no_macro_string_is_refused() {
        for text in
            ["%", "%a", "%{", "%{}", "%{d0}", "%{x}", "%{c}", "%{r}", "%{t}", "%{d2x}", "%{d-r}", "a b", "\u{e9}"]
        {
            assert_eq!(Template::parse(text), None, "{text}");
        }
        for text in ["", "museum", "example.123", "example.-com", "example.com-", "example..", "%{d}museum", "x%{d}.1"]
        {
            assert_eq!(Template::name(text), None, "{text}");
        }
        for text in ["example.org", "example.org.", "a.1-2", "%{d}", "a.%{d1}", "%{d}.x", "%%", "_a/b.org"] {
            assert!(Template::name(text).is_some(), "{text}");
        }
    }

    #[test]
    fn long_names_lose_labels_on_the_left() {
        let label = "x".repeat(60);
        let text = format!("{label}.{label}.{label}.{label}.%{{d}}");
        let made = expanded(&text).unwrap();
        assert_eq!(made, format!("{label}.{label}.{label}.email.example.com"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_not_and_makes_bounded_names(text: String) {
            if let Some(template) = Template::name(&text) {
                let made = template.expand(value);
                prop_assert!(made.len() <= NAME_OCTETS_MAX || !made.contains('.'));
            }
        }
    }
}
