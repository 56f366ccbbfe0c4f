//! The verb `Admin`: what the owner wants to know of every edge, asked of all at once, none waited for long.

use std::time::Duration;

use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::admin::{AdminAnswer, AdminRequest};
use gatepost_runtime::clock::Clock;
use gatepost_runtime::tunnel::StreamError;

use super::Edges;
use crate::queue::ConnectedEdge;

/// An edge that takes longer is shown without.
pub const ANSWER_MAX: Duration = Duration::from_secs(2);

/// An edge by its name, and its answer or why there is none.
pub type Answer = (String, Result<String, String>);

impl Edges {
    /// Asks this edge, which may take so long; none if it is not connected.
    pub async fn ask_edge(
        &self,
        name: &str,
        request: AdminRequest,
        wait_max: Duration,
        clock: &Clock,
    ) -> Option<Result<String, String>> {
        let edge = self.connected().borrow().iter().find(|edge| edge.name == name)?.clone();
        Some(ask_one(&edge, request, wait_max, clock).await)
    }

    /// Asks every connected edge; by name, its answer or why there is none.
    pub async fn ask(&self, request: AdminRequest, clock: &Clock) -> Vec<Answer> {
        self.ask_those(request, |_| true, clock).await
    }

    /// The same, of the edge of this name only, if one is given.
    pub async fn ask_of(&self, request: AdminRequest, only: Option<&str>, clock: &Clock) -> Vec<Answer> {
        self.ask_those(request, |name| only.is_none_or(|only| name == only), clock).await
    }

    /// The same, of every edge but the one of this name.
    pub async fn ask_but(&self, request: AdminRequest, but: &str, clock: &Clock) -> Vec<Answer> {
        self.ask_those(request, |name| name != but, clock).await
    }

    async fn ask_those(&self, request: AdminRequest, is_asked: impl Fn(&str) -> bool, clock: &Clock) -> Vec<Answer> {
        let connected = self.connected().borrow().clone();
        let mut running = Vec::new();
        for edge in connected.into_iter().filter(|edge| is_asked(&edge.name)) {
            let (name, request, clock) = (edge.name.clone(), request.clone(), clock.clone());
            running.push((name, tokio::spawn(async move { ask_one(&edge, request, ANSWER_MAX, &clock).await })));
        }
        let mut answers = Vec::new();
        for (name, asked) in running {
            let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()));
            answers.push((name, answer));
        }
        answers
    }
}

/// Asks this one, which may take so long.
pub async fn ask_one(
    edge: &ConnectedEdge,
    request: AdminRequest,
    wait_max: Duration,
    clock: &Clock,
) -> Result<String, String> {
    let exchange = async {
        let mut stream = edge.session.open(&Request::Admin(request)).await?;
        stream.end_sending().await?;
        stream.record::<AdminAnswer>().await
    };
    match clock.timeout(wait_max, exchange).await {
        Some(Ok(AdminAnswer::Answer(text))) => Ok(text),
        Some(Ok(AdminAnswer::Refused(why))) => Err(why),
        Some(Err(StreamError::TooOld { .. })) => {
            Err("it is an older version, which can't say more of itself".to_owned())
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Err(format!("no answer within {} s", wait_max.as_secs())),
    }
}
