//! How secure mail to each domain usually is, learnt by sending: so that a domain which had TLS and suddenly has none is
//! noticed. Kept as a text a person can read, a line a domain; a line that makes no sense is passed over. Pure; time is
//! the steady time.

use std::collections::HashMap;
use std::fmt::Write as _;

use gatepost_protocol::mail::address::Domain;
use gatepost_protocol::mail::demand::Floor;

/// The first line: what the file is, and its version.
const HEAD: &str = "gatepost usual security 1";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// So often it must have been had to be usual.
const TIMES: u8 = 3;
/// So long after it was had last it is usual no more, though mail went.
const MISSED_MS: i64 = 7 * DAY_MS;
/// So long after the last mail a domain is forgotten.
const REMEMBERED_MS: i64 = 400 * DAY_MS;
/// Domains remembered; then those that got mail least lately make room, a tenth at once.
const DOMAINS_MAX: usize = 5000;
const ROOM_SHARE: usize = 10;
/// Octets of the file that are read at most.
pub const OCTETS_MAX: u64 = 2 * 1024 * 1024;

/// How secure one message's way was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Without TLS.
    Clear,
    /// With any certificate.
    Encrypted,
    /// Somebody vouched for the host.
    Vouched,
}

impl Level {
    /// What must be demanded to have it again.
    pub fn floor(self) -> Floor {
        match self {
            Self::Clear => Floor::None,
            Self::Encrypted => Floor::Encrypt,
            Self::Vouched => Floor::Verify,
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Clear => "no TLS",
            Self::Encrypted => "TLS",
            Self::Vouched => "verified TLS",
        }
    }
}

/// What one more message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new.
    Nothing,
    /// Something worth writing down.
    Learnt,
    /// It went less securely than is usual.
    Lower(Level),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// How often TLS was had, and how often somebody vouched; no more than counts.
    times: [u8; 2],
    /// When what is usual was missed first.
    missed_ms: Option<i64>,
    /// The last mail, to the day.
    last_ms: i64,
}

/// All domains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usual(HashMap<Box<str>, Seen>);

/// A file that is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not begin with {HEAD:?}")]
pub struct NotUsual;

impl Seen {
    fn usual(self) -> Level {
        match self.times {
            [_, vouched] if vouched >= TIMES => Level::Vouched,
            [encrypted, _] if encrypted >= TIMES => Level::Encrypted,
            _ => Level::Clear,
        }
    }
}

impl Usual {
    /// What mail to this domain usually has.
    pub fn of(&self, domain: &Domain) -> Level {
        self.0.get(domain.as_str()).map_or(Level::Clear, |seen| seen.usual())
    }

    /// A message was handed over so.
    pub fn had(&mut self, domain: &Domain, level: Level, now_ms: i64) -> Heard {
        let new = Seen { times: [0; 2], missed_ms: None, last_ms: now_ms };
        if !self.0.contains_key(domain.as_str()) {
            self.make_room();
        }
        let seen = self.0.entry(domain.as_str().into()).or_insert(new);
        let before = *seen;
        if now_ms.saturating_sub(seen.last_ms) >= DAY_MS {
            seen.last_ms = now_ms;
        }
        let usual = seen.usual();
        let reached = [level >= Level::Encrypted, level >= Level::Vouched];
        for (times, reached) in seen.times.iter_mut().zip(reached) {
            *times = times.saturating_add(u8::from(reached)).min(TIMES);
        }
        if level >= usual {
            seen.missed_ms = None;
        } else {
            let since = *seen.missed_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(since) < MISSED_MS {
                return Heard::Lower(usual);
            }
            // It has changed for good, and was told often enough.
            seen.missed_ms = None;
            for (times, reached) in seen.times.iter_mut().zip(reached) {
                *times = if reached { *times } else { 0 };
            }
        }
        if *seen == before && before != new { Heard::Nothing } else { Heard::Learnt }
    }

    fn make_room(&mut self) {
        if self.0.len() >= DOMAINS_MAX {
            let mut moments: Vec<i64> = self.0.values().map(|seen| seen.last_ms).collect();
            let place = moments.len() / ROOM_SHARE;
            let cut = *moments.select_nth_unstable(place).1;
            self.0.retain(|_, seen| seen.last_ms > cut);
        }
    }

    /// The text.
    pub fn write(&self, now_ms: i64) -> String {
        let is_known = |seen: &Seen| now_ms.saturating_sub(seen.last_ms) < REMEMBERED_MS;
        let mut kept: Vec<_> = self.0.iter().filter(|(_, seen)| is_known(seen)).collect();
        kept.sort_by_key(|(domain, _)| (*domain).clone());
        let mut text = format!("{HEAD}\n");
        for (domain, Seen { times: [encrypted, vouched], missed_ms, last_ms }) in kept {
            let missed = missed_ms.map_or_else(|| "-".to_owned(), |missed| missed.to_string());
            // Writing to a string can't fail.
            let _ = writeln!(text, "{domain} {encrypted} {vouched} {missed} {last_ms}");
        }
        text
    }

    /// Reads it; how many lines made no sense, too. Nothing was seen later than now.
    pub fn read(text: &str, now_ms: i64) -> Result<(Self, usize), NotUsual> {
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(NotUsual);
        }
        let (mut usual, mut damaged) = (Self::default(), 0);
        for line in lines {
            match parse(line) {
                Some((domain, seen)) if usual.0.len() < DOMAINS_MAX => {
                    let missed_ms = seen.missed_ms.map(|missed| missed.min(now_ms));
                    usual.0.insert(domain, Seen { missed_ms, last_ms: seen.last_ms.min(now_ms), ..seen });
                }
                _ => damaged += 1,
            }
        }
        Ok((usual, damaged))
    }
}

fn parse(line: &str) -> Option<(Box<str>, Seen)> {
    let mut words = line.split(' ');
    let domain = Domain::parse(words.next()?).ok()?.as_str().into();
    let times = [words.next()?.parse::<u8>().ok()?.min(TIMES), words.next()?.parse::<u8>().ok()?.min(TIMES)];
    let missed_ms = match words.next()? {
        "-" => None,
        missed => Some(missed.parse().ok()?),
    };
    let last_ms = words.next()?.parse().ok()?;
    words.next().is_none().then_some((domain, Seen { times, missed_ms, last_ms }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn domain(name: &str) -> Domain {
        Domain::parse(name).expect("valid")
    }

    #[test]
    fn what_was_had_three_times_is_usual_and_missing_it_is_noticed() {
        let (mut usual, bank) = (Usual::default(), domain("bank.example"));
        assert_eq!(usual.had(&bank, Level::Clear, 0), Heard::Learnt);
        for _ in 0..3 {
            assert_eq!(usual.had(&bank, Level::Encrypted, 0), Heard::Learnt);
        }
        assert_eq!(usual.of(&bank), Level::Encrypted);
        assert_eq!(usual.had(&bank, Level::Encrypted, 0), Heard::Nothing);
        assert_eq!(usual.had(&bank, Level::Vouched, 0), Heard::Learnt);
        assert_eq!(usual.had(&bank, Level::Encrypted, 0), Heard::Nothing, "once is not yet usual");
        usual.had(&bank, Level::Vouched, 0);
        usual.had(&bank, Level::Vouched, 0);
        assert_eq!(usual.had(&bank, Level::Encrypted, 1), Heard::Lower(Level::Vouched));
        assert_eq!(usual.had(&bank, Level::Clear, 2), Heard::Lower(Level::Vouched));
        assert_eq!(usual.of(&bank), Level::Vouched, "one bad day changes nothing");
        assert_eq!(usual.of(&domain("other.example")), Level::Clear);
    }

    #[test]
    fn what_stays_away_for_a_week_of_mail_is_usual_no_more() {
        let (mut usual, bank) = (Usual::default(), domain("bank.example"));
        for _ in 0..3 {
            usual.had(&bank, Level::Vouched, 0);
        }
        assert_eq!(usual.had(&bank, Level::Encrypted, DAY_MS), Heard::Lower(Level::Vouched));
        assert_eq!(usual.had(&bank, Level::Encrypted, DAY_MS + MISSED_MS), Heard::Learnt);
        assert_eq!(usual.of(&bank), Level::Encrypted);
        assert_eq!(usual.had(&bank, Level::Clear, 2 * DAY_MS + MISSED_MS), Heard::Lower(Level::Encrypted));
        assert_eq!(usual.had(&bank, Level::Encrypted, 3 * DAY_MS + MISSED_MS), Heard::Learnt, "it is back");
        assert_eq!(
            usual.had(&bank, Level::Clear, 3 * DAY_MS + 2 * MISSED_MS),
            Heard::Lower(Level::Encrypted),
            "and counted anew"
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let mut usual = Usual::default();
        for name in ["a.example", "b.example"] {
            for _ in 0..3 {
                usual.had(&domain(name), Level::Vouched, 5 * DAY_MS);
            }
        }
        usual.had(&domain("b.example"), Level::Clear, 6 * DAY_MS);
        let text = usual.write(7 * DAY_MS);
        let (read, damaged) = Usual::read(&format!("{text}nonsense\n"), 7 * DAY_MS).expect("ours");
        assert_eq!((read, damaged), (usual.clone(), 1));
        assert_eq!(usual.write(500 * DAY_MS), format!("{HEAD}\n"), "what got no mail for long is forgotten");
        assert_eq!(Usual::read("", 0), Err(NotUsual));
    }

    #[test]
    fn who_got_mail_least_lately_makes_room() {
        let mut usual = Usual::default();
        for number in 0..=DOMAINS_MAX {
            let moment = i64::try_from(number).expect("small") * DAY_MS;
            usual.had(&domain(&format!("d{number}.example")), Level::Encrypted, moment);
        }
        assert!(usual.0.len() <= DOMAINS_MAX && usual.0.len() > DOMAINS_MAX / 2);
        assert!(usual.0.contains_key(&*format!("d{DOMAINS_MAX}.example")) && !usual.0.contains_key("d0.example"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
            let _ = Usual::read(&text, 0);
            let _ = Usual::read(&format!("{HEAD}\n{text}"), 0);
        }
    }
}
