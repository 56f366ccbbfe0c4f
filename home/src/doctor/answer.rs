//! Reads the answer to a probe: what whoever got the probe found of it (fields of results in a message that came back
//! whole, quoted ones, reports in words), or that it could not be delivered. Pure; of any message, and never more of it than
//! its bounds.

use gatepost_protocol::mail::results;
use mail_parser::decoders::html::html_to_text;
use mail_parser::{Message, MessageParser, MimeHeaders as _, PartType};

/// Messages in messages that are looked into.
const NESTED_MAX: usize = 6;
/// Parts of one message that are read.
const PARTS_MAX: usize = 64;
/// Results that are kept, recipients of one report.
const RESULTS_MAX: usize = 64;
/// Lines one field may have.
const FIELD_LINES_MAX: usize = 40;
/// Characters kept of others' words.
const WORDS_CHARACTERS_MAX: usize = 300;
/// Between what was checked and the colon, in octets: ` check`, ` Signature result`.
const LABEL_OCTETS_MAX: usize = 24;

/// What was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// SPF.
    Spf,
    /// DKIM.
    Dkim,
    /// DMARC.
    Dmarc,
}

/// What came of one check, as others tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What was checked.
    pub method: Method,
    /// A word of RFC 8601 §2.7, in lower case.
    pub found: &'static str,
    /// Who found it.
    pub by: String,
}

/// What became of one recipient (RFC 3464 §2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// `failed`, `delayed`, `delivered`, …
    pub action: String,
    /// The reply, or the status code where there is none.
    pub reply: String,
    /// The host that gave it.
    pub remote: Option<String>,
}

/// What an answer says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Who wrote it.
    pub from: String,
    /// What about.
    pub subject: String,
    /// What was found of the probe.
    pub results: Vec<Told>,
    /// What became of it, if this is a report on that.
    pub fates: Vec<Fate>,
}

impl Method {
    /// As fields of results name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Spf, Self::Dkim, Self::Dmarc].into_iter().find(|method| method.name() == name)
    }
}

/// Reads it. Results in the name of one of `ours` are about the answer itself; so are those on top of it, unless it is
/// the probe itself, sent back, which its Message-ID tells by `token`.
pub fn read(message: &[u8], token: &str, ours: &[String]) -> Answer {
    let Some(parsed) = MessageParser::default().parse(message) else { return Answer::default() };
    let from = parsed.from().and_then(|from| from.first()).and_then(|from| from.address());
    let mut reading = Reading { ours, answer: Answer::default() };
    reading.answer.from = bounded(from.unwrap_or("nobody"));
    reading.answer.subject = bounded(parsed.subject().unwrap_or_default());
    let is_probe = parsed.message_id().is_some_and(|id| id.contains(token));
    reading.message(&parsed, is_probe, NESTED_MAX);
    reading.answer
}

struct Reading<'a> {
    ours: &'a [String],
    answer: Answer,
}

impl Reading<'_> {
    fn message(&mut self, message: &Message<'_>, with_header: bool, nested: usize) {
        if with_header {
            let root = message.root_part();
            let header = message.raw_message.get(root.offset_header as usize..root.offset_body as usize);
            let header = header.unwrap_or_default();
            self.text(&String::from_utf8_lossy(header));
        }
        for part in message.parts.iter().take(PARTS_MAX) {
            let kind = part.content_type().map(|kind| (kind.ctype(), kind.subtype().unwrap_or_default()));
            match &part.body {
                PartType::Message(inner) if nested > 0 => self.message(inner, true, nested - 1),
                PartType::Html(text) => self.text(&html_to_text(text)),
                PartType::Text(_) | PartType::Binary(_) | PartType::InlineBinary(_) => {
                    let text = String::from_utf8_lossy(part.contents());
                    match kind {
                        Some(("message", "delivery-status" | "global-delivery-status")) => self.report(&text),
                        None | Some(("text" | "message", _)) => self.text(&text),
                        Some(_) => {}
                    }
                }
                PartType::Message(_) | PartType::Multipart(_) => {}
            }
        }
    }

    /// Lines of a header section, of a letter, of a letter in which one is quoted.
    fn text(&mut self, text: &str) {
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let said = unquoted(line);
            if let Some(value) = value_of(said, "authentication-results") {
                let mut value = value.to_owned();
                for _ in 0..FIELD_LINES_MAX {
                    let Some(more) = lines.next_if(|next| continues(next)) else { break };
                    value.push(' ');
                    value.push_str(unquoted(more));
                }
                self.field(&value);
            } else if let Some(value) = value_of(said, "received-spf") {
                self.found(Method::Spf, value, "its Received-SPF");
            } else if let Some((method, found)) = in_words(said) {
                self.found(method, found, "its report");
            }
        }
    }

    fn field(&mut self, value: &str) {
        let told = results::told(value.as_bytes());
        let is_nameless = value.split(';').next().is_some_and(|first| first.contains('='));
        let by = match results::authserv_id(value.as_bytes()) {
            Some(by) if self.ours.contains(&by) => return,
            Some(by) if !is_nameless => bounded(&by),
            _ => "its receiver".to_owned(),
        };
        for (method, found) in told {
            if let Some(method) = Method::named(&method) {
                self.found(method, &found, &by);
            }
        }
    }

    fn found(&mut self, method: Method, word: &str, by: &str) {
        let Some(found) = known(word) else { return };
        if self.answer.results.len() < RESULTS_MAX {
            self.answer.results.push(Told { method, found, by: by.to_owned() });
        }
    }

    /// Blocks of fields, one a recipient.
    fn report(&mut self, text: &str) {
        for block in text.replace("\r\n", "\n").split("\n\n") {
            let unfolded = block.replace("\n ", " ").replace("\n\t", " ");
            let field = |name: &str| unfolded.lines().find_map(|line| value_of(line, name)).map(str::trim);
            let Some(action) = field("action") else { continue };
            // `smtp; 550 …`, `dns; mx.example`.
            let after_type = |value: &'static str| field(value).and_then(|value| value.split_once(';')).map(|(_, v)| v);
            let reply = after_type("diagnostic-code").or_else(|| field("status")).unwrap_or("no reason is given");
            if self.answer.fates.len() < RESULTS_MAX {
                self.answer.fates.push(Fate {
                    action: bounded(action).to_ascii_lowercase(),
                    reply: bounded(reply.trim()),
                    remote: after_type("remote-mta").map(|host| bounded(host.trim())),
                });
            }
        }
    }
}

/// A line without what marks it as quoted.
fn unquoted(line: &str) -> &str {
    line.trim_start_matches(|letter: char| letter.is_whitespace() || matches!(letter, '>' | '|' | '*')).trim_end()
}

/// The value of a line that is a field of this name.
fn value_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (named, value) = line.split_once(':')?;
    named.trim().eq_ignore_ascii_case(name).then_some(value)
}

/// Whether a line goes on with the field above: it is folded, and no field by itself.
fn continues(line: &str) -> bool {
    let rest = line.trim_start_matches(['>', '|']);
    let said = unquoted(line);
    let is_field = said.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    });
    rest.starts_with([' ', '\t']) && !said.is_empty() && !is_field
}

/// `SPF check: pass`, `DKIM = pass`: what was checked, some words, a colon, one word.
fn in_words(line: &str) -> Option<(Method, &str)> {
    let (label, found) = line.split_once([':', '='])?;
    let end = label.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(label.len());
    let method = Method::named(&label[..end].to_ascii_lowercase())?;
    let plain = |letter: char| letter.is_ascii_alphabetic() || matches!(letter, ' ' | '-' | '_');
    let fits = label.len() - end <= LABEL_OCTETS_MAX && label[end..].chars().all(plain);
    fits.then(|| (method, found.trim_start()))
}

/// The word at the beginning, if it is one that says what was found.
fn known(text: &str) -> Option<&'static str> {
    let text = text.trim_start();
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let word = text[..end].to_ascii_lowercase();
    let words = ["pass", "fail", "softfail", "neutral", "none", "temperror", "permerror", "policy"];
    words.into_iter().find(|known| *known == word)
}

fn bounded(text: &str) -> String {
    let printable = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().take(WORDS_CHARACTERS_MAX).map(printable).collect()
}

#[cfg(test)]
mod tests;
