use bytes::Bytes;
use gatepost_protocol::mail::address::ReversePath;
use gatepost_protocol::mail::envelope::{BodyKind, Recipient};
use gatepost_protocol::mail::verdict::{Dmarc, Evidence, Found};

use super::*;
use crate::message::Body;

fn domains() -> Vec<Domain> {
    ["example.org", "example.net"].iter().map(|name| Domain::parse(name).expect("valid")).collect()
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient = |address: &&str| Recipient::plain(Address::parse(address).expect("valid"));
    Envelope {
        reverse_path: ReversePath::Null,
        recipients: recipients.iter().map(recipient).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

fn message(octets: usize) -> Message {
    Message { front: Bytes::from_static(b"Received: x\r\n"), body: Body::from(vec![b'x'; octets]) }
}

fn offer(recipients: &[&str], octets: usize) -> Option<Offer> {
    let trace = TraceId::from_random([1; 10]);
    Offer::of(&envelope(recipients), (&message(octets), trace), &Arc::default(), &domains())
}

#[test]
fn only_mail_for_the_published_address_is_looked_at() {
    for (recipients, offered) in [
        (&["postmaster@example.org"][..], true),
        (&["alice@example.org", "Postmaster@Example.NET"], true),
        (&["alice@example.org"], false),
        (&["postmaster@elsewhere.example"], false),
        (&["postmaster+x@example.org"], false),
    ] {
        assert_eq!(offer(recipients, 100).is_some(), offered, "{recipients:?}");
    }
    let most = usize::try_from(reading::MESSAGE_OCTETS_MAX).expect("small") - "Received: x\r\n".len();
    assert!(offer(&["postmaster@example.org"], most).is_some());
    assert!(offer(&["postmaster@example.org"], most + 1).is_none());
}

#[test]
fn names_below_ours_are_ours() {
    let offer = offer(&["postmaster@example.org"], 1).expect("offered");
    for (name, ours) in [
        ("example.org", true),
        ("news.example.org", true),
        ("example.net", true),
        ("notexample.org", false),
        ("org", false),
        ("", false),
        ("example.org.bank.example", false),
    ] {
        assert_eq!(offer.is_ours(name), ours, "{name}");
    }
}

fn of_receiver(report: &str) -> Offer {
    let dmarc = Dmarc { found: Found::Pass, from: "receiver.example".into(), published: true, ..Dmarc::default() };
    let evidence = Some(Box::new(Evidence { dmarc, ..Evidence::default() }));
    let body = format!("Content-Type: text/xml\r\n\r\n{report}");
    Offer {
        trace: TraceId::from_random([1; 10]),
        message: Message { front: Bytes::new(), body: Body::from(body.into_bytes()) },
        verdict: Arc::new(Verdict { evidence, ..Verdict::default() }),
        ours: domains(),
    }
}

fn xml(id: usize) -> String {
    format!(
        "<feedback><report_metadata><report_id>{id}</report_id></report_metadata>\
         <policy_published><domain>example.org</domain></policy_published></feedback>"
    )
}

#[tokio::test]
async fn no_more_wait_than_may_and_each_of_those_is_read() {
    let state = tempfile::tempdir().expect("a folder");
    let feedback = Feedback::new(Database::open(state.path()).expect("opened"), Clock::real());
    let turn = feedback.inner.turn.acquire().await.expect("open");
    for id in 0..WAITING_MAX + 10 {
        feedback.offer(of_receiver(&xml(id)), &Handle::current());
    }
    drop(turn);
    // All places are free again once all were read.
    let places = u32::try_from(WAITING_MAX).expect("small");
    drop(feedback.inner.waiting.acquire_many(places).await.expect("open"));
    let wanted = store::Wanted { since_unix_s: 0, domain: None };
    let reporters = feedback.store().reporters(&wanted, 10).expect("read");
    assert_eq!(reporters.iter().map(|reporter| reporter.reports).sum::<u64>(), u64::from(places));
}
