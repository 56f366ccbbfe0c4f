//! Counting by a clock that is turned, over a real database; what goes out is read off the channel.

use std::time::Duration;

use gatepost_protocol::mail::report::Disposition;
use gatepost_protocol::mail::verdict::{Asked, Dkim, Dmarc, Evidence, Found, Spf};
use gatepost_runtime::authentication::reporting::Destination;

use super::config::RawReports;
use super::schedule::DAY_S;
use super::*;

/// The middle of a day.
const NOON: u64 = 20_000 * 86_400 + 43_200;

struct House {
    reporting: Reporting,
    clock: Clock,
    state: tempfile::TempDir,
}

fn settings(on: bool) -> Settings {
    let domains = ["example.org", "example.net"].map(|name| Domain::parse(name).expect("valid"));
    Settings { dmarc_aggregate: on, ..RawReports::default().check(&domains) }
}

fn house() -> House {
    let state = tempfile::tempdir().expect("a folder");
    let clock = Clock::still(Duration::from_secs(NOON));
    let reporting = open(&state, &clock);
    House { reporting, clock, state }
}

fn open(state: &tempfile::TempDir, clock: &Clock) -> Reporting {
    let database = Database::open(state.path()).expect("opened");
    Reporting::new(database, "home.example.org".to_owned(), settings(true), clock.clone())
}

fn verdict(domain: &str, found: Found) -> Verdict {
    let published = Published { domain: domain.to_owned(), policy: Asked::Reject, ..Published::default() };
    let dmarc = Dmarc {
        found,
        from: format!("news.{domain}"),
        published: true,
        asked: Asked::Reject,
        by_spf: found == Found::Pass,
        reported: Some(Box::new(published)),
        ..Dmarc::default()
    };
    let spf_mail = Spf { found, domain: domain.to_owned() };
    let signature = Dkim { found: Found::Fail, domain: domain.to_owned(), selector: "s".to_owned(), ..Dkim::default() };
    let evidence = Evidence { spf_mail, dmarc, dkim: vec![signature], ..Evidence::default() };
    Verdict { evidence: Some(Box::new(evidence)), ..Verdict::default() }
}

impl House {
    fn note(&self, verdict: &Verdict, client: [u8; 4], refused: bool) {
        let at_unix_s = self.clock.unix_s();
        self.reporting.note(Judged { client: client.into(), sender: "Bounce.example", verdict, refused, at_unix_s });
    }

    fn reports(&self) -> Vec<store::Report> {
        self.reporting.flush().expect("written");
        self.reporting.inner.store.list().expect("read")
    }

    fn rows(&self, report: &store::Report) -> Vec<Row> {
        self.reporting.inner.store.rows(report.id).expect("read")
    }

    fn turn(&self, seconds: i64) {
        self.clock.turn(Duration::from_secs(seconds.unsigned_abs()));
    }
}

#[test]
fn alike_messages_are_one_row_and_stay_over_a_restart() {
    let mut house = house();
    let (good, bad) = (verdict("world.example", Found::Pass), verdict("world.example", Found::Fail));
    for _ in 0..3 {
        house.note(&good, [192, 0, 2, 1], false);
    }
    house.note(&good, [192, 0, 2, 2], false);
    let [report] = house.reports().try_into().expect("one report");
    assert_eq!((report.day, report.messages, report.rows), (20_000, 4, 2));
    house.reporting = open(&house.state, &house.clock);
    house.note(&good, [192, 0, 2, 1], false);
    house.note(&bad, [192, 0, 2, 1], true);
    let [report] = house.reports().try_into().expect("one report");
    assert_eq!((report.messages, report.rows, report.missed), (6, 3, 0));
    let rows = house.rows(&report);
    assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [4, 1, 1]);
    let refused = rows.iter().find(|row| row.disposition == Disposition::Reject).expect("the refused one");
    assert_eq!(refused.envelope_from.as_deref(), Some("bounce.example"));
    assert_eq!((refused.spf, refused.spf_results[0].found), (false, Found::Fail));
    assert_eq!(refused.dkim_results[0].selector.as_deref(), Some("s"));
}

#[test]
fn a_row_is_kept_as_it_always_was() {
    let house = house();
    let mut judged = verdict("world.example", Found::Fail);
    judged.junk = Some("so".to_owned());
    judged.spared = Some(gatepost_protocol::mail::verdict::Override::Settings);
    house.note(&judged, [192, 0, 2, 1], false);
    house.reports();
    let read = Database::open(house.state.path()).expect("opened").read(|connection| {
        connection.query_row("SELECT policy, row FROM outgoing_report JOIN outgoing_row ON report = id", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
    });
    let (policy, row) = read.expect("read");
    assert_eq!(policy, "p=reject sp=none np=none adkim=r aspf=r t=n");
    assert_eq!(
        row,
        r#"{"source":"192.0.2.1","disposition":"quarantine","dkim":false,"spf":false,"reasons":[["local_policy","settings"]],"header_from":"news.world.example","envelope_from":"bounce.example","signatures":[["world.example","s","fail"]],"checked":[["world.example","fail"]]}"#
    );
    let [report] = house.reports().try_into().expect("one report");
    assert_eq!(store::policy(&report.published), policy);
}

#[test]
fn our_own_domains_and_who_does_not_ask_hear_nothing() {
    let house = house();
    for domain in ["example.org", "mail.example.net"] {
        house.note(&verdict(domain, Found::Pass), [192, 0, 2, 1], false);
    }
    let mut silent = verdict("world.example", Found::Pass);
    if let Some(evidence) = &mut silent.evidence {
        evidence.dmarc.reported = None;
    }
    house.note(&silent, [192, 0, 2, 1], false);
    assert!(house.reports().is_empty());
    house.reporting.reload(settings(false));
    house.note(&verdict("world.example", Found::Pass), [192, 0, 2, 1], false);
    assert!(house.reports().is_empty(), "turned off");
}

#[test]
fn what_an_edge_says_is_no_name_and_no_report() {
    let house = house();
    for domain in ["", "a b.example", "x\r\nBcc: y@z.example", "[192.0.2.1]"] {
        house.note(&verdict(domain, Found::Pass), [192, 0, 2, 1], false);
    }
    assert!(house.reports().is_empty());
    let mut strange = verdict("world.example", Found::Fail);
    if let Some(evidence) = &mut strange.evidence {
        evidence.dkim = vec![Dkim { domain: "x\r\n\u{1b}<".repeat(100), ..evidence.dkim[0].clone() }; 30];
    }
    house.note(&strange, [192, 0, 2, 1], false);
    let [report] = house.reports().try_into().expect("one report");
    let [row] = house.rows(&report).try_into().expect("one row");
    assert_eq!((row.dkim_results.len(), row.dkim_results[0].domain.len()), (SIGNATURES_MAX, NAME_OCTETS_MAX));
    assert!(row.dkim_results[0].domain.starts_with("x???<x"), "{row:?}");
}

#[test]
fn what_finds_no_room_is_counted() {
    let house = house();
    let judged = verdict("world.example", Found::Pass);
    for source in 0..2 * GATHERED_MAX + 5 {
        let [.., high, low] = source.to_be_bytes();
        house.note(&judged, [10, 0, high, low], false);
    }
    let gathered = house.reporting.inner.gathered.lock().expect("whole").missed;
    assert_eq!(gathered, 5);
    let [report] = house.reports().try_into().expect("one report");
    assert_eq!((report.rows, report.messages, report.missed), (2000, 2048, 48));
    let letter = letter::aggregate(
        &report,
        house.rows(&report),
        letter::Reporter { hostname: "home.example.org", domain: "example.org" },
    );
    assert_eq!(letter.metadata.errors, ["48 of 2048 messages are not in it: too many different ones"]);
}

#[test]
fn a_day_has_so_many_reports_and_no_more() {
    let house = house();
    let most = usize::try_from(store::REPORTS_MAX).expect("small");
    for number in 0..most + 3 {
        house.note(&verdict(&format!("d{number}.example"), Found::Pass), [192, 0, 2, 1], false);
    }
    assert_eq!(house.reports().len(), most);
    // What has a report already still counts.
    house.note(&verdict("d0.example", Found::Pass), [192, 0, 2, 1], false);
    let messages: i64 = house.reports().iter().map(|report| report.messages).sum();
    assert_eq!(messages, store::REPORTS_MAX + 1);
}

#[test]
fn a_changed_policy_is_a_report_of_its_own() {
    let house = house();
    let mut judged = verdict("world.example", Found::Pass);
    house.note(&judged, [192, 0, 2, 1], false);
    if let Some(published) = judged.evidence.as_mut().and_then(|evidence| evidence.dmarc.reported.as_mut()) {
        published.strict_spf = true;
    }
    house.note(&judged, [192, 0, 2, 1], false);
    let reports = house.reports();
    assert_eq!(reports.len(), 2);
    let reporter = letter::Reporter { hostname: "home.example.org", domain: "example.org" };
    let names: Vec<_> = reports.iter().map(|report| letter::Name::of(report, reporter)).collect();
    assert!(names[0] != names[1] && names[0] == letter::Name::of(&reports[0], reporter));
}

#[test]
fn a_report_is_due_hours_after_its_day_and_gone_a_week_later() {
    let house = house();
    house.note(&verdict("world.example", Found::Pass), [192, 0, 2, 1], false);
    house.reports();
    let due = || house.reporting.inner.store.due(house.clock.unix_s()).expect("read").len();
    house.turn(DAY_S / 2 + 3600);
    assert_eq!(due(), 0, "it is one in the morning");
    house.turn(5 * 3600);
    assert_eq!(due(), 1);
    let pruned = || house.reporting.inner.store.prune(schedule::oldest_day(house.clock.unix_s())).expect("pruned");
    house.turn(schedule::KEPT_S - DAY_S);
    assert_eq!(pruned(), 0, "its last day");
    house.turn(DAY_S);
    assert_eq!(pruned(), 1, "it was never sent");
    assert!(house.reports().is_empty());
}

#[test]
fn each_address_takes_what_it_takes_and_the_message_is_well_formed() {
    let house = house();
    house.note(&verdict("world.example", Found::Pass), [192, 0, 2, 1], false);
    let [report] = house.reports().try_into().expect("one report");
    let destination = |address: &str, octets_max| Destination { address: address.to_owned(), octets_max };
    let made = |destinations: &[Destination]| house.reporting.letter(&report, destinations).expect("made");
    let all = [
        destination("a@world.example", None),
        destination("b@world.example", Some(500)),
        destination("no address", None),
        destination("c@world.example", Some(1 << 20)),
    ];
    let (letter, _) = made(&all).expect("some take it");
    let to: Vec<String> = letter.envelope.recipients.iter().map(|one| one.address.to_string()).collect();
    assert_eq!(to, ["a@world.example", "c@world.example"]);
    let text = String::from_utf8(letter.message).expect("text");
    assert!(!text.contains("b@world.example"), "{text}");
    assert!(text.contains("filename=\"example.org!world.example!1728000000!1728086399!"), "{text}");
    assert!(text.contains("To: <a@world.example>,\r\n <c@world.example>\r\n"), "{text}");
    assert!(text.split("\r\n").all(|line| line.len() < 200 && !line.contains('\n')), "{text}");
    assert!(made(&all[1..3]).is_none(), "nobody takes it");
    let (again, _) = made(&all).expect("made");
    assert_eq!((again.id, again.trace), (letter.id, letter.trace), "the same one has the same name");
}
