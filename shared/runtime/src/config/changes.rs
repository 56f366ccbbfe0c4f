//! What differs between two configs, a line each, as `reload` tells it: compared as values, never as text.
//! A program's comparison takes its config apart field by field, so that the compiler asks for each new setting.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{error, info};

use super::ConfigError;
use crate::certificate::CertificateError;

/// Where a config came from, to read it again the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// The file.
    pub path: PathBuf,
    /// `--state`, which wins over the file's.
    pub state: Option<PathBuf>,
}

impl ConfigFile {
    /// Of a file, and `--state` if it was given.
    pub fn new(path: &Path, state: Option<&Path>) -> Self {
        Self { path: path.to_owned(), state: state.map(Path::to_owned) }
    }

    /// The words for a certificate of its that can't be served.
    pub fn certificate_error(&self, error: &CertificateError) -> ConfigError {
        ConfigError(format!("{}: [tls] {error}", self.path.display()))
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which setting, and how it changed. Never a secret.
    pub what: String,
    /// It does not count before the program is started again.
    pub needs_restart: bool,
}

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if self.needs_restart { f.write_str(" (needs a restart)") } else { Ok(()) }
    }
}

/// Tells the log what became of a reload.
pub fn log<E: Display>(reloaded: &Result<Vec<Change>, E>) {
    match reloaded {
        Ok(changes) if changes.is_empty() => info!("config reloaded: nothing has changed"),
        Ok(changes) => {
            for change in changes {
                info!(%change, "config reloaded");
            }
        }
        Err(error) => error!(%error, "the config was not taken, the one before it stays in force"),
    }
}

/// Differences, in the order they were looked at.
#[derive(Debug, Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// A setting that counts at once, shown by its old and new value.
    pub fn setting<T: PartialEq + Shown>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.tell(format!("{name}: {} -> {}", old.shown(), new.shown()));
        }
    }

    /// A setting whose values are too long, or too secret, to be shown.
    pub fn unshown<T: PartialEq>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.tell(format!("{name}: changed"));
        }
    }

    /// A setting that can't change while the program runs.
    pub fn fixed<T: PartialEq + Shown>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            let what = format!("{name}: {} -> {}", old.shown(), new.shown());
            self.0.push(Change { what, needs_restart: true });
        }
    }

    /// Tables that are known by a name: which came, went, or are not what they were; `differences` tells of one that
    /// stayed what is different, or nothing.
    pub fn named<T>(
        &mut self,
        kind: &str,
        old: &[T],
        new: &[T],
        name: impl Fn(&T) -> &str,
        differences: impl Fn(&T, &T) -> Vec<String>,
    ) {
        let find = |list: &[T], wanted: &str| list.iter().position(|one| name(one) == wanted);
        for gone in old.iter().filter(|one| find(new, name(one)).is_none()) {
            self.tell(format!("{kind} {}: removed", name(gone)));
        }
        for one in new {
            match find(old, name(one)) {
                None => self.tell(format!("{kind} {}: added", name(one))),
                Some(place) => {
                    for what in differences(&old[place], one) {
                        self.tell(format!("{kind} {}: {what}", name(one)));
                    }
                }
            }
        }
    }

    /// Anything else.
    pub fn tell(&mut self, what: String) {
        self.0.push(Change { what, needs_restart: false });
    }

    /// All of them.
    pub fn into_vec(self) -> Vec<Change> {
        self.0
    }
}

/// A value as a person would write it.
pub trait Shown {
    /// Its text.
    fn shown(&self) -> String;
}

macro_rules! shown_as_printed {
    ($($kind:ty),*) => {
        $(impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        })*
    };
}

shown_as_printed!(
    bool,
    i32,
    u32,
    u64,
    usize,
    String,
    std::net::SocketAddr,
    gatepost_protocol::mail::address::Domain,
    gatepost_protocol::mail::address::Address,
    gatepost_protocol::pairing::NodeKey
);

impl Shown for char {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.display().to_string()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        let (seconds, millis) = (self.as_secs(), self.subsec_millis());
        for (unit, length) in [("d", 86_400), ("h", 3600), ("min", 60)] {
            if millis == 0 && seconds >= length && seconds.is_multiple_of(length) {
                return format!("{} {unit}", seconds / length);
            }
        }
        if millis == 0 { format!("{seconds} s") } else { format!("{} ms", self.as_millis()) }
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "off".to_owned(), Shown::shown)
    }
}

impl<T: Shown> Shown for Vec<T> {
    fn shown(&self) -> String {
        let all: Vec<String> = self.iter().map(Shown::shown).collect();
        format!("[{}]", all.join(", "))
    }
}

/// Octets, as sizes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Octets(pub u64);

impl Shown for Octets {
    fn shown(&self) -> String {
        for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return format!("{} {unit}", self.0 >> shift);
            }
        }
        format!("{} octets", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_as_they_are_written() {
        for (value, text) in [
            (Duration::from_secs(90).shown(), "90 s"),
            (Duration::from_mins(2).shown(), "2 min"),
            (Duration::from_hours(720).shown(), "30 d"),
            (Duration::from_millis(1500).shown(), "1500 ms"),
            (Octets(10 << 30).shown(), "10 GiB"),
            (Octets(1500).shown(), "1500 octets"),
            (Octets(0).shown(), "0 octets"),
            (vec![1u64, 2].shown(), "[1, 2]"),
            (None::<char>.shown(), "off"),
            (Some('+').shown(), "'+'"),
        ] {
            assert_eq!(value, text);
        }
    }

    #[test]
    fn only_what_differs_is_told_and_what_is_fixed_says_so() {
        let mut changes = Changes::default();
        changes.setting("limits.relays", &50usize, &50);
        changes.setting("limits.relays", &50usize, &7);
        changes.fixed("state", &PathBuf::from("/a"), &PathBuf::from("/b"));
        changes.unshown("route", &1, &2);
        let (old, new) = ([("a", 1), ("b", 2), ("c", 3)], [("b", 2), ("c", 4), ("d", 5)]);
        changes.named(
            "home",
            &old,
            &new,
            |one| one.0,
            |old, new| {
                if old.1 == new.1 { Vec::new() } else { vec!["other number".to_owned()] }
            },
        );
        let told: Vec<String> = changes.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "limits.relays: 50 -> 7",
                "state: /a -> /b (needs a restart)",
                "route: changed",
                "home a: removed",
                "home c: other number",
                "home d: added",
            ]
        );
    }
}
