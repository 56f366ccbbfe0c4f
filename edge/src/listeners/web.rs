//! 80 and 443: a connection, made secure first on 443, becomes one question and one answer.

use gatepost_runtime::certificate::Served;
use gatepost_runtime::listen::{self, Admitted, DoorLimits, Listening, Places, Refusal};
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::web;
use tracing::debug;

use crate::web::Site;

/// A connection lives for some seconds; a CA comes with a handful, a browser with six.
pub const LIMITS: DoorLimits = DoorLimits { connections_max: 200, connections_per_address_max: 16 };

/// Serves 80, or with a certificate 443, until draining begins.
pub async fn serve(listening: Listening, places: Places, site: Site, certificate: Option<Served>, signal: Signal) {
    let name = if certificate.is_some() { "https" } else { "http" };
    let accept = move |admitted: Admitted| {
        let (site, certificate) = (site.clone(), certificate.clone());
        let client = admitted.peer.ip();
        let may_come = site.may_come(client);
        async move {
            if !may_come {
                return debug!(%client, door = name, "too many from this network in a minute");
            }
            let answer = |asked| site.answer(asked);
            let Some(certificate) = certificate else {
                return web::serve(admitted.stream, false, site.clock(), answer).await;
            };
            match web::secure(admitted.stream, &certificate, site.challenges(), site.clock()).await {
                Ok(Some(stream)) => web::serve(stream, true, site.clock(), answer).await,
                Ok(None) => debug!(%client, "a CA was shown a proof"),
                Err(error) => debug!(%client, door = name, %error, "no TLS"),
            }
        }
    };
    listen::serve(name, listening, places, signal, Refusal::SILENT, accept).await;
}
