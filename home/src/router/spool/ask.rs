//! What the home asks an edge about its spool: each question an exchange of its own, with a limit on every wait. An edge
//! of version 1 is asked only what it understands.

use std::time::Duration;

use gatepost_protocol::tunnel::transfer::TransferId;
use gatepost_protocol::tunnel::verb::Request;
use gatepost_protocol::tunnel::verb::spool::{
    LISTING_MAX, SpoolDamaged, SpoolDeleted, SpoolDropped, SpoolItem, SpoolListing, SpoolPage, SpoolRequest,
};
use gatepost_runtime::tunnel::StreamError;
use serde::de::DeserializeOwned;

use super::FetchError;
use crate::queue::ConnectedEdge;

/// The longest an edge may stand still in an answer.
pub(super) const FRAME_WAIT_MAX: Duration = Duration::from_mins(2);
/// Most entries gathered for a listing.
pub const LISTED_MAX: usize = 10_000;

/// What an edge holds, for people.
#[derive(Debug, Default)]
pub struct Held {
    /// Oldest first, at most [`LISTED_MAX`].
    pub entries: Vec<SpoolItem>,
    /// In all.
    pub total: u64,
    /// In all.
    pub total_octets: u64,
    /// Files the edge can't read; an edge of version 1 does not say.
    pub damaged: Vec<SpoolDamaged>,
    /// In all.
    pub damaged_total: u64,
}

/// Everything an edge holds, up to a bound.
pub async fn list(edge: &ConnectedEdge) -> Result<Held, FetchError> {
    let mut held = Held::default();
    let mut after = String::new();
    loop {
        let page = page(edge, &after).await?;
        if after.is_empty() {
            held.damaged = page.damaged;
            (held.total, held.total_octets, held.damaged_total) = (page.total, page.total_octets, page.damaged_total);
        }
        held.entries.extend(page.entries);
        match page.next {
            Some(next) if held.entries.len() < LISTED_MAX => after = next,
            _ => return Ok(held),
        }
    }
}

/// The entries after a place. An edge of version 1 has one page, the oldest, and says nothing of what is damaged.
pub(super) async fn page(edge: &ConnectedEdge, after: &str) -> Result<SpoolPage, FetchError> {
    let request = SpoolRequest::Page { after: after.to_owned() };
    if speaks(edge, &request) {
        let mut page: SpoolPage = ask(edge, request).await?;
        // A page that leads nowhere is the last, whatever the edge says.
        if page.entries.is_empty() || page.entries.len() > LISTING_MAX || page.next.as_deref() == Some(after) {
            page.next = None;
        }
        return Ok(page);
    }
    let SpoolListing { entries, total, total_octets } = ask(edge, SpoolRequest::List).await?;
    Ok(SpoolPage { entries, next: None, total, total_octets, damaged: Vec::new(), damaged_total: 0 })
}

/// It is durable here: the edge deletes it.
pub(super) async fn acknowledge(edge: &ConnectedEdge, transfer: TransferId) -> Result<(), FetchError> {
    let SpoolDeleted = ask(edge, SpoolRequest::Acknowledge(transfer)).await?;
    Ok(())
}

/// The owner wants it gone, for good. False if the edge has no such message; one of version 1 does not say.
pub async fn drop_for_good(edge: &ConnectedEdge, transfer: TransferId) -> Result<bool, FetchError> {
    if speaks(edge, &SpoolRequest::Drop(transfer)) {
        let SpoolDropped { existed } = ask(edge, SpoolRequest::Drop(transfer)).await?;
        return Ok(existed);
    }
    acknowledge(edge, transfer).await?;
    Ok(true)
}

/// Whether pages follow each other: an edge of version 1 knows only its oldest.
pub(super) fn has_pages(edge: &ConnectedEdge) -> bool {
    speaks(edge, &SpoolRequest::Page { after: String::new() })
}

fn speaks(edge: &ConnectedEdge, request: &SpoolRequest) -> bool {
    edge.session.facts().version >= Request::Spool(request.clone()).since()
}

async fn ask<T: DeserializeOwned>(edge: &ConnectedEdge, request: SpoolRequest) -> Result<T, FetchError> {
    let mut stream = edge.session.open(&Request::Spool(request)).await?;
    stream.flush().await?;
    let answer = within(stream.record()).await?;
    stream.finish().await;
    Ok(answer)
}

pub(super) async fn within<T>(next: impl Future<Output = Result<T, StreamError>>) -> Result<T, FetchError> {
    match tokio::time::timeout(FRAME_WAIT_MAX, next).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(FetchError::Stalled),
    }
}
