//! Records as people and name servers read them: a fragment of a zone file (RFC 1035 §5.1), and a table.

use std::fmt::Write as _;

use super::{Record, State};

/// Octets of one string of a TXT record (RFC 1035 §3.3).
const STRING_OCTETS_MAX: usize = 255;
/// How long others may keep what they were told, in seconds.
const TTL_S: u32 = 3600;

// Writing to a string can't fail: the results are dropped throughout.

/// A zone fragment; what is not to be published stands in comments.
pub fn zone(records: &[Record]) -> String {
    let mut text = String::new();
    let mut domain = "";
    for record in records {
        if record.domain != domain {
            let _ = writeln!(text, "{}; {}", if domain.is_empty() { "" } else { "\n" }, record.domain);
            domain = &record.domain;
        }
        let Record { name, kind, value, state, note, .. } = record;
        let note = note.as_deref().map(one_line);
        if let (State::Publish, Some(value)) = (state, value) {
            if let Some(note) = note {
                let _ = writeln!(text, "; {note}");
            }
            let data = if kind == "TXT" { strings(value) } else { value.clone() };
            let _ = writeln!(text, "{name}.\t{TTL_S}\tIN\t{kind}\t{data}");
        } else {
            let note = note.unwrap_or_default();
            let value = value.as_deref().map(|value| format!(" {value}")).unwrap_or_default();
            let _ = writeln!(text, "; {}: {name}. {kind}{value} ({note})", word(*state));
        }
    }
    text
}

/// A table; values are never broken into lines, so that they can be copied.
pub fn table(records: &[Record]) -> String {
    let mut text = String::new();
    let mut domain = "";
    for record in records {
        if record.domain != domain {
            let _ = writeln!(text, "{}{}", if domain.is_empty() { "" } else { "\n" }, record.domain);
            domain = &record.domain;
        }
        let value = match (&record.value, record.state) {
            (Some(value), State::AskProvider) => format!("{value}  [{}]", word(State::AskProvider)),
            (Some(value), _) => value.clone(),
            (None, state) => format!("[{}]", word(state)),
        };
        let _ = writeln!(text, "  {:<44} {:<9} {value}", record.name, record.kind);
        if let Some(note) = &record.note {
            let _ = writeln!(text, "  {:<54} ({note})", "");
        }
    }
    text
}

fn word(state: State) -> &'static str {
    match state {
        State::Publish => "to publish",
        State::AskProvider => "ask the server's provider",
        State::NotKnown => "not known yet",
        State::Later => "not in this version",
    }
}

/// The strings of a TXT record.
pub fn strings(value: &str) -> String {
    let mut text = String::new();
    for chunk in value.as_bytes().chunks(STRING_OCTETS_MAX) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push('"');
        for octet in chunk {
            match octet {
                b'"' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(*octet));
                }
                b' '..=b'~' => text.push(char::from(*octet)),
                other => {
                    let _ = write!(text, "\\{other:03}");
                }
            }
        }
        text.push('"');
    }
    if text.is_empty() { "\"\"".to_owned() } else { text }
}

fn one_line(note: &str) -> String {
    note.replace(|letter: char| letter.is_control(), " ")
}
