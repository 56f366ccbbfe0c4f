//! Header fields as they stand there (RFC 5322 §2.2, RFC 2045 §5): found, unfolded, and taken apart as far as structures need
//! it. Nothing is refused: what can't be read is taken for what it most likely is. Pure.

/// Parameters of one field.
const PARAMETERS_MAX: usize = 64;

/// Fields of a header: name and raw value, folds and all, without the last line end.
pub fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = &header[..header.len().min(super::HEADER_OCTETS_MAX)];
    std::iter::from_fn(move || {
        loop {
            if rest.is_empty() || rest == b"\r\n" {
                return None;
            }
            let mut end = 0;
            loop {
                end += memchr::memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |at| at + 1);
                if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (field, after) = rest.split_at(end);
            rest = after;
            let Some(colon) = memchr::memchr(b':', field) else { continue };
            let value = &field[colon + 1..];
            let value = value.strip_suffix(b"\n").unwrap_or(value);
            return Some((field[..colon].trim_ascii(), value.strip_suffix(b"\r").unwrap_or(value)));
        }
    })
}

/// The value of the first field of this name, unfolded, without the space around it.
pub fn value(header: &[u8], name: &str) -> Option<Vec<u8>> {
    let found = fields(header).find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| unfolded(value))
}

/// Without line ends; each fold is what stood there, a space or a tab.
pub fn unfolded(value: &[u8]) -> Vec<u8> {
    let whole: Vec<u8> = value.iter().copied().filter(|octet| !matches!(octet, b'\r' | b'\n')).collect();
    whole.trim_ascii().to_vec()
}

/// A value with parameters: Content-Type, Content-Disposition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parametered {
    /// What stands first.
    pub value: String,
    /// Parameters as they stand there, by names in lower case.
    pub parameters: Vec<(String, String)>,
}

/// Reads a value with parameters.
pub fn parametered(value: &[u8]) -> Parametered {
    let text = String::from_utf8_lossy(value).into_owned();
    let mut scan = Scan { rest: &text };
    let mut read = Parametered { value: scan.until_semicolon().trim().to_owned(), parameters: Vec::new() };
    while scan.semicolon() && read.parameters.len() < PARAMETERS_MAX {
        let Some(name) = scan.name() else {
            scan.until_semicolon();
            continue;
        };
        let value = scan.value();
        scan.until_semicolon();
        read.parameters.push((name.to_ascii_lowercase(), value));
    }
    read
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    /// White space and comments.
    fn space(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            if !self.rest.starts_with('(') {
                return;
            }
            let (mut depth, mut escaped, mut end) = (0usize, false, self.rest.len());
            for (at, letter) in self.rest.char_indices() {
                match letter {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '(' => depth += 1,
                    ')' => {
                        depth -= 1;
                        if depth == 0 {
                            end = at + 1;
                            break;
                        }
                    }
                    _ => {}
                }
            }
            self.rest = &self.rest[end..];
        }
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn until_semicolon(&mut self) -> &'a str {
        self.space();
        self.take(|letter| letter != ';' && letter != '(')
    }

    fn semicolon(&mut self) -> bool {
        self.space();
        match self.rest.strip_prefix(';') {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A name and the equals sign after it.
    fn name(&mut self) -> Option<&'a str> {
        self.space();
        let name = self.take(|letter| !letter.is_whitespace() && !"=;()\"".contains(letter));
        self.space();
        self.rest = self.rest.strip_prefix('=')?;
        (!name.is_empty()).then_some(name)
    }

    fn value(&mut self) -> String {
        self.space();
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return self.take(|letter| !letter.is_whitespace() && !";(\"".contains(letter)).to_owned();
        };
        let (mut value, mut escaped, mut end) = (String::new(), false, quoted.len());
        for (at, letter) in quoted.char_indices() {
            match letter {
                _ if escaped => {
                    value.push(letter);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = at + 1;
                    break;
                }
                _ => value.push(letter),
            }
        }
        self.rest = &quoted[end..];
        value
    }
}

/// What a part says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// Such as `text`.
    pub top: String,
    /// Such as `plain`.
    pub subtype: String,
    /// Parameters.
    pub parameters: Vec<(String, String)>,
}

impl ContentType {
    /// Of a part with this header; `default` if it says nothing, or nothing that can be read (RFC 2045 §5.2).
    pub fn of(header: &[u8], default: &str) -> Self {
        let read = value(header, "Content-Type").map(|value| parametered(&value)).unwrap_or_default();
        let (top, subtype, parameters) = match read.value.split_once('/') {
            Some((top, subtype)) if is_token(top.trim()) && is_token(subtype.trim()) => {
                (top.trim().to_owned(), subtype.trim().to_owned(), read.parameters)
            }
            _ => {
                let (top, subtype) = default.split_once('/').unwrap_or(("text", "plain"));
                let parameters =
                    if top == "text" { vec![("charset".to_owned(), "us-ascii".to_owned())] } else { Vec::new() };
                (top.to_owned(), subtype.to_owned(), parameters)
            }
        };
        Self { top, subtype, parameters }
    }

    /// Whether it is of this top kind.
    pub fn is(&self, top: &str) -> bool {
        self.top.eq_ignore_ascii_case(top)
    }

    /// A parameter by its name in lower case.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&octet))
}
