//! Names without a domain, as programs and devices write them (`From: root (Cron Daemon)`, `To: alice`): each
//! address field that holds one is written anew with whole addresses; a missing From is taken from the
//! envelope. A field without such names stays byte for byte what it was.

use gatepost_protocol::mail::address::{LocalPart, ReversePath};
use gatepost_protocol::mail::header::{self, Field};
use mail_builder::headers::Header;
use mail_builder::headers::address::{Address as Written, EmailAddress};
use mail_parser::{Addr, Address as ParsedAddress};

use super::parsed;
use crate::accounts::Accounts;

/// Fields whose addresses people answer to.
const FIELDS: [&str; 5] = ["From", "Sender", "Reply-To", "To", "Cc"];

/// The header section with whole addresses.
pub fn completed(accounts: &Accounts, header: &[u8], sender: &ReversePath) -> Vec<u8> {
    let mut out = Vec::with_capacity(header.len() + 128);
    if !header::fields(header).any(|field| field.is("From")) {
        let settings = accounts.settings();
        let from = sender.address().unwrap_or(&settings.postmaster);
        out.extend_from_slice(format!("From: <{from}>\r\n").as_bytes());
    }
    let mut end = 0;
    for field in header::fields(header) {
        let range = field.range();
        // What is no field stays, for whoever refuses it.
        out.extend_from_slice(&header[end..range.start]);
        end = range.end;
        let rewritten = if FIELDS.iter().any(|name| field.is(name)) { rewritten(accounts, &field) } else { None };
        out.extend_from_slice(rewritten.as_deref().unwrap_or_else(|| field.raw()));
    }
    out.extend_from_slice(&header[end..]);
    out
}

/// The field with whole addresses, if it holds one that lacks its domain. Groups stay what they are.
fn rewritten(accounts: &Accounts, field: &Field<'_>) -> Option<Vec<u8>> {
    let Some(ParsedAddress::List(list)) = parsed(field) else { return None };
    let mut any = false;
    let mut whole = Vec::with_capacity(list.len());
    for Addr { name, address } in list {
        // A name alone is read as somebody's name, not as an address.
        let (name, written) = match address {
            Some(address) => (name, address),
            None => (None, name.filter(|name| LocalPart::parse(name).is_ok())?),
        };
        // Nothing that could break out of the field is ever written into it.
        if written.contains(char::is_control) || name.as_ref().is_some_and(|name| name.contains(char::is_control)) {
            return None;
        }
        let qualified = accounts.parse_qualified(&written).filter(|(_, local)| *local);
        any |= qualified.is_some();
        let email = qualified.map_or_else(|| written.into_owned(), |(address, _)| address.to_string());
        whole.push(Written::Address(EmailAddress { name, email: email.into() }));
    }
    if !any {
        return None;
    }
    let mut out = [field.name(), b": "].concat();
    let column = out.len();
    Written::List(whole).write_header(&mut out, column);
    Some(out)
}
