//! 993 carried to a home: opaque bytes, with the client's address beside them. The edge sees no login and no mail; what it
//! learns is that a login was wrong, for the home says so, and that counts against the client as anywhere.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::splice::{Splice, SpliceNote};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::listen::Admitted;
use gatepost_runtime::server_name::{self, Wanted};
use gatepost_runtime::tunnel::{self, Carried, Session, Stream, StreamError};
use tracing::debug;

use crate::bans::{Bans, Kind};
use crate::homes::{Home, Homes};

/// A home that does not take a client in this time is away, whatever its session looks like.
const TAKEN_WAIT_MAX: Duration = Duration::from_secs(2);
/// A client may say nothing for 30 minutes (RFC 9051 §5.4); the home says something every few minutes while it waits.
const IDLE_MAX: Duration = Duration::from_mins(32);

/// Carries connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Splicer {
    homes: Homes,
    bans: Bans,
    clock: Clock,
}

impl Splicer {
    /// To these homes.
    pub fn new(homes: Homes, bans: Bans, clock: Clock) -> Self {
        Self { homes, bans, clock }
    }

    /// Whether who comes from this address is to hear nothing.
    pub fn is_banned(&self, client: IpAddr) -> bool {
        self.bans.is_banned(client)
    }

    /// Carries a connection to its end. If its home is away, that is at once.
    pub async fn carry(&self, mut admitted: Admitted) {
        let client = admitted.peer;
        let Some((home, first)) = self.home_of(&mut admitted).await else {
            debug!(%client, "no home here is the one this client wants");
            return;
        };
        let Some(session) = home.session() else {
            debug!(%client, home = home.name(), "the home is away: the client is to come again");
            return;
        };
        let exchange = match self.clock.timeout(TAKEN_WAIT_MAX, open(&session, client)).await {
            Some(Ok(exchange)) => exchange,
            Some(Err(error)) => {
                debug!(%client, home = home.name(), %error, "the home does not take the client");
                return;
            }
            None => {
                debug!(%client, home = home.name(), "the home is silent: the client is to come again");
                return;
            }
        };
        let noted = |note| match note {
            SpliceNote::Taken => true,
            SpliceNote::WrongLogin => {
                self.bans.strike(client.ip(), Kind::Login);
                !self.bans.is_banned(client.ip())
            }
        };
        let carried = tunnel::carry(admitted.stream, exchange, &first, IDLE_MAX, &self.clock, noted).await;
        let how: &dyn std::fmt::Display = match &carried {
            Carried::ByHome => &"by its home",
            Carried::Stopped => &"it is banned now",
            Carried::Idle => &"nothing moved",
            Carried::Client(error) => error,
            Carried::Tunnel(error) => error,
        };
        debug!(%client, home = home.name(), how = %how, "a connection to 993 ended");
    }

    /// Whose client this is: the only home's, else that of the home it asks for by name; and what was read to know.
    async fn home_of(&self, admitted: &mut Admitted) -> Option<(Arc<Home>, Vec<u8>)> {
        let homes = self.homes.all();
        if let [only] = homes.as_slice() {
            return Some((Arc::clone(only), Vec::new()));
        }
        let Wanted { name, read } = server_name::wanted(&mut admitted.stream, &self.clock).await?;
        let is_wanted =
            |home: &Arc<Home>| home.session().is_some_and(|session| session.facts().node.eq_ignore_ascii_case(&name));
        Some((homes.into_iter().find(is_wanted)?, read))
    }
}

/// The home has taken the client when this is done.
async fn open(session: &Session, client: SocketAddr) -> Result<Stream, StreamError> {
    let mut exchange = session.open(&Request::Splice(Splice { client })).await?;
    exchange.flush().await?;
    exchange.record::<SpliceNote>().await?;
    Ok(exchange)
}
