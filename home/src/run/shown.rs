//! What `status` shows, as JSON, and the page of metrics: of the home and of its edges.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use gatepost_protocol::tunnel::verb::admin::AdminRequest;
use gatepost_runtime::clock::rfc3339;
use gatepost_runtime::durable;
use gatepost_runtime::metrics::{self, Kind, Metric};
use gatepost_runtime::shutdown::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::control::Desk;
use crate::edges::ask::Answer;
use crate::policy;
use crate::queue;
use crate::queue::summary::Summary;
use crate::router::spool;
use crate::troubles;

/// Opens the door for Prometheus, where the config has one.
pub(super) async fn open_metrics(desk: &Arc<Desk>, address: Option<SocketAddr>, signal: Signal) -> anyhow::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!("can't listen for Prometheus at {address} ([metrics] listen; \"off\" turns it off)")
    })?;
    tracing::info!(%address, "listening for Prometheus");
    let (clock, desk) = (desk.clock.clone(), Arc::clone(desk));
    tokio::spawn(crate::metrics::serve(listener, clock, signal, move || Arc::clone(&desk).metrics()));
    Ok(())
}

impl Desk {
    /// Everything; what each edge says of itself is asked for, and left out where that takes too long.
    pub(super) async fn status(self: Arc<Self>) -> Value {
        let reports = self.edges.ask(AdminRequest::Status, &self.clock).await;
        self.status_with(reports).await
    }

    /// The same, with what the edges said of themselves.
    pub(super) async fn status_with(self: Arc<Self>, reports: Vec<Answer>) -> Value {
        let desk = Arc::clone(&self);
        let measured = tokio::task::spawn_blocking(move || desk.measure()).await;
        let (summary, disk_free, database) =
            measured.unwrap_or_else(|error| (Summary::default(), None, error.to_string()));
        let mut edges = self.edges.status(self.clock.now());
        for (name, report) in reports {
            let edge = edges.as_array_mut().and_then(|edges| edges.iter_mut().find(|edge| edge["name"] == name));
            let Some(edge) = edge else { continue };
            match report.and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string())) {
                Ok(report) => edge["report"] = report,
                Err(why) => edge["report_error"] = why.into(),
            }
        }
        let (open, settings) = (self.reloader.open().await, self.store.accounts.settings());
        let domains: Vec<&str> =
            settings.domains.iter().map(gatepost_protocol::mail::address::Domain::as_str).collect();
        let mut queue = summary.json();
        queue["local"] = self.store.queue.waiting_local().into();
        queue["damaged"] = files(&self.state.join(queue::DAMAGED)).into();
        let mut status = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "hostname": self.hostname,
            "key": self.key,
            "started": rfc3339(self.started_unix_s),
            "domains": domains,
            "accounts": self.store.accounts.book().accounts.len(),
            "directory_version": self.store.accounts.directory().borrow().version(),
            "submissions": open.submissions.map(|address| address.to_string()),
            "relay": open.relay.map(|address| address.to_string()),
            "certificate_self_signed": self.served.is_self_signed(),
            "acme": self.acme.json(),
            "certificate_files": self.acme.files_json(),
            "certificate_ends": self.served.end_json(self.clock.unix_s()),
            "policy": policy::shown(&settings.policies),
            "edges": edges,
            "queue": queue,
            "last_hour": self.counts.rates(self.now_unix_ms()),
            "disk_free_octets": disk_free,
            "database": database,
            "trace": if self.traces.is_well() { "good" } else { "failing" },
            "mailbox_servers": self.store.servers.status(),
            "dkim_waiting": self.store.signing.waiting(),
            "damaged": files(&self.state.join(spool::DAMAGED)),
        });
        status["troubles"] = troubles::of(&status).into();
        status
    }

    /// The page of metrics: our own, and each edge's under the label `edge`.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub(super) async fn metrics(self: Arc<Self>) -> String {
        let of_edges = self.edges.ask(AdminRequest::Metrics, &self.clock).await;
        let desk = Arc::clone(&self);
        let measured = tokio::task::spawn_blocking(move || desk.measure()).await;
        let (summary, disk_free, database) =
            measured.unwrap_or_else(|error| (Summary::default(), None, error.to_string()));
        let gauge = |name, help, value: f64| Metric::plain(Kind::Gauge, name, help, value);
        let age_s = summary.oldest_unix_ms.map_or(0, |oldest| self.now_unix_ms().saturating_sub(oldest).max(0) / 1000);
        let mut page = self.counts.metrics();
        page.extend([
            gauge("gatepost_home_start_time_seconds", "When the home started, since 1970.", self.started_unix_s as f64),
            gauge("gatepost_home_accounts", "Accounts.", self.store.accounts.book().accounts.len() as f64),
            gauge("gatepost_home_queue_messages", "Messages in the outbound queue.", summary.messages as f64),
            gauge("gatepost_home_queue_held", "Messages held in the queue.", summary.held as f64),
            gauge("gatepost_home_queue_deferred", "Recipients that are tried again later.", summary.deferred as f64),
            gauge("gatepost_home_queue_oldest_seconds", "Age of the oldest message in the queue.", age_s as f64),
            gauge(
                "gatepost_home_database_good",
                "1 while home.db can be read.",
                f64::from(u8::from(database == "good")),
            ),
            gauge(
                "gatepost_home_trace_good",
                "1 while trace.db can be written.",
                f64::from(u8::from(self.traces.is_well())),
            ),
        ]);
        if let Some(free) = disk_free {
            page.push(gauge("gatepost_home_disk_free_octets", "Free disk where the state lies.", free as f64));
        }
        if let Some(ends) = self.served.ends_unix_s() {
            let words = "Until when the home's certificate is good, since 1970.";
            page.push(gauge("gatepost_home_certificate_end_time_seconds", words, ends as f64));
        }
        let connected = self.edges.connected().borrow().clone();
        for name in self.edges.names() {
            let up = connected.iter().find(|edge| edge.name == name);
            let value = f64::from(u8::from(up.is_some()));
            page.push(gauge("gatepost_home_edge_up", "1 while the edge is connected.", value).with("edge", &name));
            if let Some(round_trip) = up.and_then(|up| up.session.round_trip()) {
                let metric = gauge(
                    "gatepost_home_edge_round_trip_seconds",
                    "Last round trip to the edge.",
                    round_trip.as_secs_f64(),
                );
                page.push(metric.with("edge", &name));
            }
        }
        for (name, told) in of_edges {
            let told = metrics::admit(&told.unwrap_or_default(), "gatepost_edge_");
            page.extend(told.into_iter().map(|metric| metric.with("edge", &name)));
        }
        metrics::text(page)
    }

    /// The queue, the free disk, the database's health. Blocking.
    fn measure(&self) -> (Summary, Option<u64>, String) {
        let free = durable::free_octets(&self.state).ok();
        let database = self.store.database_health().err().unwrap_or_else(|| "good".to_owned());
        (self.store.queue.summary(), free, database)
    }

    fn now_unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }
}

/// What was set aside in a folder: the names, sorted.
pub(super) fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
