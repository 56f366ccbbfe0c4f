//! Opening the doors of the config.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use gatepost_protocol::smtp::server::limits::Limits;
use gatepost_runtime::certificate::Served;
use gatepost_runtime::clock::Clock;
use gatepost_runtime::listen::DoorLimits;
use gatepost_runtime::shutdown::Signal;
use tokio::net::TcpListener;
use tracing::info;

use super::Store;
use crate::config::Config;
use crate::router::Router;
use crate::submission::Submission;

/// Opens 465 and serves it. Tells where it is, if it is not turned off.
pub(super) async fn open_submissions(
    config: &Config,
    store: &Store,
    router: &Router,
    served: Served,
    incoming: &Path,
    clock: &Clock,
    signal: &Signal,
) -> anyhow::Result<Option<std::net::SocketAddr>> {
    let Some(address) = config.submissions else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("can't listen for submissions at {address} ([listen] submissions; \"off\" turns it off)")
    })?;
    let address = listener.local_addr()?;
    let submission = Submission {
        hostname: config.hostname.clone(),
        limits: Limits { message_octets_max: config.message_octets_max, ..Limits::default() },
        door: DoorLimits {
            connections_max: config.submission_connections_max,
            connections_per_address_max: config.submission_connections_per_address_max,
        },
        accounts: store.accounts.clone(),
        router: router.clone(),
        served,
        incoming: incoming.into(),
        clock: clock.clone(),
    };
    info!(%address, "listening for submissions");
    tokio::spawn(Arc::new(submission).run(listener, signal.clone()));
    Ok(Some(address))
}
