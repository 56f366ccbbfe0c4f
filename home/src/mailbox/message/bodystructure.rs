//! `BODY` and `BODYSTRUCTURE` (RFC 9051 §7.5.2): the tree of parts, written in one pass. Pure.

use super::field::{self, Parametered};
use super::string::{put_nstring, put_string};
use super::{Part, Within, envelope};

/// Appends a part's structure; with all that only `BODYSTRUCTURE` tells if `extended`.
pub(super) fn put(into: &mut Vec<u8>, message: &[u8], part: &Part, extended: bool) {
    into.push(b'(');
    match &part.within {
        Within::Parts(parts) => put_parts(into, message, part, parts, extended),
        _ => put_single(into, message, part, extended),
    }
    into.push(b')');
}

fn put_parts(into: &mut Vec<u8>, message: &[u8], part: &Part, parts: &[Part], extended: bool) {
    for within in parts {
        put(into, message, within, extended);
    }
    into.push(b' ');
    put_string(into, part.kind.subtype.as_bytes());
    if extended {
        into.push(b' ');
        put_parameters(into, &part.kind.parameters);
        put_disposition_and_on(into, &message[part.header.clone()]);
    }
}

fn put_single(into: &mut Vec<u8>, message: &[u8], part: &Part, extended: bool) {
    let header = &message[part.header.clone()];
    let body = &message[part.body.clone()];
    // A multipart in which no part was found is told as what it is to who reads it: octets.
    let hollow = part.kind.is("multipart");
    let (top, subtype) =
        if hollow { ("application", "octet-stream") } else { (part.kind.top.as_str(), part.kind.subtype.as_str()) };
    put_string(into, top.as_bytes());
    into.push(b' ');
    put_string(into, subtype.as_bytes());
    into.push(b' ');
    put_parameters(into, if hollow { &[] } else { &part.kind.parameters });
    let value = |name: &str| field::value(header, name).filter(|value| !value.is_empty());
    into.push(b' ');
    put_nstring(into, value("Content-ID").as_deref());
    into.push(b' ');
    put_nstring(into, value("Content-Description").as_deref());
    into.push(b' ');
    let encoding = value("Content-Transfer-Encoding").map(|value| field::parametered(&value).value);
    put_string(into, encoding.as_deref().filter(|encoding| !encoding.is_empty()).unwrap_or("7bit").as_bytes());
    into.extend_from_slice(format!(" {}", body.len()).as_bytes());
    let lines = || memchr::memchr_iter(b'\n', body).count();
    match &part.within {
        Within::Message(inner) => {
            into.push(b' ');
            envelope::put(into, &message[inner.header.clone()]);
            into.push(b' ');
            put(into, message, inner, extended);
            into.extend_from_slice(format!(" {}", lines()).as_bytes());
        }
        // A message too deep to be looked into has an envelope and a body all the same: the grammar asks for them.
        _ if top.eq_ignore_ascii_case("message") && subtype.eq_ignore_ascii_case("rfc822") => {
            into.push(b' ');
            envelope::put(into, b"");
            into.extend_from_slice(b" (\"text\" \"plain\" NIL NIL NIL \"7bit\" 0 0)");
            into.extend_from_slice(format!(" {}", lines()).as_bytes());
        }
        _ if top.eq_ignore_ascii_case("text") => into.extend_from_slice(format!(" {}", lines()).as_bytes()),
        _ => {}
    }
    if extended {
        into.push(b' ');
        put_nstring(into, value("Content-MD5").as_deref());
        put_disposition_and_on(into, header);
    }
}

fn put_disposition_and_on(into: &mut Vec<u8>, header: &[u8]) {
    into.push(b' ');
    match field::value(header, "Content-Disposition").map(|value| field::parametered(&value)) {
        Some(Parametered { value, parameters }) if !value.is_empty() => {
            into.push(b'(');
            put_string(into, value.as_bytes());
            into.push(b' ');
            put_parameters(into, &parameters);
            into.push(b')');
        }
        _ => into.extend_from_slice(b"NIL"),
    }
    into.push(b' ');
    put_languages(into, header);
    into.push(b' ');
    put_nstring(into, field::value(header, "Content-Location").filter(|value| !value.is_empty()).as_deref());
}

fn put_languages(into: &mut Vec<u8>, header: &[u8]) {
    let value = field::value(header, "Content-Language").unwrap_or_default();
    let tags: Vec<&[u8]> =
        value.split(|octet| *octet == b',').map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty()).collect();
    match tags.as_slice() {
        [] => into.extend_from_slice(b"NIL"),
        [only] => put_string(into, only),
        several => {
            into.push(b'(');
            for (number, tag) in several.iter().enumerate() {
                if number > 0 {
                    into.push(b' ');
                }
                put_string(into, tag);
            }
            into.push(b')');
        }
    }
}

fn put_parameters(into: &mut Vec<u8>, parameters: &[(String, String)]) {
    if parameters.is_empty() {
        into.extend_from_slice(b"NIL");
        return;
    }
    into.push(b'(');
    for (number, (name, value)) in parameters.iter().enumerate() {
        if number > 0 {
            into.push(b' ');
        }
        put_string(into, name.as_bytes());
        into.push(b' ');
        put_string(into, value.as_bytes());
    }
    into.push(b')');
}
