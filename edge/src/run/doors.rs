//! Opening the doors of the config.

use std::sync::Arc;

use gatepost_runtime::certificate::Served;
use gatepost_runtime::listen::DoorLimits;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Acceptor;
use tracing::info;

use crate::config::Config;
use crate::listeners::mail::SessionCount;
use crate::listeners::{self, mail};
use crate::session::{Desk, Door};
use crate::status::Doors;

/// Opens all and serves them. `counts` are of 25 and 465.
pub(super) fn open(
    config: &Config,
    acceptor: Acceptor,
    desk: &Arc<Desk>,
    certificate: &Served,
    counts: &[SessionCount; 2],
    draining: &Signal,
) -> anyhow::Result<Doors> {
    let mut doors = Doors::default();
    if let Some(address) = config.doors.tunnel {
        let (listener, address) = listeners::open(address)?;
        doors.tunnel = Some(address);
        tokio::spawn(listeners::tunnel::serve(listener, acceptor, draining.clone()));
    }
    let limits = DoorLimits {
        connections_max: config.limits.connections_max,
        connections_per_address_max: config.limits.connections_per_address_max,
    };
    for (door, address, open, count) in [
        (Door::Smtp, config.doors.smtp, &mut doors.smtp, &counts[0]),
        (Door::Submissions, config.doors.submissions, &mut doors.submissions, &counts[1]),
    ] {
        let Some(address) = address else { continue };
        let (listener, address) = listeners::open(address)?;
        *open = Some(address);
        let (desk, certificate, count) = (desk.clone(), certificate.clone(), count.clone());
        tokio::spawn(mail::serve(door, listener, limits, desk, certificate, count, draining.clone()));
    }
    info!(smtp = ?doors.smtp, submissions = ?doors.submissions, tunnel = ?doors.tunnel, "listening");
    Ok(doors)
}
