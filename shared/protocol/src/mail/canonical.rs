//! The digest of a message's body as DKIM and ARC want it (RFC 6376 §3.4.3, §3.4.4, §3.7): by the canonical forms that
//! its signatures ask for, while the body flows by. Holds nothing of it.

use aws_lc_rs::digest::{Context, SHA256};
use memchr::{memchr, memchr3, memmem};

use super::header;

/// Canonical octets gathered before they are digested.
const GATHERED_MAX: usize = 4096;

/// Fields that say by which form the body is signed.
const SIGNATURES: [&str; 2] = ["DKIM-Signature", "ARC-Message-Signature"];
/// Of a signature's `c=`, those whose second half, the body's, is relaxed.
const RELAXED: [&str; 2] = ["relaxed/relaxed", "simple/relaxed"];

/// Canonical forms of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// RFC 6376 §3.4.3.
    pub simple: bool,
    /// RFC 6376 §3.4.4.
    pub relaxed: bool,
}

impl Forms {
    /// Those that the signatures in a header section may ask for. None is left out that one of them asks for; what is
    /// written in a strange way asks for both.
    pub fn asked(section: &[u8]) -> Self {
        let mut asked = Self::default();
        let signatures = header::fields(section).filter(|field| SIGNATURES.iter().any(|name| field.is(name)));
        for field in signatures {
            let mut text = vec![b';'];
            text.extend(field.value().iter().filter(|octet| !octet.is_ascii_whitespace()).map(u8::to_ascii_lowercase));
            text.push(b';');
            let mut written = memmem::find_iter(&text, b"c=");
            let plain = RELAXED.iter().any(|form| memmem::find(&text, format!(";c={form};").as_bytes()).is_some());
            match (written.next(), written.next()) {
                (Some(_), None) if plain => asked.relaxed = true,
                // The default.
                (None, _) => asked.simple = true,
                _ => asked = Self { simple: true, relaxed: true },
            }
        }
        asked
    }
}

/// Digests of one body.
#[derive(Clone, Debug)]
pub struct BodyDigests {
    simple: Option<Simple>,
    relaxed: Option<RelaxedDigest>,
}

/// What came of it; none of a form that nobody asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyDigest {
    /// SHA-256 of the simple form.
    pub simple: Option<[u8; 32]>,
    /// SHA-256 of the relaxed form.
    pub relaxed: Option<[u8; 32]>,
}

impl BodyDigests {
    /// By these forms.
    pub fn new(forms: Forms) -> Self {
        Self { simple: forms.simple.then(Simple::default), relaxed: forms.relaxed.then(RelaxedDigest::default) }
    }

    /// The next octets of the body.
    pub fn feed(&mut self, octets: &[u8]) {
        if let Some(simple) = &mut self.simple {
            simple.feed(octets);
        }
        if let Some(relaxed) = &mut self.relaxed {
            relaxed.feed(octets);
        }
    }

    /// The body is whole.
    pub fn finish(self) -> BodyDigest {
        BodyDigest { simple: self.simple.map(Simple::finish), relaxed: self.relaxed.map(RelaxedDigest::finish) }
    }
}

/// Line ends that are part of the body only if something follows them.
#[derive(Clone, Copy, Debug, Default)]
struct LineEnds {
    whole: u64,
    // A CR came whose LF may follow.
    cr: bool,
}

impl LineEnds {
    /// They are part of the body: into the sink.
    fn settle(&mut self, sink: &mut Sink) {
        for _ in 0..std::mem::take(&mut self.whole) {
            sink.put(b"\r\n");
        }
        if std::mem::take(&mut self.cr) {
            sink.put(b"\r");
        }
    }
}

/// Where canonical octets go.
#[derive(Clone)]
struct Sink {
    digest: Context,
    gathered: Vec<u8>,
    empty: bool,
}

impl Default for Sink {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), gathered: Vec::new(), empty: true }
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Sink {
    fn put(&mut self, octets: &[u8]) {
        self.empty &= octets.is_empty();
        if self.gathered.len() + octets.len() > GATHERED_MAX {
            self.digest.update(&self.gathered);
            self.gathered.clear();
        }
        if octets.len() > GATHERED_MAX {
            self.digest.update(octets);
        } else {
            if self.gathered.capacity() == 0 {
                self.gathered.reserve_exact(GATHERED_MAX);
            }
            self.gathered.extend_from_slice(octets);
        }
    }

    fn finish(mut self) -> [u8; 32] {
        self.digest.update(&self.gathered);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.digest.finish().as_ref());
        bytes
    }
}

/// RFC 6376 §3.4.3: empty lines at the end are one, and there is always one line end.
#[derive(Clone, Debug, Default)]
struct Simple {
    ends: LineEnds,
    sink: Sink,
}

impl Simple {
    fn feed(&mut self, octets: &[u8]) {
        let is_end = |octet: &u8| matches!(octet, b'\r' | b'\n');
        let Some(first) = octets.iter().position(|octet| !is_end(octet)) else {
            return self.ends(octets);
        };
        let last = octets.iter().rposition(|octet| !is_end(octet)).map_or(octets.len(), |at| at + 1);
        self.ends(&octets[..first]);
        self.ends.settle(&mut self.sink);
        self.sink.put(&octets[first..last]);
        self.ends(&octets[last..]);
    }

    /// Octets that are CR or LF; one without the other is content like any.
    fn ends(&mut self, octets: &[u8]) {
        for octet in octets {
            match (octet, self.ends.cr) {
                (b'\n', true) => {
                    self.ends.cr = false;
                    self.ends.whole += 1;
                }
                (b'\n', false) => {
                    self.ends.settle(&mut self.sink);
                    self.sink.put(b"\n");
                }
                (_, true) => {
                    self.ends.settle(&mut self.sink);
                    self.ends.cr = true;
                }
                (_, false) => self.ends.cr = true,
            }
        }
    }

    fn finish(mut self) -> [u8; 32] {
        if self.ends.cr {
            self.ends.settle(&mut self.sink);
        }
        self.sink.put(b"\r\n");
        self.sink.finish()
    }
}

/// RFC 6376 §3.4.4: besides, white space is one space, and none at the end of a line; a line of nothing else is empty.
#[derive(Clone, Debug, Default)]
pub struct RelaxedDigest {
    ends: LineEnds,
    space: bool,
    sink: Sink,
}

impl RelaxedDigest {
    /// The next octets of the body.
    pub fn feed(&mut self, mut octets: &[u8]) {
        while let Some(&first) = octets.first() {
            match first {
                b'\n' if self.ends.cr => {
                    self.ends = LineEnds { whole: self.ends.whole + 1, cr: false };
                    self.space = false;
                    octets = &octets[1..];
                }
                _ if self.ends.cr => {
                    self.ends.cr = false;
                    self.content(b"\r");
                }
                b'\r' => {
                    self.ends.cr = true;
                    octets = &octets[1..];
                }
                b' ' | b'\t' => {
                    self.space = true;
                    octets = &octets[1..];
                }
                _ => {
                    let (run, rest) = octets.split_at(canonical_run(octets));
                    self.content(run);
                    octets = rest;
                }
            }
        }
    }

    fn content(&mut self, octets: &[u8]) {
        self.ends.settle(&mut self.sink);
        if std::mem::take(&mut self.space) {
            self.sink.put(b" ");
        }
        self.sink.put(octets);
    }

    /// The body is whole: the SHA-256 of its relaxed form.
    pub fn finish(mut self) -> [u8; 32] {
        if std::mem::take(&mut self.ends.cr) {
            self.content(b"\r");
        }
        if !self.sink.empty {
            self.sink.put(b"\r\n");
        }
        self.sink.finish()
    }
}

/// How many octets, from one that is no white space and no CR on, are their own relaxed form and end before a CR or a
/// white space: as a rule many lines.
fn canonical_run(octets: &[u8]) -> usize {
    let mut run = 0;
    loop {
        let rest = &octets[run..];
        let end = memchr(b'\r', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        if !is_canonical(line) {
            return run + memchr3(b'\r', b' ', b'\t', rest).unwrap_or(rest.len());
        }
        run += end;
        // On with the next line if there is something in it.
        match octets.get(run..run + 3) {
            Some([b'\r', b'\n', next]) if !matches!(next, b'\r' | b' ' | b'\t') => run += 2,
            _ => return run,
        }
    }
}

/// Whether a line that begins with no white space has no other than single spaces within it. Looks at all of it, which
/// takes less time than to end early.
fn is_canonical(line: &[u8]) -> bool {
    let pairs = line.iter().zip(line.get(1..).unwrap_or_default());
    let odd = pairs.fold(0, |odd, (one, next)| {
        odd | u8::from(*next == b'\t') | (u8::from(*one == b' ') & u8::from(*next == b' '))
    });
    odd == 0 && line.last() != Some(&b' ')
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::digest;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn digests(body: &[u8], piece: usize) -> BodyDigest {
        let mut digests = BodyDigests::new(Forms { simple: true, relaxed: true });
        for octets in body.chunks(piece.max(1)) {
            digests.feed(octets);
        }
        digests.finish()
    }

    fn sha(text: &[u8]) -> [u8; 32] {
        digest(&SHA256, text).as_ref().try_into().expect("32 octets")
    }

    /// The two forms, written down as the RFC does, over a whole body.
    fn by_the_book(body: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut simple = body;
        while let Some(shorter) = simple.strip_suffix(b"\r\n") {
            simple = shorter;
        }
        let simple = [simple, b"\r\n"].concat();
        let text: String = body.iter().map(|octet| char::from(*octet)).collect();
        let lines: Vec<String> = text
            .split("\r\n")
            .map(|line| {
                let mut words = String::new();
                for letter in line.chars() {
                    match letter {
                        ' ' | '\t' if words.ends_with(' ') => {}
                        ' ' | '\t' => words.push(' '),
                        other => words.push(other),
                    }
                }
                words.trim_end_matches(' ').to_owned()
            })
            .collect();
        let mut relaxed = lines.join("\r\n");
        while let Some(shorter) = relaxed.strip_suffix("\r\n") {
            relaxed = shorter.to_owned();
        }
        if !relaxed.is_empty() {
            relaxed.push_str("\r\n");
        }
        (simple, relaxed.chars().map(|letter| letter as u8).collect())
    }

    #[test]
    fn the_forms_are_those_of_the_rfc() {
        for (body, simple, relaxed) in [
            (&b" C \r\nD \t E\r\n\r\n\r\n"[..], &b" C \r\nD \t E\r\n"[..], &b" C\r\nD E\r\n"[..]),
            (b"", b"\r\n", b""),
            (b"\r\n\r\n", b"\r\n", b""),
            (b"x", b"x\r\n", b"x\r\n"),
            // A tail of lines of white space is empty lines.
            (b"x\r\n \t\r\n \r\n", b"x\r\n \t\r\n \r\n", b"x\r\n"),
            (b"x\r\n\r\n y", b"x\r\n\r\n y\r\n", b"x\r\n\r\n y\r\n"),
            (b"a\rb\nc\r\r\n", b"a\rb\nc\r\r\n", b"a\rb\nc\r\r\n"),
        ] {
            for piece in 1..=body.len().max(1) {
                let found = digests(body, piece);
                assert_eq!(found.simple, Some(sha(simple)), "{body:?} in pieces of {piece}");
                assert_eq!(found.relaxed, Some(sha(relaxed)), "{body:?} in pieces of {piece}");
            }
        }
        // The digests the RFC gives for an empty body, in base64 there.
        let empty = digests(b"", 1);
        assert_eq!(empty.simple.expect("asked for")[..3], [0x7e, 0xb7, 0x02]);
        assert_eq!(empty.relaxed.expect("asked for")[..3], [0xe3, 0xb0, 0xc4]);
    }

    #[test]
    fn only_forms_that_a_signature_asks_for_are_digested() {
        let (none, simple) = (Forms::default(), Forms { simple: true, relaxed: false });
        let (relaxed, both) = (Forms { simple: false, relaxed: true }, Forms { simple: true, relaxed: true });
        for (section, asked) in [
            ("Subject: c=relaxed/relaxed\r\nARC-Seal: i=1; c=simple\r\n\r\n", none),
            ("DKIM-Signature: v=1; b=x\r\n", simple),
            ("DKIM-Signature: v=1; c=relaxed; b=x\r\n", both),
            ("DKIM-Signature: v=1; c=relaxed/simple; b=x\r\n", both),
            ("dkim-signature: v=1; C = Relaxed /\r\n\trelaxed; b=x\r\n", relaxed),
            ("DKIM-Signature: v=1; b=x; c=simple/relaxed\r\n", relaxed),
            ("DKIM-Signature: c=relaxed/relaxed; bh=abc=; b=x\r\n", both),
            ("DKIM-Signature: c=relaxed/relaxed; c=simple/simple; b=x\r\n", both),
            ("DKIM-Signature: c=relaxed/relaxed\r\nARC-Message-Signature: i=1\r\n", both),
            ("ARC-Message-Signature: c=relaxed/relaxed\r\n", relaxed),
        ] {
            assert_eq!(Forms::asked(section.as_bytes()), asked, "{section}");
        }
        assert_eq!(BodyDigests::new(none).finish(), BodyDigest::default());
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_digests_are_those_by_the_book(
            body in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'\t'), any::<u8>()], 0..64)
                .prop_map(|octets| octets.iter().flat_map(|o| if *o == b'\n' { vec![b'\r', b'\n'] } else { vec![*o] }).collect::<Vec<_>>()),
            piece in 1..20_usize,
        ) {
            let (simple, relaxed) = by_the_book(&body);
            let found = digests(&body, piece);
            prop_assert_eq!(found.simple, Some(sha(&simple)));
            prop_assert_eq!(found.relaxed, Some(sha(&relaxed)));
        }

        #[test]
        fn lines_of_words_are_digested_by_the_book(
            body in "([a-c]{1,3}( |  |\t| ?\r\n|\r\n\r\n|\r|\n)){0,40}",
            piece in 1..200_usize,
        ) {
            let (simple, relaxed) = by_the_book(body.as_bytes());
            let found = digests(body.as_bytes(), piece);
            prop_assert_eq!(found.simple, Some(sha(&simple)));
            prop_assert_eq!(found.relaxed, Some(sha(&relaxed)));
        }
    }
}
