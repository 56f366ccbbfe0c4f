//! What homes ask for, each request given to the part that serves it.

use std::sync::Arc;
use std::time::Duration;

use gatepost_protocol::tunnel::verb::admin::{AdminAnswer, AdminRequest};
use gatepost_runtime::acme::challenges::Challenges;
use gatepost_runtime::shutdown::Signal;
use gatepost_runtime::tunnel::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

use super::control;
use crate::bans::Order;
use crate::examination::Examiner;
use crate::homes::{Ask, Asked, Home};
use crate::relay::Sender;
use crate::spool::{self, Spool};
use crate::status::Status;

/// What questions are answered from.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) status: Arc<Status>,
    pub(super) examiner: Examiner,
    pub(super) challenges: Challenges,
}

/// Gives each request of a home to the part that serves it. The tasks hold the signal, so that a
/// drain waits for mail that is on its way out. While it drains, only questions are answered.
pub(super) async fn serve_homes(
    mut requests: mpsc::Receiver<Asked>,
    spool: Spool,
    sender: Sender,
    desk: Desk,
    mut signal: Signal,
) {
    loop {
        let asked = tokio::select! {
            asked = requests.recv() => asked,
            () = signal.draining() => break,
        };
        let Some(Asked { home, what, version, stream }) = asked else { return };
        let (spool, sender, desk, held) = (spool.clone(), sender.clone(), desk.clone(), signal.clone());
        tokio::spawn(async move {
            match what {
                Ask::Relay(relay) => sender.relay(home, *relay, version, stream).await,
                Ask::Attempt(request) => sender.attempt(home, request, version, stream).await,
                Ask::Spool(request) => spool::serve::serve(spool, home.name().to_owned(), request, stream).await,
                Ask::Admin(request) => desk.administer(&home, request, stream).await,
            }
            drop(held);
        });
    }
    // The drain does not wait for this.
    drop((signal, spool, sender));
    while let Some(Asked { home, what, stream, .. }) = requests.recv().await {
        if let Ask::Admin(request) = what {
            desk.administer(&home, request, stream).await;
        }
    }
}

impl Desk {
    /// What a home hears is about itself, and about the edge only what every home may know.
    async fn administer(&self, home: &Home, request: AdminRequest, mut stream: Stream) {
        let status = &*self.status;
        let answer = match request {
            AdminRequest::Status => AdminAnswer::Answer(status.told_to(home).to_string()),
            AdminRequest::Metrics => match serde_json::to_string(&status.metrics_of(home)) {
                Ok(page) => AdminAnswer::Answer(page),
                Err(error) => AdminAnswer::Refused(error.to_string()),
            },
            AdminRequest::BansList => bans(status, home, Ok(Order::List)).await,
            AdminRequest::BansAdd { network, for_s } => {
                let order = control::named(&network).map(|network| Order::Add(network, for_s.map(Duration::from_secs)));
                bans(status, home, order).await
            }
            AdminRequest::BansLift { network } => bans(status, home, control::named(&network).map(Order::Lift)).await,
            AdminRequest::Examine(asked) => self.examiner.examine(home, &asked).await,
            AdminRequest::Echo { back, .. } => Examiner::echo(back),
            AdminRequest::CertificateRotate => match rotate(status, home).await {
                Ok(answer) => AdminAnswer::Answer(answer.to_string()),
                Err(why) => AdminAnswer::Refused(why),
            },
            AdminRequest::Challenge { token } => match self.challenges.file(&token) {
                Some(authorization) => AdminAnswer::Answer(authorization),
                None => AdminAnswer::Refused("no order of this edge waits for that".to_owned()),
            },
        };
        if stream.send(&answer).await.is_ok() {
            stream.finish().await;
        }
    }
}

/// A key concerns every home behind this edge.
async fn rotate(status: &Status, home: &Home) -> Result<Value, String> {
    if !status.is_only(home) {
        return Err(
            "several homes share this edge: its keys are changed there, by gatepost-edge certificate rotate".to_owned()
        );
    }
    status.rotate().await
}

/// A ban concerns every home behind this edge, and its list tells of all of them.
async fn bans(status: &Status, home: &Home, order: Result<Order, String>) -> AdminAnswer {
    let obeyed = match order {
        Ok(_) if !status.is_only(home) => {
            Err("several homes share this edge: its bans are shown and changed there, by gatepost-edge bans".to_owned())
        }
        Ok(order) => control::obey(&status.bans, order).await,
        Err(why) => Err(why),
    };
    match obeyed {
        Ok(answer) => AdminAnswer::Answer(answer.to_string()),
        Err(why) => AdminAnswer::Refused(why),
    }
}
