//! How much an account may send: recipients elsewhere, in an hour and in a day. Whoever has stolen a
//! password, or the edge it is typed at, can't do worse than this. Counted in slots of five minutes, kept
//! in the database, so that a restart forgives nothing, by the steady time, so that no wrong date does, or forbids.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gatepost_protocol::mail::reply::Reply;
use gatepost_runtime::clock::{Clock, rfc3339};
use tokio::sync::watch;

use crate::database::{Database, DatabaseError};

/// Seconds of one slot.
const SLOT_S: i64 = 300;
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 24 * HOUR_S;
/// Slots kept of one account: a day's, and the one that has just begun.
#[expect(clippy::cast_possible_truncation, reason = "289")]
const SLOTS_MAX: usize = (DAY_S / SLOT_S) as usize + 1;

/// What one account may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// Recipients elsewhere in an hour.
    pub hourly: u32,
    /// Recipients elsewhere in a day.
    pub daily: u32,
}

/// A cap was hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverCap {
    /// Whose.
    pub login: String,
    /// `an hour` or `a day`.
    pub window: &'static str,
    /// What was allowed.
    pub limit: u32,
    /// When there is room again, seconds since 1970. `None`: never for so many at once.
    pub again_unix_s: Option<i64>,
}

impl OverCap {
    /// What its client is told.
    pub fn reply(&self) -> Reply {
        Reply::over_cap(self.limit, self.window, self.again_unix_s.map(rfc3339).as_deref())
    }
}

/// Recipients by slot, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Usage(VecDeque<(i64, u32)>);

impl Usage {
    /// Recipients since `window` seconds before `now`. What lies ahead (a database of before the steady time) counts.
    fn within(&self, now: i64, window: i64) -> u64 {
        self.recent(now, window).map(|(_, count)| u64::from(*count)).sum()
    }

    fn recent(&self, now: i64, window: i64) -> impl Iterator<Item = &(i64, u32)> {
        self.0.iter().filter(move |(slot, _)| slot + SLOT_S > now - window)
    }

    /// `None`: there is room for so many more. Else when there is, if ever.
    #[expect(clippy::option_option, reason = "no trouble, and trouble without an end, are two things")]
    fn room(&self, now: i64, window: i64, wanted: u64, limit: u32) -> Option<Option<i64>> {
        let over = (self.within(now, window) + wanted).saturating_sub(u64::from(limit));
        if over == 0 {
            return None;
        }
        if wanted > u64::from(limit) {
            return Some(None);
        }
        let mut freed = 0;
        let enough = self.recent(now, window).find(|(_, count)| {
            freed += u64::from(*count);
            freed >= over
        });
        Some(enough.map(|(slot, _)| slot + SLOT_S + window))
    }

    /// Counts them in the slot of `now`; gives that slot and its count.
    fn add(&mut self, now: i64, recipients: u32) -> (i64, u32) {
        let slot = now - now.rem_euclid(SLOT_S);
        while self.0.front().is_some_and(|(old, _)| old + SLOT_S <= now - DAY_S) || self.0.len() > SLOTS_MAX {
            self.0.pop_front();
        }
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == slot) {
            *count = count.saturating_add(recipients);
            (slot, *count)
        } else {
            let at = self.0.partition_point(|(known, _)| *known < slot);
            self.0.insert(at, (slot, recipients));
            (slot, recipients)
        }
    }

    fn take_back(&mut self, slot: i64, recipients: u32) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == slot) {
            *count = count.saturating_sub(recipients);
        }
    }
}

/// What every account has sent. Cheap to clone.
#[derive(Clone)]
pub struct Caps(Arc<Inner>);

struct Inner {
    database: Database,
    clock: Clock,
    usage: Mutex<HashMap<String, Usage>>,
    hits: watch::Sender<Option<OverCap>>,
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caps")
    }
}

/// Room for one message's recipients. Dropped, it is given back; [`Reserved::spend`] keeps it.
#[derive(Debug)]
#[must_use]
pub struct Reserved {
    caps: Caps,
    login: String,
    slot: i64,
    recipients: u32,
}

impl Caps {
    /// Reads what was sent in the last day. Blocking.
    pub fn open(database: Database, clock: Clock) -> Result<Self, DatabaseError> {
        let since = clock.steady_s() - DAY_S - SLOT_S;
        let rows = database.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT login, slot, recipients FROM sent WHERE slot > ?1 ORDER BY login, slot")?;
            let rows = statement.query_map([since], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(String, i64, u32)>>>()
        })?;
        let mut usage: HashMap<String, Usage> = HashMap::new();
        for (login, slot, recipients) in rows {
            usage.entry(login).or_default().0.push_back((slot, recipients));
        }
        let hits = watch::Sender::new(None);
        Ok(Self(Arc::new(Inner { database, clock, usage: Mutex::new(usage), hits })))
    }

    /// Room for so many recipients elsewhere, if the account may still write to them.
    pub fn reserve(&self, login: &str, recipients: usize, cap: Cap) -> Result<Reserved, OverCap> {
        let now = self.0.clock.steady_s();
        let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
        let mut usage = self.usage();
        let one = usage.entry(login.to_owned()).or_default();
        for (window, name, limit) in [(HOUR_S, "an hour", cap.hourly), (DAY_S, "a day", cap.daily)] {
            if let Some(again_s) = one.room(now, window, u64::from(recipients), limit) {
                let again_unix_s = again_s.map(|at| at.saturating_add(self.0.clock.date_ahead_ms() / 1000));
                let over = OverCap { login: login.to_owned(), window: name, limit, again_unix_s };
                drop(usage);
                self.0.hits.send_replace(Some(over.clone()));
                return Err(over);
            }
        }
        let (slot, _) = one.add(now, recipients);
        Ok(Reserved { caps: self.clone(), login: login.to_owned(), slot, recipients })
    }

    /// Recipients elsewhere in the last hour and in the last day.
    pub fn used(&self, login: &str) -> (u64, u64) {
        let now = self.0.clock.steady_s();
        let usage = self.usage();
        let used = |window| usage.get(login).map_or(0, |one| one.within(now, window));
        (used(HOUR_S), used(DAY_S))
    }

    /// Each cap that is hit from now on, the last one at least.
    pub fn hits(&self) -> watch::Receiver<Option<OverCap>> {
        self.0.hits.subscribe()
    }

    fn usage(&self) -> MutexGuard<'_, HashMap<String, Usage>> {
        self.0.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved {
    /// The message is kept: so is its count.
    pub fn spend(mut self) {
        let recipients = std::mem::take(&mut self.recipients);
        if recipients == 0 {
            return;
        }
        let (login, slot) = (self.login.clone(), self.slot);
        self.caps.0.database.write_lazily(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO sent VALUES (?1, ?2, ?3) \
                     ON CONFLICT DO UPDATE SET recipients = recipients + excluded.recipients",
                )?
                .execute((&login, slot, recipients))?;
            connection
                .prepare_cached("DELETE FROM sent WHERE login = ?1 AND slot < ?2")?
                .execute((&login, slot - DAY_S - SLOT_S))
                .map(|_| ())
        });
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.recipients > 0
            && let Some(one) = self.caps.usage().get_mut(&self.login)
        {
            one.take_back(self.slot, self.recipients);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CAP: Cap = Cap { hourly: 10, daily: 25 };
    const NOON: u64 = 1_795_176_000;

    fn caps() -> (tempfile::TempDir, Clock, Caps) {
        let state = tempfile::tempdir().expect("a folder");
        let clock = Clock::still(Duration::from_secs(NOON));
        let caps = Caps::open(Database::open(state.path()).expect("opened"), clock.clone()).expect("read");
        (state, clock, caps)
    }

    fn send(caps: &Caps, recipients: usize) -> Result<(), OverCap> {
        caps.reserve("alice", recipients, CAP).map(Reserved::spend)
    }

    #[test]
    fn so_many_an_hour_and_so_many_a_day() {
        let (_state, clock, caps) = caps();
        send(&caps, 10).expect("up to the limit");
        let over = send(&caps, 1).expect_err("one over");
        assert_eq!((over.window, over.limit), ("an hour", 10));
        let again = over.again_unix_s.expect("some time");
        clock.turn(Duration::from_secs(u64::try_from(again).expect("late") - NOON - 1));
        send(&caps, 1).expect_err("a second too early");
        clock.turn(Duration::from_secs(1));
        send(&caps, 10).expect("as was said");
        clock.turn(Duration::from_hours(2));
        let over = send(&caps, 6).expect_err("a day's is a day's");
        assert_eq!((over.window, over.limit), ("a day", 25));
        send(&caps, 5).expect("up to the limit");
        assert_eq!(caps.used("alice"), (5, 25));
        assert_eq!(caps.used("bob"), (0, 0));
        assert_eq!(caps.hits().borrow().as_ref().map(|over| over.window), Some("a day"));
    }

    #[test]
    fn what_can_never_fit_is_said_so() {
        let (_state, _clock, caps) = caps();
        assert_eq!(send(&caps, 11).expect_err("too many at once").again_unix_s, None);
    }

    #[test]
    fn what_was_not_kept_is_not_counted() {
        let (_state, _clock, caps) = caps();
        drop(caps.reserve("alice", 10, CAP).expect("room"));
        assert_eq!(caps.used("alice"), (0, 0));
        send(&caps, 10).expect("room again");
    }

    #[test]
    fn a_restart_forgives_nothing_and_a_clock_set_back_neither() {
        let (state, clock, caps) = caps();
        send(&caps, 7).expect("room");
        // Lazy: durable with a later commit, such as this one.
        caps.0.database.write(|_| Ok(())).wait().expect("committed");
        let again = Caps::open(Database::open(state.path()).expect("opened"), clock.clone()).expect("read");
        assert_eq!(again.used("alice"), (7, 7));
        let back = Clock::still(Duration::from_secs(NOON - 86_400 * 3));
        let back = Caps::open(Database::open(state.path()).expect("opened"), back).expect("read");
        assert_eq!(back.used("alice"), (7, 7));
    }

    #[test]
    fn a_date_that_jumps_forgives_nothing_and_blocks_nobody() {
        let (state, clock, _) = caps();
        let noon_ms = i64::try_from(NOON).expect("small") * 1000;
        let clock = clock.anchored(noon_ms);
        let caps = Caps::open(Database::open(state.path()).expect("opened"), clock.clone()).expect("read");
        send(&caps, 10).expect("up to the limit");
        let year = Duration::from_hours(365 * 24);
        for wrong in [Duration::from_secs(NOON) + 30 * year, Duration::ZERO] {
            clock.jump(wrong);
            let again = send(&caps, 1).expect_err("forgives nothing").again_unix_s.expect("some time");
            assert!((0..=3600 + SLOT_S).contains(&(again - clock.unix_s())), "told by the date they see");
        }
        clock.turn(Duration::from_mins(65));
        send(&caps, 10).expect("an hour has passed");
    }

    #[test]
    fn an_account_holds_a_days_slots_and_no_more() {
        let (_state, clock, caps) = caps();
        for _ in 0..1000 {
            caps.reserve("alice", 1, Cap { hourly: 1000, daily: 10_000 }).expect("room").spend();
            clock.turn(Duration::from_secs(301));
        }
        assert!(caps.usage()["alice"].0.len() <= SLOTS_MAX);
    }
}
