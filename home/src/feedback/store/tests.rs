use gatepost_protocol::mail::report::{DkimResult, Metadata, Published, Reason};

use super::*;

const DAY: i64 = 24 * 3600;

fn store() -> (tempfile::TempDir, Store) {
    let state = tempfile::tempdir().expect("a folder");
    let store = Store::new(Database::open(state.path()).expect("opened"));
    (state, store)
}

fn report(id: &str, rows: usize) -> Aggregate {
    let signed = |domain: &str, found| DkimResult { domain: domain.into(), selector: None, found };
    let row = Row {
        source: [198, 51, 100, 7].into(),
        count: 2,
        disposition: Disposition::Quarantine,
        dkim: true,
        spf: false,
        reasons: vec![Reason { kind: ReasonKind::MailingList, comment: Some("x".into()) }],
        header_from: "example.org".into(),
        envelope_from: None,
        envelope_to: None,
        dkim_results: vec![
            signed("example.org", Found::Pass),
            signed("bad.example", Found::Fail),
            signed("a b.example", Found::Pass),
            signed("example.org", Found::Pass),
        ],
        spf_results: Vec::new(),
    };
    Aggregate {
        metadata: Metadata {
            organisation: "Receiver".into(),
            id: id.into(),
            begin_unix_s: DAY,
            end_unix_s: 2 * DAY,
            ..Metadata::default()
        },
        published: Published { domain: "example.org".into(), ..Published::default() },
        rows: vec![row; rows],
    }
}

fn all() -> Wanted {
    Wanted { since_unix_s: 0, domain: None }
}

fn seen(store: &Store, wanted: &Wanted) -> Vec<Seen> {
    let mut rows = Vec::new();
    store.read(wanted, |seen| rows.push(seen)).expect("read");
    rows
}

fn reports(store: &Store) -> Vec<(String, u64)> {
    let reporters = store.reporters(&all(), 10).expect("read");
    reporters.into_iter().map(|reporter| (reporter.domain, reporter.reports)).collect()
}

#[test]
fn what_is_kept_is_there_once_and_as_it_was() {
    let (_state, store) = store();
    let keep = |reporter: &str, id: &str| {
        store.keep_aggregate(reporter, report(id, 1), 3, (10 * DAY, 10 * DAY)).expect("kept")
    };
    assert_eq!(keep("a.example", "1"), Kept::Now);
    assert_eq!(keep("a.example", "1"), Kept::Before);
    // Of another reporter, or another report.
    assert_eq!((keep("b.example", "1"), keep("a.example", "2")), (Kept::Now, Kept::Now));
    assert_eq!(reports(&store), [("a.example".to_owned(), 2), ("b.example".to_owned(), 1)]);
    let rows = seen(&store, &all());
    assert_eq!(rows.len(), 3);
    let expected = Seen {
        reporter: "a.example".into(),
        source: [198, 51, 100, 7].into(),
        count: 2,
        disposition: Disposition::Quarantine,
        dkim: true,
        spf: false,
        header_from: "example.org".into(),
        reasons: vec![ReasonKind::MailingList],
        signers: vec!["example.org".into(), "ab.example".into()],
    };
    assert_eq!(rows[0], expected);
    let first = &store.reporters(&all(), 1).expect("read")[0];
    assert_eq!((first.organisation.as_str(), first.left_out), ("Receiver", 6));
    assert_eq!((first.begin_unix_s, first.end_unix_s), (DAY, 2 * DAY));
    for (since_unix_s, domain, count) in
        [(2 * DAY - 1, None, 3), (2 * DAY, None, 0), (0, Some("example.org"), 3), (0, Some("example.net"), 0)]
    {
        let wanted = Wanted { since_unix_s, domain: domain.map(str::to_owned) };
        assert_eq!(seen(&store, &wanted).len(), count, "{wanted:?}");
    }
}

#[test]
fn a_report_from_the_future_is_of_today() {
    let (_state, store) = store();
    let mut late = report("1", 1);
    late.metadata.end_unix_s = i64::MAX;
    late.metadata.begin_unix_s = i64::MAX;
    store.keep_aggregate("a.example", late.clone(), 0, (5 * DAY, 5 * DAY)).expect("kept");
    late.metadata = Metadata { id: "2".into(), end_unix_s: -1, ..Metadata::default() };
    store.keep_aggregate("a.example", late.clone(), 0, (5 * DAY, 5 * DAY)).expect("kept");
    let reporter = &store.reporters(&all(), 1).expect("read")[0];
    assert_eq!((reporter.reports, reporter.end_unix_s), (2, 5 * DAY));
}

#[test]
fn what_is_old_goes_with_its_rows() {
    let (_state, store) = store();
    for n in 0..=PRUNED_MAX * 2 {
        let at = i64::try_from(n).expect("small");
        store.keep_aggregate("a.example", report(&n.to_string(), 2), 0, (10 * DAY, at)).expect("kept");
        store.keep_failure("a.example", "example.org", Failure::default(), (10 * DAY, at)).expect("kept");
    }
    let newest = i64::try_from(PRUNED_MAX * 2).expect("small");
    assert_eq!(store.prune(KEPT_S).expect("pruned"), 0);
    assert_eq!(store.prune(KEPT_S + newest).expect("pruned"), PRUNED_MAX * 4);
    assert_eq!((reports(&store), seen(&store, &all()).len()), (vec![("a.example".to_owned(), 1)], 2));
    assert_eq!(store.failures(&all(), 10).expect("read").len(), 1);
}

#[test]
fn a_flood_drives_out_itself_and_nobody_else() {
    let (_state, mut store) = store();
    store.bounds = Bounds { rows: 20, reports: 8, failures: 5 };
    let now = (10 * DAY, 10 * DAY);
    store.keep_aggregate("honest.example", report("1", 3), 0, now).expect("kept");
    store.keep_failure("honest.example", "example.org", Failure::default(), now).expect("kept");
    for n in 0..30 {
        store.keep_aggregate("flood.example", report(&n.to_string(), 5), 0, now).expect("kept");
        store.keep_aggregate("empty.example", report(&n.to_string(), 0), 0, now).expect("kept");
        store.keep_failure("flood.example", "example.org", Failure::default(), now).expect("kept");
    }
    let kept = reports(&store);
    assert!(kept.contains(&("honest.example".to_owned(), 1)), "{kept:?}");
    assert_eq!(kept.iter().map(|(_, count)| count).sum::<u64>(), 8);
    assert!(seen(&store, &all()).len() <= 20);
    let failures = store.failures(&all(), 10).expect("read");
    assert_eq!(failures.iter().filter(|failure| failure.reporter == "honest.example").count(), 1);
    assert_eq!(failures.len(), 5);
}

#[test]
fn a_report_of_a_single_message_is_kept_as_it_was() {
    let (_state, store) = store();
    let failure = Failure {
        kind: "auth-failure".into(),
        failed: Some("dkim".into()),
        domain: None,
        source: Some([192, 0, 2, 1].into()),
        envelope_from: Some("x@forger.example".into()),
        header_from: Some("example.org".into()),
        delivery: Some("reject".into()),
        aligned: None,
        incidents: u64::MAX,
    };
    store.keep_failure("a.example", "example.org", failure.clone(), (5, 6)).expect("kept");
    let kept = &store.failures(&all(), 10).expect("read")[0];
    assert_eq!((kept.reporter.as_str(), kept.domain.as_str(), kept.received_unix_s), ("a.example", "example.org", 5));
    assert_eq!(kept.failure, Failure { incidents: u64::try_from(i64::MAX).expect("positive"), ..failure });
    let elsewhere = Wanted { since_unix_s: 0, domain: Some("example.net".into()) };
    assert!(store.failures(&elsewhere, 10).expect("read").is_empty());
}
