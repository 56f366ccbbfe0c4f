//! `BODY[…]` (RFC 9051 §6.4.5): which octets of a message a section is. Pure.

use std::borrow::Cow;
use std::num::NonZeroU32;

use imap_types::core::AString;
use imap_types::fetch::{Part as Written, Section};

use crate::mailbox::message::{Part, Within, field};

/// The octets; nothing if there is no such part.
pub(super) fn octets<'a>(message: &'a [u8], whole: &Part, section: Option<&Section<'_>>) -> Option<Cow<'a, [u8]>> {
    let Some(section) = section else { return Some(Cow::Borrowed(message)) };
    let part =
        |numbers: &Written| whole.find(&numbers.0.as_ref().iter().map(|number| number.get()).collect::<Vec<_>>());
    // HEADER and TEXT of a part are those of the message it holds.
    let inner = |numbers: Option<&Written>| match numbers {
        None => Some(whole),
        Some(numbers) => match &part(numbers)?.within {
            Within::Message(inner) => Some(&**inner),
            _ => None,
        },
    };
    match section {
        Section::Part(numbers) => part(numbers).map(|part| Cow::Borrowed(&message[part.body.clone()])),
        Section::Mime(numbers) => part(numbers).map(|part| Cow::Borrowed(&message[part.header.clone()])),
        Section::Text(numbers) => inner(numbers.as_ref()).map(|part| Cow::Borrowed(&message[part.body.clone()])),
        Section::Header(numbers) => inner(numbers.as_ref()).map(|part| Cow::Borrowed(&message[part.header.clone()])),
        Section::HeaderFields(numbers, names) => {
            inner(numbers.as_ref()).map(|part| Cow::Owned(fields(&message[part.header.clone()], names.as_ref(), true)))
        }
        Section::HeaderFieldsNot(numbers, names) => {
            inner(numbers.as_ref()).map(|part| Cow::Owned(fields(&message[part.header.clone()], names.as_ref(), false)))
        }
    }
}

/// The fields of these names, or all others, and an empty line.
fn fields(header: &[u8], names: &[AString<'_>], wanted: bool) -> Vec<u8> {
    let mut chosen = Vec::new();
    for (name, value) in field::fields(header) {
        let listed = names.iter().any(|listed| listed.as_ref().eq_ignore_ascii_case(name));
        if listed == wanted {
            chosen.extend_from_slice(name);
            chosen.push(b':');
            chosen.extend_from_slice(value);
            chosen.extend_from_slice(b"\r\n");
        }
    }
    chosen.extend_from_slice(b"\r\n");
    chosen
}

/// The section as the response names it.
pub(super) fn name(section: Option<&Section<'_>>) -> String {
    let Some(section) = section else { return String::new() };
    let part = |part: &Written| {
        part.0.as_ref().iter().map(|number: &NonZeroU32| number.to_string()).collect::<Vec<_>>().join(".")
    };
    let before = |numbers: Option<&Written>| numbers.map_or_else(String::new, |numbers| part(numbers) + ".");
    let list = |names: &[AString<'_>]| names.iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(" ");
    match section {
        Section::Part(numbers) => part(numbers),
        Section::Mime(numbers) => part(numbers) + ".MIME",
        Section::Text(numbers) => before(numbers.as_ref()) + "TEXT",
        Section::Header(numbers) => before(numbers.as_ref()) + "HEADER",
        Section::HeaderFields(numbers, names) => {
            format!("{}HEADER.FIELDS ({})", before(numbers.as_ref()), list(names.as_ref()))
        }
        Section::HeaderFieldsNot(numbers, names) => {
            format!("{}HEADER.FIELDS.NOT ({})", before(numbers.as_ref()), list(names.as_ref()))
        }
    }
}

/// The name of a field as the response repeats it: an atom where it is one.
fn quoted(name: &[u8]) -> String {
    let is_atom =
        !name.is_empty() && name.iter().all(|octet| octet.is_ascii_graphic() && !b"(){%*\"\\]".contains(octet));
    let text = String::from_utf8_lossy(name);
    if is_atom {
        text.into_owned()
    } else {
        let mut into = Vec::new();
        crate::mailbox::message::string::put_string(&mut into, name);
        String::from_utf8_lossy(&into).into_owned()
    }
}

/// A part of the octets, from an origin on (RFC 9051 §6.4.5).
pub(super) fn partial(octets: &[u8], partial: Option<(u32, NonZeroU32)>) -> &[u8] {
    let Some((origin, count)) = partial else { return octets };
    let from = (origin as usize).min(octets.len());
    let to = from.saturating_add(count.get() as usize).min(octets.len());
    &octets[from..to]
}
