//! Addresses that exist because their local part fits a regular expression. An expression is anchored,
//! matched without regard to case, and bounded: matching takes time linear in the local part, whatever the
//! expression. Bytes, not characters: `.` is one octet, and `\w` is ASCII.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

use super::address::{Domain, LocalPart};

/// Longest expression, in octets.
pub const EXPRESSION_OCTETS_MAX: usize = 200;
/// Expressions of one home.
pub const PATTERNS_MAX: usize = 100;
/// Largest compiled expression, in octets: with [`PATTERNS_MAX`], one recipient costs milliseconds at most.
const COMPILED_OCTETS_MAX: usize = 16 * 1024;
/// Groups within groups.
const NESTING_MAX: u32 = 16;

/// Why a text is no expression of ours.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("the expression is empty")]
    Empty,
    /// Over [`EXPRESSION_OCTETS_MAX`].
    #[error("the expression is over {EXPRESSION_OCTETS_MAX} octets; use several shorter ones")]
    TooLong,
    /// A control character.
    #[error("the expression holds a control character")]
    Control,
    /// Not a regular expression.
    #[error("the expression can't be read: {0}")]
    Syntax(String),
    /// Too large once compiled, or nested too deep.
    #[error("the expression would cost too much to match; use smaller repetition counts or fewer alternatives")]
    TooCostly,
}

/// An expression over a whole local part.
#[derive(Clone)]
pub struct LocalPattern {
    expression: Box<str>,
    compiled: Regex,
}

impl LocalPattern {
    /// Compiles it.
    pub fn parse(expression: &str) -> Result<Self, PatternError> {
        if expression.is_empty() {
            return Err(PatternError::Empty);
        }
        if expression.len() > EXPRESSION_OCTETS_MAX {
            return Err(PatternError::TooLong);
        }
        if expression.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        // Alone first: what is not whole by itself must not become so between our anchors.
        compile(expression)?;
        let compiled = compile(&format!(r"\A(?:{expression})\z"))?;
        Ok(Self { expression: expression.into(), compiled })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.expression
    }

    /// True if the whole local part fits.
    pub fn matches(&self, local: &str) -> bool {
        self.compiled.is_match(local.as_bytes())
    }
}

fn compile(expression: &str) -> Result<Regex, PatternError> {
    RegexBuilder::new(expression)
        .unicode(false)
        .case_insensitive(true)
        .size_limit(COMPILED_OCTETS_MAX)
        .nest_limit(NESTING_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => PatternError::TooCostly,
            error => {
                // The last line says what is wrong; those before it draw where.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                let what = last.strip_prefix("error: ").unwrap_or(last);
                if what.contains("nest") { PatternError::TooCostly } else { PatternError::Syntax(what.to_owned()) }
            }
        })
}

impl PartialEq for LocalPattern {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression
    }
}

impl Eq for LocalPattern {}

impl fmt::Debug for LocalPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.expression)
    }
}

/// An expression over the local parts of one domain. Written `/expression/@domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainPattern {
    /// Of this domain.
    pub domain: Domain,
    /// Over the whole local part.
    pub pattern: LocalPattern,
}

impl DomainPattern {
    /// True if it speaks of this address.
    pub fn matches(&self, local: &LocalPart, domain: &Domain) -> bool {
        self.domain == *domain && self.pattern.matches(local.as_str())
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/@{}", self.pattern.as_str(), self.domain)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fits_the_whole_local_part_in_any_case() {
        for (expression, local, fits) in [
            ("shop-.*", "shop-42", true),
            ("^shop-.*$", "SHOP-42", true),
            ("shop-.*", "my-shop-42", false),
            ("shop", "shopper", false),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            (r"\w+", "alice", true),
            (r"\w+", "jörg", false),
            ("jörg", "jörg", true),
            (".*", "a b", true),
            (r"(?m)a$", "a\nb", false),
        ] {
            assert_eq!(LocalPattern::parse(expression).expect("good").matches(local), fits, "{expression} {local}");
        }
    }

    #[test]
    fn tells_what_is_wrong() {
        for (expression, words) in [
            ("", "empty"),
            ("a(b", "unclosed group"),
            ("a)(b", "unopened group"),
            ("[a", "unclosed character class"),
            ("(a{50}){50}", "cost too much"),
            (&["(".repeat(50), ")".repeat(50)].concat(), "cost too much"),
            ("(?=x)a", "look-around"),
            (r"(a)\1", "backreferences"),
            ("a\n", "control"),
            (&"a".repeat(EXPRESSION_OCTETS_MAX + 1), "octets"),
        ] {
            let why = LocalPattern::parse(expression).expect_err(expression).to_string();
            assert!(why.contains(words), "{expression}: {why}");
        }
        assert!(LocalPattern::parse(&"a".repeat(EXPRESSION_OCTETS_MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_stumble(expression in ".{0,40}", local in ".{0,40}") {
            if let Ok(pattern) = LocalPattern::parse(&expression) {
                pattern.matches(&local);
                prop_assert_eq!(pattern.as_str(), expression);
            }
        }

        #[test]
        fn letters_fit_themselves(name in "[a-z]{1,20}") {
            let pattern = LocalPattern::parse(&name).expect("letters");
            prop_assert!(pattern.matches(&name.to_uppercase()));
            let longer = format!("{name}x");
            prop_assert!(!pattern.matches(&longer));
        }
    }
}
