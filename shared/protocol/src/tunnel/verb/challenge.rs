//! `Challenge`: a CA asks the edge for the proof of a name of the home's; the home, whose order it is, knows the answer.

use serde::{Deserialize, Serialize};

/// Octets of a token: CAs use some forty.
pub const TOKEN_OCTETS_MAX: usize = 128;
/// Octets of an answer: a token, a dot and the digest of a key.
pub const AUTHORIZATION_OCTETS_MAX: usize = 256;

/// What is asked: the token of `/.well-known/acme-challenge/` (RFC 8555 §8.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Base64url.
    pub token: String,
}

/// What the home says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeAnswer {
    /// The key authorization; `None` if no order of the home's waits for this token.
    pub authorization: Option<String>,
}

impl ChallengeAnswer {
    /// What may be shown to the world: within the bound, and of the letters a key authorization has.
    pub fn shown(self) -> Option<String> {
        self.authorization.filter(|text| {
            text.len() <= AUTHORIZATION_OCTETS_MAX
                && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'))
        })
    }
}

/// True for what can be a token: base64url, bounded (RFC 8555 §8.1).
pub fn is_token(text: &str) -> bool {
    (1..=TOKEN_OCTETS_MAX).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_base64url_is_a_token() {
        assert!(is_token("LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"));
        for bad in ["", "a/b", "..", "a.b", "a%2e", "ä", &"a".repeat(129)] {
            assert!(!is_token(bad), "{bad}");
        }
    }

    #[test]
    fn nothing_but_a_key_authorization_is_shown_to_the_world() {
        let answer = |text: &str| ChallengeAnswer { authorization: Some(text.to_owned()) }.shown();
        assert_eq!(answer("tok.en-_1").as_deref(), Some("tok.en-_1"));
        assert_eq!(answer("<script>"), None);
        assert_eq!(answer(&"a".repeat(257)), None);
        assert_eq!(ChallengeAnswer { authorization: None }.shown(), None);
    }
}
