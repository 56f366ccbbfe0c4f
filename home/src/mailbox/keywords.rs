//! Keywords of a folder: a letter in a file's name means a word, and which one stands in `dovecot-keywords`, the file that
//! Dovecot keeps and reads, so that both mean the same.

use std::fs;
use std::io;
use std::path::Path;

use gatepost_runtime::durable;

use super::name::{KEYWORDS_MAX, Keywords};
use super::{Mailbox, MailboxError};
use crate::mailbox::name::FolderName;

/// Name of the file in the folder.
const FILE: &str = "dovecot-keywords";
/// Octets of one keyword.
pub const WORD_OCTETS_MAX: usize = 100;

/// Which word each letter means; empty: none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Reads lines such as `0 $Forwarded`; what is no such line is passed over.
    fn parse(text: &str) -> Self {
        let mut words = Vec::new();
        for line in text.lines() {
            let Some((number, word)) = line.split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            if number < KEYWORDS_MAX && is_word(word) {
                if words.len() <= number {
                    words.resize(number + 1, String::new());
                }
                word.clone_into(&mut words[number]);
            }
        }
        Self(words)
    }

    fn text(&self) -> String {
        let lines = self.0.iter().enumerate().filter(|(_, word)| !word.is_empty());
        lines.fold(String::new(), |text, (number, word)| text + &number.to_string() + " " + word + "\n")
    }

    /// The bit of a word.
    pub fn bit(&self, word: &str) -> Option<Keywords> {
        let at = self.0.iter().position(|known| known.eq_ignore_ascii_case(word))?;
        Some(Keywords(1 << at))
    }

    /// The words of these bits.
    pub fn of(&self, keywords: Keywords) -> impl Iterator<Item = &str> {
        let set = move |(bit, word): &(usize, &String)| keywords.0 & (1 << bit) != 0 && !word.is_empty();
        self.0.iter().enumerate().filter(set).map(|(_, word)| word.as_str())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|word| !word.is_empty()).map(String::as_str)
    }

    /// Gives a word a letter; false if there is none left.
    fn add(&mut self, word: &str) -> bool {
        let at = self.0.iter().position(String::is_empty).unwrap_or(self.0.len());
        if at >= KEYWORDS_MAX {
            return false;
        }
        if at == self.0.len() {
            self.0.push(String::new());
        }
        word.clone_into(&mut self.0[at]);
        true
    }
}

/// Whether it can be a keyword (RFC 9051 §9 `atom`).
fn is_word(word: &str) -> bool {
    let plain = |octet: u8| octet.is_ascii_graphic() && !b"(){%*\"\\]".contains(&octet);
    !word.is_empty() && word.len() <= WORD_OCTETS_MAX && word.bytes().all(plain)
}

impl Mailbox {
    /// The keywords of a folder.
    pub fn words(&self, folder: &FolderName) -> Result<Words, MailboxError> {
        read(&self.directory(folder))
    }

    /// The bits of these words; those that are new get letters, durably.
    pub(super) fn bits(&self, folder: &FolderName, wanted: &[String]) -> Result<Keywords, MailboxError> {
        let directory = self.directory(folder);
        let (mut words, mut bits, mut is_new) = (read(&directory)?, Keywords::default(), false);
        for word in wanted {
            if !is_word(word) {
                return Err(MailboxError::Cannot("that can't be a keyword"));
            }
            if words.bit(word).is_none() {
                if !words.add(word) {
                    return Err(MailboxError::Full);
                }
                is_new = true;
            }
            bits.0 |= words.bit(word).unwrap_or_default().0;
        }
        if is_new {
            durable::write_file(&directory.join(FILE), words.text().as_bytes())?;
        }
        Ok(bits)
    }
}

fn read(directory: &Path) -> Result<Words, MailboxError> {
    match fs::read(directory.join(FILE)) {
        Ok(text) => Ok(Words::parse(&String::from_utf8_lossy(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Words::default()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_as_dovecot_keeps_them() {
        let mut words = Words::parse("0 $Forwarded\n2 Junk\nnonsense\n99 too-far\n1 \n");
        assert_eq!(words.all().collect::<Vec<_>>(), ["$Forwarded", "Junk"]);
        assert_eq!(words.bit("junk"), Some(Keywords(4)));
        assert!(words.add("work"));
        assert_eq!(words.text(), "0 $Forwarded\n1 work\n2 Junk\n");
        assert_eq!(words.of(Keywords(0b11)).collect::<Vec<_>>(), ["$Forwarded", "work"]);
        for number in 3..26 {
            assert!(words.add(&format!("w{number}")));
        }
        assert!(!words.add("one-more"));
        assert_eq!(Words::parse(&words.text()), words);
        for bad in ["", "a b", "a(", "ä", "\\x", &"x".repeat(WORD_OCTETS_MAX + 1)] {
            assert!(!is_word(bad), "{bad}");
        }
    }
}
