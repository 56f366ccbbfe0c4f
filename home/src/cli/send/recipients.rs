//! Addresses as people write them to `sendmail`: with names, in lists, or bare.

use gatepost_protocol::mail::address::{Address, LocalPart};
use gatepost_protocol::mail::header;
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use mail_parser::{Addr, Address as Parsed, HeaderValue, MessageParser};

/// Where -t looks, and where instead if one of these is there (RFC 5322 §3.6.6).
const FIELDS: [&str; 3] = ["To", "Cc", "Bcc"];
const RESENT_FIELDS: [&str; 3] = ["Resent-To", "Resent-Cc", "Resent-Bcc"];

/// The sender's address, or empty for nobody.
pub(super) fn sender(written: &str) -> Result<String, Trouble> {
    if written.is_empty() {
        return Ok(String::new());
    }
    match listed(written.as_bytes())?.as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Trouble::new(Exit::DataError, format!("{written:?} is not one sender"))),
    }
}

/// Those of the arguments.
pub(super) fn named(arguments: &[String]) -> Result<Vec<String>, Trouble> {
    let mut all = Vec::new();
    for argument in arguments {
        all.extend(listed(argument.as_bytes())?);
    }
    Ok(all)
}

/// Those of a header section.
pub(super) fn in_header(section: &[u8]) -> Result<Vec<String>, Trouble> {
    let resent = header::fields(section).any(|field| RESENT_FIELDS.iter().any(|name| field.is(name)));
    let names = if resent { RESENT_FIELDS } else { FIELDS };
    let mut all = Vec::new();
    for field in header::fields(section).filter(|field| names.iter().any(|name| field.is(name))) {
        if !field.value().trim_ascii().is_empty() {
            all.extend(listed(field.value().trim_ascii())?);
        }
    }
    Ok(all)
}

/// Reads a list. Each is an address or a bare name afterwards.
fn listed(text: &[u8]) -> Result<Vec<String>, Trouble> {
    let wrong = |text: &str| Trouble::new(Exit::DataError, format!("{text:?} is no address"));
    let whole = String::from_utf8_lossy(text);
    let alone = [b"To: ", text, b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().with_address_headers().parse_headers(&alone[..]);
    let value = parsed.as_ref().and_then(|parsed| parsed.parts.first()?.headers.first()).map(|header| &header.value);
    let Some(HeaderValue::Address(list)) = value else { return Err(wrong(&whole)) };
    let addresses: Vec<&Addr<'_>> = match list {
        Parsed::List(addresses) => addresses.iter().collect(),
        // An empty group, such as `undisclosed-recipients:;`, names nobody.
        Parsed::Group(groups) => groups.iter().flat_map(|group| &group.addresses).collect(),
    };
    let read = |address: &Addr<'_>| {
        let text = address.address.as_deref().or(address.name.as_deref()).unwrap_or_default();
        // The parser takes quotes off, and a quoted local part for a name; one that needs them gets them back.
        let quoted = match (&address.name, text.rsplit_once('@')) {
            (Some(local), Some(("", domain))) => Some(format!("\"{local}\"@{domain}")),
            (_, Some((local, domain))) => Some(format!("\"{local}\"@{domain}")),
            (_, None) => None,
        };
        if let Some(quoted) = quoted.filter(|quoted| whole.contains(quoted.as_str()) && Address::parse(quoted).is_ok())
        {
            return Ok(quoted);
        }
        let good = if text.contains('@') { Address::parse(text).is_ok() } else { LocalPart::parse(text).is_ok() };
        if good { Ok(text.to_owned()) } else { Err(wrong(if text.is_empty() { &whole } else { text })) }
    };
    addresses.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for (text, expected) in [
            ("root", Some(&["root"][..])),
            ("alice@example.org", Some(&["alice@example.org"])),
            ("Alice <alice@example.org>, bob", Some(&["alice@example.org", "bob"])),
            ("<alice@example.org>", Some(&["alice@example.org"])),
            ("\"a b\"@example.org", Some(&["\"a b\"@example.org"])),
            ("A B <\"a b\"@example.org>, root", Some(&["\"a b\"@example.org", "root"])),
            ("A B @example.org", None),
            ("root@localhost", Some(&["root@localhost"])),
            ("team: a@example.org, b@example.org;", Some(&["a@example.org", "b@example.org"])),
            ("undisclosed-recipients:;", Some(&[])),
            ("a b c", None),
            ("a@", None),
            ("a@b@c", None),
        ] {
            let found = listed(text.as_bytes()).ok();
            let found: Option<Vec<&str>> = found.as_ref().map(|all| all.iter().map(String::as_str).collect());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_header_names_everybody_once_it_is_asked() {
        let section = b"To: a@x.org,\r\n b@x.org\r\nSubject: To: no\r\nBcc: c@x.org\r\nCc:\r\n\r\n";
        assert_eq!(in_header(section).expect("good"), ["a@x.org", "b@x.org", "c@x.org"]);
        let resent = b"Resent-To: d@x.org\r\nTo: a@x.org\r\n\r\n";
        assert_eq!(in_header(resent).expect("good"), ["d@x.org"]);
        assert!(in_header(b"Subject: none\r\n\r\n").expect("good").is_empty());
    }
}
