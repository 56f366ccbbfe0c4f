use proptest::prelude::*;

use super::*;

const TODAY: Day = Day(100);

fn key(n: u8) -> SrsKey {
    SrsKey::new([n; 32])
}

fn address(text: &str) -> Address {
    Address::parse(text).expect("valid")
}

fn made(sender: &str) -> ReturnPath {
    ReturnPath::new(Origin::of(&address(sender)), TODAY, &key(1), &key(2))
}

fn read(text: &str) -> Option<ReturnPath> {
    ReturnPath::parse(&LocalPart::parse(text).expect("a local part"))
}

#[test]
fn is_written_as_others_write_it() {
    let text = made("alice@example.com").to_string();
    let fields: Vec<&str> = text.split('=').collect();
    assert_eq!(
        (fields[0], fields[1].len(), fields[2], fields[3], fields[4]),
        ("SRS0", 10, "DE", "example.com", "alice")
    );
    let text = made("SRS0=HHHH=TT=source.example=user@first.example").to_string();
    let (start, rest) = text.split_once("=first.example=").expect("the first forwarder");
    assert_eq!(rest, "=HHHH=TT=source.example=user");
    assert_eq!((start.len(), start.ends_with("DE")), ("SRS1=".len() + 12, true));
}

/// Vectors made by the algorithm of libsrs2 (`srs_compile_guarded`, `srs_parse_guarded`), with `+` and `-` too.
#[test]
fn what_others_rewrote_goes_back_to_the_first_of_them() {
    for (sender, back) in [
        ("alice@example.com", "alice@example.com"),
        ("a=b=c@example.com", "a=b=c@example.com"),
        ("SRS0=HHHH=TT=source.example=user@first.example", "SRS0=HHHH=TT=source.example=user@first.example"),
        ("srs0+HHHH=TT=source.example=user@first.example", "SRS0+HHHH=TT=source.example=user@first.example"),
        ("SRS1=GGGG=first.example==HHHH=TT=s.example=u@second.example", "SRS0=HHHH=TT=s.example=u@first.example"),
        ("SRS1+GGGG=first.example=-HHHH=TT=s.example=u@second.example", "SRS0-HHHH=TT=s.example=u@first.example"),
        // Not what it seems: kept as it is.
        ("SRS1=GGGG@second.example", "SRS1=GGGG@second.example"),
        ("SRS0@example.com", "SRS0@example.com"),
    ] {
        let path = made(sender);
        let again = read(&path.to_string()).expect(sender);
        assert_eq!(again, path, "{sender}");
        assert_eq!(again.origin().address(), Some(address(back)), "{sender}");
    }
}

#[test]
fn an_edge_knows_what_is_forged_and_can_make_nothing_the_home_believes() {
    let path = made("alice@example.com");
    assert!(path.is_good_at_edge([&key(9), &key(1)], TODAY) && path.is_good(&key(1), &key(2), TODAY));
    assert!(!path.is_good_at_edge([&key(2)], TODAY) && !path.is_good_at_edge([], TODAY));
    let stolen = ReturnPath::new(path.origin().clone(), TODAY, &key(1), &key(1));
    assert!(stolen.is_good_at_edge([&key(1)], TODAY) && !stolen.is_good(&key(1), &key(2), TODAY));
    let other = ReturnPath { origin: Origin::of(&address("bob@example.com")), ..path };
    assert!(!other.is_good_at_edge([&key(1)], TODAY));
}

#[test]
fn expires_after_three_weeks_also_across_the_turn_of_the_count() {
    for made_on in [100, 1020, 0] {
        let path = ReturnPath::new(Origin::of(&address("a@x.example")), Day(made_on), &key(1), &key(2));
        for (after, good) in [(0, true), (LIFETIME_DAYS, true), (LIFETIME_DAYS + 1, false), (500, false)] {
            let today = Day((made_on + after) % DAYS);
            assert_eq!(path.is_good(&key(1), &key(2), today), good, "{made_on} {after}");
            assert_eq!(path.is_good_at_edge([&key(1)], today), good);
        }
        let yesterday = Day((made_on + DAYS - SKEW_DAYS) % DAYS);
        assert!(path.is_good(&key(1), &key(2), yesterday), "a clock may be a day behind");
        assert!(!path.is_good(&key(1), &key(2), Day((made_on + DAYS - SKEW_DAYS - 1) % DAYS)));
    }
    assert_eq!(Day::of(1024 * 86_400), Day(0));
    assert_eq!(Day::of(-1), Day(1023));
}

#[test]
fn what_does_not_fit_must_be_kept() {
    let fits = |sender: &str| made(sender).local_part().is_some();
    let domain = "example.com";
    let room = OWN_LOCAL_PART_OCTETS_MAX - "SRS0=HHHHHHHHHH=TT=".len() - domain.len() - 1;
    assert!(fits(&format!("{}@{domain}", "a".repeat(room))));
    assert!(!fits(&format!("{}@{domain}", "a".repeat(room + 1))));
    for odd in ["\"a b\"@x.example", "jörg@x.example", "a@[192.0.2.1]", "a..b@x.example", "a.@x.example"] {
        assert!(!fits(odd), "{odd}");
    }
    let kept = ReturnPath::new(Origin::Kept { id: "abc234".into() }, TODAY, &key(1), &key(2));
    let again = ReturnPath::parse(&kept.local_part().expect("short")).expect("ours");
    assert_eq!((again.origin().address(), again.is_good(&key(1), &key(2), TODAY)), (None, true));
}

#[test]
fn other_forms_are_none_of_ours() {
    for text in [
        "alice",
        "SRS0=",
        "SRS0=HHHH=TT=x.example=a",
        "SRS0=HHHHHHHHHH=TT=x.example=",
        "SRS0=HHHHHHHHHH=T1=x.example=a",
        "SRS0=HHHHHHHHH1=TT=x.example=a",
        "SRS0=HHHHHHHHHH=TT=x..example=a",
        "SRS1=HHHHHHHHHH=x.example==a",
        "SRS1=HHHHHHHHHHTT=x.example=a",
        "SRS1=HHHHHHHHHHTT=x.example==",
        "SRS2=HHHHHHHHHH=TT=x.example=a",
        "SRS0ü=",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    for (text, like) in [("SRS0=x", true), ("srs1+x", true), ("srs0x", false), ("srs", false), ("SRS0", false)] {
        assert_eq!(ReturnPath::is_like(&LocalPart::parse(text).expect("a local part")), like, "{text}");
    }
}

proptest! {
    #[test]
    fn any_sender_comes_back_whatever_became_of_its_case(
        local in "[a-z0-9=+._-]{1,30}", domain in "[a-z]{1,10}\\.[a-z]{2,5}", day in 0..DAYS, upper: bool
    ) {
        let Ok(sender) = Address::parse(&format!("{local}@{domain}")) else { return Ok(()) };
        let path = ReturnPath::new(Origin::of(&sender), Day(day), &key(1), &key(2));
        let Some(written) = path.local_part() else { return Ok(()) };
        let changed = if upper { written.as_str().to_uppercase() } else { written.as_str().to_lowercase() };
        let again = read(&changed).expect("ours");
        prop_assert!(again.is_good(&key(1), &key(2), Day(day)) && again.is_good_at_edge([&key(1)], Day(day)));
        let back = again.origin().address().expect("an address");
        prop_assert_eq!(back.lookup_key(), path.origin().address().expect("an address").lookup_key());
    }

    #[test]
    fn one_letter_changed_is_a_forgery(place in 0..60usize, letter in "[a-z2-7]") {
        let path = made("alice.of.wonderland@example.com").to_string();
        let place = place % path.len();
        let mut forged = path.clone();
        forged.replace_range(place..=place, &letter);
        if let Some(found) = LocalPart::parse(&forged).ok().and_then(|local| ReturnPath::parse(&local)) {
            prop_assert_eq!(found.is_good(&key(1), &key(2), TODAY), forged.eq_ignore_ascii_case(&path));
        }
    }

    #[test]
    fn any_text_is_refused_or_written_back(text in "(?i:SRS[01])[=+-].{0,60}") {
        if let Some(path) = LocalPart::parse(&text).ok().and_then(|local| ReturnPath::parse(&local)) {
            prop_assert_eq!(ReturnPath::parse(&LocalPart::parse(&path.to_string()).expect("a local part")), Some(path));
        }
    }
}

#[test]
fn a_first_forwarder_in_capitals_is_the_same_one() {
    let sender = Address::parse("SRS1=HHHH=First.EXAMPLE==KHce=alice@second.example").expect("valid");
    let (edge, home) = (SrsKey::new([1; 32]), SrsKey::new([2; 32]));
    let path = ReturnPath::new(Origin::of(&sender), Day::of(0), &edge, &home);
    let read = ReturnPath::parse(&path.local_part().expect("short enough")).expect("our own");
    assert_eq!(read.origin(), path.origin());
}
