//! (edge, transfer id) → what became of it: what makes a repeated hand-over harmless. An intent names the
//! exact files a message will have before any of them is seen; once they are all there it is settled.

use gatepost_protocol::mail::received::TraceId;
use gatepost_protocol::pairing::NodeKey;
use gatepost_protocol::tunnel::transfer::TransferId;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::database::{Database, DatabaseError, Pending};
use crate::delivery::maildir::{Folder, Place};
use crate::queue::QueueId;

/// How long outcomes are kept, in seconds: an edge holds sealed mail for 30 days and then some.
pub const KEPT_S: i64 = 60 * 24 * 3600;
/// Rows forgotten by one write.
const PRUNED_MAX: usize = 1000;

/// Names one hand-over to this home.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HandOver([u8; 48]);

impl HandOver {
    /// From an edge.
    pub fn from_edge(edge: NodeKey, transfer: TransferId) -> Self {
        let mut bytes = [0; 48];
        bytes[..32].copy_from_slice(edge.as_bytes());
        bytes[32..].copy_from_slice(&transfer.0);
        Self(bytes)
    }

    /// From ourselves: a bounce, or a submission of the LAN.
    pub fn our_own(transfer: TransferId) -> Self {
        Self::from_edge(NodeKey::from_bytes([0; 32]), transfer)
    }
}

/// The files a message will have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its copies in mailboxes.
    pub places: Vec<Place>,
    /// Its entry in the queue.
    pub queue: Option<QueueId>,
    /// Copies for mailboxes that a server keeps, or that could not be written with the others, and how far those are.
    pub handed: Option<HandedOver>,
}

/// How far copies are that a server of mailboxes gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// The final dot may have been sent. What is not taken will be held by the queue under this id.
    Open(QueueId),
    /// No server gets anything; what could not be written here will be held by the queue under this id.
    Held(QueueId),
    /// Every answer is known, and what was not taken is held.
    Answered,
}

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its row.
    pub id: i64,
    /// The message's trace id.
    pub trace: TraceId,
    /// What is still to be settled; `None` once everything is durable.
    pub plan: Option<Plan>,
}

/// The answer to an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is noted, under this row.
    New(i64),
    /// This hand-over was here before.
    Known(Known),
}

/// The ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    database: Database,
}

impl Ledger {
    /// In this database.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Notes an intent, unless the hand-over is known.
    pub fn begin(&self, hand_over: HandOver, trace: TraceId, plan: &Plan, now_unix_s: i64) -> Pending<Begun> {
        let plan = plan.to_text();
        self.database.write_statement(move |connection| {
            let inserted = connection
                .prepare_cached(
                    "INSERT INTO ledger (transfer, trace, at, plan) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                )?
                .execute((hand_over.0, trace.to_bytes(), now_unix_s, plan))?;
            if inserted == 1 {
                return Ok(Begun::New(connection.last_insert_rowid()));
            }
            find(connection, hand_over)?.map(Begun::Known).ok_or(rusqlite::Error::QueryReturnedNoRows)
        })
    }

    /// What is known of a hand-over. Blocking, briefly.
    pub fn find(&self, hand_over: HandOver) -> Result<Option<Known>, DatabaseError> {
        self.database.read(|connection| find(connection, hand_over))
    }

    /// Everything is durable: noted with a later commit. If a crash forgets it, the files tell.
    pub fn settle_lazily(&self, id: i64) {
        self.database.write_lazily(move |connection| settle(connection, id));
    }

    /// Everything is durable.
    pub fn settle(&self, id: i64) -> Pending<()> {
        self.database.write_statement(move |connection| settle(connection, id))
    }

    /// What is still to be settled has changed.
    pub fn note(&self, id: i64, plan: &Plan) -> Pending<()> {
        let plan = plan.to_text();
        self.database.write_statement(move |connection| {
            connection.prepare_cached("UPDATE ledger SET plan = ?2 WHERE id = ?1")?.execute((id, plan)).map(|_| ())
        })
    }

    /// Nothing of it was kept: the edge still holds it.
    pub fn forget(&self, id: i64) -> Pending<()> {
        self.database.write_statement(move |connection| {
            connection.prepare_cached("DELETE FROM ledger WHERE id = ?1")?.execute([id]).map(|_| ())
        })
    }

    /// Intents that a stop left open. Blocking.
    pub fn open_intents(&self) -> Result<Vec<Known>, DatabaseError> {
        self.database.read(|connection| {
            let mut statement =
                connection.prepare("SELECT id, trace, plan FROM ledger WHERE plan IS NOT NULL ORDER BY id")?;
            statement.query_map([], known)?.collect()
        })
    }

    /// Forgets all outcomes (and doubts about servers of mailboxes, which nobody can settle) older than [`KEPT_S`], a bounded number with each write, so that mail gets its turn
    /// between them; gives how many. Blocking.
    pub fn prune(&self, now_unix_s: i64) -> Result<usize, DatabaseError> {
        let oldest = now_unix_s.saturating_sub(KEPT_S);
        let mut pruned = 0;
        loop {
            let write = self.database.write_statement(move |connection| {
                connection
                    .prepare_cached(
                        "DELETE FROM ledger WHERE id IN
                         (SELECT id FROM ledger WHERE at < ?1 AND (plan IS NULL OR plan LIKE 'mailboxes' || char(9) || '%')
                          ORDER BY at LIMIT ?2)",
                    )?
                    .execute((oldest, i64::try_from(PRUNED_MAX).unwrap_or(i64::MAX)))
            });
            let count = write.wait()?;
            pruned += count;
            if count < PRUNED_MAX {
                return Ok(pruned);
            }
        }
    }
}

fn settle(connection: &Connection, id: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE ledger SET plan = NULL WHERE id = ?1")?.execute([id]).map(|_| ())
}

fn find(connection: &Connection, hand_over: HandOver) -> rusqlite::Result<Option<Known>> {
    connection
        .prepare_cached("SELECT id, trace, plan FROM ledger WHERE transfer = ?1")?
        .query_row([hand_over.0], known)
        .optional()
}

fn known(row: &Row<'_>) -> rusqlite::Result<Known> {
    let plan: Option<String> = row.get(2)?;
    Ok(Known {
        id: row.get(0)?,
        trace: TraceId::from_random(row.get(1)?),
        plan: plan.map(|text| Plan::from_text(&text)),
    })
}

impl Plan {
    /// How many parts make it whole.
    pub fn parts(&self) -> usize {
        self.places.len() + usize::from(self.queue.is_some()) + usize::from(self.handed.is_some())
    }

    /// As it is stored: a line a file, so that a person can read it.
    fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.places.len() * 96);
        for place in &self.places {
            text.push_str(place.folder.as_str());
            text.push('\t');
            text.push_str(&place.name);
            text.push('\n');
        }
        if let Some(id) = self.queue {
            text += &["queue\t", &id.to_string(), "\n"].concat();
        }
        match self.handed {
            None => {}
            Some(HandedOver::Open(id)) => text += &["mailboxes\t", &id.to_string(), "\n"].concat(),
            Some(HandedOver::Held(id)) => text += &["held\t", &id.to_string(), "\n"].concat(),
            Some(HandedOver::Answered) => text += "mailboxes\tanswered\n",
        }
        text
    }

    /// Lines that can't be read are left out and logged: settling then goes by the others.
    fn from_text(text: &str) -> Self {
        let mut plan = Self::default();
        for line in text.lines() {
            let place = line.split_once('\t').and_then(|(folder, name)| {
                let folder = Folder::parse(folder).filter(|_| !name.is_empty() && !name.contains('/'))?;
                Some(Place { folder, name: name.to_owned() })
            });
            match (place, line.split_once('\t').map(|(what, id)| (what, QueueId::parse(id)))) {
                (Some(place), _) => plan.places.push(place),
                (None, Some(("queue", Some(id)))) => plan.queue = Some(id),
                (None, Some(("mailboxes", Some(id)))) => plan.handed = Some(HandedOver::Open(id)),
                (None, Some(("held", Some(id)))) => plan.handed = Some(HandedOver::Held(id)),
                (None, Some(("mailboxes", None))) => plan.handed = Some(HandedOver::Answered),
                (None, _) => tracing::error!(line, "a line of the ledger can't be read"),
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(name: &str) -> Plan {
        let place = |folder| Place { folder, name: format!("{name}.M1P2Q3R4.home.example.org,S=5,W=5") };
        Plan {
            places: vec![place(Folder::inbox("alice@example.org")), place(Folder::junk("bob@example.org"))],
            queue: Some(QueueId(*b"0123456789abcdef")),
            handed: None,
        }
    }

    fn hand_over(n: u8) -> HandOver {
        HandOver::from_edge(NodeKey::of_spki(b"edge"), TransferId([n; 16]))
    }

    fn trace() -> TraceId {
        TraceId::from_random([9; 10])
    }

    #[test]
    fn plans_survive_their_text() {
        let id = QueueId([7; 16]);
        for handed in [None, Some(HandedOver::Open(id)), Some(HandedOver::Held(id)), Some(HandedOver::Answered)] {
            let plan = Plan { handed, ..plan("1") };
            assert_eq!(Plan::from_text(&plan.to_text()), plan);
        }
        assert_eq!(Plan::from_text("nonsense\n../x\ty\na/b\tx/y\n"), Plan::default());
    }

    #[test]
    fn a_hand_over_is_new_once() {
        let state = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(Database::open(state.path()).expect("opened"));
        let begin = |n| ledger.begin(hand_over(n), trace(), &plan("1"), 1000).wait().expect("noted");
        let Begun::New(id) = begin(1) else { panic!("known before it came") };
        let open = Known { id, trace: trace(), plan: Some(plan("1")) };
        assert_eq!(begin(1), Begun::Known(open.clone()));
        assert_eq!(ledger.open_intents().expect("read"), [open]);
        ledger.settle(id).wait().expect("noted");
        assert_eq!(begin(1), Begun::Known(Known { id, trace: trace(), plan: None }));
        assert!(matches!(begin(2), Begun::New(_)));
        let other_edge = HandOver::from_edge(NodeKey::of_spki(b"other"), TransferId([1; 16]));
        assert_eq!(ledger.find(other_edge).expect("read"), None);
    }

    #[test]
    fn a_forgotten_one_is_new_again() {
        let state = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(Database::open(state.path()).expect("opened"));
        let begin = || ledger.begin(hand_over(1), trace(), &plan("1"), 1000).wait().expect("noted");
        let Begun::New(id) = begin() else { panic!("known before it came") };
        ledger.forget(id).wait().expect("noted");
        assert!(matches!(begin(), Begun::New(_)));
    }

    #[test]
    fn all_that_is_old_is_pruned_however_much_it_is() {
        let state = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(Database::open(state.path()).expect("opened"));
        let intent = |n: usize, at| {
            let mut transfer = [0; 16];
            transfer[..8].copy_from_slice(&n.to_be_bytes());
            ledger.begin(HandOver::our_own(TransferId(transfer)), trace(), &Plan::default(), at)
        };
        // Open ones first: what is never pruned must not stand before what is.
        let open: Vec<_> = (0..PRUNED_MAX).map(|n| intent(n, 0)).collect();
        let old: Vec<_> = (PRUNED_MAX..PRUNED_MAX * 2 + 500).map(|n| intent(n, 1)).collect();
        for pending in open {
            pending.wait().expect("noted");
        }
        let settled: Vec<_> = old
            .into_iter()
            .map(|pending| {
                let Begun::New(id) = pending.wait().expect("noted") else { panic!("known before it came") };
                ledger.settle(id)
            })
            .collect();
        for pending in settled {
            pending.wait().expect("noted");
        }
        assert_eq!(ledger.prune(KEPT_S + 2).expect("pruned"), PRUNED_MAX + 500);
        assert_eq!(ledger.open_intents().expect("read").len(), PRUNED_MAX);
    }

    #[test]
    fn only_old_outcomes_are_pruned_and_never_an_intent() {
        let state = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::new(Database::open(state.path()).expect("opened"));
        for n in 0..3 {
            let begun = ledger.begin(hand_over(n), trace(), &plan("1"), i64::from(n)).wait().expect("noted");
            let Begun::New(id) = begun else { panic!("known before it came") };
            if n != 0 {
                ledger.settle(id).wait().expect("noted");
            }
        }
        assert_eq!(ledger.prune(KEPT_S + 1).expect("pruned"), 0);
        assert_eq!(ledger.prune(KEPT_S + 2).expect("pruned"), 1);
        assert!(ledger.find(hand_over(0)).expect("read").is_some());
        assert!(ledger.find(hand_over(1)).expect("read").is_none());
        assert!(ledger.find(hand_over(2)).expect("read").is_some());
    }
}
