//! 25 and 465: a connection, made secure first where the door says so, becomes a session.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use gatepost_protocol::mail::reply::Reply;
use gatepost_protocol::network::is_public;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::drive::{Connection, DriveError, Security};
use gatepost_runtime::listen::{self, Admitted, Listening, Places, Refusal};
use gatepost_runtime::shutdown::Signal;
use tracing::debug;

use crate::session::{self, Desk, Door, Ends};

/// What a client hears that is turned away.
static FULL: LazyLock<Vec<u8>> = LazyLock::new(|| Reply::too_many_connections().wire());
static BANNED: LazyLock<Vec<u8>> = LazyLock::new(|| Reply::banned().wire());
static ENDING: LazyLock<Vec<u8>> = LazyLock::new(|| Reply::shutting_down().wire());

/// How many sessions run now, and when the world last came, for `status`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SessionCount(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    now: AtomicUsize,
    /// Seconds since 1970; 0 while nobody came.
    outside_unix_s: AtomicI64,
}

impl SessionCount {
    /// Now.
    pub fn now(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// When the last client from outside came, seconds since 1970, since the program began.
    pub fn outside_unix_s(&self) -> Option<i64> {
        Some(self.0.outside_unix_s.load(Ordering::Relaxed)).filter(|unix_s| *unix_s != 0)
    }

    /// A client has come: one of the public internet that is not this machine shows that the door is open to the world.
    pub(super) fn note(&self, client: SocketAddr, here: Option<SocketAddr>, unix_s: i64) {
        let itself = here.is_some_and(|here| here.ip().to_canonical() == client.ip());
        if is_public(client.ip()) && !itself {
            self.0.outside_unix_s.store(unix_s, Ordering::Relaxed);
        }
    }

    pub(super) fn enter(&self) -> Entered {
        self.0.now.fetch_add(1, Ordering::Relaxed);
        Entered(self.clone())
    }
}

/// Counted while it lives.
pub(super) struct Entered(SessionCount);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What sessions to come work with; replaced as a whole.
pub type Desks = Arc<ArcSwap<Desk>>;

/// Serves a mail door until draining begins; its sessions go on until they end.
pub async fn serve(
    door: Door,
    listening: Listening,
    places: Places,
    desks: Desks,
    certificate: Served,
    count: SessionCount,
    signal: Signal,
) {
    let name = door.name();
    // A client of 465 waits for TLS: plain words would only puzzle it.
    let refusal = match door {
        Door::Smtp => Refusal { full: FULL.as_slice(), ending: ENDING.as_slice() },
        Door::Submissions => Refusal::SILENT,
    };
    let refusal_of_banned: &[u8] = match door {
        Door::Smtp => &BANNED,
        Door::Submissions => b"",
    };
    let session_signal = signal.clone();
    let counted = places.clone();
    let accept = move |admitted: Admitted| {
        let (desk, certificate, signal) = (desks.load_full(), certificate.clone(), session_signal.clone());
        let client = admitted.peer.ip();
        let banned = desk.bans().is_banned(client);
        if banned {
            listen::turn_away(&admitted.stream, refusal_of_banned);
            desk.note_banned();
            debug!(%client, door = name, "banned");
        }
        let entered = count.enter();
        count.note(admitted.peer, admitted.stream.local_addr().ok(), desk.clock().unix_s());
        let crowded = is_crowded(count.now(), counted.limits().connections_max);
        async move {
            if banned {
                return;
            }
            if let Err(error) = session(door, admitted, crowded, &desk, &certificate, signal).await {
                debug!(%client, door = name, %error, "session broke");
            }
            drop(entered);
        }
    };
    listen::serve(name, listening, places, signal, refusal, accept).await;
}

/// True when at most a tenth of a door's places is free, the newest session counted.
fn is_crowded(sessions: usize, connections_max: usize) -> bool {
    sessions.saturating_mul(10) >= connections_max.saturating_mul(9)
}

async fn session(
    door: Door,
    admitted: Admitted,
    crowded: bool,
    desk: &Desk,
    certificate: &Served,
    signal: Signal,
) -> Result<(), DriveError> {
    let local = admitted.stream.local_addr().ok().map(|local| local.ip().to_canonical());
    let ends = Ends { client: admitted.peer.ip(), local };
    let security = Security::Server(certificate.server_config());
    let mut connection = Connection::new(admitted.stream, desk.server(door, crowded), security, desk.clock().clone());
    if door == Door::Submissions {
        connection.secure_first().await?;
    }
    session::run(desk, door, &mut connection, ends, signal).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_crowded_from_nine_tenths_on() {
        assert!(!is_crowded(449, 500));
        assert!(is_crowded(450, 500));
        assert!(is_crowded(1, 1));
    }
}
