//! The doors of the config: opened, shut and moved together, or not at all.

use std::sync::Arc;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::listen::door::{self, Door as Listener};
use gatepost_runtime::listen::{BindError, DoorLimits, Places};
use gatepost_runtime::shutdown::Shutdown;
use gatepost_runtime::tunnel::Acceptor;
use tracing::info;

use crate::config::{self, EdgeLimits};
use crate::listeners::mail::{Desks, SessionCount};
use crate::listeners::{mail, tunnel, web};
use crate::session::Door;
use crate::status;
use crate::web::Site;

/// All doors, and what is behind them.
pub(super) struct Doors {
    smtp: Listener,
    submissions: Listener,
    tunnel: Listener,
    http: Listener,
    https: Listener,
    smtp_places: Places,
    submissions_places: Places,
    tunnel_places: Places,
    web_places: Places,
    behind: Behind,
}

/// What connections are handed to.
pub(super) struct Behind {
    pub(super) desks: Desks,
    pub(super) certificate: Served,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) site: Site,
    pub(super) smtp_count: SessionCount,
    pub(super) submissions_count: SessionCount,
    pub(super) work: Arc<Shutdown>,
}

/// What is to become of each. Dropped, nothing has happened.
pub(super) struct Plan {
    smtp: door::Plan,
    submissions: door::Plan,
    tunnel: door::Plan,
    http: door::Plan,
    https: door::Plan,
}

impl Doors {
    /// All shut.
    pub(super) fn new(limits: &EdgeLimits, behind: Behind) -> Self {
        Self {
            smtp: Listener::default(),
            submissions: Listener::default(),
            tunnel: Listener::default(),
            http: Listener::default(),
            https: Listener::default(),
            smtp_places: Places::new(places(limits)),
            submissions_places: Places::new(places(limits)),
            tunnel_places: Places::new(tunnel::LIMITS),
            web_places: Places::new(web::LIMITS),
            behind,
        }
    }

    /// Opens what will be needed.
    pub(super) fn plan(&self, config: &config::Doors) -> Result<Plan, BindError> {
        Ok(Plan {
            smtp: self.smtp.plan(config.smtp)?,
            submissions: self.submissions.plan(config.submissions)?,
            tunnel: self.tunnel.plan(config.tunnel)?,
            http: self.http.plan(config.http)?,
            https: self.https.plan(config.https)?,
        })
    }

    /// Makes it so, and tells where they are.
    pub(super) fn carry_out(&mut self, plan: Plan, limits: &EdgeLimits) -> status::Doors {
        self.smtp_places.set_limits(places(limits));
        self.submissions_places.set_limits(places(limits));
        let Behind { desks, certificate, acceptor, site, smtp_count, submissions_count, work } = &self.behind;
        for (door, listener, plan, places, count) in [
            (Door::Smtp, &mut self.smtp, plan.smtp, &self.smtp_places, smtp_count),
            (Door::Submissions, &mut self.submissions, plan.submissions, &self.submissions_places, submissions_count),
        ] {
            let (desks, certificate, count) = (desks.clone(), certificate.clone(), count.clone());
            let (places, signal) = (places.clone(), work.signal());
            listener
                .carry_out(plan, |listening| mail::serve(door, listening, places, desks, certificate, count, signal));
        }
        let (acceptor, places, signal) = (acceptor.clone(), self.tunnel_places.clone(), work.signal());
        self.tunnel.carry_out(plan.tunnel, |listening| tunnel::serve(listening, places, acceptor, signal));
        for (listener, plan, certificate) in
            [(&mut self.http, plan.http, None), (&mut self.https, plan.https, Some(certificate))]
        {
            let (site, places, signal) = (site.clone(), self.web_places.clone(), work.signal());
            let certificate = certificate.cloned();
            listener.carry_out(plan, |listening| web::serve(listening, places, site, certificate, signal));
        }
        let open = status::Doors {
            smtp: self.smtp.address(),
            submissions: self.submissions.address(),
            tunnel: self.tunnel.address(),
            http: self.http.address(),
            https: self.https.address(),
        };
        let status::Doors { smtp, submissions, tunnel, http, https } = open;
        info!(?smtp, ?submissions, ?tunnel, ?http, ?https, "listening");
        open
    }
}

fn places(limits: &EdgeLimits) -> DoorLimits {
    DoorLimits {
        connections_max: limits.connections_max,
        connections_per_address_max: limits.connections_per_address_max,
    }
}
