//! What passwords are: their scopes, what may be chosen, and how app passwords are made.

use gatepost_protocol::secret::Secret;
use thiserror::Error;

/// PBKDF2 iterations of every verifier. RFC 7677 §4 asks for 4096 at least. App passwords are random, so
/// that no number of guesses finds one; only account passwords gain from more. Their verifiers never leave the
/// home, though a taken edge that carried a SCRAM login may guess at what it saw, and each login costs this
/// much on the home's small processor (about 10 ms).
pub const ITERATIONS: u32 = 20_000;
/// Octets of salt.
pub const SALT_OCTETS: usize = 16;
/// Longest password, in octets.
pub const PASSWORD_OCTETS_MAX: usize = 512;
/// Letters of a generated password: none looks like another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Letters of a generated password: 5 bits each, 120 in all.
const LETTERS: usize = 24;
/// Letters in a group.
const GROUP: usize = 4;

/// What a password may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The account's own, chosen by its owner: everything.
    Account,
    /// An app password for everything.
    Full,
    /// An app password that can only send mail.
    Submission,
}

impl Scope {
    /// As it is stored and listed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Full => "full",
            Self::Submission => "submission",
        }
    }

    /// The stored form.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Account, Self::Full, Self::Submission].into_iter().find(|scope| scope.name() == name)
    }
}

/// Why a password can't be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// Nothing.
    #[error("the password is empty")]
    Empty,
    /// Over [`PASSWORD_OCTETS_MAX`].
    #[error("the password is longer than 512 octets")]
    TooLong,
    /// Not text, or with control characters: no client could send it.
    #[error("the password holds characters that can't be typed (control characters, or no UTF-8)")]
    NotText,
}

/// Whether a password may be set.
pub fn check(password: &Secret) -> Result<(), PasswordError> {
    let text = std::str::from_utf8(password.expose()).map_err(|_| PasswordError::NotText)?;
    if text.is_empty() {
        return Err(PasswordError::Empty);
    }
    if text.len() > PASSWORD_OCTETS_MAX {
        return Err(PasswordError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(PasswordError::NotText);
    }
    Ok(())
}

/// A password of 120 random bits, in groups for the eye: `abcd-efgh-…`. The hyphens belong to it.
pub fn generate(random: [u8; LETTERS]) -> Secret {
    let mut text = Vec::with_capacity(LETTERS + LETTERS / GROUP);
    for (i, byte) in random.into_iter().enumerate() {
        if i > 0 && i % GROUP == 0 {
            text.push(b'-');
        }
        text.push(ALPHABET[usize::from(byte % 32)]);
    }
    Secret::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_long_grouped_and_different() {
        let one = generate(gatepost_runtime::random::bytes());
        let text = String::from_utf8(one.expose().to_vec()).expect("ASCII");
        assert_eq!(text.len(), 29, "{text}");
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [4; 6]);
        assert_ne!(one, generate(gatepost_runtime::random::bytes()));
        assert_eq!(check(&one), Ok(()));
    }

    #[test]
    fn at_the_bounds() {
        assert_eq!(check(&Secret::from("")), Err(PasswordError::Empty));
        assert_eq!(check(&Secret::new(vec![b'x'; PASSWORD_OCTETS_MAX])), Ok(()));
        assert_eq!(check(&Secret::new(vec![b'x'; PASSWORD_OCTETS_MAX + 1])), Err(PasswordError::TooLong));
        assert_eq!(check(&Secret::from("a\nb")), Err(PasswordError::NotText));
        assert_eq!(check(&Secret::new(vec![0xff])), Err(PasswordError::NotText));
    }
}
