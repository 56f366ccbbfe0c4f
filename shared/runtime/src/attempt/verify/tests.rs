//! Real certificates against real records.

use std::time::Duration;

use gatepost_protocol::mail::dane::{Applies, Named, Tlsa};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs;

use super::*;

struct Chain {
    host: CertificateDer<'static>,
    authority: CertificateDer<'static>,
}

/// A host's certificate of this name, valid until this year, and the CA that gave it.
fn chain(name: &str, until: i32) -> Chain {
    let mut of_ca = CertificateParams::new(Vec::new()).unwrap();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let authority = of_ca.self_signed(&ca_key).unwrap().der().clone();
    let mut of_host = CertificateParams::new(vec![name.to_owned()]).unwrap();
    of_host.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (of_host.not_before, of_host.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
    let host = of_host.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(of_ca, ca_key)).unwrap();
    Chain { host: host.der().clone(), authority }
}

/// The record that names this certificate, compared as it is.
fn record(usage: u8, selector: u8, certificate: &CertificateDer<'_>) -> Tlsa {
    let data = match selector {
        0 => certificate.to_vec(),
        _ => ParsedCertificate::try_from(certificate).unwrap().subject_public_key_info().to_vec(),
    };
    Tlsa { usage, selector, matching: 0, data }
}

fn named(record: Tlsa) -> Named {
    match Applies::of(&[record]) {
        Applies::Certificates(named) => named,
        other => panic!("{other:?}"),
    }
}

/// Judged in 2026, the chain being sent or not.
fn judged(record: Tlsa, names: &[&str], chain: &Chain, sent: bool) -> Result<(), FailureKind> {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let dane = Arc::new(Dane { named: named(record), base: "mx.example.net".to_owned(), names });
    let finding = Finding::default();
    let records = ByRecords::new(dane, Arc::new(aws_lc_rs::default_provider()));
    let judge = Telling::new(Arc::new(records), finding.clone(), true);
    let others = if sent { vec![chain.authority.clone()] } else { Vec::new() };
    let name = ServerName::try_from("mx.example.net").unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));
    match judge.verify_server_cert(&chain.host, &others, &name, &[], now) {
        Ok(_) => Ok(()),
        Err(_) => Err(finding.get().unwrap().kind),
    }
}

#[test]
fn the_hosts_own_certificate_counts_whatever_its_name_and_dates() {
    let expired = chain("elsewhere.example", 2001);
    for selector in [0, 1] {
        assert_eq!(judged(record(3, selector, &expired.host), &["mx.example.net"], &expired, false), Ok(()));
    }
    let other = chain("mx.example.net", 2044);
    assert_eq!(
        judged(record(3, 1, &expired.host), &["mx.example.net"], &other, true),
        Err(FailureKind::TlsaInvalid),
        "a certificate that a CA vouches for is still another one"
    );
}

#[test]
fn a_ca_of_the_domain_vouches_for_one_of_its_names() {
    let good = chain("mx.example.net", 2044);
    for selector in [0, 1] {
        let by_ca = || record(2, selector, &good.authority);
        assert_eq!(judged(by_ca(), &["mx.example.net"], &good, true), Ok(()));
        assert_eq!(judged(by_ca(), &["example.net", "mx.example.net"], &good, true), Ok(()));
        assert_eq!(judged(by_ca(), &["example.net"], &good, true), Err(FailureKind::CertificateHostMismatch));
    }
    let expired = chain("mx.example.net", 2001);
    let by_ca = record(2, 0, &expired.authority);
    assert_eq!(judged(by_ca, &["mx.example.net"], &expired, true), Err(FailureKind::CertificateExpired));
    let another = record(2, 1, &chain("mx.example.net", 2044).authority);
    assert_eq!(judged(another, &["mx.example.net"], &good, true), Err(FailureKind::TlsaInvalid));
}

#[test]
fn a_ca_that_stands_in_the_dns_need_not_be_sent() {
    let good = chain("mx.example.net", 2044);
    assert_eq!(judged(record(2, 0, &good.authority), &["mx.example.net"], &good, false), Ok(()));
    assert_eq!(
        judged(record(2, 1, &good.authority), &["mx.example.net"], &good, false),
        Err(FailureKind::TlsaInvalid),
        "of its key alone no chain can be made"
    );
    let forged = record(2, 0, &chain("mx.example.net", 2044).authority);
    assert_eq!(judged(forged, &["mx.example.net"], &good, true), Err(FailureKind::CertificateNotTrusted));
}

#[test]
fn what_is_wrong_is_told_where_it_does_not_count() {
    #[derive(Debug)]
    struct Never;
    impl ServerCertVerifier for Never {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Err(CertificateError::Expired.into())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::DecryptError)
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::DecryptError)
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Vec::new()
        }
    }
    let host = chain("mx.example.net", 2044).host;
    let name = ServerName::try_from("mx.example.net").unwrap();
    let finding = Finding::default();
    for (strict, goes_on) in [(true, false), (false, true)] {
        let judge = Telling::new(Arc::new(Never), finding.clone(), strict);
        assert_eq!(judge.verify_server_cert(&host, &[], &name, &[], UnixTime::now()).is_ok(), goes_on);
        assert_eq!(finding.get().unwrap().kind, FailureKind::CertificateExpired);
    }
}
