//! DANE for SMTP (RFC 6698, RFC 7671, RFC 7672): TLSA records, which of them count, and whether a certificate is one of
//! those they name. Dates and names of certificates are checked elsewhere. Pure.

use std::fmt;

use aws_lc_rs::digest;

/// Records of one name that are looked at.
pub const RECORDS_MAX: usize = 32;

/// One TLSA record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// 2: a CA of the domain's; 3: the host's own certificate. Others mean nothing to mail (RFC 7672 §3.1.3).
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: its SHA-256; 2: its SHA-512.
    pub matching: u8,
    /// What is compared.
    pub data: Vec<u8>,
}

/// What a certificate must be one of. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Named(Vec<Tlsa>);

/// What the TLSA records of a host come to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Applies {
    /// There are none: nothing follows.
    Nothing,
    /// None can be used: TLS is required, with any certificate (RFC 7672 §2.2).
    Encryption,
    /// TLS is required, with one of these certificates.
    Certificates(Named),
}

/// A certificate as far as records tell of it.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// All of it, DER.
    pub whole: &'a [u8],
    /// Its `SubjectPublicKeyInfo`, DER.
    pub public_key: &'a [u8],
}

impl Tlsa {
    /// True if mail can go by it (RFC 7672 §3.1): of a kind we know, and not malformed.
    pub fn is_usable(&self) -> bool {
        let octets = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == digest::SHA256_OUTPUT_LEN,
            2 => self.data.len() == digest::SHA512_OUTPUT_LEN,
            _ => false,
        };
        octets && matches!(self.usage, 2 | 3) && matches!(self.selector, 0 | 1)
    }

    /// True if it names this certificate.
    pub fn names(&self, certificate: Certificate<'_>) -> bool {
        let selected = match self.selector {
            0 => certificate.whole,
            1 => certificate.public_key,
            _ => return false,
        };
        match self.matching {
            0 => self.data == selected,
            1 => self.data == digest::digest(&digest::SHA256, selected).as_ref(),
            2 => self.data == digest::digest(&digest::SHA512, selected).as_ref(),
            _ => false,
        }
    }
}

/// As a zone file has it: `3 1 1 …`.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ", self.usage, self.selector, self.matching)?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl Applies {
    /// What follows from all records of a name.
    pub fn of(records: &[Tlsa]) -> Self {
        let records = records.get(..RECORDS_MAX).unwrap_or(records);
        if records.is_empty() {
            return Self::Nothing;
        }
        let usable: Vec<Tlsa> = records.iter().filter(|record| record.is_usable()).cloned().collect();
        // RFC 7671 §9: of a usage and selector only the strongest digest counts, beside what is not digested.
        let strongest = |of: &Tlsa| {
            let same = |other: &&Tlsa| (other.usage, other.selector) == (of.usage, of.selector);
            usable.iter().filter(same).map(|other| other.matching).max() == Some(of.matching)
        };
        let counted: Vec<Tlsa> =
            usable.iter().filter(|record| record.matching == 0 || strongest(record)).cloned().collect();
        if counted.is_empty() { Self::Encryption } else { Self::Certificates(Named(counted)) }
    }
}

impl Named {
    /// True if the host's own certificate is named: then neither its names nor its dates matter (RFC 7672 §3.1.1).
    pub fn is_host(&self, certificate: Certificate<'_>) -> bool {
        self.of_usage(3).any(|record| record.names(certificate))
    }

    /// True if this certificate is named as one that vouches for the host's.
    pub fn is_authority(&self, certificate: Certificate<'_>) -> bool {
        self.of_usage(2).any(|record| record.names(certificate))
    }

    /// Certificates that stand in the DNS as a whole and vouch for the host's, which then need not send them.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.of_usage(2).filter(|record| record.selector == 0 && record.matching == 0).map(|record| &*record.data)
    }

    /// Each record.
    pub fn records(&self) -> &[Tlsa] {
        &self.0
    }

    fn of_usage(&self, usage: u8) -> impl Iterator<Item = &Tlsa> {
        self.0.iter().filter(move |record| record.usage == usage)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: Certificate<'_> = Certificate { whole: b"the whole certificate", public_key: b"its key" };

    fn sha(algorithm: &'static digest::Algorithm, of: &[u8]) -> Vec<u8> {
        digest::digest(algorithm, of).as_ref().to_vec()
    }

    fn record(usage: u8, selector: u8, matching: u8) -> Tlsa {
        let selected = if selector == 0 { HOST.whole } else { HOST.public_key };
        let data = match matching {
            1 => sha(&digest::SHA256, selected),
            2 => sha(&digest::SHA512, selected),
            _ => selected.to_vec(),
        };
        Tlsa { usage, selector, matching, data }
    }

    fn named(records: &[Tlsa]) -> Named {
        match Applies::of(records) {
            Applies::Certificates(named) => named,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_selector_and_matching_names_what_it_is_made_of_and_nothing_else() {
        for selector in 0..2 {
            for matching in 0..3 {
                let named = named(&[record(3, selector, matching)]);
                assert!(named.is_host(HOST) && !named.is_authority(HOST), "{selector} {matching}");
                let other = Certificate { whole: b"another", public_key: b"another" };
                assert!(!named.is_host(other), "{selector} {matching}");
            }
        }
        let one_of_two = named(&[Tlsa { data: vec![0; 32], ..record(3, 1, 1) }, record(3, 1, 1)]);
        assert!(one_of_two.is_host(HOST), "old and new key during a change");
    }

    #[test]
    fn a_ca_is_no_host_and_a_host_no_ca() {
        let named = named(&[record(2, 0, 1)]);
        assert!(named.is_authority(HOST) && !named.is_host(HOST));
    }

    #[test]
    fn what_mail_can_not_use_demands_encryption_and_nothing_more() {
        assert_eq!(Applies::of(&[]), Applies::Nothing);
        let cut = |record: Tlsa| Tlsa { data: record.data[1..].to_vec(), ..record };
        for useless in [
            record(0, 1, 1),
            record(1, 1, 1),
            record(255, 1, 1),
            record(3, 2, 1),
            record(3, 1, 3),
            cut(record(3, 1, 1)),
            cut(record(2, 0, 2)),
            Tlsa { data: Vec::new(), ..record(3, 0, 0) },
        ] {
            assert_eq!(Applies::of(std::slice::from_ref(&useless)), Applies::Encryption, "{useless}");
            assert!(named(&[useless, record(3, 1, 1)]).is_host(HOST), "a good one beside it counts");
        }
    }

    #[test]
    fn the_strongest_digest_counts() {
        let wrong = Tlsa { data: vec![0; 64], ..record(3, 1, 2) };
        assert!(!named(&[record(3, 1, 1), wrong.clone()]).is_host(HOST), "who can check SHA-512 goes by it");
        assert!(named(&[record(3, 0, 1), wrong.clone()]).is_host(HOST), "another selector is another matter");
        assert!(named(&[record(3, 1, 0), wrong]).is_host(HOST), "and so is what is not digested");
    }

    #[test]
    fn a_record_prints_as_a_zone_file_has_it() {
        assert_eq!(Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0, 0xab] }.to_string(), "3 1 1 00ab");
    }

    proptest! {
        #[test]
        fn nobody_is_named_by_records_of_another_certificate(
            records in proptest::collection::vec(
                (0..5_u8, 0..4_u8, 0..4_u8, proptest::collection::vec(any::<u8>(), 0..70)), 0..40),
            whole in proptest::collection::vec(any::<u8>(), 80..90),
        ) {
            let records: Vec<_> = records
                .into_iter()
                .map(|(usage, selector, matching, data)| Tlsa { usage, selector, matching, data })
                .collect();
            match Applies::of(&records) {
                Applies::Nothing => prop_assert!(records.is_empty()),
                Applies::Encryption => prop_assert!(records.iter().take(RECORDS_MAX).all(|record| !record.is_usable())),
                Applies::Certificates(named) => {
                    let certificate = Certificate { whole: &whole, public_key: &whole };
                    prop_assert!(!named.is_host(certificate) && !named.is_authority(certificate));
                    prop_assert!(!named.records().is_empty());
                }
            }
        }
    }
}
