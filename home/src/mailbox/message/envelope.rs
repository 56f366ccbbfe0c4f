//! `ENVELOPE` (RFC 9051 §7.5.2): the ten values of a header, as they are encoded there. Pure.

use super::address::{Address, addresses};
use super::field;
use super::string::put_nstring;

/// Appends the envelope of a message with this header.
pub(super) fn put(into: &mut Vec<u8>, header: &[u8]) {
    let value = |name: &str| field::value(header, name).filter(|value| !value.is_empty());
    let of = |name: &str| value(name).map(|value| addresses(&value)).unwrap_or_default();
    into.push(b'(');
    put_nstring(into, value("Date").as_deref());
    into.push(b' ');
    put_nstring(into, value("Subject").as_deref());
    let from = of("From");
    let or_from = |found: Vec<Address>| if found.is_empty() { from.clone() } else { found };
    let (sender, reply_to) = (or_from(of("Sender")), or_from(of("Reply-To")));
    for list in [&from, &sender, &reply_to, &of("To"), &of("Cc"), &of("Bcc")] {
        into.push(b' ');
        put_addresses(into, list);
    }
    into.push(b' ');
    put_nstring(into, value("In-Reply-To").as_deref());
    into.push(b' ');
    put_nstring(into, value("Message-ID").as_deref());
    into.push(b')');
}

fn put_addresses(into: &mut Vec<u8>, list: &[Address]) {
    if list.is_empty() {
        into.extend_from_slice(b"NIL");
        return;
    }
    into.push(b'(');
    for Address { name, route, mailbox, host } in list {
        into.push(b'(');
        for (number, text) in [name, route, mailbox, host].into_iter().enumerate() {
            if number > 0 {
                into.push(b' ');
            }
            put_nstring(into, text.as_deref());
        }
        into.push(b')');
    }
    into.push(b')');
}
