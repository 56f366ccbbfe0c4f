//! Tells the owner by another road than the mail that may be the trouble: a webhook, and a letter to an
//! address elsewhere. The same alarm is told once in a while, not each time it is met. Raising one never
//! waits and never fails.

mod webhook;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::address::Address;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

pub use self::webhook::{Webhook, WebhookError};
use crate::clock::{Clock, mail_date, rfc3339};
use crate::config::{ConfigError, Placed, Source};

/// The same alarm is not told again within this time.
const AGAIN_AFTER: Duration = Duration::from_hours(6);
/// Alarms remembered for that; beyond them the oldest may be told again early.
const REMEMBERED_MAX: usize = 256;
/// Posts under way; an alarm beyond them is only logged and written.
const POSTS_MAX: usize = 8;
/// Pauses between the tries of one post.
const TRIES: [Duration; 4] = [Duration::ZERO, Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(10)];
/// Letters waiting to be sent.
const LETTERS_WAITING_MAX: usize = 16;

/// `[alarm]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawAlarm {
    /// Where alarms are posted as JSON.
    webhook: Option<Placed<String>>,
    /// Whom they are written to.
    address: Option<Placed<String>>,
}

/// `[alarm]`, checked. Neither is given: alarms are only logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where alarms are posted as JSON.
    pub webhook: Option<Webhook>,
    /// Whom they are written to: an address elsewhere.
    pub address: Option<Address>,
}

impl Settings {
    /// Checks the table. An address for which `ours` holds would get its alarms by the mail that may be the
    /// trouble.
    pub fn check(raw: &RawAlarm, ours: impl Fn(&Address) -> bool, source: &Source) -> Result<Self, ConfigError> {
        let webhook = raw.webhook.as_ref().map(|written| {
            let remedy = "an address such as \"https://hooks.example.com/…\"";
            written.get_ref().parse().map_err(|why| source.error(written, why, remedy))
        });
        let address = raw.address.as_ref().map(|written| {
            let remedy = "an address of yours at another provider, such as \"you@example.com\"";
            match Address::parse(written.get_ref()) {
                Err(error) => Err(source.error(written, &error.to_string(), remedy)),
                Ok(address) if ours(&address) => {
                    Err(source.error(written, "alarms must not depend on the mail they are about", remedy))
                }
                Ok(address) => Ok(address),
            }
        });
        Ok(Self { webhook: webhook.transpose()?, address: address.transpose()? })
    }
}

/// Something its owner should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// What kind, in a word a script can look for, such as `home-away`.
    pub kind: &'static str,
    /// What it is about: a home, an account. With the kind it names the alarm.
    pub about: String,
    /// One plain sentence or two, with what to do.
    pub text: String,
}

/// An alarm as a letter, for whoever can send one from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// To whom.
    pub to: Address,
    /// Its subject, ASCII.
    pub subject: String,
    /// Its text, LF line ends.
    pub text: String,
}

impl Letter {
    /// The whole message, CRLF line ends, from the mail system at `host`.
    pub fn message(&self, host: &str, now_unix_s: i64, random: &[u8; 12]) -> Vec<u8> {
        let mut id = String::with_capacity(2 * random.len());
        for octet in random {
            // Writing to a string can't fail.
            let _ = write!(id, "{octet:02x}");
        }
        let text = self.text.replace('\n', "\r\n");
        let body = if text.is_ascii() { "7bit" } else { "8bit" };
        format!(
            "From: Gatepost <postmaster@{host}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{id}@{host}>\r\n\
             Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: {body}\r\n\r\n{text}",
            self.to,
            self.subject,
            mail_date(now_unix_s),
        )
        .into_bytes()
    }
}

/// Takes alarms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alarms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: &'static str,
    host: String,
    settings: ArcSwap<Settings>,
    clock: Clock,
    told: Mutex<HashMap<(&'static str, String), Instant>>,
    posts: Arc<Semaphore>,
    letters: mpsc::Sender<Letter>,
}

impl Alarms {
    /// Letters come out of the receiver; whoever sends them must not raise an alarm for one that fails.
    pub fn new(program: &'static str, host: &str, settings: Settings, clock: Clock) -> (Self, mpsc::Receiver<Letter>) {
        let (letters, receiver) = mpsc::channel(LETTERS_WAITING_MAX);
        let inner = Inner {
            program,
            host: host.to_owned(),
            settings: ArcSwap::from_pointee(settings),
            clock,
            told: Mutex::default(),
            posts: Arc::new(Semaphore::new(POSTS_MAX)),
            letters,
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Takes changed settings.
    pub fn reload(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }

    /// Tells it, unless it was told a while ago. To be called inside the runtime.
    pub fn raise(&self, alarm: &Alarm) {
        let inner = &self.0;
        if !inner.is_news(alarm) {
            return;
        }
        tracing::warn!(alarm = alarm.kind, about = alarm.about, "{}", alarm.text);
        let settings = inner.settings.load();
        if let Some(to) = settings.address.clone() {
            let letter = inner.letter(to, alarm);
            if inner.letters.try_send(letter).is_err() {
                tracing::warn!(alarm = alarm.kind, "too many letters wait; this one is not written");
            }
        }
        if let Some(webhook) = settings.webhook.clone() {
            let Ok(place) = Arc::clone(&inner.posts).try_acquire_owned() else {
                tracing::warn!(alarm = alarm.kind, "too many posts wait; this one is not made");
                return;
            };
            let (json, kind) = (inner.json(alarm), alarm.kind);
            let clock = inner.clock.clone();
            tokio::spawn(async move {
                post(&webhook, json, kind, &clock).await;
                drop(place);
            });
        }
    }

    /// Tells it while it lasts: `text` is what there is to say, `None` that it is over.
    pub fn hold(&self, kind: &'static str, about: &str, text: Option<String>) {
        match text {
            Some(text) => self.raise(&Alarm { kind, about: about.to_owned(), text }),
            None => self.clear(kind, about),
        }
    }

    /// It is over: the next one of this name is news.
    pub fn clear(&self, kind: &'static str, about: &str) {
        self.0.told().remove(&(kind, about.to_owned()));
    }
}

impl Inner {
    fn is_news(&self, alarm: &Alarm) -> bool {
        let now = self.clock.now();
        let mut told = self.told();
        let name = (alarm.kind, alarm.about.clone());
        if told.get(&name).is_some_and(|at| now.saturating_duration_since(*at) < AGAIN_AFTER) {
            return false;
        }
        if told.len() >= REMEMBERED_MAX
            && let Some(oldest) = told.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone())
        {
            told.remove(&oldest);
        }
        told.insert(name, now);
        true
    }

    fn letter(&self, to: Address, alarm: &Alarm) -> Letter {
        let text = format!(
            "{}\n\nThis was noticed by {} at {} on {}.\nIt is told again after {} hours at the earliest.\n",
            alarm.text,
            self.program,
            self.host,
            rfc3339(self.clock.unix_s()),
            AGAIN_AFTER.as_secs() / 3600,
        );
        let subject = format!("[gatepost {}] {}: {}", self.host, alarm.kind, alarm.about);
        let subject = subject.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect();
        Letter { to, subject, text }
    }

    fn json(&self, alarm: &Alarm) -> String {
        json!({
            "program": self.program,
            "host": self.host,
            "alarm": alarm.kind,
            "about": alarm.about,
            "text": alarm.text,
            "time": rfc3339(self.clock.unix_s()),
        })
        .to_string()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, HashMap<(&'static str, String), Instant>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn post(webhook: &Webhook, json: String, kind: &'static str, clock: &Clock) {
    for pause in TRIES {
        clock.sleep(pause).await;
        match webhook.post(json.clone(), &[], clock).await {
            Ok(()) => {
                tracing::info!(alarm = kind, "an alarm was posted");
                return;
            }
            Err(error) => tracing::warn!(alarm = kind, %error, "an alarm could not be posted"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alarm(about: &str) -> Alarm {
        Alarm { kind: "home-away", about: about.to_owned(), text: "The home is away.".to_owned() }
    }

    fn written() -> Settings {
        Settings { webhook: None, address: Some(Address::parse("me@example.com").expect("valid")) }
    }

    #[tokio::test]
    async fn an_alarm_is_told_once_until_it_is_over_or_old() {
        let clock = Clock::still(Duration::from_hours(498_660));
        let (alarms, mut letters) = Alarms::new("gatepost-edge", "mail.example.org", written(), clock.clone());
        let mut told = || std::iter::from_fn(|| letters.try_recv().ok()).count();
        alarms.raise(&alarm("cottage"));
        alarms.raise(&alarm("cottage"));
        assert_eq!(told(), 1);
        alarms.raise(&alarm("cabin"));
        assert_eq!(told(), 1, "another home is another alarm");
        clock.turn(AGAIN_AFTER);
        alarms.raise(&alarm("cottage"));
        assert_eq!(told(), 1);
        alarms.clear("home-away", "cottage");
        alarms.raise(&alarm("cottage"));
        assert_eq!(told(), 1);
        for number in 0..2 * REMEMBERED_MAX {
            alarms.raise(&alarm(&number.to_string()));
        }
        assert!(alarms.0.told().len() <= REMEMBERED_MAX);
    }

    #[tokio::test]
    async fn a_letter_says_what_where_and_when() {
        let clock = Clock::still(Duration::from_hours(498_660));
        let (alarms, mut letters) = Alarms::new("gatepost-edge", "mail.example.org", written(), clock);
        alarms.raise(&alarm("c\u{f6}ttage\n"));
        let letter = letters.recv().await.expect("one");
        assert_eq!(letter.subject, "[gatepost mail.example.org] home-away: c?ttage?");
        assert!(letter.text.starts_with("The home is away.\n\nThis was noticed by gatepost-edge"), "{}", letter.text);
    }

    #[test]
    fn what_can_not_be_is_refused_where_it_stands() {
        #[derive(Deserialize)]
        struct File {
            alarm: RawAlarm,
        }
        for (line, words) in [
            ("webhook = \"hooks.example.com\"", "https://"),
            ("address = \"me\"", "needs an @"),
            ("address = \"me@example.org\"", "must not depend"),
            ("adress = \"me@example.com\"", "address"),
        ] {
            let source = Source::from_text("edge.toml", &format!("[alarm]\n{line}\n"));
            let ours = |address: &Address| address.domain().as_str() == "example.org";
            let file: Result<File, _> = source.parse();
            let error = file.and_then(|file| Settings::check(&file.alarm, ours, &source)).expect_err(line).to_string();
            assert!(error.contains(words) && error.contains("edge.toml:2"), "{error}");
        }
    }
}
