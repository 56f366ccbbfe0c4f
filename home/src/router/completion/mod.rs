//! What a submission gets, from the LAN or by way of an edge: Date and Message-ID where missing, our
//! Received field without the client's private name and address, no Bcc, no Return-Path. What can't
//! be made right is refused with the reason. The body is looked at, never changed.

mod names;

use std::io;

use bytes::Bytes;
use gatepost_protocol::mail::address::{Address, ReversePath};
use gatepost_protocol::mail::header::{self, Field};
use gatepost_protocol::mail::received::{Received, TraceId};
use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::clock::mail_date;
use gatepost_runtime::random;
use mail_parser::{Address as ParsedAddress, HeaderValue, MessageParser};

use crate::accounts::Accounts;
use crate::message::{Body, Message};

/// Largest header section of a submission, in octets.
const HEADER_OCTETS_MAX: usize = 256 * 1024;
/// Longest line without its CRLF, in octets (RFC 5322 §2.1.1).
const LINE_OCTETS_MAX: u64 = 998;
/// Most addresses in From and Sender together.
const AUTHORS_MAX: usize = 100;

/// What is known of a submission.
#[derive(Clone, Copy, Debug)]
pub struct Submitted<'a> {
    /// Who answers for it.
    pub author: Author<'a>,
    /// The name that goes into Received.
    pub hostname: &'a str,
    /// How it came, for Received: `ESMTPSA` and the like (RFC 3848).
    pub with: &'a str,
    /// The trace id.
    pub trace: TraceId,
    /// When it came, seconds since 1970.
    pub received_unix_s: i64,
}

/// Who answers for a submission.
#[derive(Clone, Copy, Debug)]
pub enum Author<'a> {
    /// This account, logged in: every author must be an address of its.
    Account(&'a str),
    /// Nobody by name: a device or program of the LAN. Every author must be of a domain that may be used so; what
    /// it leaves out of From is taken from its envelope.
    Trusted(&'a ReversePath),
}

impl Author<'_> {
    async fn check(self, accounts: &Accounts, address: &Address) -> Result<(), Reply> {
        match self {
            Self::Account(login) if accounts.may_send_as(login, address).await => Ok(()),
            Self::Account(_) => Err(Reply::sender_not_yours(&address.to_string())),
            Self::Trusted(_) if accounts.is_trusted_sender(address) => Ok(()),
            Self::Trusted(_) => Err(Reply::sender_not_trusted(&address.to_string())),
        }
    }
}

/// Completes a submission, or refuses it. Called once for each, by the router: submissions of the LAN
/// come to it as they were received.
pub async fn complete(accounts: &Accounts, submitted: Submitted<'_>, message: Message) -> Result<Message, Reply> {
    let (header, message) = match message.body {
        Body::Memory(_) => examine(message)?,
        Body::File { .. } => {
            tokio::task::spawn_blocking(move || examine(message)).await.map_err(|_| Reply::local_error())??
        }
    };
    let gone = (header.len() as u64).saturating_sub(message.front.len() as u64);
    let header = match submitted.author {
        Author::Account(_) => header,
        Author::Trusted(sender) => names::completed(accounts, &header, sender),
    };
    let fields = Fields::of(&header)?;
    let authors = fields.authors()?;
    for author in &authors {
        submitted.author.check(accounts, author).await?;
    }
    // There is one: `authors` refuses a From field without an address.
    let domain = authors.first().map_or(submitted.hostname, |author| author.domain().as_str());
    let front = fields.completed(submitted, domain, random::bytes());
    Ok(Message { front: Bytes::from(front), body: without_start(message.body, gone) })
}

/// Reads the header section and the length of every line.
fn examine(message: Message) -> Result<(Vec<u8>, Message), Reply> {
    let failed = |error: io::Error| {
        tracing::error!(%error, "a submission can't be read back");
        Reply::local_error()
    };
    let header = message.header(HEADER_OCTETS_MAX).map_err(failed)?.ok_or_else(Reply::header_too_big)?;
    let mut lines = Lines::default();
    lines.take(&message.front)?;
    for chunk in message.body.chunks() {
        lines.take(&chunk.map_err(failed)?)?;
    }
    lines.end()?;
    Ok((header, message))
}

/// Measures lines as they stream by.
#[derive(Debug, Default)]
struct Lines {
    whole: u64,
    // Octets of the line that has not ended yet.
    octets: u64,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Reply> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            // CR LF: the CR was counted, too.
            if self.octets + end as u64 > LINE_OCTETS_MAX + 1 {
                return Err(self.too_long());
            }
            self.whole += 1;
            self.octets = 0;
            bytes = &bytes[end + 1..];
        }
        self.octets += bytes.len() as u64;
        // Its last octet may be the CR.
        if self.octets > LINE_OCTETS_MAX + 1 { Err(self.too_long()) } else { Ok(()) }
    }

    fn end(&self) -> Result<(), Reply> {
        if self.octets > LINE_OCTETS_MAX { Err(self.too_long()) } else { Ok(()) }
    }

    fn too_long(&self) -> Reply {
        Reply::malformed_message(&format!(
            "Line {} of the message is longer than {LINE_OCTETS_MAX} octets (RFC 5322, 2.1.1): send it as quoted-printable or base64",
            self.whole + 1
        ))
    }
}

/// The fields of a header section.
#[derive(Debug)]
struct Fields<'a> {
    octets: usize,
    fields: Vec<Field<'a>>,
}

impl<'a> Fields<'a> {
    /// Splits the section; every line must belong to a field (RFC 5322 §2.2).
    fn of(header: &'a [u8]) -> Result<Self, Reply> {
        let fields: Vec<Field<'a>> = header::fields(header).collect();
        if let Some(wrong) = fields.iter().find(|field| field.name().is_empty()) {
            let number = memchr::memchr_iter(b'\n', &header[..wrong.range().start]).count() + 1;
            return Err(Reply::malformed_message(&format!(
                "Line {number} of the message is no header field (RFC 5322, 2.2)"
            )));
        }
        Ok(Self { octets: header.len(), fields })
    }

    /// The addresses of From, first, and of Sender.
    fn authors(&self) -> Result<Vec<Address>, Reply> {
        let named = |name| self.fields.iter().filter(move |field| field.is(name));
        let mut from = named("From");
        let (Some(first), None) = (from.next(), from.next()) else {
            return Err(Reply::malformed_message("A message needs exactly one From field"));
        };
        let mut authors = addresses(first)?;
        let mut senders = named("Sender");
        if let Some(sender) = senders.next() {
            authors.extend(addresses(sender)?);
        }
        if senders.next().is_some() {
            return Err(Reply::malformed_message("A message has at most one Sender field"));
        }
        if authors.len() > AUTHORS_MAX {
            return Err(Reply::malformed_message("Too many addresses in From"));
        }
        Ok(authors)
    }

    /// The new header section, with its empty line.
    fn completed(&self, submitted: Submitted<'_>, domain: &str, random: [u8; 8]) -> Vec<u8> {
        let date = mail_date(submitted.received_unix_s);
        let received = Received {
            helo: None,
            client: None,
            by: submitted.hostname,
            with: submitted.with,
            trace: submitted.trace,
            tls: None,
            only_recipient: None,
            date: &date,
        };
        let mut front = received.to_string().into_bytes();
        front.reserve(self.octets + 256);
        let mut dated = false;
        let mut named = false;
        for field in &self.fields {
            let is_empty = field.value().trim_ascii().is_empty();
            if ["Bcc", "Resent-Bcc", "Return-Path"].iter().any(|name| field.is(name))
                || (is_empty && (field.is("Date") || field.is("Message-ID")))
            {
                continue;
            }
            dated |= field.is("Date");
            named |= field.is("Message-ID");
            front.extend_from_slice(field.raw());
        }
        if !front.ends_with(b"\r\n") {
            front.extend_from_slice(b"\r\n");
        }
        if !dated {
            front.extend_from_slice(format!("Date: {date}\r\n").as_bytes());
        }
        if !named {
            let random = u64::from_be_bytes(random);
            front.extend_from_slice(format!("Message-ID: <{}.{random:016x}@{domain}>\r\n", submitted.trace).as_bytes());
        }
        front.extend_from_slice(b"\r\n");
        front
    }
}

/// Every address of an address field; none, or one that is no address, is an error.
fn addresses(field: &Field<'_>) -> Result<Vec<Address>, Reply> {
    let name = String::from_utf8_lossy(field.name()).into_owned();
    let malformed = || Reply::malformed_message(&format!("The {name} field holds something that is no address"));
    let list = parsed(field).ok_or_else(malformed)?;
    let addresses: Vec<_> = match &list {
        ParsedAddress::List(addresses) => addresses.iter().collect(),
        ParsedAddress::Group(groups) => groups.iter().flat_map(|group| &group.addresses).collect(),
    };
    if addresses.is_empty() {
        return Err(malformed());
    }
    addresses
        .into_iter()
        .map(|address| {
            let text = address.address.as_deref().ok_or_else(malformed)?;
            Address::parse(text).map_err(|_| malformed())
        })
        .collect()
}

/// The addresses of an address field as they are written; `None` if it holds none.
fn parsed(field: &Field<'_>) -> Option<ParsedAddress<'static>> {
    let alone = [b"From: ", field.value().trim_ascii(), b"\r\n\r\n"].concat();
    let parsed = MessageParser::new().with_address_headers().parse_headers(&alone[..])?;
    match &parsed.parts.first()?.headers.first()?.value {
        HeaderValue::Address(list) => Some(list.clone().into_owned()),
        _ => None,
    }
}

/// The body without its first octets.
fn without_start(body: Body, octets: u64) -> Body {
    match body {
        Body::Memory(parts) => {
            let mut left = usize::try_from(octets).unwrap_or(usize::MAX);
            let mut rest = Vec::with_capacity(parts.len());
            for part in parts.iter() {
                let gone = left.min(part.len());
                left -= gone;
                if gone < part.len() {
                    rest.push(part.slice(gone..));
                }
            }
            Body::Memory(rest.into())
        }
        Body::File { file, skip, octets: all } => {
            let gone = octets.min(all);
            Body::File { file, skip: skip + gone, octets: all - gone }
        }
    }
}

#[cfg(test)]
mod tests;
