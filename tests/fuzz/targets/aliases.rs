//! What the owner and strangers write of aliases: return paths (SRS) and patterns.

use gatepost_protocol::mail::address::{Address, LocalPart};
use gatepost_protocol::mail::pattern::LocalPattern;
use gatepost_protocol::mail::srs::{Day, Origin, ReturnPath, SrsKey};

/// A return path is written as it is read, nobody forges one, and one we make leads back to its sender.
pub fn srs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (edge, home) = (SrsKey::new([1; 32]), SrsKey::new([2; 32]));
    let today = Day::of(0);
    if let Some(path) = LocalPart::parse(text).ok().and_then(|local| ReturnPath::parse(&local)) {
        assert!(!path.is_good(&edge, &home, today), "forged: {text}");
        let again = LocalPart::parse(&path.to_string()).expect("what was read is a local part");
        assert_eq!(ReturnPath::parse(&again), Some(path));
    }
    let Ok(sender) = Address::parse(text) else { return };
    let path = ReturnPath::new(Origin::of(&sender), today, &edge, &home);
    let Some(local) = path.local_part() else { return };
    let read = ReturnPath::parse(&local).expect("our own");
    assert!(read.is_good_at_edge([&edge], today) && read.is_good(&edge, &home, today), "{text}");
    assert!(!read.is_good(&edge, &edge, today) && !read.is_good(&home, &home, today));
    assert_eq!(read.origin(), path.origin());
    assert!(read.origin().address().is_some(), "{text} has no way back");
}

/// Any expression is refused or matches whatever comes, within its bounds; the first line is the expression.
pub fn pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (expression, local) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(pattern) = LocalPattern::parse(expression) {
        assert_eq!(pattern.as_str(), expression);
        assert_eq!(pattern.matches(local), pattern.matches(&local.to_ascii_uppercase()), "case counts: {text}");
    }
}
