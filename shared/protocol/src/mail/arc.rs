//! Sealing mail that goes on (ARC, RFC 8617): the sets a message carries, and the next one, field by field. Says what is
//! to be signed; knows no key. Whether the chain holds so far was found out before.

use super::header::{self, Field};
use super::signature::{Seal, SignedHeader, Unsigned, canonical, relaxed, tags};
use super::verdict::Found;

/// Sets of one message (RFC 8617 §5.1.1.3).
const SETS_MAX: usize = 50;

/// What the fields of a set are called, in the order they are signed (RFC 8617 §5.1.1).
const RESULTS: &str = "ARC-Authentication-Results";
const SIGNATURE: &str = "ARC-Message-Signature";
const SEAL: &str = "ARC-Seal";

/// What the next seal says of the chain before it, `cv=` (RFC 8617 §4.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// There is none.
    None,
    /// It holds.
    Pass,
    /// It is broken.
    Fail,
}

impl Validation {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

/// The next set of a message's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextSet {
    instance: usize,
    validation: Validation,
    // Canonical: what the seal signs before its own set.
    before: Vec<u8>,
}

impl NextSet {
    /// After the sets of this header section, of which that was found. `None` if no set is to be added: the chain was
    /// sealed as broken before (§5.1.2), it is full, or what was found is not for certain; a message that only goes on
    /// breaks no chain.
    pub fn after(section: &[u8], found: Found) -> Option<Self> {
        let fields: Vec<Field<'_>> = header::fields(section).collect();
        let named = |name| fields.iter().filter(move |field| field.is(name));
        let count = [RESULTS, SIGNATURE, SEAL].map(|name| named(name).count());
        if count == [0; 3] {
            let first = Self { instance: 1, validation: Validation::None, before: Vec::new() };
            return (found == Found::None).then_some(first);
        }
        let highest = fields
            .iter()
            .filter(|field| [RESULTS, SIGNATURE, SEAL].iter().any(|name| field.is(name)))
            .filter_map(|field| tag(field.value(), "i")?.parse::<usize>().ok())
            .max()?;
        if highest >= SETS_MAX {
            return None;
        }
        match found {
            Found::Pass => {
                let mut before = Vec::new();
                for instance in 1..=highest {
                    for name in [RESULTS, SIGNATURE, SEAL] {
                        let is_of =
                            |field: &&Field<'_>| tag(field.value(), "i").and_then(|i| i.parse().ok()) == Some(instance);
                        before.extend_from_slice(&relaxed(named(name).find(is_of)?));
                    }
                }
                let whole = count == [highest; 3];
                whole.then_some(Self { instance: highest + 1, validation: Validation::Pass, before })
            }
            Found::Fail | Found::PermError | Found::Neutral => {
                let is_sealed_so = named(SEAL).any(|seal| tag(seal.value(), "cv").is_some_and(|cv| cv == "fail"));
                // §5.1.2: such a seal covers its own set only.
                let next = Self { instance: highest + 1, validation: Validation::Fail, before: Vec::new() };
                (!is_sealed_so).then_some(next)
            }
            Found::None | Found::TempError | Found::SoftFail | Found::Policy => None,
        }
    }

    /// ARC-Authentication-Results, whole: `results` is the value of an Authentication-Results field.
    pub fn results(&self, results: &str) -> String {
        format!("{RESULTS}: i={}; {}\r\n", self.instance, results.trim_ascii())
    }

    /// ARC-Message-Signature.
    pub fn signature(&self, header: &SignedHeader, body_sha256: &[u8; 32], seal: Seal<'_>) -> Unsigned {
        let text = format!("{SIGNATURE}: i={}; {}", self.instance, tags(header, body_sha256, seal));
        Unsigned::new(text, canonical(header))
    }

    /// ARC-Seal, over the other two fields of its set, finished, and those before.
    pub fn seal(&self, results: &str, signature: &str, seal: Seal<'_>) -> Unsigned {
        let mut before = self.before.clone();
        for field in header::fields(results.as_bytes()).chain(header::fields(signature.as_bytes())) {
            before.extend_from_slice(&relaxed(&field));
        }
        let text = format!(
            "{SEAL}: i={}; a={}; t={}; cv={};\r\n\td={}; s={};\r\n\tb=",
            self.instance,
            seal.algorithm.word(),
            seal.unix_s.max(0),
            self.validation.word(),
            seal.domain,
            seal.selector
        );
        Unsigned::new(text, &before)
    }
}

/// The value of a tag in a list of them (RFC 6376 §3.2), without white space around it.
fn tag<'a>(value: &'a [u8], name: &str) -> Option<&'a str> {
    value.split(|octet| *octet == b';').find_map(|part| {
        let part = std::str::from_utf8(part).ok()?;
        let (found, value) = part.split_once('=')?;
        (found.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::signature::Algorithm;
    use super::*;

    const BY: Seal<'_> = Seal { domain: "example.org", selector: "s1", algorithm: Algorithm::RsaSha256, unix_s: 5 };

    fn set(instance: usize, cv: &str) -> String {
        format!(
            "ARC-Seal: i={instance}; a=rsa-sha256; cv={cv}; b=x\r\nARC-Message-Signature: i={instance}; b=y\r\n\
             ARC-Authentication-Results: i={instance}; x.example; none\r\n"
        )
    }

    fn next(section: &str, found: Found) -> Option<(usize, Validation)> {
        NextSet::after(section.as_bytes(), found).map(|next| (next.instance, next.validation))
    }

    #[test]
    fn a_chain_goes_on_as_it_was_found() {
        let one = set(1, "none");
        let two = set(2, "pass") + &one;
        for (section, found, expected) in [
            ("From: a\r\n", Found::None, Some((1, Validation::None))),
            ("From: a\r\n", Found::TempError, None),
            (&one, Found::Pass, Some((2, Validation::Pass))),
            (&two, Found::Pass, Some((3, Validation::Pass))),
            (&two, Found::Fail, Some((3, Validation::Fail))),
            // Found whole, and is not: nothing is claimed.
            (&set(2, "pass"), Found::Pass, None),
            (&(one.clone() + &one), Found::Pass, None),
            ("ARC-Seal: i=1; cv=none\r\n", Found::Pass, None),
            ("ARC-Seal: i=1; cv=none\r\n", Found::Neutral, Some((2, Validation::Fail))),
            // Broken and sealed so.
            (&(set(2, "fail") + &one), Found::Fail, None),
            (&set(50, "pass"), Found::Fail, None),
            (&one, Found::TempError, None),
            (&one, Found::None, None),
        ] {
            assert_eq!(next(&format!("{section}\r\n"), found), expected, "{section} {found}");
        }
    }

    #[test]
    fn the_seal_covers_all_sets_in_order_and_a_broken_chain_only_its_own() {
        let section = set(2, "pass") + &set(1, "none") + "\r\n";
        let sealed = |found| {
            let next = NextSet::after(section.as_bytes(), found).expect("a set");
            let results = next.results("mail.example.org; dkim=pass");
            let header = SignedHeader::of_forwarded(b"From: a\r\n\r\n");
            let signature = next.signature(&header, &[0; 32], BY).signed(b"sig");
            let unsigned = next.seal(&results, &signature, BY);
            String::from_utf8(unsigned.input().to_vec()).expect("ASCII")
        };
        let passed = sealed(Found::Pass);
        let places: Vec<usize> = [
            "arc-authentication-results:i=1;",
            "arc-message-signature:i=1;",
            "arc-seal:i=1;",
            "arc-authentication-results:i=2;",
            "arc-message-signature:i=2;",
            "arc-seal:i=2;",
            "arc-authentication-results:i=3; mail.example.org; dkim=pass\r\n",
            "arc-message-signature:i=3; a=rsa-sha256; c=relaxed/relaxed;",
            "arc-seal:i=3; a=rsa-sha256; t=5; cv=pass; d=example.org; s=s1; b=",
        ]
        .iter()
        .map(|part| passed.find(part).expect(part))
        .collect();
        assert!(places.is_sorted(), "{passed}");
        assert!(passed.ends_with("b="), "{passed}");
        let failed = sealed(Found::Fail);
        assert!(failed.starts_with("arc-authentication-results:i=3;") && failed.contains("cv=fail"), "{failed}");
    }

    proptest! {
        #[test]
        fn any_header_is_read(section: Vec<u8>) {
            for found in [Found::None, Found::Pass, Found::Fail] {
                let _ = NextSet::after(&section, found);
            }
        }
    }
}
