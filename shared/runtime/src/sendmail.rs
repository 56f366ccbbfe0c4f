//! What the `sendmail` commands of both programs have in common: their arguments, the message on stdin, who calls,
//! and how they end. What becomes of the message is the command's own.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read};
use std::process::ExitCode;

use gatepost_protocol::mail::header;
use gatepost_protocol::sendmail::arguments::{self, Invocation};
use gatepost_protocol::sendmail::exit::{Exit, Trouble};
use gatepost_protocol::sendmail::text::Composer;

use crate::durable::DurableError;
use crate::host;

/// Largest header section, in octets.
const HEADER_OCTETS_MAX: usize = 256 * 1024;
/// Octets read at a time.
pub const PIECE_OCTETS: usize = 64 * 1024;

/// Reads the arguments behind the command's name, which is `called`.
pub fn invocation(called: &str, words: Vec<OsString>) -> Result<Invocation, Trouble> {
    let text = |word: OsString| {
        word.into_string().map_err(|word| Trouble::new(Exit::Usage, format!("{} is not UTF-8", word.display())))
    };
    let words: Vec<String> = words.into_iter().map(text).collect::<Result<_, _>>()?;
    arguments::parse(called, words.iter().map(String::as_str))
        .map_err(|why| Trouble::new(Exit::Usage, format!("{why}; see --help")))
}

/// Ends the command: what went wrong is said, by its name.
pub fn end(called: &str, performed: Result<ExitCode, Trouble>) -> ExitCode {
    performed.unwrap_or_else(|Trouble { exit, why }| {
        eprintln!("{called}: {why}");
        ExitCode::from(exit.code())
    })
}

/// A message as it comes from stdin, piece by piece.
#[derive(Debug)]
pub struct Incoming<R> {
    from: R,
    composer: Composer,
    piece: Vec<u8>,
    text: Vec<u8>,
}

impl<R: Read> Incoming<R> {
    /// From `from`; with `dot_is_text`, a dot alone on a line does not end it.
    pub fn new(from: R, dot_is_text: bool) -> Self {
        Self { from, composer: Composer::new(dot_is_text), piece: vec![0; PIECE_OCTETS], text: Vec::new() }
    }

    /// Its beginning: the whole header section, and what of the body came with it. To be called first.
    pub fn beginning(&mut self) -> Result<Vec<u8>, Trouble> {
        while !self.composer.is_in_body() && !self.composer.is_ended() {
            self.read()?;
            if self.text.len() > HEADER_OCTETS_MAX + PIECE_OCTETS {
                return Err(Trouble::new(Exit::DataError, "the header is longer than 256 KiB"));
            }
        }
        Ok(std::mem::take(&mut self.text))
    }

    /// What follows; `None` behind its end.
    pub fn more(&mut self) -> Result<Option<&[u8]>, Trouble> {
        if self.composer.is_ended() {
            return Ok(None);
        }
        self.text.clear();
        self.read()?;
        Ok(Some(&self.text))
    }

    fn read(&mut self) -> Result<(), Trouble> {
        let count = loop {
            match self.from.read(&mut self.piece) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| Trouble::new(Exit::IoError, format!("stdin: {error}")))?,
            }
        };
        self.composer.take(&self.piece[..count], &mut self.text);
        if count == 0 || self.composer.is_ended() {
            self.composer.finish(&mut self.text);
        }
        Ok(())
    }
}

/// The header section of a message's beginning.
pub fn header_section(beginning: &[u8]) -> &[u8] {
    &beginning[..header::body_start(beginning).unwrap_or(beginning.len())]
}

/// Who calls, as a bare name.
pub fn user() -> String {
    let known = || ["LOGNAME", "USER"].iter().find_map(|name| env::var(name).ok().filter(|user| !user.is_empty()));
    host::user(host::uid()).or_else(known).unwrap_or_else(|| format!("uid{}", host::uid()))
}

/// Stdin or stdout broke.
pub fn broken(error: &io::Error) -> Trouble {
    Trouble::new(Exit::IoError, error)
}

/// Why nothing could be left in the drop of `program`.
pub fn kept_out(program: &str, error: &DurableError) -> Trouble {
    match error.source.kind() {
        io::ErrorKind::PermissionDenied => Trouble::new(
            Exit::NoPermission,
            format!("{error}; who sends from this machine must be in the group of the drop (see the README)"),
        ),
        io::ErrorKind::NotFound => Trouble::new(
            Exit::TemporaryFailure,
            format!("{error}; has {program} run here before? Another state directory is named with --state"),
        ),
        _ => Trouble::new(Exit::TemporaryFailure, error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    /// Gives so many octets at a time, and is interrupted before each.
    struct Slow<'a>(&'a [u8], usize, bool);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(ErrorKind::Interrupted.into());
            }
            let count = self.1.min(self.0.len()).min(to.len());
            to[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn a_message_is_the_same_in_whatever_pieces_it_comes() {
        let text = b"To: root\nSubject: x\n\nHi\n.\nnot read";
        for octets in [1, 7, PIECE_OCTETS] {
            let mut incoming = Incoming::new(Slow(text, octets, false), false);
            let mut message = incoming.beginning().expect("read");
            assert_eq!(header_section(&message), b"To: root\r\nSubject: x\r\n\r\n");
            while let Some(more) = incoming.more().expect("read") {
                message.extend_from_slice(more);
            }
            assert_eq!(message, b"To: root\r\nSubject: x\r\n\r\nHi\r\n");
        }
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let line = b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n";
        for (octets, exit) in [(HEADER_OCTETS_MAX, None), (HEADER_OCTETS_MAX + 2 * PIECE_OCTETS, Some(Exit::DataError))]
        {
            let text = line.repeat(octets / (line.len() + 1));
            let read = Incoming::new(&text[..], false).beginning();
            assert_eq!(read.err().map(|trouble| trouble.exit), exit, "{octets}");
        }
    }

    #[test]
    fn words_that_are_no_text_are_refused() {
        let words = vec!["-i".into(), OsString::from_vec(b"r\xffot".to_vec())];
        let trouble = invocation("sendmail", words).expect_err("no text");
        assert_eq!(trouble.exit, Exit::Usage);
        assert!(trouble.why.contains("is not UTF-8"), "{}", trouble.why);
        let good = invocation("sendmail", vec!["-i".into(), "root".into()]).expect("good");
        assert_eq!(good.recipients, ["root"]);
    }
}
