//! What a server says at the end of a command (RFC 9051 §7.1). Pure.

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    kind: &'static str,
    code: Option<String>,
    text: String,
}

impl Status {
    /// `OK`, done.
    pub fn ok(verb: &str) -> Self {
        Self { kind: "OK", code: None, text: format!("{verb} done") }
    }

    /// `OK`, with a code.
    pub fn ok_code(code: &str, text: &str) -> Self {
        Self { kind: "OK", code: Some(code.to_owned()), text: text.to_owned() }
    }

    /// `NO`: it can't be done.
    pub fn no(text: &str) -> Self {
        Self { kind: "NO", code: None, text: text.to_owned() }
    }

    /// `NO`, with a code of RFC 9051 §7.1.
    pub fn no_code(code: &str, text: &str) -> Self {
        Self { kind: "NO", code: Some(code.to_owned()), text: text.to_owned() }
    }

    /// `BAD`: it is none.
    pub fn bad(text: &str) -> Self {
        Self { kind: "BAD", code: None, text: text.to_owned() }
    }

    /// `BAD`, with a code.
    pub fn bad_code(code: &str, text: &str) -> Self {
        Self { kind: "BAD", code: Some(code.to_owned()), text: text.to_owned() }
    }

    /// Appends the line.
    pub fn put(&self, into: &mut Vec<u8>, tag: &str) {
        let Self { kind, code, text } = self;
        into.extend_from_slice(tag.as_bytes());
        into.push(b' ');
        into.extend_from_slice(kind.as_bytes());
        if let Some(code) = code {
            into.extend_from_slice(b" [");
            into.extend_from_slice(code.as_bytes());
            into.push(b']');
        }
        into.push(b' ');
        into.extend_from_slice(text.as_bytes());
        into.extend_from_slice(b"\r\n");
    }
}
