//! The doors of the config: opened, shut and moved together, or not at all. Those of the web wait where another program
//! has their port, and hold up no mail.

use std::net::SocketAddr;
use std::sync::Arc;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::listen::door::{self, Door as Listener};
use gatepost_runtime::listen::{BindError, DoorLimits, Places};
use gatepost_runtime::shutdown::Shutdown;
use gatepost_runtime::tunnel::Acceptor;
use tracing::{error, info};

use crate::config::{self, EdgeLimits};
use crate::listeners::mail::{Desks, SessionCount};
use crate::listeners::{imaps, mail, tunnel, web};
use crate::session::Door;
use crate::splice::Splicer;
use crate::status;
use crate::web::Site;

/// All doors, and what is behind them.
pub(super) struct Doors {
    smtp: Listener,
    submissions: Listener,
    imaps: Listener,
    tunnel: Listener,
    http: WebDoor,
    https: WebDoor,
    smtp_places: Places,
    submissions_places: Places,
    imaps_places: Places,
    tunnel_places: Places,
    behind: Behind,
}

/// A door of the web.
struct WebDoor {
    listener: Listener,
    places: Places,
    /// Where it is to be opened as soon as it can be, and why it can't be now.
    waits: Option<(SocketAddr, String)>,
}

/// What connections are handed to.
pub(super) struct Behind {
    pub(super) desks: Desks,
    pub(super) certificate: Served,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) site: Site,
    pub(super) smtp_count: SessionCount,
    pub(super) submissions_count: SessionCount,
    pub(super) splicer: Splicer,
    pub(super) imaps_count: SessionCount,
    pub(super) work: Arc<Shutdown>,
}

/// What is to become of each. Dropped, nothing has happened.
pub(super) struct Plan {
    smtp: door::Plan,
    submissions: door::Plan,
    imaps: door::Plan,
    tunnel: door::Plan,
    http: WebPlan,
    https: WebPlan,
}

struct WebPlan {
    door: door::Plan,
    waits: Option<(SocketAddr, String)>,
}

impl Doors {
    /// All shut.
    pub(super) fn new(limits: &EdgeLimits, behind: Behind) -> Self {
        Self {
            smtp: Listener::default(),
            submissions: Listener::default(),
            imaps: Listener::default(),
            tunnel: Listener::default(),
            http: WebDoor::default(),
            https: WebDoor::default(),
            smtp_places: Places::new(places(limits)),
            submissions_places: Places::new(places(limits)),
            imaps_places: Places::new(imaps::limits(limits)),
            tunnel_places: Places::new(tunnel::LIMITS),
            behind,
        }
    }

    /// Opens what will be needed.
    pub(super) fn plan(&self, config: &config::Doors, when: When) -> Result<Plan, BindError> {
        Ok(Plan {
            smtp: self.smtp.plan(config.smtp)?,
            submissions: self.submissions.plan(config.submissions)?,
            imaps: self.imaps.plan(config.imaps)?,
            tunnel: self.tunnel.plan(config.tunnel)?,
            http: self.http.plan(config.http, when)?,
            https: self.https.plan(config.https, when)?,
        })
    }

    /// Makes it so, and tells where they are.
    pub(super) fn carry_out(&mut self, plan: Plan, limits: &EdgeLimits) -> status::Doors {
        self.smtp_places.set_limits(places(limits));
        self.submissions_places.set_limits(places(limits));
        self.imaps_places.set_limits(imaps::limits(limits));
        self.behind.site.set_limits(limits);
        let Behind { desks, certificate, acceptor, smtp_count, submissions_count, splicer, imaps_count, work, .. } =
            &self.behind;
        for (door, listener, plan, places, count) in [
            (Door::Smtp, &mut self.smtp, plan.smtp, &self.smtp_places, smtp_count),
            (Door::Submissions, &mut self.submissions, plan.submissions, &self.submissions_places, submissions_count),
        ] {
            let (desks, certificate, count) = (desks.clone(), certificate.clone(), count.clone());
            let (places, signal) = (places.clone(), work.signal());
            listener
                .carry_out(plan, |listening| mail::serve(door, listening, places, desks, certificate, count, signal));
        }
        let (splicer, count) = (splicer.clone(), imaps_count.clone());
        let (places, signal) = (self.imaps_places.clone(), work.signal());
        self.imaps.carry_out(plan.imaps, |listening| imaps::serve(listening, places, splicer, count, signal));
        let (acceptor, places, signal) = (acceptor.clone(), self.tunnel_places.clone(), work.signal());
        self.tunnel.carry_out(plan.tunnel, |listening| tunnel::serve(listening, places, acceptor, signal));
        self.carry_out_web(plan.http, plan.https);
        let open = self.open();
        let status::Doors { smtp, submissions, imaps, tunnel, http, https, .. } = &open;
        info!(?smtp, ?submissions, ?imaps, ?tunnel, ?http, ?https, "listening");
        open
    }

    fn carry_out_web(&mut self, http: WebPlan, https: WebPlan) {
        let Behind { certificate, site, work, .. } = &self.behind;
        for (name, door, plan, certificate) in
            [("http", &mut self.http, http, None), ("https", &mut self.https, https, Some(certificate.clone()))]
        {
            if let Some((address, why)) = plan.waits.as_ref().filter(|_| door.waits.is_none()) {
                error!(door = name, %address, why, "this door of the web stays shut for now; mail is not affected, certificates may not be renewed");
            }
            door.waits = plan.waits;
            let (site, places, signal) = (site.clone(), door.places.clone(), work.signal());
            door.listener.carry_out(plan.door, |listening| web::serve(listening, places, site, certificate, signal));
        }
    }

    /// Tries again to open what waits. Gives where the doors are, if one more is open now.
    pub(super) fn retry(&mut self, config: &config::Doors) -> Option<status::Doors> {
        let is_waiting = |door: &WebDoor| door.waits.is_some();
        let waiting = [&self.http, &self.https].into_iter().filter(|door| is_waiting(door)).count();
        if waiting == 0 {
            return None;
        }
        let plan = |door: &WebDoor, address| door.plan(address, When::AtStart).ok();
        let (http, https) = (plan(&self.http, config.http)?, plan(&self.https, config.https)?);
        self.carry_out_web(http, https);
        if [&self.http, &self.https].into_iter().filter(|door| is_waiting(door)).count() == waiting {
            return None;
        }
        let open = self.open();
        info!(http = ?open.http, https = ?open.https, "a door of the web that had to wait is open");
        Some(open)
    }

    fn open(&self) -> status::Doors {
        let why = |door: &WebDoor| door.waits.as_ref().map(|(_, why)| why.clone());
        status::Doors {
            smtp: self.smtp.address(),
            submissions: self.submissions.address(),
            imaps: self.imaps.address(),
            tunnel: self.tunnel.address(),
            http: self.http.listener.address(),
            https: self.https.listener.address(),
            http_waits: why(&self.http),
            https_waits: why(&self.https),
        }
    }
}

/// Whether somebody waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Nobody: a door of the web that can't be opened waits.
    AtStart,
    /// Its owner, who hears at once what can't be; but what waited before goes on waiting.
    AtReload,
}

impl Default for WebDoor {
    fn default() -> Self {
        Self { listener: Listener::default(), places: Places::new(web::LIMITS), waits: None }
    }
}

impl WebDoor {
    fn plan(&self, configured: Option<SocketAddr>, when: When) -> Result<WebPlan, BindError> {
        let waited = self.waits.as_ref().map(|(address, _)| *address);
        match self.listener.plan(configured) {
            Ok(door) => Ok(WebPlan { door, waits: None }),
            Err(error) if when == When::AtStart || waited == configured => {
                let waits = Some((error.address, error.to_string()));
                Ok(WebPlan { door: self.listener.plan(None)?, waits })
            }
            Err(error) => Err(error),
        }
    }
}

fn places(limits: &EdgeLimits) -> DoorLimits {
    DoorLimits {
        connections_max: limits.connections_max,
        connections_per_address_max: limits.connections_per_address_max,
    }
}
