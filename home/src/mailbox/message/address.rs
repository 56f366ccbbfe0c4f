//! Addresses as envelopes have them (RFC 5322 §3.4, RFC 9051 §7.5.2): display name as it is encoded, route, mailbox, host; groups
//! opened and closed. What can't be read is passed over. Pure.

/// Addresses of one field.
pub const ADDRESSES_MAX: usize = 5_000;

/// One address, or the mark of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Display name.
    pub name: Option<Vec<u8>>,
    /// Source route.
    pub route: Option<Vec<u8>>,
    /// Before the `@`; of a group that opens its name; nothing where one closes.
    pub mailbox: Option<Vec<u8>>,
    /// After the `@`; nothing for a mark of a group.
    pub host: Option<Vec<u8>>,
}

/// What an address field is made of.
#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An atom, or the inside of a quoted string; whether it was quoted.
    Word(Vec<u8>, bool),
    /// The inside of a comment.
    Comment(Vec<u8>),
    /// A special character.
    Mark(u8),
}

/// Reads an unfolded value.
pub fn addresses(value: &[u8]) -> Vec<Address> {
    let mut found = Vec::new();
    let (mut begun, mut in_group) = (Vec::new(), false);
    for token in tokens(value) {
        if found.len() >= ADDRESSES_MAX {
            break;
        }
        match token {
            Token::Mark(b',') => found.extend(address(std::mem::take(&mut begun))),
            Token::Mark(b';') => {
                found.extend(address(std::mem::take(&mut begun)));
                if in_group {
                    found.push(Address::default());
                    in_group = false;
                }
            }
            // A colon within angle brackets ends a route.
            Token::Mark(b':') if !in_group && !begun.contains(&Token::Mark(b'<')) => {
                let name = phrase(&std::mem::take(&mut begun));
                found.push(Address { mailbox: Some(name.unwrap_or_default()), ..Address::default() });
                in_group = true;
            }
            token => begun.push(token),
        }
    }
    found.extend(address(begun));
    if in_group {
        found.push(Address::default());
    }
    found
}

fn address(tokens: Vec<Token>) -> Option<Address> {
    let comment = tokens.iter().find_map(|token| match token {
        Token::Comment(text) => Some(text.clone()),
        _ => None,
    });
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Comment(_))).collect();
    if tokens.is_empty() {
        return None;
    }
    let open = tokens.iter().position(|token| *token == Token::Mark(b'<'));
    let (name, inside) = match open {
        Some(open) => {
            let close = tokens[open..].iter().position(|token| *token == Token::Mark(b'>'));
            let close = close.map_or(tokens.len(), |close| open + close);
            (phrase(&tokens[..open]), &tokens[open + 1..close])
        }
        None => (None, &tokens[..]),
    };
    let (route, inside) = match inside.iter().position(|token| *token == Token::Mark(b':')) {
        Some(colon) if inside.first() == Some(&Token::Mark(b'@')) => {
            (Some(joined(&inside[..colon])), &inside[colon + 1..])
        }
        _ => (None, inside),
    };
    let (mailbox, host) = match inside.iter().rposition(|token| *token == Token::Mark(b'@')) {
        Some(at) => (joined(&inside[..at]), joined(&inside[at + 1..])),
        // Host names are told from the marks of groups by being there at all.
        None => (joined(inside), Vec::new()),
    };
    let name = name.or_else(|| comment.filter(|_| open.is_none()));
    Some(Address { name, route, mailbox: Some(mailbox), host: Some(host) })
}

/// Words with a space between them.
fn phrase(tokens: &[Token]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for token in tokens {
        match token {
            Token::Word(word, _) => {
                if !text.is_empty() && !text.ends_with(b"@") {
                    text.push(b' ');
                }
                text.extend_from_slice(word);
            }
            Token::Mark(mark @ b'@') => text.push(*mark),
            Token::Mark(_) | Token::Comment(_) => {}
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Words and marks as they stand together.
fn joined(tokens: &[Token]) -> Vec<u8> {
    let mut text = Vec::new();
    for token in tokens {
        match token {
            Token::Word(word, _) => text.extend_from_slice(word),
            Token::Mark(mark) => text.push(*mark),
            Token::Comment(_) => {}
        }
    }
    text
}

fn tokens(value: &[u8]) -> impl Iterator<Item = Token> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while value.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        let first = *value.get(at)?;
        match first {
            b'"' => {
                let (text, end) = delimited(value, at, b'"', b'"');
                at = end;
                Some(Token::Word(text, true))
            }
            b'(' => {
                let (text, end) = delimited(value, at, b'(', b')');
                at = end;
                Some(Token::Comment(text))
            }
            b'[' => {
                let end =
                    value[at..].iter().position(|octet| *octet == b']').map_or(value.len(), |close| at + close + 1);
                let text = value[at..end].to_vec();
                at = end;
                Some(Token::Word(text, false))
            }
            b'<' | b'>' | b'@' | b',' | b';' | b':' => {
                at += 1;
                Some(Token::Mark(first))
            }
            _ => {
                let is_part = |octet: &u8| !octet.is_ascii_whitespace() && !b"\"(<>@,;:".contains(octet);
                let end = value[at..].iter().position(|octet| !is_part(octet)).map_or(value.len(), |end| at + end);
                // An octet that begins nothing else is a word by itself.
                let end = end.max(at + 1);
                let text = value[at..end].to_vec();
                at = end;
                Some(Token::Word(text, false))
            }
        }
    })
}

/// What stands between marks, which may be nested if they differ; and where it ends.
fn delimited(value: &[u8], start: usize, open: u8, close: u8) -> (Vec<u8>, usize) {
    let (mut text, mut depth, mut at) = (Vec::new(), 1usize, start + 1);
    while let Some(octet) = value.get(at) {
        at += 1;
        match *octet {
            b'\\' if at < value.len() => {
                text.push(value[at]);
                at += 1;
            }
            octet if octet == close => {
                depth -= 1;
                if depth == 0 {
                    return (text, at);
                }
                text.push(octet);
            }
            octet if octet == open => {
                depth += 1;
                text.push(octet);
            }
            octet => text.push(octet),
        }
    }
    (text, at)
}
