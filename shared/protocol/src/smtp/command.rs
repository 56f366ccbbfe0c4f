//! Commands (RFC 5321 §4.1.1) and their parameters, by a grammar of our own: strict, bounded by the
//! line it gets, and verbatim: a quoted local part stays what it was.
//!
//! Tolerated, since many senders do it and nothing hangs on it: spaces after `FROM:` and `TO:`, and
//! white space at the end of a line. Source routes are read and dropped (RFC 5321 appendix C).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::xtext;
use crate::mail::address::{Address, Domain, ForwardPath, LocalPart, ReversePath};
use crate::mail::envelope::{BodyKind, Notify, Ret};
use crate::mail::reply::Reply;
use crate::secret::Secret;

/// Longest name in EHLO and HELO, in octets (RFC 5321 §4.5.3.1.2).
pub const HELLO_OCTETS_MAX: usize = 255;
/// Longest `ENVID`, in octets as written (RFC 3461 §4.4).
pub const ENVID_OCTETS_MAX: usize = 100;
/// Longest `ORCPT`, in octets as written (RFC 3461 §4.2).
pub const ORCPT_OCTETS_MAX: usize = 500;

/// One command, with its arguments checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// EHLO, with the name as given.
    Ehlo(String),
    /// HELO, with the name as given.
    Helo(String),
    /// MAIL FROM.
    Mail(MailFrom),
    /// RCPT TO.
    Rcpt(RcptTo),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// HELP.
    Help,
    /// VRFY.
    Vrfy,
    /// EXPN, ETRN: known and not offered.
    NotOffered,
    /// BDAT, not offered either; what follows it is no command.
    Bdat,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// The mechanism's name as given.
        mechanism: String,
        /// Initial response, decoded.
        initial: Option<Secret>,
    },
}

/// MAIL FROM and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailFrom {
    /// Who.
    pub reverse_path: ReversePath,
    /// `SIZE=`.
    pub size: Option<u64>,
    /// `BODY=`.
    pub body: BodyKind,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `RET=`; only where DSN is offered.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded; only where DSN is offered.
    pub envid: Option<String>,
}

/// RCPT TO and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RcptTo {
    /// Whom.
    pub path: ForwardPath,
    /// It was a bare local name, and got its domain from [`Context::qualify`].
    pub unqualified: bool,
    /// `NOTIFY=`; only where DSN is offered.
    pub notify: Notify,
    /// `ORCPT=`, decoded; only where DSN is offered.
    pub orcpt: Option<String>,
}

/// What the grammar depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// RET, ENVID, NOTIFY and ORCPT are known.
    pub dsn: bool,
    /// `AUTH=` of MAIL is known (RFC 4954 §5). It is checked and dropped: we trust no client's word.
    pub auth: bool,
    /// The open transaction was begun with SMTPUTF8, so RCPT may hold UTF-8.
    pub smtputf8: bool,
    /// A bare local name, such as `root`, is a name of this domain. Without, it is no address.
    pub qualify: Option<&'a Domain>,
}

impl Command {
    /// Parses a line without its CR LF. The error is the reply to send.
    pub fn parse(line: &[u8], context: Context<'_>) -> Result<Self, Reply> {
        let line = line.trim_ascii_end();
        let (verb, rest) = match line.iter().position(|&b| b == b' ') {
            Some(at) => (&line[..at], line[at + 1..].trim_ascii_start()),
            None => (line, &[][..]),
        };
        let mut upper = [0; 8];
        let Some(verb_upper) = upper.get_mut(..verb.len()) else {
            return Err(Reply::unknown_command());
        };
        verb_upper.copy_from_slice(verb);
        verb_upper.make_ascii_uppercase();
        match &*verb_upper {
            b"EHLO" => hello_name(rest).map(Self::Ehlo),
            b"HELO" => hello_name(rest).map(Self::Helo),
            b"MAIL" => mail(rest, context).map(Self::Mail),
            b"RCPT" => rcpt(rest, context).map(Self::Rcpt),
            b"DATA" => alone(rest, Self::Data),
            b"RSET" => alone(rest, Self::Rset),
            b"QUIT" => alone(rest, Self::Quit),
            b"STARTTLS" => alone(rest, Self::StartTls),
            b"NOOP" => Ok(Self::Noop),
            b"HELP" => Ok(Self::Help),
            b"VRFY" if rest.is_empty() => Err(Reply::syntax("VRFY needs a name")),
            b"VRFY" => Ok(Self::Vrfy),
            b"EXPN" | b"ETRN" => Ok(Self::NotOffered),
            b"BDAT" => Ok(Self::Bdat),
            b"AUTH" => auth(rest),
            _ => Err(Reply::unknown_command()),
        }
    }
}

/// A response of a login: base64, strictly (RFC 4954 §4).
pub fn decode_response(text: &[u8]) -> Result<Secret, Reply> {
    BASE64.decode(text).map(Secret::new).map_err(|_| Reply::login_malformed())
}

fn alone(rest: &[u8], command: Command) -> Result<Command, Reply> {
    if rest.is_empty() { Ok(command) } else { Err(Reply::syntax("This command takes no argument")) }
}

fn hello_name(rest: &[u8]) -> Result<String, Reply> {
    if rest.is_empty() {
        return Err(Reply::syntax("Say your name"));
    }
    if rest.len() > HELLO_OCTETS_MAX || !rest.iter().all(|b| (b' '..=b'~').contains(b)) {
        return Err(Reply::syntax("That is not a host name"));
    }
    Ok(String::from_utf8_lossy(rest).into_owned())
}

fn auth(rest: &[u8]) -> Result<Command, Reply> {
    let (mechanism, initial) = match rest.iter().position(|&b| b == b' ') {
        Some(at) => (&rest[..at], Some(rest[at + 1..].trim_ascii_start())),
        None => (rest, None),
    };
    if mechanism.is_empty() {
        return Err(Reply::syntax("AUTH needs a mechanism"));
    }
    let mechanism = std::str::from_utf8(mechanism).map_err(|_| Reply::mechanism_unknown())?.to_owned();
    let initial = match initial {
        None => None,
        // An initial response of no octets (RFC 4954 §4).
        Some(b"=") => Some(Secret::default()),
        Some(text) => Some(decode_response(text)?),
    };
    Ok(Command::Auth { mechanism, initial })
}

fn mail(rest: &[u8], context: Context<'_>) -> Result<MailFrom, Reply> {
    let (path, parameters) = path(rest, b"FROM:", Reply::bad_sender_syntax)?;
    let mut seen = Seen::default();
    let mut mail = MailFrom {
        reverse_path: ReversePath::Null,
        size: None,
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    for (keyword, value) in Parameters(parameters) {
        let (keyword, value) = (seen.first(keyword)?, value);
        match (keyword.as_str(), value) {
            ("SIZE", Some(value)) => mail.size = Some(size(value)?),
            ("BODY", Some(value)) => {
                mail.body = match value.to_ascii_uppercase().as_slice() {
                    b"7BIT" => BodyKind::SevenBit,
                    b"8BITMIME" => BodyKind::EightBit,
                    _ => return Err(Reply::syntax("BODY is 7BIT or 8BITMIME")),
                };
            }
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("RET", Some(value)) if context.dsn => {
                mail.ret = match value.to_ascii_uppercase().as_slice() {
                    b"FULL" => Some(Ret::Full),
                    b"HDRS" => Some(Ret::Headers),
                    _ => return Err(Reply::syntax("RET is FULL or HDRS")),
                };
            }
            ("ENVID", Some(value)) if context.dsn => {
                let id = xtext::decode(value).filter(|_| value.len() <= ENVID_OCTETS_MAX);
                mail.envid = Some(id.ok_or_else(|| Reply::syntax("ENVID is xtext of at most 100 octets"))?);
            }
            ("AUTH", Some(value)) if context.auth => {
                xtext::decode(value).ok_or_else(|| Reply::syntax("AUTH is xtext"))?;
            }
            ("SIZE" | "BODY" | "SMTPUTF8", _) => {
                return Err(Reply::syntax("A parameter lacks its value or has one too many"));
            }
            _ => return Err(Reply::parameter_unknown(&keyword)),
        }
    }
    let text = path_text(path, mail.smtputf8, Reply::bad_sender_syntax)?;
    mail.reverse_path = match qualified(text, context) {
        Some(address) => ReversePath::Address(address),
        None => ReversePath::parse(text).map_err(|error| Reply::bad_sender_syntax(&error.to_string()))?,
    };
    Ok(mail)
}

fn rcpt(rest: &[u8], context: Context<'_>) -> Result<RcptTo, Reply> {
    let (path, parameters) = path(rest, b"TO:", Reply::bad_recipient_syntax)?;
    let text = path_text(path, context.smtputf8, Reply::bad_recipient_syntax)?;
    let completed = qualified(text, context);
    let unqualified = completed.is_some();
    let path = match completed {
        Some(address) => ForwardPath::Address(address),
        None => ForwardPath::parse(text).map_err(|error| Reply::bad_recipient_syntax(&error.to_string()))?,
    };
    let mut seen = Seen::default();
    let mut rcpt = RcptTo { path, unqualified, notify: Notify::Unspecified, orcpt: None };
    for (keyword, value) in Parameters(parameters) {
        let keyword = seen.first(keyword)?;
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) if context.dsn => rcpt.notify = notify(value)?,
            ("ORCPT", Some(value)) if context.dsn => rcpt.orcpt = Some(orcpt(value, context.smtputf8)?),
            _ => return Err(Reply::parameter_unknown(&keyword)),
        }
    }
    Ok(rcpt)
}

/// The address a bare local name stands for, if this is one and such names have a domain here. The bare
/// postmaster needs none.
fn qualified(text: &str, context: Context<'_>) -> Option<Address> {
    let domain = context.qualify.filter(|_| !text.contains('@') && !text.eq_ignore_ascii_case("postmaster"))?;
    LocalPart::parse(text).ok().map(|local| Address::new(local, domain.clone()))
}

/// Splits `FROM:<path> parameters` into what stands between the brackets, without a source route,
/// and the rest.
fn path<'a>(rest: &'a [u8], word: &[u8], wrong: fn(&str) -> Reply) -> Result<(&'a [u8], &'a [u8]), Reply> {
    let open = || wrong("The address must stand in angle brackets");
    let rest = match rest.split_at_checked(word.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(word) => rest.trim_ascii_start(),
        _ => return Err(Reply::syntax("Write MAIL FROM:<address> or RCPT TO:<address>")),
    };
    let inner = rest.strip_prefix(b"<").ok_or_else(open)?;
    let end = closing_bracket(inner).ok_or_else(open)?;
    let after = &inner[end + 1..];
    if !after.is_empty() && !after.starts_with(b" ") {
        return Err(wrong("A space must follow the address"));
    }
    Ok((without_route(&inner[..end]).ok_or_else(|| wrong("The source route is malformed"))?, after))
}

/// Where the `>` outside of quotes is.
fn closing_bracket(text: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    text.iter().position(|&b| {
        if escaped {
            escaped = false;
        } else if quoted && b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            quoted = !quoted;
        } else {
            return b == b'>' && !quoted;
        }
        false
    })
}

/// Drops `@a,@b:` from the front (RFC 5321 §4.1.2, appendix C).
fn without_route(path: &[u8]) -> Option<&[u8]> {
    if !path.starts_with(b"@") {
        return Some(path);
    }
    // A domain may be an IPv6 literal, whose colons are no end.
    let mut literal = false;
    let colon = path.iter().position(|&b| {
        match b {
            b'[' => literal = true,
            b']' => literal = false,
            _ => {}
        }
        b == b':' && !literal
    })?;
    let each_is_a_domain = path[..colon].split(|&b| b == b',').all(|hop| hop.len() > 1 && hop[0] == b'@');
    each_is_a_domain.then(|| &path[colon + 1..])
}

/// The path as text: UTF-8, and ASCII unless the transaction says SMTPUTF8.
fn path_text(path: &[u8], smtputf8: bool, wrong: fn(&str) -> Reply) -> Result<&str, Reply> {
    if !smtputf8 && !path.is_ascii() {
        return Err(Reply::utf8_needed());
    }
    std::str::from_utf8(path).map_err(|_| wrong("The address is not UTF-8"))
}

/// The parameters after a path: keyword and value.
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|&b| b == b' ').unwrap_or(rest.len());
        self.0 = &rest[end..];
        let word = &rest[..end];
        Some(match word.iter().position(|&b| b == b'=') {
            Some(at) => (&word[..at], Some(&word[at + 1..])),
            None => (word, None),
        })
    }
}

/// Keywords already seen: each may come once (RFC 5321 §4.1.1.11).
#[derive(Default)]
struct Seen(Vec<String>);

impl Seen {
    /// The keyword in upper case, if it is one and was not there before.
    fn first(&mut self, keyword: &[u8]) -> Result<String, Reply> {
        let fits = keyword.first().is_some_and(u8::is_ascii_alphanumeric)
            && keyword.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        if !fits {
            return Err(Reply::syntax("That is not a parameter"));
        }
        let keyword = String::from_utf8_lossy(keyword).to_ascii_uppercase();
        if self.0.contains(&keyword) {
            return Err(Reply::syntax("A parameter is there twice"));
        }
        self.0.push(keyword.clone());
        Ok(keyword)
    }
}

/// A number of up to 20 digits (RFC 1870 §4); what does not fit 64 bits is as big as can be.
fn size(value: &[u8]) -> Result<u64, Reply> {
    if value.is_empty() || value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Reply::syntax("SIZE is a number"));
    }
    let digit = |sum: u64, b: &u8| sum.saturating_mul(10).saturating_add(u64::from(b - b'0'));
    Ok(value.iter().fold(0, digit))
}

fn notify(value: &[u8]) -> Result<Notify, Reply> {
    let wrong = || Reply::syntax("NOTIFY is NEVER, or any of SUCCESS,FAILURE,DELAY");
    if value.eq_ignore_ascii_case(b"NEVER") {
        return Ok(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(|&b| b == b',') {
        let flag = match word.to_ascii_uppercase().as_slice() {
            b"SUCCESS" => &mut success,
            b"FAILURE" => &mut failure,
            b"DELAY" => &mut delay,
            _ => return Err(wrong()),
        };
        if std::mem::replace(flag, true) {
            return Err(wrong());
        }
    }
    Ok(Notify::On { success, failure, delay })
}

/// `type;address` (RFC 3461 §4.2); of type `utf-8` it may hold UTF-8 as it is (RFC 6533 §3).
fn orcpt(value: &[u8], smtputf8: bool) -> Result<String, Reply> {
    let wrong = || Reply::syntax("ORCPT is type;address, xtext, of at most 500 octets");
    let at = value.iter().position(|&b| b == b';').filter(|_| value.len() <= ORCPT_OCTETS_MAX).ok_or_else(wrong)?;
    let (kind, address) = (&value[..at], &value[at + 1..]);
    if kind.is_empty() || address.is_empty() || !kind.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-') {
        return Err(wrong());
    }
    let kind = String::from_utf8_lossy(kind);
    let address = if smtputf8 && kind.eq_ignore_ascii_case("utf-8") && !address.is_ascii() {
        let text = std::str::from_utf8(address).map_err(|_| wrong())?;
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(wrong());
        }
        text.to_owned()
    } else {
        xtext::decode(address).ok_or_else(wrong)?
    };
    Ok(format!("{kind};{address}"))
}

#[cfg(test)]
mod tests;
